package rewind

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// facts is everything the plan is made from.
type facts struct {
	scan           *scan.Result
	source, target []pg.Entry
	recovery       segments // the target's, in which recovery will start
	sourceEnd      pg.LSN   // how far the source's WAL was durable before it was listed
}

// segments is a run of WAL segments along a history.
type segments struct {
	first      pg.SegNo
	divergence pg.LSN     // in the last
	history    pg.History // the target's
	segSize    uint32
}

// has reports whether name is the file name of one of them, on the timeline that the target's history goes along there, and
// all that is in it is common to both sides.
//
// Stock keeps the segment of the divergence, too. It is of no use: recovery has to go beyond the divergence, with a segment of
// the source's that begins with the same records. But where that one cannot be had, PostgreSQL takes the target's instead,
// since it looks for a segment along all timelines of the history (XLogFileReadAnyTLI), and replays what was to be undone.
func (s *segments) has(name string) bool {
	tli, seg, ok := pg.ParseSegmentName(name, s.segSize)
	return ok && seg >= s.first && s.isCommon(seg) && tli == s.history.SegmentTLI(seg, s.segSize)
}

func (s *segments) isCommon(seg pg.SegNo) bool { return (seg + 1).Start(s.segSize) <= s.divergence }

// gather reads the target's WAL and lists both sides, all at the same time: the scan wants processors, the source's
// listing mostly waits. The messages come in stock's order all the same.
func (r *run) gather(ctx context.Context, div divergence) (*facts, error) {
	var f facts
	var err error
	if f.sourceEnd, err = r.sourceEnd(ctx, r.sourceCtl); err != nil {
		return nil, err
	}
	if r.past != nil {
		r.past.trust(div.sourceHistory, r.sourceCtl, f.sourceEnd)
	}
	g, ctx := errgroup.WithContext(ctx)
	scanned, listed := make(chan struct{}), make(chan struct{})
	g.Go(func() (err error) {
		if r.past != nil {
			f.scan = r.past.scanned()
		} else if f.scan, err = r.scanWAL(ctx, div); err != nil {
			return err
		}
		close(scanned)
		return nil
	})
	listing := r.rep.Start(PhaseListing, 0, Files)
	g.Go(func() (err error) {
		if f.source, err = r.source.List(ctx, r.sourceJobs(), listing.Add); err == nil {
			close(listed)
		}
		return err
	})
	g.Go(func() (err error) {
		f.target, err = datadir.List(ctx, r.cfg.TargetDir, 1, listing.Add)
		return err
	})
	g.Go(func() error {
		if !wait(ctx, scanned) {
			return nil // whoever failed says why
		}
		r.rep.Info("rewinding from last common checkpoint at %v on timeline %d", f.scan.Checkpoint, f.scan.CheckpointTLI)
		r.rep.Progress("reading source file list")
		if wait(ctx, listed) {
			r.rep.Progress("reading target file list")
			if r.past != nil {
				return nil
			}
			r.rep.Progress("reading WAL in target")
			r.rep.Note("the target's WAL from there to %v: %d records in %d MB change %d blocks",
				div.end, f.scan.Records, f.scan.Bytes>>20, f.scan.Blocks.Len())
		}
		return nil
	})
	err = g.Wait()
	listing.Done()
	if err != nil {
		return nil, err
	}
	// Recovery starts in the segments from the checkpoint's redo point to the divergence, and the source may have removed
	// its own copies. Stock keeps the target's from the checkpoint record on; but replay begins at the redo point before.
	f.recovery = segments{
		first:      min(f.scan.Redo, f.scan.Checkpoint).Seg(r.target.SegSize),
		divergence: div.lsn,
		history:    div.targetHistory,
		segSize:    r.target.SegSize,
	}
	return &f, nil
}

// wait waits until done is closed; false if the context is done first.
func wait(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) scanWAL(ctx context.Context, div divergence) (*scan.Result, error) {
	meter := r.rep.Start(PhaseScan, 0, Bytes)
	defer meter.Done()
	defer r.wal.lookAhead(ctx, div, r.target.SegSize, r.cfg.ArchiveJobs)()
	var mu sync.Mutex
	var total int64
	return scan.Run(ctx, r.wal, scan.Input{
		Format:     r.format(),
		History:    div.targetHistory,
		Divergence: div.lsn,
		End:        div.end,
		Jobs:       r.cfg.Jobs,
		Progress: func(done, more int64) {
			meter.Add(done)
			if more == 0 {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			total += more
			meter.SetTotal(total)
		},
	})
}

// sourceEnd is how far the source's WAL is durable: no page on its disk is newer. c is its control file, read before
// (of a standby, it is the control file that knows). For a stopped source it is where its WAL ends.
func (r *run) sourceEnd(ctx context.Context, c *pg.Control) (pg.LSN, error) {
	if r.live != nil && c.State == pg.StateInProduction {
		return r.live.FlushLSN(ctx)
	}
	return max(c.CheckPoint, c.MinRecoveryPoint), nil
}
