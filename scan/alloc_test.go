package scan_test

import (
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// TestInsertAllocatesNothing: where a piece of a file's bitmap is there already, a block costs no memory.
func TestInsertAllocatesNothing(t *testing.T) {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	const rels, blocks = 8, 10000
	fill := func() {
		for i := range pg.BlockNo(blocks) {
			in.Add(pg.Rel{Tablespace: pg.DefaultTablespace, Database: 5, Number: pg.RelNumber(16384 + i%rels)}, i*7%blocks)
		}
	}
	fill()
	if n := testing.AllocsPerRun(5, fill); n != 0 {
		t.Errorf("%v allocations for %d references", n, blocks)
	}
}
