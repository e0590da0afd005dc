package scan

import (
	"context"
	"errors"
	"io"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// Segments hands out WAL segments. Safe for concurrent use. A segment that cannot be had is a *fault.Error that says
// where it was looked for.
type Segments interface {
	Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (Segment, error)
}

// Segment is one open WAL segment file, of whatever length it really has.
type Segment interface {
	io.ReaderAt
	io.Closer
}

// stretch is a stretch of log made of segments, each on the timeline that the history says. It has at most one segment
// open. One per goroutine.
type stretch struct {
	ctx     context.Context //nolint:containedctx // lives as long as one shard's scan
	segs    Segments
	history pg.History
	segSize uint32

	open   Segment
	openNo pg.SegNo
}

// ReadAt implements wal.Source.
func (s *stretch) ReadAt(p []byte, at pg.LSN) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	seg := at.Seg(s.segSize)
	if s.open == nil || s.openNo != seg {
		s.Close()
		open, err := s.segs.Open(s.ctx, s.history.SegmentTLI(seg, s.segSize), seg)
		if err != nil {
			return 0, err
		}
		s.open, s.openNo = open, seg
	}
	n, err := s.open.ReadAt(p, int64(at-seg.Start(s.segSize)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// SegmentName implements wal.Source.
func (s *stretch) SegmentName(seg pg.SegNo) string {
	return pg.SegmentName(s.history.SegmentTLI(seg, s.segSize), seg, s.segSize)
}

// Close closes the open segment, if any. A read-only file has nothing to lose by a failing close.
func (s *stretch) Close() {
	if s.open != nil {
		_ = s.open.Close()
		s.open = nil
	}
}

// RecordEnd reads the one record at at and gives its end, rounded up to 8 bytes (readOneRecord, parsexlog.c).
func RecordEnd(ctx context.Context, segs Segments, format wal.Format, history pg.History, at pg.LSN) (pg.LSN, error) {
	s := &stretch{ctx: ctx, segs: segs, history: history, segSize: format.SegSize}
	defer s.Close()
	r := wal.NewReader(format, s)
	r.Seek(at)
	var rec wal.Record
	if err := r.Next(&rec); err != nil {
		return 0, readError("could not read WAL record", at, err)
	}
	return rec.End, nil
}

// readError is stock's message about a record that could not be read, with the reader's reason behind it; or, if the
// bytes could not be had, joined to that error, which is printed on a line of its own before.
func readError(what string, at pg.LSN, err error) error {
	var we *wal.Error
	if !errors.As(err, &we) {
		return err
	}
	if we.Kind == wal.Unreadable {
		if errors.Is(we.Err, context.Canceled) || errors.Is(we.Err, context.DeadlineExceeded) {
			return we.Err
		}
		var f *fault.Error
		if errors.As(we.Err, &f) {
			if errors.Is(f, fault.ErrFatal) {
				return f
			}
			return errors.Join(f, fault.New("%s at %v", what, at))
		}
		return fault.Because(we, "%s at %v: %v", what, at, fault.M(we.Err))
	}
	e := fault.Because(we, "%s at %v: %s", what, at, we.Message())
	if we.Kind == wal.EndOfWAL {
		return e.Advise("The target's WAL ends before it should: a segment that was recycled, cut or never written stands in its " +
			"place. Put an intact copy from the archive there; or move the file away, and --restore-target-wal will fetch it.")
	}
	return e.Advise("The target's WAL is damaged there. An intact copy of the segment from the archive can replace it; " +
		"otherwise take a new base backup.")
}

// LastRecordEnd is the end of the last record that ends at or before limit, up to which the log is known to be complete.
// limit itself may lie within a record: a server flushes whole pages (XLogBackgroundFlush). Where the log before limit
// cannot be read to there, limit is returned: too far is safe, too near is not.
func LastRecordEnd(ctx context.Context, segs Segments, format wal.Format, history pg.History, limit pg.LSN) (pg.LSN, error) {
	s := &cutStretch{
		stretch: stretch{ctx: ctx, segs: segs, history: history, segSize: format.SegSize},
		end:     (limit + pg.WALBlockSize - 1) &^ (pg.WALBlockSize - 1),
	}
	defer s.Close()
	r := wal.NewReader(format, s)
	var rec wal.Record
	for seg := limit.SegOfEnd(format.SegSize); seg > 0; seg-- {
		r.Reset(s)
		if _, err := r.SeekFirst(seg.Start(format.SegSize), s.end); err != nil {
			return limit, ctx.Err()
		}
		var last pg.LSN
		for r.Pos() < limit {
			err := r.Next(&rec)
			if s.cut && isEndOfWAL(err) {
				break // goes on behind limit
			}
			if err != nil {
				return limit, ctx.Err()
			}
			if rec.End > limit {
				break
			}
			last = rec.End
		}
		if last != 0 {
			return last, nil
		}
	}
	return limit, ctx.Err()
}

// CheckSegment reads all records that begin in a segment, up to limit, for the sake of their checksums. The last one may go on
// in a segment that nobody has at hand: what is in this one of it is then not checked, and neither is what begins it.
func CheckSegment(
	ctx context.Context, segs Segments, format wal.Format, history pg.History, seg pg.SegNo, limit pg.LSN,
) error {
	start := seg.Start(format.SegSize)
	limit = min(limit, (seg + 1).Start(format.SegSize))
	s := &cutStretch{
		stretch: stretch{ctx: ctx, segs: segs, history: history, segSize: format.SegSize},
		end:     (limit + pg.WALBlockSize - 1) &^ (pg.WALBlockSize - 1),
	}
	defer s.Close()
	r := wal.NewReader(format, s)
	_, err := r.SeekFirst(start, s.end)
	at := start
	var rec wal.Record
	for err == nil && r.Pos() < limit {
		at = r.Pos()
		err = r.Next(&rec)
	}
	// Where something else ends the log than that no more of it is at hand, it does not go on as it should: zeroes in the
	// place of what a crash has lost, or what a recycled segment held before.
	if err == nil || s.cut && isEndOfWAL(err) {
		return nil
	}
	return readError("could not read WAL record", at, err)
}

func isEndOfWAL(err error) bool {
	var we *wal.Error
	return errors.As(err, &we) && we.Kind == wal.EndOfWAL
}

// cutStretch is a stretch that ends at end, a page's start.
type cutStretch struct {
	stretch
	end pg.LSN
	cut bool // something behind end was asked for
}

// ReadAt implements wal.Source.
func (s *cutStretch) ReadAt(p []byte, at pg.LSN) (int, error) {
	if at >= s.end {
		s.cut = true
		return 0, nil
	}
	return s.stretch.ReadAt(p[:min(pg.LSN(len(p)), s.end-at)], at)
}
