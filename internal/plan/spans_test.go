package plan

import (
	"fmt"
	"iter"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// everyNth yields one block in n of a file of 1 GiB.
func everyNth(n uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for b := uint32(0); b < pg.RelSegBlocks && yield(b); b += n {
		}
	}
}

// BenchmarkSpans joins the blocks of one segment file to spans: all of them, and one in ten, with gaps read through and not.
func BenchmarkSpans(b *testing.B) {
	for _, c := range []struct {
		every uint32
		gap   int
	}{{1, 0}, {10, 0}, {10, 9}} {
		b.Run(fmt.Sprintf("every=%d/gap=%d", c.every, c.gap), func(b *testing.B) {
			b.ReportAllocs()
			blocks := pg.RelSegBlocks / int(c.every)
			for b.Loop() {
				_ = appendSpans(nil, everyNth(c.every), pg.RelSegBlocks*pg.BlockSize, c.gap)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(blocks), "ns/block")
		})
	}
}

// TestSpansAllocateNothingPerBlock: only the list itself grows, and that ever more rarely.
func TestSpansAllocateNothingPerBlock(t *testing.T) {
	const most = 40 // doublings, then quarters, up to 65,536 spans
	if n := testing.AllocsPerRun(5, func() { _ = appendSpans(nil, everyNth(2), pg.RelSegBlocks*pg.BlockSize, 0) }); n > most {
		t.Errorf("%v allocations for %d spans", n, pg.RelSegBlocks/2)
	}
	if n := testing.AllocsPerRun(5, func() { _ = appendSpans(nil, everyNth(2), pg.RelSegBlocks*pg.BlockSize, 1) }); n > 3 {
		t.Errorf("%v allocations for one span", n)
	}
}
