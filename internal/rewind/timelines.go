package rewind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/scan"
)

// divergence is where the two clusters parted.
type divergence struct {
	rewindNeeded  bool
	sourceHistory pg.History
	targetHistory pg.History
	lsn           pg.LSN // end of the last record both have
	end           pg.LSN // end of the target's last record
}

// findDivergence compares the timelines, and looks how far the target went.
//
// On which timeline a cluster is, its last checkpoint alone does not tell: just after a promotion there has not been one
// on the new timeline. minRecoveryPointTLI knows, and the greater of the two is right (stock from 16 on; here always).
func (r *run) findDivergence(ctx context.Context) (divergence, error) {
	if r.past != nil {
		d, err := r.past.divergence(ctx, r)
		if err == nil {
			r.rep.Info("servers diverged at WAL location %v on timeline %d", d.lsn, d.targetHistory.TLIAt(d.lsn-1))
			err = r.openWAL(ctx, d)
		}
		return d, err
	}
	sourceTLI, err := r.sourceTLI(ctx)
	if err != nil {
		return divergence{}, err
	}
	targetTLI := r.target.CurrentTLI()
	var d divergence
	sourceHistory, targetHistory, err := r.histories(ctx, sourceTLI, targetTLI)
	sameNumber := false
	switch {
	case sourceTLI == targetTLI && (errors.Is(err, fs.ErrNotExist) || err == nil && slices.Equal(sourceHistory, targetHistory)):
		// The same number usually is the same timeline, and then the history files need not be there. But two servers
		// that were promoted independently may have chosen the same one: then their histories differ; or, if that was at the
		// same place, what they wrote there.
		same := true
		if err == nil {
			if same, err = r.sameBeginning(ctx, sourceHistory); err != nil {
				return d, err
			}
		}
		if same {
			r.rep.Info("source and target cluster are on the same timeline")
			return d, nil
		}
		sameNumber = true
	case err != nil:
		return d, err
	}
	d.sourceHistory, d.targetHistory = sourceHistory, targetHistory
	r.debugHistory("Source timeline history:", d.sourceHistory)
	r.debugHistory("Target timeline history:", d.targetHistory)

	index, lsn, ok := pg.CommonAncestor(d.sourceHistory, d.targetHistory)
	if !ok {
		return d, NotRewindable.Of(fault.New("could not find common ancestor of the source and target cluster's timelines").
			Advise("The source is on timeline %d, the target on %d, and their history files have no timeline in common.", sourceTLI, targetTLI))
	}
	if sameNumber {
		index, lsn = index-1, d.targetHistory[index].Begin
	}
	d.lsn = lsn
	r.rep.Info("servers diverged at WAL location %v on timeline %d", lsn, d.targetHistory[index].TLI)

	if err = r.openWAL(ctx, d); err != nil {
		return d, err
	}
	// The target ends where its last checkpoint record ends; or, if it was a standby, where it has replayed to.
	d.end, err = scan.RecordEnd(ctx, r.wal, r.format(), d.targetHistory, r.target.CheckPoint)
	if err != nil {
		return d, err
	}
	d.end = max(d.end, r.target.MinRecoveryPoint)
	d.rewindNeeded = d.end > d.lsn
	if !d.rewindNeeded {
		r.warnOfUnreplayedWAL(ctx, d)
	}
	return d, nil
}

// sourceTLI is the source's timeline.
//
// A standby that has just begun to follow a new one says so nowhere in its control file, until it has written a page that is
// newer than the fork. But it has fetched the history files, and the newest that its own timeline leads to is the one it
// follows: those of timelines that number on, as the server looks for them (findNewestTimeLine, timeline.c), each forking
// off no earlier than where the standby's pages are.
func (r *run) sourceTLI(ctx context.Context) (pg.TLI, error) {
	tli := r.sourceCtl.CurrentTLI()
	switch r.sourceCtl.State {
	case pg.StateInArchiveRecovery, pg.StateShutdownedInRecovery:
	default:
		return tli, nil
	}
	reached := max(r.sourceCtl.CheckPoint, r.sourceCtl.MinRecoveryPoint)
	for next := tli + 1; next-r.sourceCtl.CurrentTLI() <= maxNewTimelines; next++ {
		h, err := r.sourceHistory(ctx, next)
		if errors.Is(err, fs.ErrNotExist) {
			return tli, nil
		}
		if err != nil {
			return 0, err
		}
		if follows(h, r.sourceCtl.CurrentTLI(), reached) {
			tli = next
		}
	}
	return tli, nil
}

