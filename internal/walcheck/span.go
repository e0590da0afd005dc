package walcheck

import (
	"context"
	"errors"
	"io/fs"

	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// Span is a range of segments along the history of a timeline.
type Span struct {
	Cluster     Cluster
	History     pg.History
	First, Last pg.SegNo
	// About says in words why it is this range; empty if it is what the user said.
	About string
}

// name is the name under which a segment is archived.
func (s *Span) name(seg pg.SegNo) string {
	return pg.SegmentName(s.History.SegmentTLI(seg, s.Cluster.SegSize), seg, s.Cluster.SegSize)
}

// Names are those of the first and the last segment.
func (s *Span) Names() (first, last string) { return s.name(s.First), s.name(s.Last) }

// Segments is how many there are.
func (s *Span) Segments() int64 { return int64(s.Last - s.First + 1) } //nolint:gosec // segment numbers have 44 bits at most

// Between finds the segments from one place to another: two segment names, or two LSNs on the history of a timeline, 0 being
// the target's. The second LSN is where the range ends: a segment that only begins there is not in it.
func (a *Archives) Between(ctx context.Context, from, to string, tli pg.TLI) (*Span, error) {
	c, err := a.identifyAny(ctx)
	if err != nil {
		return nil, err
	}
	s := &Span{Cluster: c}
	switch byName := pg.IsSegmentName(from); {
	case byName != pg.IsSegmentName(to):
		return nil, fault.New("\"%s\" and \"%s\" are not of one kind", from, to).Advise("Give two names of segments, or two LSNs and --timeline.")
	case byName:
		err = a.betweenNames(ctx, s, from, to)
	default:
		err = a.betweenLSNs(ctx, s, from, to, tli)
	}
	if err != nil {
		return nil, err
	}
	if s.First > s.Last {
		return nil, fault.New("\"%s\" comes after \"%s\"", from, to)
	}
	return s, nil
}

func (a *Archives) betweenNames(ctx context.Context, s *Span, from, to string) error {
	fromTLI, first, ok1 := pg.ParseSegmentName(from, s.Cluster.SegSize)
	toTLI, last, ok2 := pg.ParseSegmentName(to, s.Cluster.SegSize)
	if !ok1 || !ok2 {
		return fault.New("no WAL segment of %d MB is named \"%s\"", s.Cluster.SegSize>>20, map[bool]string{true: to, false: from}[ok1])
	}
	var err error
	if s.History, err = a.history(ctx, toTLI); err != nil {
		if !errors.Is(err, fs.ErrNotExist) || fromTLI != toTLI {
			return err
		}
		// Nobody knows how the timeline began: all of the range is on it, then.
		s.History = pg.History{{TLI: toTLI}}
	}
	s.First, s.Last = first, last
	if along := s.name(first); along != from && first <= last {
		return fault.New("the history of timeline %d does not go through \"%s\"", toTLI, from).
			Advise("Along it, that segment is \"%s\".", along)
	}
	return nil
}

func (a *Archives) betweenLSNs(ctx context.Context, s *Span, from, to string, tli pg.TLI) error {
	begin, err1 := pg.ParseLSN(from)
	end, err2 := pg.ParseLSN(to)
	if err := errors.Join(err1, err2); err != nil {
		return fault.Because(err, "\"%s\" and \"%s\" are neither names of WAL segments nor LSNs", from, to).
			Advise("Expected are names such as 000000010000000000000001, or LSNs such as 0/3000060.")
	}
	if tli == 0 && a.Target != nil {
		tli = a.Target.CurrentTLI()
	}
	if tli == 0 {
		return fault.New("no timeline specified (--timeline)").Advise("LSNs do not say on which timeline they are.")
	}
	if end < begin {
		return fault.New("%v comes after %v", begin, end)
	}
	var err error
	s.History, err = a.history(ctx, tli)
	s.First = begin.Seg(s.Cluster.SegSize)
	s.Last = max(s.First, end.SegOfEnd(s.Cluster.SegSize))
	return err
}

// ForTarget finds the segments that a rewind of the target reads: from the last checkpoint before the newest timeline of
// the archives forked off, and from where replay from that checkpoint begins, to where the target's own WAL ends.
func (a *Archives) ForTarget(ctx context.Context) (*Span, error) {
	if a.Target == nil {
		return nil, fault.New("no data directory specified (--target-pgdata)")
	}
	c := a.known
	own, err := a.history(ctx, a.Target.CurrentTLI())
	if err != nil {
		return nil, err
	}
	other, divergence, err := a.newestFork(ctx, own)
	if err != nil {
		return nil, err
	}
	s := &Span{Cluster: c, History: own}
	end := max(a.Target.CheckPoint+1, a.Target.MinRecoveryPoint)
	s.Last = end.SegOfEnd(c.SegSize)
	if divergence >= end {
		return nil, fault.New("timeline %d forked off at %v, and the target ends before that, at %v", other, divergence, end).
			Advise("It needs no rewind to follow that timeline. To check a range, name it.")
	}
	checkpoint, redo, err := a.checkpointBefore(ctx, s, divergence)
	if err != nil {
		return nil, err
	}
	s.First = min(checkpoint, redo).Seg(c.SegSize)
	s.About = fault.New("timeline %d forked off at %v; the last checkpoint before that is at %v, its redo point at %v; the target ends at %v",
		other, divergence, checkpoint, redo, end).Text
	return s, nil
}

// newestFork finds the newest timeline in the archives that is not on the target's way, but came from it.
func (a *Archives) newestFork(ctx context.Context, own pg.History) (pg.TLI, pg.LSN, error) {
	var newest []pg.TLI // descending, the most promising only
	for _, p := range a.Places {
		err := p.List(ctx, func(e layout.Entry) error {
			if e.Kind == layout.History && e.TLI > 1 {
				newest = insertDescending(newest, e.TLI, maxForks)
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	for _, tli := range newest {
		h, err := a.history(ctx, tli)
		if err != nil {
			return 0, 0, err
		}
		if i, lsn, ok := pg.CommonAncestor(h, own); ok && i < len(h)-1 {
			return tli, lsn, nil
		}
	}
	return 0, 0, fault.New("no timeline in the archives forked off the target's, %d", own.TLI()).
		Advise("Where a rewind would begin cannot be told without that. Has the new primary archived its history file? A range can be named, too.")
}

// maxForks is how many timelines are looked at.
const maxForks = 100

func insertDescending(list []pg.TLI, tli pg.TLI, most int) []pg.TLI {
	at := 0
	for at < len(list) && list[at] > tli {
		at++
	}
	if at < len(list) && list[at] == tli {
		return list
	}
	list = append(list, 0)
	copy(list[at+1:], list[at:])
	list[at] = tli
	return list[:min(len(list), most)]
}

// checkpointBefore reads backwards from an LSN to the last checkpoint before it. A segment that cannot be read ends that.
func (a *Archives) checkpointBefore(ctx context.Context, s *Span, before pg.LSN) (checkpoint, redo pg.LSN, err error) {
	size := s.Cluster.SegSize
	for seg := before.Seg(size); ; seg-- {
		k := &checker{archives: a, span: s}
		x := stretch{checker: k, first: seg, last: seg, each: func(rec *wal.Record) {
			if r, _, ok := rec.Checkpoint(s.Cluster.Version); ok && rec.LSN < before {
				checkpoint, redo = rec.LSN, r
			}
		}}
		x.run(ctx)
		if ctx.Err() != nil {
			return 0, 0, context.Cause(ctx)
		}
		for _, p := range x.problems {
			// What is wrong behind the divergence is told when the range is checked.
			if p.LSN == 0 || p.LSN < before {
				return 0, 0, fault.Because(p.Err, "could not find the last checkpoint before %v: %s", before, p).
					Advise("A rewind of this target would fail for the same reason, unless another archive has that segment.")
			}
		}
		if checkpoint != 0 {
			return checkpoint, redo, nil
		}
		if seg == 0 {
			return 0, 0, fault.New("there is no checkpoint before %v", before)
		}
	}
}
