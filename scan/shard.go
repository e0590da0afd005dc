package scan

import (
	"context"
	"errors"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// shard is one stretch of log and what was found in the records that begin in it.
type shard struct {
	index      uint64
	start, end pg.LSN // [start, end), page-aligned

	first     pg.LSN // the first record that begins here; 0: none does
	firstPrev pg.LSN // its link to the record before
	firstTLI  pg.TLI // of the page from which first was found
	last      pg.LSN // the last record that begins here
	lastTLI   pg.TLI // of the page on which it begins
	next      pg.LSN // where the record after it begins
	records   int64  // from the checkpoint on, if there is one

	// startErr is set if not even the page at start could be made sense of. That is an error only if the log is
	// supposed to go on there. If the shard goes on into another segment, first may lie there all the same.
	startErr error

	divergence    bool   // the divergence is the border of a record here
	checkpoint    pg.LSN // the last checkpoint before the divergence; 0: none
	redo          pg.LSN
	checkpointTLI pg.TLI

	// Only of shards that begin before the divergence:
	blocks *BlockMap // changed blocks, from the checkpoint on if there is one
	err    error     // why the shard could not be read to its end
	at     pg.LSN    // where reading stood when it failed
}

// scan reads the records that begin in sh. An error is a *wal.Error or a *fault.Error.
func (s *search) scan(ctx context.Context, sh *shard, r *wal.Reader, rec *wal.Record, into *Inserter) error {
	limit := min(sh.end, s.end)
	sh.at = sh.start
	segSize := pg.LSN(s.in.Format.SegSize)
	for from := sh.start; ; from = (from + segSize) &^ (segSize - 1) {
		if from >= sh.end {
			return nil
		}
		var err error
		if sh.firstTLI, err = r.SeekFirst(from, sh.end); err == nil {
			break
		}
		var we *wal.Error
		if !errors.As(err, &we) || we.Kind == wal.Unreadable {
			return err
		}
		// After a segment switch the rest of the segment is zeros. If there was none, the seam will show it.
		sh.startErr = err
	}
	pos := r.Pos()
	for pos < limit {
		if pos == s.divergence {
			sh.divergence = true
		}
		sh.at = pos
		if err := r.Next(rec); err != nil {
			return err
		}
		if rec.LSN >= sh.end {
			// The record at pos was never finished; what follows it belongs to a later shard.
			pos = rec.LSN
			break
		}
		if sh.first == 0 {
			sh.first, sh.firstPrev = rec.LSN, rec.Prev
		}
		if rec.IsCheckpoint() && rec.LSN < s.divergence {
			if err := s.meetCheckpoint(sh, rec, into); err != nil {
				return err
			}
		}
		if err := note(s.in.Format.Version, rec, into); err != nil {
			return err
		}
		sh.last, sh.lastTLI = rec.LSN, rec.TLI
		sh.records++
		if sh.records&0xFFFF == 0 {
			if err := errors.Join(ctx.Err(), into.Err()); err != nil {
				return err
			}
		}
		pos = r.Pos()
	}
	if sh.first != 0 {
		sh.next = pos
	}
	return nil
}

// meetCheckpoint starts the shard's blocks anew: what was changed before the last checkpoint is the same on both sides.
func (s *search) meetCheckpoint(sh *shard, rec *wal.Record, into *Inserter) error {
	redo, tli, ok := rec.Checkpoint(s.in.Format.Version)
	if !ok {
		return fault.New("could not read WAL record at %v: checkpoint record of %d bytes, expected %d",
			rec.LSN, rec.MainLen, s.in.Format.Version.CheckpointBytes)
	}
	sh.checkpoint, sh.redo, sh.checkpointTLI = rec.LSN, redo, tli
	sh.records = 0
	sh.blocks = NewBlockMap(s.in.MaxMapBytes)
	into.reset(sh.blocks)
	return nil
}
