package walcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// ProblemKind is what is wrong with segments.
type ProblemKind string

// The kinds of problems.
const (
	Missing    ProblemKind = "missing"
	Damaged    ProblemKind = "damaged"    // it is there, and cannot be decoded
	Unreadable ProblemKind = "unreadable" // it may be there
	Wrong      ProblemKind = "wrong"      // decoded, it is not the WAL that belongs there
)

// Problem is one thing that is wrong.
type Problem struct {
	Kind        ProblemKind
	First, Last string // names of the segments; the same but for segments that are missing one after the other
	Segments    int64
	LSN         pg.LSN // where, or 0
	Err         error

	seg pg.SegNo // the first one
}

// String says it in one line.
func (p Problem) String() string {
	switch {
	case p.Kind == Missing && p.Segments > 1:
		return fmt.Sprintf("%d WAL segments are missing: %s to %s", p.Segments, p.First, p.Last)
	case p.Kind == Missing:
		return fmt.Sprintf("WAL segment %s is missing", p.First)
	case p.Kind == Wrong:
		return fmt.Sprintf("WAL segment %s: %s", p.First, p.Err)
	}
	return p.Err.Error()
}

// stretch reads some segments one after the other: every record that begins in them. Whatever goes wrong, it goes on with
// the next segment.
type stretch struct {
	*checker
	first, last pg.SegNo
	each        func(*wal.Record) // told of each record; may be nil

	problems []Problem
	tally    Tally
	joint

	src        *source
	progressed int64 // bytes told
}

// joint is what neighbouring stretches must agree on. An LSN at a page's start is that of the first record behind the
// page's header.
type joint struct {
	begins      bool   // begin is known
	begin, link pg.LSN // where the first record begins, or the limit if none does; the record before it, or 0 if it was not read
	ends        bool   // end and tail are known
	end, tail   pg.LSN // where the next record must begin; the last record, or 0 if none begins in the stretch
}

func (x *stretch) run(ctx context.Context) {
	c := x.span.Cluster
	x.src = &source{ctx: ctx, archives: x.archives, span: x.span, ended: x.segmentEnded}
	defer x.src.drop()
	r := wal.NewReader(wal.Format{Version: c.Version, SegSize: c.SegSize, SystemID: c.SystemID}, x.src)
	var rec wal.Record
	for seg := x.first; seg <= x.last && ctx.Err() == nil; {
		err := x.read(r, &rec, seg)
		if err == nil {
			x.ends = true
			break
		}
		at := max(seg, x.src.seg)
		if !x.failed(ctx, err, at) {
			break
		}
		seg = at + 1
		x.src.finish() // it may be damaged as well
		r.Reset(x.src)
	}
	if x.src.cur != nil && x.src.seg <= x.last && ctx.Err() == nil {
		x.src.finish()
	}
	x.told(int64(x.last-x.first+1)*int64(c.SegSize) - x.progressed) //nolint:gosec // a stretch is short
}

// told counts bytes as done with.
func (x *stretch) told(n int64) {
	x.progressed += n
	x.progress(n)
}

// read reads all records that begin from segment seg on.
func (x *stretch) read(r *wal.Reader, rec *wal.Record, seg pg.SegNo) error {
	size := x.span.Cluster.SegSize
	start, limit := seg.Start(size), (x.last + 1).Start(size)
	tli, err := r.SeekFirst(start, limit)
	if err != nil {
		return err
	}
	if !x.allows(start, start, tli) {
		return &wal.Error{Kind: wal.Corrupt, LSN: start, Reason: fmt.Sprintf("it begins on timeline %d, expected %d", tli, x.span.History.TLIAt(start))}
	}
	first := seg == x.first
	if first {
		x.begins, x.begin = true, min(r.Pos(), limit)
	}
	x.end, x.tail = min(r.Pos(), limit), 0
	for r.Pos() < limit {
		if err := r.Next(rec); err != nil {
			return err
		}
		if rec.LSN >= limit {
			x.end = rec.LSN // a record that a crash had cut short was passed over, and this one is the next stretch's
			return nil
		}
		if s := rec.LSN.Seg(size); s != seg {
			seg = s
			if !x.allows(rec.LSN, rec.LSN&^(pg.WALBlockSize-1), rec.TLI) {
				return &wal.Error{Kind: wal.Corrupt, LSN: rec.LSN, Reason: fmt.Sprintf("the record at %v is on timeline %d, expected %d",
					rec.LSN, rec.TLI, x.span.History.TLIAt(rec.LSN))}
			}
		}
		if first && x.tail == 0 {
			x.begin, x.link = rec.LSN, rec.Prev
		}
		x.tally.Records++
		x.end, x.tail = r.Pos(), rec.LSN
		if x.each != nil {
			x.each(rec)
		}
	}
	return nil
}

