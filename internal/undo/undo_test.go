package undo

import (
	"errors"
	"math"
	"os"
	"testing"
)

const unlimited = math.MaxInt64

// TestRoundTrip carries plans of random trees out and takes them back.
func TestRoundTrip(t *testing.T) {
	done := 0
	for seed := range uint64(pick(t, 8, 60)) {
		w := newWorld(t, seed)
		p := w.plan()
		if p == nil {
			continue
		}
		done++
		stats := w.save(p)
		w.same()
		if n := Bytes(p); n < stats.Bytes-6*int64(len(w.label)) || n > stats.Bytes+8192 {
			t.Errorf("Bytes = %d, and %d were saved", n, stats.Bytes)
		}
		must(t, w.rewind(p, unlimited, unlimited))
		if d := diff(w.before, snapshot(t, w.target)); d == "" {
			t.Fatal("the rewind changed nothing")
		}
		must(t, Verify(t.Context(), w.undo))
		must(t, w.apply(ApplyOptions{Jobs: 1 + int(seed)%4}))
		w.same()
		must(t, w.apply(ApplyOptions{}))
		w.same()
		info, err := Describe(w.undo)
		must(t, err)
		if len(info.Parts) != 1 || info.Parts[0].Bytes != stats.Bytes || !info.Finished || info.TargetDir != w.target || info.RunID != w.run {
			t.Errorf("Describe = %+v after %+v", info, stats)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if done < 5 {
		t.Errorf("only %d pairs of trees could be planned", done)
	}
}

func pick(t *testing.T, short, long int) int {
	if testing.Short() {
		return short
	}
	return long
}

// TestSessions interrupts rewinds anywhere, changes the source, and goes on in further sessions, each of which saves
// before it begins; then takes all of it back, in the middle or at the end.
func TestSessions(t *testing.T) {
	done := 0
	for seed := range uint64(pick(t, 12, 80)) {
		w := newWorld(t, seed)
		sessions := 1 + w.r.IntN(4)
		for n := range sessions {
			p := w.plan()
			if p == nil {
				break
			}
			done += min(n, 1)
			w.save(p)
			if err := w.rewind(p, w.r.Int64N(60), w.r.Int64N(250)); err == nil {
				break
			}
			// The source goes on meanwhile.
			for _, name := range relations {
				if w.r.IntN(3) == 0 {
					w.file(w.source, name, w.r.IntN(40)*block)
				} else if w.r.IntN(4) == 0 {
					_ = os.Remove(w.source + "/" + name)
				}
			}
			if w.r.IntN(3) == 0 {
				_ = os.RemoveAll(w.source + "/conf.d")
			}
		}
		if _, err := os.Stat(w.undo); err != nil {
			continue
		}
		must(t, w.apply(ApplyOptions{}))
		w.same()
	}
	if done < 5 {
		t.Errorf("only %d second sessions", done)
	}
}

// TestApplyInterrupted ends Apply at every one of its operations; until it has run to its end no server can start.
func TestApplyInterrupted(t *testing.T) {
	ends := 0
	for seed := range uint64(pick(t, 2, 6)) {
		w := newWorld(t, 1000+seed)
		p := w.plan()
		if p == nil {
			continue
		}
		w.save(p)
		finished := w.rewind(p, unlimited, []int64{unlimited, 40}[seed%2]) == nil
		step := int64(pick(t, 8, 1))
		for ops := int64(0); ; ops += step {
			err := w.apply(ApplyOptions{Wrap: cutAfter(ops)})
			if err == nil {
				break
			}
			if !errors.Is(err, errCut) {
				t.Fatalf("seed %d, after %d operations: %v", seed, ops, err)
			}
			ends++
			if w.startable() && !(finished && ops < 4) { // the guard is put in place by the first four
				if d := diff(w.before, withoutTemporary(snapshot(t, w.target))); d != "" {
					t.Fatalf("seed %d, after %d operations a server could start on:\n%s", seed, ops, d)
				}
			}
			if ops%7 == 0 { // from the middle to the end, too
				must(t, w.apply(ApplyOptions{}))
				w.same()
				finished = false
			}
		}
		w.same()
	}
	if ends < 20 {
		t.Errorf("only %d interruptions", ends)
	}
}
