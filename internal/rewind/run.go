// Package rewind is the story of one rewind, told top to bottom. It is the only package that knows all the others.
//
//	run.go        the story
//	config.go     what a user can ask for
//	report.go     how a run speaks while it runs
//	outcome.go    what an error means for the target
//	lock.go       one rewind of a target at a time
//	target.go     the target before anything is decided: stopped, recovered, its control file
//	source.go     the source: a directory or a server, and whether the two fit together
//	timelines.go  where the two histories part, and where the target's WAL ends
//	samenumber.go two timelines of one number
//	wal.go        where WAL comes from: pg_wal, archives, restore_command
//	archives.go   the archives that are read directly
//	gather.go     the target's WAL and both listings, read side by side
//	preflight.go  what would fail later, found before anything is touched
//	needed.go     the WAL that the rewound server will want first, and where it is
//	resume.go     the journal: what an interrupted run has left, and what of it may be left as it is
//	undo.go       what is overwritten or removed is saved if the user wants it, and put back
//	guard.go      no server starts on a half-rewound target
//	dump.go       the journal for people
//	seam.go       where tests put another file system
//	finish.go     the second WAL pass, backup_label, recovery settings, pg_control
//
// Where stock pg_rewind prints a message, its words are used, in its order (pg_rewind.c, main).
package rewind

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/fetch"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/journal"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
	"github.com/fastrewind/fastrewind/internal/preflight"
	"github.com/fastrewind/fastrewind/internal/undo"
)

// Run makes the target a copy of the source as far as replay cannot: everything the target's WAL changed since the two
// diverged is fetched from the source, and recovery is told where to start. When it returns nil, the target is ready to
// be started, or nothing had to be done. When it returns an error, OutcomeOf says what that means for the target: before
// the point of no return it is untouched, but for the crash recovery that may have been needed; afterwards no server
// can be started on it, and another Run with the same Config goes on.
//
// Errors are *fault.Error, or ctx's. Run sets the process's umask to the target's.
func Run(ctx context.Context, cfg Config, rep Reporter) error {
	if cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cfg.Timeout, fault.New("the time given by --timeout is over"))
		defer cancel()
	}
	most := cfg.decideJobs()
	for attempt := 1; ; attempt++ {
		r := &run{cfg: cfg, rep: rep, mostJobs: most}
		err := r.verdict(ctx, r.rewind(ctx))
		if changed := (*fetch.SourceChangedError)(nil); errors.As(err, &changed) && ctx.Err() == nil && attempt < maxAttempts {
			// It failed over. What is true of the new one is found out as after any interruption.
			rep.Warn(changed.Error(), "Starting over with the server that answers now; what is copied already is not copied again.")
			continue
		}
		return err
	}
}

// maxAttempts is how many failovers of the source a run goes along with.
const maxAttempts = 5

