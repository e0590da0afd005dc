package waltest

import (
	"math/rand/v2"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// Random writes n records of every kind: some end at a page's or segment's end, some go over several segments, some are
// switches, some are never finished.
func Random(w *Writer, rng *rand.Rand, n int) {
	for range n {
		RandomRecord(w, rng)
	}
}

// RandomRecord writes one record of any kind.
func RandomRecord(w *Writer, rng *rand.Rand) Written {
	seg := int(w.Format.SegSize)
	rel := pg.RelNumber(16384 + rng.IntN(5))
	block := pg.BlockNo(rng.IntN(3 * pg.RelSegBlocks / 2))
	switch k := rng.IntN(100); {
	case k < 3:
		return w.Checkpoint()
	case k < 4:
		return w.Switch()
	case k < 8:
		next := w.Pos()&^(pageSize-1) + pageSize
		if next-w.Pos() > 100 {
			return w.FillTo(next)
		}
	case k < 10:
		next := w.Pos()&^(pg.LSN(seg)-1) + pg.LSN(seg)
		if next-w.Pos() > 100 {
			return w.FillTo(next)
		}
	case k < 12:
		room := int(pageSize - w.Pos()%pageSize)
		w.Abandon(Touch(rel, block, room+3*seg), 1+rng.IntN(3*seg/int(pageSize)))
		return w.Last()
	case k < 14:
		return w.Append(Touch(rel, block, rng.IntN(3*seg)))
	case k < 30:
		r := Touch(rel, block, rng.IntN(40))
		r.Blocks[0].Image = make([]byte, rng.IntN(pg.BlockSize))
		if rng.IntN(2) == 0 {
			r.Blocks[0].Image = make([]byte, pg.BlockSize)
		}
		return w.Append(r)
	case k < 60:
		r := Touch(rel, block, rng.IntN(300))
		r.XID = rng.Uint32()
		r.Blocks = append(r.Blocks,
			Block{ID: 1, Rel: r.Blocks[0].Rel, Same: true, Block: block + 1, Init: true},
			Block{ID: 2, Rel: pg.Rel{Tablespace: 16999, Database: 5, Number: rel}, Fork: pg.Fork(rng.IntN(4)), Block: block})
		return w.Append(r)
	}
	return w.Append(Touch(rel, block, rng.IntN(100)))
}
