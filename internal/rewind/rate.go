package rewind

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// --max-rate: all workers pay out of one purse, before they ask the source for anything. So what has been read up to any
// moment is never more than the rate allows for the time since the first byte, however many workers there are; but for what
// files have grown since they were listed, which is paid for afterwards. A worker
// waits between two questions, never within one: nobody takes a source that is spared for one that has stalled, and no
// query on it stays open for longer than the work takes.

const (
	// maxTurn is how much may be asked for at a time, as time at the rate: the source's load should be even.
	maxTurn = 50 * time.Millisecond
	// maxSaved is how much of the rate that nobody used is not lost, as time at the rate: what one question took longer,
	// the next ones may make up for.
	maxSaved = 100 * time.Millisecond
)

// limiter is the purse. Its methods may be called from several goroutines at once.
//
// It is not golang.org/x/time/rate: a range may cost more than what can be saved up, which a Limiter refuses; what was
// paid for and did not come is given back; and a wait that a deadline cuts short should last until then, and end with the
// context's error.
type limiter struct {
	rate float64 // bytes per second

	mu          sync.Mutex
	paid        time.Time // when everything that was asked for so far has been paid for
	first, last time.Time // the first question, the last answer
	received    int64     // bytes
}

func newLimiter(bytesPerSecond int64) *limiter { return &limiter{rate: float64(bytesPerSecond)} }

func (l *limiter) cost(bytes int64) time.Duration {
	return time.Duration(float64(bytes) / l.rate * float64(time.Second))
}

// turn is maxTurn in bytes.
func (l *limiter) turn() int64 { return int64(l.rate * maxTurn.Seconds()) }

// wait pays for some bytes, and returns when they may be asked for, or at once with ctx's error when ctx is done. Who
// comes first is served first.
func (l *limiter) wait(ctx context.Context, bytes int64) error {
	timer := time.NewTimer(l.pay(bytes))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return ctx.Err()
	}
}

// pay says how long to wait for bytes that are paid for now.
func (l *limiter) pay(bytes int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.first.IsZero() {
		l.first, l.paid = now, now
	}
	if saved := now.Add(-maxSaved); l.paid.Before(saved) {
		l.paid = saved
	}
	l.paid = l.paid.Add(l.cost(bytes))
	return l.paid.Sub(now)
}

// settle is told what has come of what was paid for. Files shrink, vanish and grow after they were listed.
func (l *limiter) settle(paid, received int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paid = l.paid.Add(l.cost(received) - l.cost(paid))
	l.last = time.Now()
	l.received += received
}

// reached says what has come so far, and in what time.
func (l *limiter) reached() (bytes int64, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.received, l.last.Sub(l.first)
}

// throttled is a source that gives no more than its limiter lets through. It cuts each Fetch into smaller ones.
type throttled struct {
	source copier.Source
	limit  *limiter
	whole  []plan.Action // the files that are copied whole, sorted by path; a hint: one that is not found is paid for in full at first
}

// Fetch implements copier.Source.
func (t *throttled) Fetch(
	ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error,
) error {
	for done := 0; done < len(ranges); {
		n, bytes := t.next(ranges[done:])
		if err := t.limit.wait(ctx, bytes); err != nil {
			return err
		}
		received := int64(0)
		err := t.source.Fetch(ctx, ranges[done:done+n], func(i int, c pg.FileChunk) error {
			received += int64(len(c.Data))
			return emit(done+i, c)
		})
		t.limit.settle(bytes, received)
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

// next is how many ranges to ask for at a time, one at least, and how many bytes they will give.
func (t *throttled) next(ranges []pg.FileRange) (n int, bytes int64) {
	for turn := t.limit.turn(); n < len(ranges); n++ {
		more := t.expected(&ranges[n])
		if n > 0 && bytes+more > turn {
			break
		}
		bytes += more
	}
	return n, bytes
}

// expected is how many bytes a range will give, by the listing. Of a file that is copied whole more is asked for than it
// had then, of a small one much more.
func (t *throttled) expected(r *pg.FileRange) int64 {
	i, found := slices.BinarySearchFunc(t.whole, r.Path, func(a plan.Action, path string) int {
		return cmp.Compare(a.Path, path)
	})
	if !found {
		return r.Length
	}
	return min(r.Length, max(t.whole[i].SourceSize-r.Offset, 0))
}

// copySource is where the bytes come from that p copies: the source, no faster than --max-rate allows.
func (r *run) copySource(p *plan.Plan) copier.Source {
	if r.cfg.MaxRate == 0 {
		return r.source
	}
	if r.limit == nil {
		r.limit = newLimiter(r.cfg.MaxRate)
	}
	at := func(kind plan.Kind) int { // actions are in the order of their kinds
		i, _ := slices.BinarySearchFunc(p.Actions, kind, func(a plan.Action, k plan.Kind) int { return cmp.Compare(a.Kind, k) })
		return i
	}
	return &throttled{source: r.source, limit: r.limit, whole: p.Actions[at(plan.Copy):at(plan.CopyTail)]}
}

// noteRate tells which rate --max-rate has led to.
func (r *run) noteRate() {
	if r.limit == nil {
		return
	}
	if bytes, d := r.limit.reached(); d > 0 {
		r.rep.Note("read %d MB from the source in %.1f s, %.0f of at most %d kB per second",
			bytes>>20, d.Seconds(), float64(bytes)/1024/d.Seconds(), r.cfg.MaxRate>>10)
	}
}
