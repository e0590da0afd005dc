package walcheck

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// CheckOptions say how a range is checked.
type CheckOptions struct {
	Jobs     int               // segments read at a time, at least 1
	Progress func(bytes int64) // told of decoded bytes, from several goroutines at once; may be nil
	Problem  func(Problem)     // told of each problem, in the order of the segments, one at a time
}

// Tally is what a check has found.
type Tally struct {
	Segments int64 // read to their end
	Local    int64 // of these, in the target's pg_wal
	Stored   int64 // bytes in the archives
	Records  int64
	Problems int64
	End      pg.LSN // where WAL ends, if that is before the end of the last segment; else 0
	Cut      pg.LSN // where the last record begins, if it goes on behind the range and the rest was not read; else 0
}

const (
	// maxStretch bounds what is read again because of a problem, and what waits for its turn to be told.
	maxStretch = 32
	// maxUnreadable is how many segments may be unreadable before it is clear that nothing can be read.
	maxUnreadable = 16
)

// checker checks one range.
type checker struct {
	archives *Archives
	span     *Span
	opts     CheckOptions
}

func (k *checker) progress(bytes int64) {
	if k.opts.Progress != nil && bytes > 0 {
		k.opts.Progress(bytes)
	}
}

// Check reads all segments of a range, and every record that begins in them, as a server would: headers of pages and
// records, checksums, each record's link to the one before. A segment is looked for in the target's pg_wal, if there is a
// target, and then in the archives in their order; the first that has it is read.
//
// Problems are no error. An error says that the check itself could not be made.
func (a *Archives) Check(ctx context.Context, span *Span, opts CheckOptions) (Tally, error) {
	k := &checker{archives: a, span: span, opts: opts}
	// Enough stretches that all jobs have work to the end, and no more: the seams cost a second look at a segment.
	length := pg.SegNo(min(maxStretch, max(1, span.Segments()/int64(2*opts.Jobs)))) //nolint:gosec // between 1 and maxStretch
	all := sum{checker: k, waiting: map[pg.SegNo]*stretch{}, next: span.First}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(opts.Jobs)
	for first := span.First; first <= span.Last && gctx.Err() == nil; first += length {
		x := &stretch{checker: k, first: first, last: min(first+length-1, span.Last)}
		g.Go(func() error {
			x.run(gctx)
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			x.src = nil
			return all.add(x)
		})
	}
	err := g.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	all.tell(nil)
	return all.tally, err
}

// sum puts stretches together, in their order. Safe for concurrent use until all are added.
type sum struct {
	*checker

	mu         sync.Mutex
	waiting    map[pg.SegNo]*stretch // by their first segment
	next       pg.SegNo              // the first segment of the stretch whose turn it is
	before     joint                 // the end of those put together so far
	held       *Problem              // missing segments, to which more may come
	unreadable int
	tally      Tally
}

// add adds a stretch that was read. The error ends the check.
func (s *sum) add(x *stretch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.waiting[x.first] = x; s.waiting[s.next] != nil; {
		x := s.waiting[s.next]
		delete(s.waiting, s.next)
		s.next = x.last + 1
		s.seam(x)
		for i := range x.problems {
			p := &x.problems[i]
			if s.tell(p); p.Kind == Unreadable {
				if s.unreadable++; s.unreadable == maxUnreadable {
					return p.Err
				}
			}
		}
		s.tally.Segments += x.tally.Segments
		s.tally.Local += x.tally.Local
		s.tally.Stored += x.tally.Stored
		s.tally.Records += x.tally.Records
		s.tally.End, s.tally.Cut = max(s.tally.End, x.tally.End), max(s.tally.Cut, x.tally.Cut)
	}
	return nil
}

// seam compares where a stretch begins with where the one before ended.
func (s *sum) seam(x *stretch) {
	limit := (x.last + 1).Start(s.span.Cluster.SegSize)
	b := s.before
	if b.ends && x.begins {
		var wrong string
		switch {
		case x.begin < limit && x.begin != b.end:
			wrong = fmt.Sprintf("its first record is at %v, the one before ends at %v", x.begin, b.end)
		case x.begin == limit && b.end < limit:
			wrong = fmt.Sprintf("no record begins in it, the one before ends at %v", b.end)
		case x.link != 0 && b.tail != 0 && x.link != b.tail:
			wrong = fmt.Sprintf("record with incorrect prev-link %v at %v, the one before is at %v", x.link, x.begin, b.tail)
		}
		if wrong != "" {
			name := s.span.name(x.first)
			s.tell(&Problem{Kind: Wrong, First: name, Last: name, Segments: 1, LSN: x.begin, Err: errors.New(wrong), seg: x.first})
		}
	}
	if x.ends && x.tail == 0 && x.begin == limit {
		return // nothing begins in it
	}
	s.before = x.joint
}

// tell tells of a problem; missing segments are held until it is clear how many there are. nil tells what is held.
func (s *sum) tell(p *Problem) {
	if p != nil {
		s.tally.Problems += p.Segments
	}
	if h := s.held; h != nil {
		if p != nil && p.Kind == Missing && h.seg+pg.SegNo(h.Segments) == p.seg { //nolint:gosec // positive
			h.Segments, h.Last = h.Segments+p.Segments, p.Last
			return
		}
		s.opts.Problem(*h)
		s.held = nil
	}
	switch {
	case p == nil:
	case p.Kind == Missing:
		h := *p
		s.held = &h
	default:
		s.opts.Problem(*p)
	}
}
