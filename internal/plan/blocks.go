package plan

import (
	"iter"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// Blocks is the finished block map: what the target's WAL changed after the last common checkpoint.
type Blocks interface {
	// Blocks are the numbers, counted within the 1 GiB segment file (0 to 131071), of the changed blocks of one file,
	// ascending, without repetition; none for a file the WAL did not touch.
	// Some stand for files that were made anew: see pg.RemadeRelation.
	Blocks(f pg.RelFile) iter.Seq[uint32]
}

// anyOf reports whether there is at least one block.
func anyOf(blocks iter.Seq[uint32]) bool {
	for range blocks {
		return true
	}
	return false
}

// appendSpans joins the blocks that lie wholly below end (bytes) to spans, reading through gaps of at most maxGap blocks.
//
// A block beyond the end of either side is dropped: if it is beyond the source's, the target is truncated there; if
// beyond the target's, it arrives with the tail (process_target_wal_block_change, filemap.c). To copy the unchanged
// blocks of a gap is safe: they lie between two copied ones, and replay from the checkpoint on repairs whatever the
// source changes in them meanwhile, as it does for the copied ones.
func appendSpans(out []Span, blocks iter.Seq[uint32], end int64, maxGap int) []Span {
	reach := int64(maxGap) * pg.BlockSize
	for b := range blocks {
		off := int64(b) * pg.BlockSize
		if off+pg.BlockSize > end {
			break
		}
		if n := len(out); n > 0 {
			last := &out[n-1]
			if off-(last.Offset+last.Length) <= reach {
				last.Length = off + pg.BlockSize - last.Offset
				continue
			}
		}
		out = append(out, Span{off, pg.BlockSize})
	}
	return out
}
