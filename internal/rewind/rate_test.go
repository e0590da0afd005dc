package rewind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// These tests run in bubbles: only waiting takes time there, and all times are exact.

// paced is a source of zeros that takes some time to answer, and notes what it gave when.
type paced struct {
	sizes map[string]int64 // bytes; what is not in it is gone
	trip  time.Duration
	fail  error // of the second call and all later ones
	began time.Time

	mu    sync.Mutex
	calls []call
}

// call is one Fetch.
type call struct {
	at     time.Duration // since the start, when it came
	ranges int
	bytes  int64 // given
}

func (p *paced) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error) error {
	c := call{at: time.Since(p.began), ranges: len(ranges)}
	p.mu.Lock()
	calls := len(p.calls)
	p.mu.Unlock()
	if p.fail != nil && calls > 0 {
		return p.fail
	}
	time.Sleep(p.trip)
	for i, r := range ranges {
		size, there := p.sizes[r.Path]
		n := min(r.Length, max(size-r.Offset, 0))
		c.bytes += n
		if err := emit(i, pg.FileChunk{Data: zeros[:n], Gone: !there}); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.calls = append(p.calls, c)
	p.mu.Unlock()
	return nil
}

var zeros = make([]byte, copier.MaxRange)

// blocks are ranges of one length of a file, one after the other.
func blocks(path string, n int, length int64) (ranges []pg.FileRange) {
	for i := range n {
		ranges = append(ranges, pg.FileRange{Path: path, Offset: int64(i) * length, Length: length})
	}
	return ranges
}

// wholeFiles are small files of different sizes, listed in a plan among others, and the ranges that ask for them.
func wholeFiles(sizes map[string]int64, n int) (p *plan.Plan, ranges []pg.FileRange) {
	p = &plan.Plan{Actions: []plan.Action{{Path: "zz", Kind: plan.Create}}}
	for i := range n {
		path := fmt.Sprintf("base/1/%05d", i)
		sizes[path] = int64(i % 7 * 8192)
		p.Actions = append(p.Actions, plan.Action{Path: path, Kind: plan.Copy, SourceSize: sizes[path]})
		ranges = append(ranges, pg.FileRange{Path: path, Length: copier.MaxRange})
	}
	p.Actions = append(p.Actions, plan.Action{Path: "base/1/00000", Kind: plan.Truncate}, plan.Action{Path: "z", Kind: plan.Remove})
	return p, ranges
}

// sourceAt is a throttled source as a run makes it.
func sourceAt(rate int64, inner *paced, p *plan.Plan) copier.Source {
	inner.began = time.Now()
	r := &run{cfg: Config{MaxRate: rate}, source: onlyFetch{inner}}
	return r.copySource(p)
}

// onlyFetch is a source of which nothing else is wanted.
type onlyFetch struct{ copier.Source }

func (onlyFetch) List(context.Context, int, func(int64)) ([]pg.Entry, error) { panic("not asked for") }
func (onlyFetch) ReadFile(context.Context, string, int64) ([]byte, error)    { panic("not asked for") }
func (onlyFetch) ControlFile(context.Context) ([]byte, error)                { panic("not asked for") }
func (onlyFetch) Close() error                                               { return nil }

func ignore(int, pg.FileChunk) error { return nil }

// fetchAll fetches ranges by several workers, in batches.
func fetchAll(t *testing.T, s copier.Source, ranges []pg.FileRange, workers int) {
	t.Helper()
	batches := slices.Collect(slices.Chunk(ranges, 100))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(batches); i += workers {
				if err := s.Fetch(t.Context(), batches[i], ignore); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestMaxRateIsKept: at no moment more has come than the rate allows, and in the end hardly less.
func TestMaxRateIsKept(t *testing.T) {
	for _, workers := range []int{1, 2, 8} {
		for _, trip := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
			for name, load := range map[string]func(sizes map[string]int64) (*plan.Plan, []pg.FileRange){
				"blocks": func(sizes map[string]int64) (*plan.Plan, []pg.FileRange) {
					sizes["f"] = 1 << 40
					return &plan.Plan{}, blocks("f", 9600, 8192)
				},
				"spans": func(sizes map[string]int64) (*plan.Plan, []pg.FileRange) {
					sizes["f"] = 1 << 40
					return &plan.Plan{}, blocks("f", 600, 128<<10)
				},
				"small files": func(sizes map[string]int64) (*plan.Plan, []pg.FileRange) { return wholeFiles(sizes, 3200) },
			} {
				t.Run(fmt.Sprintf("%s, %d workers, %v", name, workers, trip), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						const rate = 10 << 20
						inner := &paced{sizes: map[string]int64{}, trip: trip}
						p, ranges := load(inner.sizes)
						s := sourceAt(rate, inner, p)
						fetchAll(t, s, ranges, workers)
						took := time.Since(inner.began)

						slices.SortFunc(inner.calls, func(a, b call) int { return int(a.at - b.at) })
						total, asked := int64(0), 0
						for _, c := range inner.calls {
							total += c.bytes
							asked += c.ranges
							if allowed := int64(rate*c.at.Seconds()) + 1; total > allowed {
								t.Fatalf("%d bytes asked for after %v, %d are allowed", total, c.at, allowed)
							}
							if c.bytes > rate/20 && c.ranges > 1 {
								t.Errorf("%d bytes at a time", c.bytes)
							}
						}
						if asked != len(ranges) {
							t.Errorf("%d ranges asked for, %d given", len(ranges), asked)
						}
						if reached := float64(total) / took.Seconds(); took < 3*time.Second || reached < 0.95*rate || reached > 1.0001*rate {
							t.Errorf("%d bytes in %v: %.3f of the rate", total, took, reached/rate)
						}
						if bytes, d := s.(*throttled).limit.reached(); bytes != total || d != took {
							t.Errorf("%d bytes in %v are told, %d in %v is true", bytes, d, total, took)
						}
					})
				})
			}
		}
	}
}