// maxNewTimelines bounds how far a source is asked for history files.
const maxNewTimelines = 1000

// follows reports whether a history goes along a timeline up to an LSN, and then leaves it.
func follows(h pg.History, tli pg.TLI, lsn pg.LSN) bool {
	for _, s := range h {
		if s.TLI == tli {
			return s.End >= lsn && s.End != 0
		}
	}
	return false
}

// warnOfUnreplayedWAL looks whether a stopped standby has received WAL beyond the divergence that it has not replayed yet.
// None of its pages is ahead, so nothing has to be rewound; but once started it would replay that WAL from its own
// pg_wal, pass the fork, and never be able to follow the source. Stock says nothing.
func (r *run) warnOfUnreplayedWAL(ctx context.Context, d divergence) {
	if r.target.State != pg.StateShutdownedInRecovery {
		return
	}
	segSize := r.target.SegSize
	at := wal.SkipPageHeader(d.lsn, segSize)
	if _, err := scan.RecordEnd(ctx, r.wal, r.format(), d.targetHistory, at); err != nil {
		return // nothing valid there, as it should be
	}
	seg := at.Seg(segSize)
	r.rep.Warn(fmt.Sprintf("the target has received WAL beyond the divergence at %v that it has not replayed yet", d.lsn),
		fmt.Sprintf("It would replay it when started, and could not follow the source any more. Before starting it, move %s "+
			"and all later segments of timeline %d out of its pg_wal.",
			pg.SegmentName(d.targetHistory.SegmentTLI(seg, segSize), seg, segSize), d.targetHistory.SegmentTLI(seg, segSize)))
}

func (r *run) format() wal.Format {
	return wal.Format{Version: r.target.Version, SegSize: r.target.SegSize, SystemID: r.target.SystemID}
}

func (r *run) debugHistory(title string, h pg.History) {
	if !r.rep.DebugEnabled() {
		return
	}
	r.rep.Debug("%s", title)
	for _, s := range h {
		r.rep.Debug("%d: %v - %v", s.TLI, s.Begin, s.End)
	}
}

func (r *run) histories(ctx context.Context, sourceTLI, targetTLI pg.TLI) (source, target pg.History, err error) {
	if source, err = r.sourceHistory(ctx, sourceTLI); err != nil {
		return nil, nil, err
	}
	target, err = r.targetHistory(targetTLI)
	return source, target, err
}

// sourceHistory and targetHistory read how a cluster came to its timeline. Timeline 1 has no file.
func (r *run) sourceHistory(ctx context.Context, tli pg.TLI) (pg.History, error) {
	return history(tli, "source "+r.where(), func(path string) ([]byte, error) {
		return r.source.ReadFile(ctx, path, pg.MaxHistoryBytes)
	})
}

func (r *run) targetHistory(tli pg.TLI) (pg.History, error) {
	return history(tli, "target "+r.cfg.TargetDir, func(path string) ([]byte, error) {
		return datadir.ReadFile(r.cfg.TargetDir, path, pg.MaxHistoryBytes)
	})
}

func history(tli pg.TLI, where string, read func(path string) ([]byte, error)) (pg.History, error) {
	var data []byte
	if tli > 1 {
		var err error
		if data, err = read("pg_wal/" + pg.HistoryName(tli)); err != nil {
			return nil, err
		}
	}
	h, err := pg.ParseHistory(data, tli)
	var bad *pg.HistoryError
	if errors.As(err, &bad) {
		return nil, fault.Because(err, "%s", bad.Text).WithDetail("%s", bad.Detail).
			Advise("The file is pg_wal/%s of the %s.", pg.HistoryName(tli), where)
	}
	return h, err
}
