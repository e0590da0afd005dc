package archive

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

func TestSequences(t *testing.T) {
	h := pg.History{{TLI: 1, End: 5*segSize + 1}, {TLI: 2, Begin: 5*segSize + 1}}
	got := slices.Collect(Descending(h, segSize, 6, 5, 0))
	want := []Want{{2, 6, true}, {2, 5, true}, {1, 4, false}, {1, 3, false}, {1, 2, false}, {1, 1, false}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	got = slices.Collect(Ascending(h, segSize, 4, 6))
	if want = []Want{{1, 4, true}, {2, 5, true}, {2, 6, true}}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for w := range Descending(h, segSize, 6, 5, 0) {
		if w.Seg == 5 {
			break
		}
	}
	if got := slices.Collect(Descending(h, segSize, 3, 3, 4)); got != nil {
		t.Errorf("got %v", got)
	}
}

// ledger is a place that notes what it is asked for, and lacks what a test says.
type ledger struct {
	mu    sync.Mutex
	asked []pg.SegNo
	lacks func(pg.SegNo) bool
	hold  chan struct{} // if set, fetches end when it is closed
}

func (l *ledger) fetch(ctx context.Context, seg pg.SegNo, path string) error {
	l.mu.Lock()
	l.asked = append(l.asked, seg)
	l.mu.Unlock()
	if l.hold != nil {
		select {
		case <-l.hold:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if l.lacks != nil && l.lacks(seg) {
		return fs.ErrNotExist
	}
	return have(ctx, seg, path)
}

func (l *ledger) requests() []pg.SegNo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.asked)
}

type aheadWorld struct {
	world
	*Ahead
	spool *Spool
	ledger
	events
}

const newest, certain = 40, 31

var oneTimeline = pg.History{{TLI: 1}}

// newAhead expects a reader of segments 40 down to 31, and perhaps of what is older.
func newAhead(t *testing.T, prepare func(w *aheadWorld, cfg *SpoolConfig)) *aheadWorld {
	t.Helper()
	w := &aheadWorld{world: newWorld(t)}
	cfg := SpoolConfig{Fetchers: []Fetcher{fetcher(w.fetch)}, Jobs: 3, Window: 9, Readers: 1, Event: w.note}
	if prepare != nil {
		prepare(w, &cfg)
	}
	w.spool = w.world.spool(t, cfg)
	local := NewPgWal(w.data, segSize).Expect(identity(t))
	w.Ahead = NewAhead(t.Context(), AheadConfig{
		Chain: Chain{local, w.spool}, Local: local, Spool: w.spool, Expect: Descending(oneTimeline, segSize, newest, certain, 1),
	})
	t.Cleanup(w.Stop)
	return w
}

// As much as the window allows is fetched before anybody asks, in the order in which it will be read, and not more.
func TestAhead(t *testing.T) {
	w := newAhead(t, nil)
	const ahead = 9 - 3 // less what the reader reads, looks back at, and has done with
	arrived := func() int { return len(w.of(Fetched)) }
	eventually(t, "the window is full", func() bool { return arrived() == ahead })
	for i := range pg.SegNo(newest) {
		seg := newest - i
		mustOpen(t, w, seg)
		if back := seg + 1; back <= newest {
			mustOpen(t, w, back) // for the end of its last record
		}
		// Exactly what is certain, and of the rest no more than Jobs.
		want := min(int(i)+1+ahead, newest-certain+1)
		if seg <= certain+3 {
			want = max(want, int(i)+1+3)
		}
		want = min(want, newest)
		eventually(t, "the next ones are fetched", func() bool { return arrived() >= want })
		if got := arrived(); got > int(i)+1+ahead {
			t.Fatalf("after segment %d: %d have been fetched", seg, got)
		}
		if n := held(t, w.spool); n > 9 {
			t.Fatalf("after segment %d: %d files", seg, n)
		}
	}
	if asked := w.requests(); len(asked) != newest {
		t.Errorf("fetched %d times: %v", len(asked), asked)
	}
	first := w.requests()[:ahead]
	slices.Sort(first)
	if first[0] != newest-ahead+1 {
		t.Errorf("fetched first: %v", first)
	}
}

// What pg_wal has is not fetched; and if it has all that is certain, nothing is, until something turns out to be missing.
func TestAheadLocal(t *testing.T) {
	w := newAhead(t, func(w *aheadWorld, _ *SpoolConfig) {
		for n := pg.SegNo(20); n <= newest; n++ {
			if n != 18 {
				put(t, w.wal, n, content(n))
			}
		}
	})
	for n := pg.SegNo(newest); n >= 20; n-- {
		mustOpen(t, w, n)
	}
	w.Stop()
	if asked := w.requests(); len(asked) > 0 {
		t.Errorf("fetched %v", asked)
	}

	w = newAhead(t, func(w *aheadWorld, _ *SpoolConfig) {
		for n := pg.SegNo(20); n <= newest; n++ {
			if n != 35 && n != 25 {
				put(t, w.wal, n, content(n))
			}
		}
		wrong := content(33)
		wrong[24]++
		put(t, w.wal, 33, wrong)
	})
	// 35 and 33 for sure; then, of what may be asked for and is not there, three.
	eventually(t, "all is fetched", func() bool { return len(w.of(Fetched)) == 5 })
	mustOpen(t, w, 33)
	w.Stop()
	asked := w.requests()
	slices.Sort(asked)
	if want := []pg.SegNo{18, 19, 25, 33, 35}; !slices.Equal(asked, want) {
		t.Errorf("fetched %v, want %v", asked, want)
	}
}

// Failures of what nobody asked for do no harm, and an archive is not asked for everything that lies before its beginning.
func TestAheadFailures(t *testing.T) {
	w := newAhead(t, func(w *aheadWorld, _ *SpoolConfig) {
		w.lacks = func(n pg.SegNo) bool { return n < certain-1 || n == 38 }
	})
	eventually(t, "one fails", func() bool { return len(w.of(Dropped)) > 0 })
	for n := pg.SegNo(newest); n >= certain-1; n-- {
		if n != 38 {
			mustOpen(t, w, n)
		}
	}
	eventually(t, "the others fail", func() bool { return len(w.of(Dropped)) == 1+3 })
	if _, err := w.Open(t.Context(), 1, 38); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is missing: %v", err)
	}
	w.Stop()
	for _, n := range w.requests() {
		if n < certain-1-3 {
			t.Errorf("asked for segment %d", n)
		}
	}
}