// TestMaxRateSavesLittle: what nobody used is lost, but for a tenth of a second.
func TestMaxRateSavesLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &paced{sizes: map[string]int64{"f": 1 << 40}}
		s := sourceAt(1_000_000, inner, &plan.Plan{})
		fetchAll(t, s, blocks("f", 10, 1000), 1)
		time.Sleep(time.Hour)
		idle := time.Since(inner.began)
		fetchAll(t, s, blocks("f", 1000, 1000), 1)
		burst := int64(0)
		for _, c := range inner.calls {
			if c.at == idle {
				burst += c.bytes
			}
		}
		if took := time.Since(inner.began) - idle; burst != 100_000 || took != 900*time.Millisecond {
			t.Errorf("%d bytes at once, a million in %v", burst, took)
		}
	})
}

// TestMaxRateChargesWhatCame: files that are not what was listed cost what they give.
func TestMaxRateChargesWhatCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		inner := &paced{sizes: map[string]int64{"grown": 1 << 20, "unlisted": 10, "cut": 1 << 18, "last": 1 << 18}}
		copied := func(path string, size int64) plan.Action {
			return plan.Action{Path: path, Kind: plan.Copy, SourceSize: size}
		}
		s := sourceAt(rate, inner, &plan.Plan{Actions: []plan.Action{
			copied("cut", 1<<20), copied("gone", 1<<18), copied("grown", 0), copied("last", 1<<18),
		}})
		for _, c := range []struct {
			path string
			at   time.Duration // when it is asked for
		}{
			{"grown", 0},                          // worth nothing
			{"cut", 2 * time.Second},              // a second for what grown gave, and one for cut, of which three quarters come back
			{"gone", 2150 * time.Millisecond},     // no more than a tenth is kept of them; a quarter, which comes back whole
			{"last", 2300 * time.Millisecond},     // a tenth kept, and a quarter
			{"unlisted", 3300 * time.Millisecond}, // it might be a MB
		} {
			began := len(inner.calls)
			if err := s.Fetch(t.Context(), []pg.FileRange{{Path: c.path, Length: copier.MaxRange}}, ignore); err != nil {
				t.Fatal(err)
			}
			if got := inner.calls[began].at; got != c.at {
				t.Errorf("%s was asked for after %v, want %v", c.path, got, c.at)
			}
		}
	})
}

