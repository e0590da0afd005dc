// Package rewind is the story of one rewind, told top to bottom. It is the only package that knows all the others.
//
//	run.go        the story
//	config.go     what a user can ask for
//	report.go     how a run speaks while it runs
//	target.go     the target before anything is decided: stopped, recovered, its control file
//	source.go     the source: a directory or a server, and whether the two fit together
//	timelines.go  where the two histories part, and where the target's WAL ends
//	gather.go     the target's WAL and both listings, read side by side
//	preflight.go  what would fail later, found before anything is touched
//	finish.go     the second WAL pass, backup_label, recovery settings, pg_control
//
// Where stock pg_rewind prints a message, its words are used, in its order (pg_rewind.c, main).
package rewind

import (
	"context"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// Run makes the target a copy of the source as far as replay cannot: everything the target's WAL changed since the two
// diverged is fetched from the source, and recovery is told where to start. When it returns nil, the target is ready to
// be started, or nothing had to be done. When it returns an error before the point of no return below, the target is
// untouched, but for the crash recovery that may have been needed.
//
// Errors are *fault.Error, or ctx's. Run sets the process's umask to the target's.
func Run(ctx context.Context, cfg Config, rep Reporter) error {
	r := &run{cfg: cfg, rep: rep}
	defer r.close()

	// What the user named must be there, and nobody may be using it.
	if err := r.openTarget(ctx); err != nil {
		return err
	}
	if err := r.openSource(ctx); err != nil {
		return err
	}
	// The target's WAL must end with a shutdown checkpoint, or nothing could be known about its end.
	if err := r.shutDownTarget(ctx); err != nil {
		return err
	}
	if err := r.checkPair(ctx); err != nil {
		return err
	}

	// Where did they part, and does the target have anything beyond?
	div, err := r.findDivergence(ctx)
	if err != nil {
		return err
	}
	if !div.rewindNeeded {
		rep.Info("no rewind required")
		return r.onlyRecoverySettings(ctx)
	}

	// Read everything that decisions are made from, then decide. Nothing has been written so far.
	facts, err := r.gather(ctx, div)
	if err != nil {
		return err
	}
	p, err := plan.Make(plan.Input{
		Source:           facts.source,
		Target:           facts.target,
		Blocks:           facts.scan.Blocks,
		KeepWAL:          facts.recovery.has,
		FirstDivergedSeg: div.lsn.Seg(r.target.SegSize),
		SegSize:          r.target.SegSize,
		TablespaceDir:    r.target.Version.TablespaceDir,
	})
	if err != nil {
		return err
	}
	if rep.DebugEnabled() {
		p.Debug(rep.Debug)
	}
	rep.Progress("need to copy %d MB (total source directory size is %d MB)", p.CopyBytes>>20, p.TotalBytes>>20)
	if err := r.preflight(p); err != nil {
		return err
	}
	if cfg.DryRun {
		rep.Start(PhaseCopy, p.CopyBytes, Bytes).Done() // the line stock prints here
		rep.Progress("creating backup label and updating control file")
		rep.Progress("syncing target data directory")
		rep.Info("Done!")
		return nil
	}

	// The point of no return. From here on the target is neither what it was nor what it will be, until its control
	// file has been replaced, last of all.
	target, err := fsx.OpenTarget(cfg.TargetDir)
	if err != nil {
		return openDirError(cfg.TargetDir, err)
	}
	defer func() { _ = target.Close() }() // directory handles: everything written has been synced by name
	meter := rep.Start(PhaseCopy, p.CopyBytes, Bytes)
	cp := copier.New(target, r.copyOptions(meter.Add))
	end, err := r.copyAll(ctx, target, cp, p, div, facts)
	meter.Done()
	if err != nil {
		return err
	}
	return r.finish(ctx, target, cp, facts, end)
}

// run is what the steps of one Run share: what they were given and what they opened. All else is passed on by value.
type run struct {
	cfg Config
	rep Reporter

	modes      modes
	target     *pg.Control // as of the clean shutdown
	source     source
	live       liveSource  // the same, if it is a server
	sourceCtl  *pg.Control // before anything was listed
	restoreCmd string      // under -c
	wal        *walStores
}

func (r *run) close() {
	if r.wal != nil {
		if err := r.wal.close(); err != nil {
			r.rep.Warn(err.Error(), "")
		}
	}
	if r.source != nil {
		_ = r.source.Close() // nothing was written to it
	}
}

func (r *run) copyOptions(progress func(int64)) copier.Options {
	opts := copier.Options{
		Jobs:     r.cfg.Jobs,
		FileMode: r.modes.file,
		DirMode:  r.modes.dir,
		Sync:     r.syncMethod(),
		Progress: progress,
		// What goes from one page cache to another should pass through a core's cache. The server needs half the time
		// for a gigabyte in pieces of 64 to 128 kB than in pieces of 8 kB, and less than in pieces of 1 MB.
		ChunkBytes: serverChunkBytes,
	}
	if r.live == nil {
		opts.StrictSizes = true
		opts.SourceDir = r.cfg.SourceDir
		opts.ChunkBytes = localChunkBytes
	}
	return opts
}

const (
	serverChunkBytes = 128 << 10
	localChunkBytes  = 256 << 10
)

func (r *run) syncMethod() copier.SyncMethod {
	switch {
	case r.cfg.NoSync:
		return copier.SyncNone
	case r.cfg.SyncMethod == SyncSyncfs:
		return copier.SyncSyncfs
	default:
		return copier.SyncFsync
	}
}

// now is when the rewind says it happened.
func now() time.Time { return time.Now() }

func setUmask(mask int) { syscall.Umask(mask) }