// Any order will do.
func TestAheadOutOfOrder(t *testing.T) {
	w := newAhead(t, nil)
	for _, n := range []pg.SegNo{3, 35, 34, 40, 1, 31, 33, 32, 39, 2, 36, 38, 37, 50} {
		mustOpen(t, w, n)
	}
	var wg sync.WaitGroup
	for n := pg.SegNo(1); n <= newest; n++ {
		wg.Go(func() {
			s, err := w.Open(t.Context(), 1, n)
			if err != nil {
				t.Error(err)
				return
			}
			check(t, s, n)
		})
	}
	wg.Wait()
}

// Who asks for something else does not wait for all that is on its way.
func TestAheadPrecedence(t *testing.T) {
	w := newAhead(t, func(w *aheadWorld, cfg *SpoolConfig) {
		w.hold = make(chan struct{})
		cfg.Jobs = 1
	})
	eventually(t, "some wait", func() bool {
		w.spool.mu.Lock()
		defer w.spool.mu.Unlock()
		return w.spool.running == 1 && len(w.spool.queue) == 5
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, err := w.Open(t.Context(), 1, 5); err != nil {
			t.Error(err)
		} else {
			check(t, s, 5)
		}
	}()
	eventually(t, "it waits", func() bool {
		w.spool.mu.Lock()
		defer w.spool.mu.Unlock()
		return len(w.spool.queue) == 6
	})
	close(w.hold)
	<-done
	if asked := w.requests(); asked[1] != 5 {
		t.Errorf("fetched %v", asked)
	}
}

// Stop, and the end of the context, end what was begun and wait for it.
func TestAheadStop(t *testing.T) {
	for _, how := range []string{"stop", "context"} {
		w := &aheadWorld{world: newWorld(t)}
		w.hold = make(chan struct{})
		w.spool = w.world.spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(w.fetch)}, Jobs: 3})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.Ahead = NewAhead(ctx, AheadConfig{Chain: Chain{w.spool}, Spool: w.spool, Expect: Ascending(oneTimeline, segSize, 1, 100)})
		eventually(t, "they run", func() bool { return len(w.requests()) == 3 })
		if how == "context" {
			cancel()
		}
		w.Stop()
		w.spool.mu.Lock()
		if w.spool.running+len(w.spool.queue) != 0 {
			t.Errorf("%s: %d run, %d wait", how, w.spool.running, len(w.spool.queue))
		}
		w.spool.mu.Unlock()
		close(w.hold)
		mustOpen(t, w, 7)
	}
}
