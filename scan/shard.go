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

	begins    pg.LSN // where the first record that begins here does, be it finished or not; 0: none does
	first     pg.LSN // the first finished record that begins here; 0: none does
	firstPrev pg.LSN // its link to the record before
	firstTLI  pg.TLI // of the page from which first was found
	last      pg.LSN // the last record that begins here
	lastEnd   pg.LSN // its end
	lastTLI   pg.TLI // of the page on which it ends
	next      pg.LSN // where the record after it begins; after records never finished, if such come behind it
	records   int64  // from the checkpoint on, if there is one

	// startErr is set if no sense could be made of the page at start, or of what comes behind the rest of a record that
	// began before. That is an error only if the log is supposed to go on there. If the shard goes on into another segment, first may lie there all the same.
	startErr error

	divergence    bool   // the divergence is the border of a record here
	checkpoint    pg.LSN // the last checkpoint before the divergence; 0: none
	redo          pg.LSN
	checkpointTLI pg.TLI

	// Only of shards that begin before the divergence:
	blocks blockList // changed blocks, from the checkpoint on if there is one
	err    error     // why the shard could not be read to its end
	at     pg.LSN    // where reading stood when it failed

	unknown error // of the first unknown record that changes files before the divergence and after the last checkpoint
}

// scan reads the records that begin in sh. An error is a *wal.Error or a *fault.Error.
func (s *search) scan(ctx context.Context, sh *shard, r *wal.Reader, rec *wal.Record, into noter) error {
	sh.at = sh.start
	segSize := pg.LSN(s.in.Format.SegSize)
	limit := min(sh.end, (s.in.End+pg.WALBlockSize-1)&^(pg.WALBlockSize-1)) // nobody promised a page behind the end
	for from := sh.start; from < limit; from = (from + segSize) &^ (segSize - 1) {
		var err error
		if sh.firstTLI, err = r.SeekFirst(from, limit); err == nil {
			err = s.readFrom(ctx, sh, r, rec, into)
			if err == nil || sh.begins != 0 {
				return err
			}
		}
		var we *wal.Error
		if !errors.As(err, &we) || we.Kind == wal.Unreadable || sh.at != sh.start && we.Kind != wal.EndOfWAL {
			return err
		}
		// After a segment switch the rest of the segment is zeros, be it from the first page on, or behind the switch
		// record's own rest. If there was no switch, the seam will show it.
		sh.startErr, sh.at = err, sh.start
	}
	return nil
}

// readFrom reads records from where r stands to the shard's end.
func (s *search) readFrom(ctx context.Context, sh *shard, r *wal.Reader, rec *wal.Record, into noter) error {
	limit := min(sh.end, s.end)
	pos := r.Pos()
	for pos < limit {
		sh.at = pos
		if err := r.Next(rec); err != nil {
			return err
		}
		if sh.begins == 0 {
			sh.begins = pos
		}
		// What was at pos may never have been finished; then the record read began later.
		if pos == s.divergence || rec.LSN == s.divergence {
			sh.divergence = true
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
			if err := s.meetCheckpoint(sh, rec); err != nil {
				return err
			}
		}
		if err := note(s.in.Format.Version, rec, rec.LSN >= s.divergence, into); err != nil {
			if rec.LSN >= s.divergence {
				return err
			}
			if sh.unknown == nil {
				sh.unknown = err
			}
		}
		sh.last, sh.lastEnd, sh.lastTLI = rec.LSN, rec.End, r.PageTLI()
		sh.records++
		// Often enough for the map's bound: a record of 300 bytes can name a block in each of 33 files.
		if sh.records&0x3FF == 0 {
			if err := errors.Join(ctx.Err(), into.Err()); err != nil {
				return err
			}
		}
		pos = r.Pos()
	}
	if sh.begins != 0 {
		sh.next = pos
	}
	return sh.unknown
}

// meetCheckpoint starts the shard's blocks anew: what was changed before the last checkpoint is the same on both sides,
// by whatever kind of record.
func (s *search) meetCheckpoint(sh *shard, rec *wal.Record) error {
	redo, tli, ok := rec.Checkpoint(s.in.Format.Version)
	if !ok {
		return fault.New("could not read WAL record at %v: checkpoint record of %d bytes, expected %d",
			rec.LSN, rec.MainLen, s.in.Format.Version.CheckpointBytes)
	}
	sh.checkpoint, sh.redo, sh.checkpointTLI = rec.LSN, redo, tli
	sh.records, sh.unknown = 0, nil
	sh.blocks = sh.blocks[:0]
	return nil
}

// noter takes note of changed blocks of main forks.
type noter interface {
	Add(rel pg.Rel, block pg.BlockNo)
	Err() error
}

// blockList is the blocks that a shard's records change, one after the other: 16 bytes for each, and a shard is short. A
// BlockMap for each of the shards that are scanned ahead of need would take half a kilobyte for many a block.
type blockList []struct {
	rel   pg.Rel
	block pg.BlockNo
}

// Add implements noter. Neighbouring records often change the same block.
func (l *blockList) Add(rel pg.Rel, block pg.BlockNo) {
	if n := len(*l); n > 0 && (*l)[n-1].block == block && (*l)[n-1].rel == rel {
		return
	}
	*l = append(*l, struct {
		rel   pg.Rel
		block pg.BlockNo
	}{rel, block})
}

// Err implements noter.
func (l *blockList) Err() error { return nil }
