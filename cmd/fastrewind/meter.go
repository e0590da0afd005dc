package main

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/cheggaaa/pb/v3"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

// meter is a rewind.Meter. Counting costs one atomic addition; all else happens when progress is shown.
type meter struct {
	reporter *reporter
	phase    rewind.Phase
	unit     rewind.Unit
	start    time.Time
	done     atomic.Int64
	total    atomic.Int64
	ended    atomic.Bool

	// The rest belongs to the display and is guarded by the reporter's mutex.
	samples []sample
	bar     *pb.ProgressBar
}

func (m *meter) Add(n int64)      { m.done.Add(n) }
func (m *meter) SetTotal(n int64) { m.total.Store(n) }

func (m *meter) Done() {
	if m.ended.Swap(true) {
		return
	}
	r := m.reporter
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = slices.DeleteFunc(r.running, func(other *meter) bool { return other == m })
	if r.show != nil {
		r.show.end(m, r.now())
	}
}

// counts returns what is done and the total; the total grows with what is done beyond it, and 0 means unknown.
func (m *meter) counts() (done, total int64) {
	done, total = m.done.Load(), m.total.Load()
	if total > 0 && done > total {
		total = done
	}
	return done, total
}

// sample is the count at a moment.
type sample struct {
	at   time.Time
	done int64
}

// The rate shown is that of the last samples: about five seconds, so that it follows what happens and does not jump.
const (
	sampleInterval = 500 * time.Millisecond
	sampleCount    = 10
)

// rate notes the present count and returns units per second over the last samples; 0 until there are two.
func (m *meter) rate(now time.Time) float64 {
	if len(m.samples) == 0 {
		m.samples = append(m.samples, sample{m.start, 0})
	}
	done := m.done.Load()
	if now.Sub(m.samples[len(m.samples)-1].at) >= sampleInterval {
		if len(m.samples) == sampleCount {
			m.samples = slices.Delete(m.samples, 0, 1)
		}
		m.samples = append(m.samples, sample{now, done})
	}
	oldest, newest := m.samples[0], m.samples[len(m.samples)-1]
	return perSecond(newest.done-oldest.done, newest.at.Sub(oldest.at))
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// left is the time still needed at a rate; false if nothing can be said.
func (m *meter) left(rate float64) (time.Duration, bool) {
	done, total := m.counts()
	if total <= 0 || rate <= 0 {
		return 0, false
	}
	seconds := float64(total-done) / rate
	if seconds > 1e6 { // eleven days: the rate is noise
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second), true
}