// TestThrottledFetch: cut in pieces, a Fetch gives what it would give in one.
func TestThrottledFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &paced{sizes: map[string]int64{"a": 50_000, "c": 1 << 40}}
		s := sourceAt(200_000, inner, &plan.Plan{}) // 10,000 bytes at a time
		ranges := slices.Concat(blocks("a", 9, 6000), blocks("b", 2, 1000), blocks("c", 3, 5000), blocks("c", 1, copier.MaxRange), blocks("c", 4, 1))
		next := 0
		if err := s.Fetch(t.Context(), ranges, func(i int, c pg.FileChunk) error {
			want := min(ranges[i].Length, max(inner.sizes[ranges[i].Path]-ranges[i].Offset, 0))
			if i != next || int64(len(c.Data)) != want || c.Gone != (ranges[i].Path == "b") {
				t.Errorf("range %d, where %d was expected: %d bytes of %d, gone: %t", i, next, len(c.Data), want, c.Gone)
			}
			next++
			return nil
		}); err != nil || next != len(ranges) {
			t.Errorf("%d of %d ranges, %v", next, len(ranges), err)
		}
		var counts []int
		for _, c := range inner.calls {
			counts = append(counts, c.ranges)
		}
		if want := []int{1, 1, 1, 1, 1, 1, 1, 1, 3, 2, 1, 1, 4}; !slices.Equal(counts, want) {
			t.Errorf("ranges at a time: %v, want %v", counts, want)
		}
		if err := s.Fetch(t.Context(), nil, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestThrottledErrors: errors come as they are, and end the Fetch.
func TestThrottledErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		inner := &paced{sizes: map[string]int64{"f": 1 << 40}, fail: broken}
		s := sourceAt(100_000, inner, &plan.Plan{})
		chunks := 0
		if err := s.Fetch(t.Context(), blocks("f", 20, 1000), func(int, pg.FileChunk) error { chunks++; return nil }); err != broken || chunks != 5 {
			t.Errorf("the source's: %v after %d chunks", err, chunks)
		}
		inner.fail = nil
		if err := s.Fetch(t.Context(), blocks("f", 20, 1000), func(i int, _ pg.FileChunk) error {
			if chunks++; i == 7 {
				return broken
			}
			return nil
		}); err != broken || chunks != 5+8 {
			t.Errorf("the receiver's: %v after %d chunks", err, chunks)
		}
		// What was paid for and did not come is not lost.
		began := time.Now()
		fetchAll(t, s, blocks("f", 100, 1000), 1)
		if took := time.Since(began); took > time.Second {
			t.Errorf("100 kB took %v", took)
		}
	})
}

// TestThrottledCancelled: the end of the context ends a wait at that moment, and not before.
func TestThrottledCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &paced{sizes: map[string]int64{"f": 1 << 40}}
		s := sourceAt(1000, inner, &plan.Plan{})
		for name, c := range map[string]struct {
			within func(context.Context) (context.Context, context.CancelFunc)
			want   error
		}{
			"cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(3*time.Second, cancel)
				return ctx, cancel
			}, context.Canceled},
			"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 3*time.Second)
			}, context.DeadlineExceeded},
		} {
			ctx, cancel := c.within(t.Context())
			began := time.Now()
			err := s.Fetch(ctx, blocks("f", 1, 1<<20), ignore)
			if took := time.Since(began); !errors.Is(err, c.want) || took != 3*time.Second || len(inner.calls) > 0 {
				t.Errorf("%s: %v after %v, %d calls of the source", name, err, took, len(inner.calls))
			}
			if err := s.Fetch(ctx, blocks("f", 1, 1), ignore); !errors.Is(err, c.want) || time.Since(began) != 3*time.Second {
				t.Errorf("%s, already: %v after %v", name, err, time.Since(began))
			}
			cancel()
		}
	})
}

// TestNoMaxRate: without it nothing lies between.
func TestNoMaxRate(t *testing.T) {
	r := &run{source: onlyFetch{&paced{}}}
	if got := r.copySource(&plan.Plan{}); got != copier.Source(r.source) {
		t.Errorf("%T lies before the source", got)
	}
}

// TestRewindAtMaxRate rewinds at a rate, and gets the same tree, in the time that the bytes take at that rate.
func TestRewindAtMaxRate(t *testing.T) {
	const rate = 100 << 10
	b := newBench(t, 1, Config{Jobs: 2})
	b.config.MaxRate = rate
	synctest.Test(t, func(t *testing.T) {
		var rep weighing
		began := time.Now()
		tree, _, err := b.runHeard(t.Context(), b.pair.Target, crashfs.Fault{}, &rep)
		took := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range b.pair.CheckRewound(tree) {
			t.Error(d)
		}
		bytes := float64(rep.bytes.Load())
		if reached := bytes / took.Seconds(); bytes < 10*rate || reached > 1.0001*rate || reached < 0.95*rate {
			t.Errorf("%.0f bytes in %v: %.3f of the rate", bytes, took, reached/rate)
		}
	})
}

// weighing is a Reporter that counts what is copied.
type weighing struct {
	silent
	bytes atomic.Int64
}

func (w *weighing) Start(phase Phase, _ int64, _ Unit) Meter {
	if phase != PhaseCopy {
		return silent{}
	}
	return weigher{w: w}
}

type weigher struct {
	silent
	w *weighing
}

func (w weigher) Add(n int64) { w.w.bytes.Add(n) }