// rewind is one attempt.
func (r *run) rewind(ctx context.Context) error {
	defer r.close()
	cfg, rep := r.cfg, r.rep

	if err := errors.Join(cfg.Keep.Check("--keep"), cfg.Exclude.Check("--exclude")); err != nil {
		return err
	}
	// What the user named must be there, and nobody may be using it. What an interrupted run has left is gone on with.
	if err := r.openTarget(ctx); err != nil {
		return err
	}
	if cfg.DryRun {
		rep.Info("executing in dry-run mode")
	}
	if err := r.openSource(ctx); err != nil {
		return err
	}
	if complete, err := r.alreadyComplete(ctx); complete || err != nil {
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
		return r.nothingToRewind(ctx)
	}

	// Read everything that decisions are made from, then decide. Nothing has been written so far.
	facts, err := r.gather(ctx, div)
	if err != nil {
		return err
	}
	p, err := plan.Make(r.planInput(div, facts))
	if err != nil {
		return r.explain(ctx, facts, err)
	}
	if rep.DebugEnabled() {
		p.Debug(rep.Debug)
	}
	rep.Progress("need to copy %d MB (total source directory size is %d MB)", p.CopyBytes>>20, p.TotalBytes>>20)
	if err := r.preflight(ctx, div, facts, p); err != nil {
		if r.committed {
			return err // which can be mended as well as any other
		}
		return Refused.Of(err)
	}
	if err := r.findNeededWAL(ctx, facts, p, div); err != nil {
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
	// file has been replaced, last of all. The journal knows how to go on; the guard keeps servers away.
	target, err := openTargetFS(cfg.TargetDir)
	if err != nil {
		return openDirError(cfg.TargetDir, err)
	}
	defer func() { _ = target.Close() }() // directory handles: everything written has been synced by name
	if err := r.begin(ctx, target, div, facts, p); err != nil {
		return err
	}
	meter := rep.Start(PhaseCopy, p.CopyBytes, Bytes)
	cp := copier.New(target, r.copyOptions(meter.Add))
	end, err := r.copyAll(ctx, cp, p, div, facts)
	meter.Done()
	if err != nil {
		return err
	}
	return r.finish(ctx, target, cp, facts, end)
}

func (r *run) planInput(div divergence, f *facts) plan.Input {
	in := plan.Input{
		Source:           f.source,
		Target:           f.target,
		Blocks:           f.scan.Blocks,
		KeepWAL:          f.recovery.has,
		Keep:             r.cfg.keep(),
		Exclude:          r.cfg.Exclude,
		FirstDivergedSeg: div.lsn.Seg(r.target.SegSize),
		SegSize:          r.target.SegSize,
		TablespaceDir:    r.target.Version.TablespaceDir,
	}
	if past := r.past; past != nil {
		in.Original, in.Copied, in.Late = past.original, past.copied, past.late(&r.cfg)
		// A segment that an earlier run was about to put there may be half of one.
		start := r.backupLabel(f).Redo
		in.KeepWAL = func(name string) bool {
			return f.recovery.has(name) && past.hasWhole("pg_wal/"+name) || past.hasWAL(name, start, f.sourceEnd, div.sourceHistory)
		}
	}
	return in
}

// verdict marks an error with what it means for the target, and lets the user know.
func (r *run) verdict(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	outcome := Failed
	switch {
	case isLate(ctx):
		outcome, err = Interrupted, late(err)
	case ctx.Err() != nil:
		outcome = Interrupted
	case errors.Is(err, fetch.ErrSourceLost):
		outcome = SourceLost
	case r.committed:
		outcome = Resumable
	}
	if !r.committed && len(r.repaired) > 0 {
		err = errors.Join(err, preflight.RestorePermissions(r.cfg.TargetDir, r.repaired))
	}
	if r.committed && OutcomeOf(err) != NotRewindable && !errors.Is(err, plan.ErrLate) { // not by the same command
		var f *fault.Error
		if !errors.As(err, &f) {
			f = fault.Because(err, "%s", err.Error())
			err = f
		}
		if !strings.Contains(f.Advice, halfRewound) {
			f.Advice = strings.TrimSpace(f.Advice + "\n" + halfRewound)
		}
		if !errors.Is(err, fault.ErrSourceSize) {
			f.Own = true // stock leaves no target that can be gone on with
		}
	}
	return outcome.Of(err)
}

// isLate reports whether the time given by --timeout is over. Who was told the deadline, as a connection is, may notice
// before ctx does.
func isLate(ctx context.Context) bool {
	if err := ctx.Err(); err != nil {
		return errors.Is(err, context.DeadlineExceeded)
	}
	deadline, limited := ctx.Deadline()
	return limited && !time.Now().Before(deadline)
}

// late says so, and what it kept from being done.
func late(err error) error {
	said := fault.Because(err, "the time given by --timeout is over").Ours()
	if !errors.Is(err, context.DeadlineExceeded) {
		said.Detail = err.Error()
	}
	if inner := (*fault.Error)(nil); errors.As(err, &inner) {
		said.Hint, said.Advice = inner.Hint, inner.Advice
	}
	return said
}

// halfRewound is the advice for a run that failed between the first write and the last.
const halfRewound = "The target is half rewound, and no server can be started on it. Run the same command again: it goes on where " +
	"this one stopped."

// run is what the steps of one Run share: what they were given and what they opened. All else is passed on by value.
type run struct {
	cfg Config
	rep Reporter

	modes      modes
	target     *pg.Control // as of the clean shutdown
	source     source
	live       liveSource  // the same, if it is a server
	sourceCtl  *pg.Control // before anything was listed
	mostJobs   int         // copying at the same time
	trip       time.Duration
	limit      *limiter // of --max-rate, once something is copied; nil: there is none
	restoreCmd string   // under -c
	wal        *walStores
	toKeep     []string        // segments in the spool that are to be put into the target's pg_wal
	gone       goneWAL         // what the source has removed since it was listed
	lost       map[string]bool // segments that nobody has, as far as that was said

	lock         *os.File     // of the target
	past         *interrupted // what interrupted runs have left, or nil
	staleJournal bool         // there is a journal that says nothing any more
	complete     *pg.Control  // of a target that is rewound, but for that journal; or nil
	journal      *journal.Writer
	undo         *undo.Session          // of --keep-undo; nil: none is kept
	label        []byte                 // the target's backup_label before the run; nil: there was none
	repaired     []preflight.ModeChange // by --fix-permissions
	noted        time.Time              // when progress was made durable last
	journalFile  string                 // of the past
	committed    bool                   // past the point of no return, in this run or an earlier one
}

func (r *run) close() {
	if err := r.closeUndo(false); err != nil {
		r.rep.Warn(err.Error(), "")
	}
	if r.journal != nil {
		// After an error, or on the way out: what is in it need not be copied again. If it cannot be kept, it is.
		_ = r.journal.Sync()
		_ = r.journal.Close()
	}
	if r.wal != nil {
		if err := r.wal.close(); err != nil {
			r.rep.Warn(err.Error(), "")
		}
	}
	if r.source != nil {
		_ = r.source.Close() // nothing was written to it
	}
	if r.lock != nil {
		_ = r.lock.Close() // held for its lock only
	}
}

func (r *run) copyOptions(progress func(int64)) copier.Options {
	opts := copier.Options{
		Jobs:     r.cfg.Jobs,
		MostJobs: r.mostJobs,
		FileMode: r.modes.file,
		DirMode:  r.modes.dir,
		Sync:     r.syncMethod(),
		Progress: progress,
		// What goes from one page cache to another should pass through a core's cache. The server needs half the time
		// for a gigabyte in pieces of 64 to 128 kB than in pieces of 8 kB, and less than in pieces of 1 MB.
		ChunkBytes: serverChunkBytes,
	}
	if opts.Sync == copier.SyncFsync {
		opts.Durable = r.durable
	}
	if r.cfg.KeepUndo != "" {
		opts.Vanishing = r.vanishing
	}
	opts.Gone = r.gone.note
	if r.past != nil {
		opts.MadeBefore = func(path string) bool { return !r.past.hasWhole(path) }
	}
	if r.cfg.MaxRate > 0 {
		opts.MostJobs = 0 // how fast it goes says nothing about who could do more
	}
	if r.live != nil {
		opts.Jobs, opts.MostBatchBytes = r.sourceJobs(), mostBatchBytes(r.trip)
	} else {
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
