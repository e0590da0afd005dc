package copier

import (
	"fmt"
	"slices"
	"testing"

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
		c.next(turn.worker, &b)
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
		if c.next(0, &b); len(b.ranges) == 0 {
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
