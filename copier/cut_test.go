package copier

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// Each worker has a file of its own as long as there is one, then helps with the one of which most is left; and every
// byte is asked for once, in each file from its beginning to its end.
func TestWorkersKeepToTheirFiles(t *testing.T) {
	const block, blocks = 8192, 40
	var actions []plan.Action
	for i := range 3 {
		a := plan.Action{Path: fmt.Sprint(i), Kind: plan.None, Type: pg.RegularFile, SourceSize: 3 * block * blocks}
		for b := range int64(blocks) {
			a.Blocks = append(a.Blocks, plan.Span{Offset: 3 * b * block, Length: block})
		}
		actions = append(actions, a)
	}
	before := slices.Clone(actions[0].Blocks)
	r := &run{Copier: New(nil, Options{Jobs: 2, BatchRanges: 10})}
	c := r.newCutter(actions)

	asked := map[string][]int64{}
	var b batch
	// The second worker comes half as often as the first.
	for _, turn := range []struct {
		worker int
		paths  []string
	}{
		{0, []string{"0"}},
		{1, []string{"1"}},
		{0, []string{"0"}},
		{0, []string{"0"}},
		{1, []string{"1"}},
		{0, []string{"0"}},
		{0, []string{"2"}},
		{1, []string{"1"}},
		{0, []string{"2"}},
		{0, []string{"2"}},
		{1, []string{"1"}},
		{1, []string{"2"}}, // helps
		{0, nil},
		{1, nil},
	} {
		c.next(turn.worker, &b, math.MaxInt64)
		var paths []string
		for i, rng := range b.ranges {
			if !slices.Contains(paths, rng.Path) {
				paths = append(paths, rng.Path)
			}
			if b.files[i].action.Path != rng.Path || rng.Length != block {
				t.Errorf("range %+v of file %s", rng, b.files[i].action.Path)
			}
			asked[rng.Path] = append(asked[rng.Path], rng.Offset)
		}
		if !slices.Equal(paths, turn.paths) {
			t.Errorf("worker %d got files %v, want %v", turn.worker, paths, turn.paths)
		}
	}
	for _, a := range actions {
		var want []int64
		for _, s := range a.Blocks {
			want = append(want, s.Offset)
		}
		if !slices.Equal(asked[a.Path], want) {
			t.Errorf("file %s: asked for %v", a.Path, asked[a.Path])
		}
	}
	if !slices.Equal(before, actions[0].Blocks) {
		t.Error("the plan was changed")
	}
}

// A batch is large while much is left, small at the end, and within its bounds always.
func TestBatchesShrink(t *testing.T) {
	const size = 256 << 20
	actions := []plan.Action{{Path: "0", Kind: plan.Copy, Type: pg.RegularFile, SourceSize: size}}
	r := &run{Copier: New(nil, Options{Jobs: 2, BatchBytes: 1 << 20, MostBatchBytes: 16 << 20})}
	c := r.newCutter(actions)
	var b batch
	var sizes []int64
	var total int64
	for {
		if c.next(0, &b, math.MaxInt64); len(b.ranges) == 0 {
			break
		}
		sizes = append(sizes, b.bytes)
		total += b.bytes
	}
	if total != size {
		t.Errorf("%d bytes of %d", total, size)
	}
	last := len(sizes) - 1
	if sizes[0] != 16<<20 || sizes[last] > 1<<20 || sizes[last-1] > 2<<20 {
		t.Errorf("batches of %v", sizes)
	}
	if !slices.IsSortedFunc(sizes, func(a, b int64) int { return int(b - a) }) {
		t.Errorf("batches of %v", sizes)
	}
}

// slowSource gives zeroes, so many bytes a second: in all, or from each call.
type slowSource struct {
	perSecond float64
	one       chan struct{} // of one element, unless nil: the call that is served

	mu   sync.Mutex
	now  int
	most int
}

func (s *slowSource) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	for i, rng := range ranges {
		if s.one != nil {
			s.one <- struct{}{}
		}
		time.Sleep(time.Duration(float64(rng.Length) / s.perSecond * float64(time.Second)))
		if s.one != nil {
			<-s.one
		}
		if err := emit(i, pg.FileChunk{Data: make([]byte, rng.Length)}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// As many workers copy as the source has a use for.
func TestWorkersAreHired(t *testing.T) {
	const files, size = 16, 2 << 20
	for _, c := range []struct {
		name        string
		jobs, limit int
		together    bool
		want        int
	}{
		{"each worker gets as much as any other", 2, 8, false, 8},
		{"an odd number", 1, 6, false, 6},
		{"all share one disk", 2, 8, true, 4},
		{"the user has decided", 3, 3, false, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, spy := newTarget(t, nil)
				p := &plan.Plan{}
				source := &slowSource{perSecond: 1 << 20}
				if c.together {
					source.one = make(chan struct{}, 1)
				}
				for i := range files {
					p.Actions = append(p.Actions, copyWhole(fmt.Sprintf("%03d", i), size))
				}
				opts := modes
				opts.Jobs, opts.MostJobs, opts.BatchBytes, opts.ChunkBytes = c.jobs, c.limit, 64<<10, 64<<10
				must(t, New(spy, opts).Run(t.Context(), source, p))
				if source.most != c.want {
					t.Errorf("%d workers at the same time, want %d", source.most, c.want)
				}
			})
		})
	}
}

// A batch is no larger than what the worker has copied in two seconds before.
func TestBatchesAreAffordable(t *testing.T) {
	actions := []plan.Action{{Path: "0", Kind: plan.Copy, Type: pg.RegularFile, SourceSize: 1 << 30}}
	r := &run{Copier: New(nil, Options{BatchBytes: 1 << 20, MostBatchBytes: 64 << 20})}
	c := r.newCutter(actions)
	var b batch
	for _, turn := range []struct {
		took time.Duration // the batch before
		want int64
	}{
		{time.Second, 2 << 20},
		{time.Second, 4 << 20},
		{100 * time.Millisecond, 64 << 20},
		{64 * time.Second, 2 << 20},
		{time.Hour, 1 << 20},
		{0, 64 << 20},
	} {
		if b.bytes == 0 {
			c.next(0, &b, r.opts.BatchBytes)
		}
		if c.next(0, &b, b.within(longestBatch, turn.took)); b.bytes != turn.want {
			t.Errorf("after a batch of %v: %d bytes, want %d", turn.took, b.bytes, turn.want)
		}
	}
}