// allows reports whether a page of that timeline may hold what is at an LSN. Where a timeline begins within a page, or with
// one that its server found prepared, the page's header is of the one before.
func (x *stretch) allows(at, page pg.LSN, tli pg.TLI) bool {
	h := x.span.History
	return tli == h.TLIAt(at) || tli == h.TLIAt(page) || page > 0 && tli == h.TLIAt(page-1)
}

// failed notes a problem, and reports whether there is anything left to read. seg is the segment that was read last.
func (x *stretch) failed(ctx context.Context, err error, seg pg.SegNo) bool {
	var bad *wal.Error
	switch {
	case ctx.Err() != nil:
		return false
	case !errors.As(err, &bad):
		x.note(seg, Unreadable, 0, err)
	case bad.Kind == wal.Unreadable && seg > x.last:
		// The last record goes on in a segment that is for the next stretch to judge, or for nobody.
		x.dangling()
		return false
	case bad.Kind == wal.Unreadable:
		x.note(seg, kindOf(bad.Err), 0, bad.Err)
	case bad.Kind == wal.EndOfWAL && seg >= x.span.Last && bad.LSN >= x.span.Last.Start(x.span.Cluster.SegSize):
		x.tally.End = bad.LSN
		return seg <= x.last
	case x.src.cur != nil && seg <= x.last:
		x.src.finish() // damage that the archive's own sums show is told as that, and first
		x.note(seg, Wrong, bad.LSN, errors.New(bad.Reason))
	case seg > x.last && seg > x.span.Last && bad.LSN.Seg(x.span.Cluster.SegSize) <= x.last && !isChecksum(bad):
		x.dangling() // nobody asked for that segment
		return false
	default:
		x.note(x.last, Wrong, bad.LSN, fmt.Errorf("its last record goes on in %s: %s", x.span.name(seg), bad.Reason))
	}
	return seg <= x.last
}

// dangling notes that the last record could not be read to its end.
func (x *stretch) dangling() {
	if x.last == x.span.Last {
		x.tally.Cut = x.end
	}
}

// isChecksum reports whether a record was there from its beginning to its end, and is bad.
func isChecksum(err *wal.Error) bool {
	return err.Reason == fmt.Sprintf("incorrect resource manager data checksum in record at %v", err.LSN)
}

func kindOf(err error) ProblemKind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing
	case errors.Is(err, layout.ErrDamaged):
		return Damaged
	}
	return Unreadable
}

// segmentEnded is told of each segment that was read to its end.
func (x *stretch) segmentEnded(seg pg.SegNo, o origin, err error) {
	if seg > x.last {
		return
	}
	if err != nil {
		x.note(seg, kindOf(err), 0, err)
		return
	}
	x.tally.Segments++
	x.tally.Stored += o.stored
	if o.local {
		x.tally.Local++
	}
	x.told(int64(x.span.Cluster.SegSize))
}

// note adds a problem, one a segment: the first is the cause of the others.
func (x *stretch) note(seg pg.SegNo, kind ProblemKind, at pg.LSN, err error) {
	for _, p := range x.problems {
		if p.seg == seg {
			return
		}
	}
	name := x.span.name(seg)
	x.problems = append(x.problems, Problem{Kind: kind, First: name, Last: name, Segments: 1, LSN: at, Err: err, seg: seg})
}
