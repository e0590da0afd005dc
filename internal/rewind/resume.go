package rewind

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/journal"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin"
	"github.com/fastrewind/fastrewind/internal/plan"
	"github.com/fastrewind/fastrewind/scan"
)

// A rewind that was interrupted after the point of no return goes on from its journal. What the target's WAL said (the
// block map, the divergence, the checkpoint) is in there, so that WAL is not needed again. Both sides are listed anew and a
// new plan is made. Two things the target's files cannot tell any more come from the journal: how large a file was before
// the first run touched it (what lies beyond may be full of holes), and which files are complete and durable.
//
// Not everything that is complete may be left: see interrupted.trust.

// interrupted is what earlier, interrupted runs on this target have left. nil: there was none.
type interrupted struct {
	state   *journal.State
	target  *pg.Control // as of before the first of them
	guarded bool        // something may have been changed
	history pg.History  // the target's

	forget bool    // --restart: nothing that was copied counts
	limits []limit // by session, from 1; see trust
}

// limit is up to where what a session copied is part of the present source's history.
type limit struct {
	lsn pg.LSN // pages not newer than this are
	wal pg.LSN // WAL that ends here or before was complete when the session copied it
}

// openPast looks for the journal of an interrupted run. It is put aside, with a word, if the target has been finished or
// started since: then it says nothing about what is there now.
func (r *run) openPast() error {
	state, path, err := loadJournal(r.cfg.TargetDir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := r.refuseOrphan(); err != nil {
			return err
		}
		return r.findRewound()
	}
	if damaged := (*journal.DamagedError)(nil); errors.As(err, &damaged) {
		return NotRewindable.Of(err)
	}
	if err != nil {
		return err
	}
	control, err := pg.DecodeControl(state.Facts.Control)
	if err != nil {
		return NotRewindable.Of(fault.Because(err, "the journal of an interrupted rewind has no usable control file").
			Advise("%s; the file is %s.", err, path).Ours())
	}
	history, err := pg.ParseHistory(state.Facts.History, state.Facts.TargetTLI)
	if err != nil {
		return NotRewindable.Of(fault.Because(err, "the journal of an interrupted rewind has no usable history of the target").
			Advise("%s; the file is %s.", err, path).Ours())
	}
	p := &interrupted{state: state, target: control, history: history, forget: r.cfg.Restart}
	stale, err := r.isStale(p)
	if err != nil {
		return err
	}
	if stale {
		r.rep.Note("the journal in \"%s\" is of a rewind that is done with", r.cfg.TargetDir)
		r.staleJournal = true
		return nil
	}
	r.past, r.journalFile, r.committed = p, path, p.guarded
	r.rep.Note("an earlier rewind of this target was interrupted; going on with it (divergence at %v, checkpoint at %v)",
		state.Facts.Divergence, state.Facts.Checkpoint)
	return nil
}

// loadJournal reads the journal of a data directory. That there is none is said by an error that is fs.ErrNotExist.
func loadJournal(dir string) (state *journal.State, path string, err error) {
	path = filepath.Join(dir, journal.Name)
	f, size, err := openSized(path)
	if err != nil {
		return nil, path, err
	}
	defer func() { _ = f.Close() }() // only read from
	state, err = journal.Load(f, size)
	return state, path, err
}

// openSized opens a file for reading and gives its size in bytes. Errors are *fault.Error.
func openSized(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fault.Because(err, "could not open file \"%s\": %s", path, fault.M(err))
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // only read from
		return nil, 0, fault.Because(err, "could not stat file \"%s\": %s", path, fault.M(err))
	}
	return f, info.Size(), nil
}

// refuseOrphan refuses a half-rewound target whose journal somebody has removed.
func (r *run) refuseOrphan() error {
	data, err := datadir.ReadFile(r.cfg.TargetDir, controlFile, 2*pg.ControlSize)
	if err != nil || !pg.IsGuarded(data) {
		return nil //nolint:nilerr // whoever reads it next says what is wrong
	}
	return NotRewindable.Of(fault.New("the target is half rewound, and the journal of that rewind is missing").
		Advise("\"%s\" must lie in \"%s\": without it nobody knows what is left to be done. If \"fastrewind undo\" was interrupted "+
			"here, run it again. Otherwise put the journal back, or take a new base backup.", journal.Name, r.cfg.TargetDir).Ours())
}

// findRewound finds out whether the target is rewound already and no server has run on it since: somebody runs a command
// again that was killed after its last step, or of which he did not see the end. It must not be recovered then: that would
// end with a checkpoint on the source's timeline, in the place of what the source will log there.
func (r *run) findRewound() error {
	data, err := datadir.ReadFile(r.cfg.TargetDir, controlFile, 2*pg.ControlSize)
	if err != nil {
		return nil //nolint:nilerr // whoever reads it next says what is wrong
	}
	control, err := pg.DecodeControl(data)
	if err != nil || control.State != pg.StateInArchiveRecovery {
		return nil //nolint:nilerr // the same
	}
	label, err := r.readLabel()
	if err != nil || label == nil {
		return err
	}
	// A server that has begun to recover puts the label aside before it changes anything else.
	if l, err := pg.ParseBackupLabel(label, control.SegSize); err == nil && l.Method == pg.BackupMethodRewind {
		r.complete = control
	}
	return nil
}

// isStale tells by the control file that is there now whether a journal still speaks of this directory.
func (r *run) isStale(p *interrupted) (bool, error) {
	label, err := r.readLabel()
	if err != nil {
		return false, err
	}
	data, err := datadir.ReadFile(r.cfg.TargetDir, controlFile, 2*pg.ControlSize)
	_, marked := p.state.Reached(journal.Guarded)
	p.guarded = marked || pg.IsGuarded(data) || isGuardLabel(label)
	if err != nil || pg.IsGuarded(data) {
		return false, nil //nolint:nilerr // at work, or the file is lost: the journal has all of it
	}
	now, err := pg.DecodeControl(data)
	switch {
	case err != nil:
		return false, nil //nolint:nilerr // cut short by somebody else
	case p.complete(data):
		r.complete = now
		return true, nil
	case !p.guarded:
		// Nothing was changed: what the journal says can be found out again, of whatever source there is now.
		return true, nil
	case now.SystemID == p.target.SystemID && !now.Time.After(p.target.Time):
		return false, nil // the one there was, or an older one, put back by an HA manager that keeps copies
	case p.startable(now.Time):
		// All of it was changed: a server could be started, and perhaps was.
		return true, nil
	default:
		return false, NotRewindable.Of(fault.New("the target is half rewound, but somebody has started a server on it").
			Advise("Its control file says that it went on to %v; the rewind had found it at %v. Nobody knows which of its pages are whose "+
				"now: take a new base backup. If this directory is one already, remove "+journal.Name+" from it.", max(now.CheckPoint, now.MinRecoveryPoint), p.state.Facts.TargetEnd).Ours())
	}
}

// startable reports that a control file of this time may be that of a server which was started after the end of the last
// run: it had, for all that is known, taken the guard off.
func (p *interrupted) startable(control time.Time) bool {
	finishing, ok := p.state.Reached(journal.Finishing)
	return ok && finishing.Session == len(p.state.Sessions) && !control.Before(finishing.Time)
}

// complete reports that control is what the last run was about to put in place when it had done everything else.
func (p *interrupted) complete(control []byte) bool {
	finishing, ok := p.state.Reached(journal.Finishing)
	return ok && finishing.Session == len(p.state.Sessions) && finishing.Value == uint64(pg.CRC32C(control))
}

// alreadyComplete deals with a target that is rewound, but perhaps for the removal of its journal: no server has run on it
// since. If the source is still on the history that it was rewound to, nothing is left to be done.
func (r *run) alreadyComplete(ctx context.Context) (bool, error) {
	if r.complete == nil {
		return false, nil
	}
	var err error
	if r.sourceCtl, err = r.readSourceControl(ctx); err != nil {
		return false, err
	}
	history, err := r.sourceHistory(ctx, r.sourceCtl.CurrentTLI())
	if err != nil {
		return false, err
	}
	c := r.complete
	if r.sourceCtl.SystemID != c.SystemID || history.TLIAt(c.MinRecoveryPoint-1) != c.MinRecoveryPointTLI {
		return false, nil
	}
	r.rep.Info("no rewind required")
	if r.cfg.DryRun {
		return true, nil
	}
	target, err := openTargetFS(r.cfg.TargetDir)
	if err != nil {
		return false, openDirError(r.cfg.TargetDir, err)
	}
	defer func() { _ = target.Close() }()
	if !r.cfg.NoSync {
		if err := target.SyncFS(); err != nil {
			return false, fault.Because(err, "could not synchronize file system for file \"%s\": %s", r.cfg.TargetDir, fault.M(err))
		}
	}
	if r.staleJournal {
		if err := r.dropJournal(target); err != nil {
			return false, err
		}
	}
	if r.cfg.WriteRecoveryConf {
		return true, r.writeRecoverySettings(target)
	}
	return true, nil
}

// divergence is where the clusters parted, as it was found out when the target still had all of its WAL. The source may be
// another one now; it must not have left the common history any earlier.
func (p *interrupted) divergence(ctx context.Context, r *run) (divergence, error) {
	facts := &p.state.Facts
	d := divergence{rewindNeeded: true, targetHistory: p.history, lsn: facts.Divergence, end: facts.TargetEnd}
	tli, err := r.sourceTLI(ctx)
	if err != nil {
		return d, err
	}
	if d.sourceHistory, err = r.sourceHistory(ctx, tli); err != nil {
		return d, err
	}
	_, lsn, ok := pg.CommonAncestor(d.sourceHistory, d.targetHistory)
	if !ok || lsn < d.lsn {
		return d, NotRewindable.Of(fault.New("the source has left the target's history before the point where the interrupted rewind began").
			Advise("They have parted at %v, the rewind began at %v. Only a source that went along at least that far can finish it; "+
				"or take a new base backup.", lsn, d.lsn).Ours())
	}
	return d, nil
}

// late are the patterns that the last session was not given. It was held against the one before in the same way.
func (p *interrupted) late(cfg *Config) (late plan.Patterns) {
	if !p.guarded || len(p.state.Sessions) == 0 {
		return nil // nothing was touched
	}
	last := &p.state.Sessions[len(p.state.Sessions)-1]
	for _, pattern := range cfg.keep() {
		if !slices.Contains(last.Keep, pattern) && !slices.Contains(last.Exclude, pattern) {
			late = append(late, pattern)
		}
	}
	for _, pattern := range cfg.Exclude {
		if !slices.Contains(last.Exclude, pattern) {
			late = append(late, pattern)
		}
	}
	return late
}

// scanned is what reading the target's WAL has said.
func (p *interrupted) scanned() *scan.Result {
	facts := &p.state.Facts
	return &scan.Result{
		Checkpoint: facts.Checkpoint, Redo: facts.Redo, CheckpointTLI: facts.CheckpointTLI, Blocks: p.state.Blocks,
	}
}

// trust decides what of the earlier sessions' work may be left as it is, now that the source's history and how far it has
// come are known.
//
// A page that an earlier session copied is as new as the source was then. If the source has forked since, at P, or is
// another server that has not come as far, a page newer than that belongs to a history that is lost, or not there yet:
// replay would take it for done and skip its records, or never touch it. So of each session, what may be newer than both
// the fork and the present source's end is copied again, and the rest is not.
//
// What a session copied also needs replay from where its source was then, if that is before where replay starts now: the
// WAL for that may be gone, so nothing of such a session is left.
func (p *interrupted) trust(sourceHistory pg.History, source *pg.Control, sourceEnd pg.LSN) {
	p.limits = make([]limit, 1, 1+len(p.state.Sessions))
	redo := min(p.state.Facts.Redo, source.Redo)
	for _, s := range p.state.Sessions {
		l := limit{}
		if _, fork, ok := pg.CommonAncestor(s.History, sourceHistory); ok && s.Fsync && !p.forget && s.SourceRedo >= redo {
			l.lsn = min(fork, sourceEnd)
			l.wal = min(s.SourceEnd, l.lsn)
		}
		p.limits = append(p.limits, l)
	}
}

// copied implements plan.Input.Copied.
func (p *interrupted) copied(path string, sourceSize int64) bool {
	d, ok := p.state.Done(path)
	if !ok {
		return false
	}
	l := p.limits[d.Session]
	if d.Bound > l.lsn {
		return false
	}
	if name, isWAL := cutWAL(path); isWAL {
		segSize := p.target.SegSize
		_, seg, ok := pg.ParseSegmentName(name, segSize)
		return ok && (seg+1).Start(segSize) <= l.wal
	}
	if _, isRel := pg.ParseRelFile(path, p.target.Version.TablespaceDir); isRel {
		return true // what the source has changed since is in its WAL
	}
	// Of other files nobody knows whether they changed. Most are small; of the large ones (free space maps) the size tells
	// enough.
	return sourceSize > plan.MinWholeFile && sourceSize == d.Size
}

// original implements plan.Input.Original.
func (p *interrupted) original(path string) (int64, bool) { return p.state.Original(path) }

// hasWAL reports whether an earlier run has copied a whole WAL segment of the present source's history, from start to end,
// although the source may have removed it since: it was made to be replayed.
func (p *interrupted) hasWAL(name string, start, end pg.LSN, sourceHistory pg.History) bool {
	segSize := p.target.SegSize
	tli, seg, ok := pg.ParseSegmentName(name, segSize)
	return ok && seg >= start.Seg(segSize) && seg <= end.SegOfEnd(segSize) && tli == sourceHistory.SegmentTLI(seg, segSize) &&
		p.copied("pg_wal/"+name, int64(segSize))
}

// hasWhole reports whether a file of the target is what it was before the first run: untouched.
func (p *interrupted) hasWhole(path string) bool {
	_, touched := p.state.Original(path)
	return !touched
}

// touches lists what will not be known any more once it was touched: the sizes of files that grow, and that something was
// not there. What is half copied may have the right size already; and a directory that was made behind a link may be there
// after a crash although the link is not.
//
// Files that an earlier run has copied completely, and that are copied again, are among them: its word on them no longer
// counts (journal.Writer.Touched).
func touches(p *plan.Plan, past *interrupted) []journal.File {
	var out []journal.File
	for i := range p.Actions {
		a := &p.Actions[i]
		switch {
		case a.Kind != plan.Remove && past.isDone(a.Path):
			out = append(out, journal.File{Path: a.Path, Size: a.TargetSize})
		case a.Kind == plan.CopyTail:
			out = append(out, journal.File{Path: a.Path, Size: a.TargetSize})
		case a.Kind == plan.Copy && (a.TargetSize == 0 || strings.HasPrefix(a.Path, "pg_wal/")), a.Kind == plan.Create && a.Type == pg.Directory:
			out = append(out, journal.File{Path: a.Path, Size: journal.Absent})
		}
	}
	return out
}

// isDone reports whether an earlier run has copied a file completely.
func (p *interrupted) isDone(path string) bool {
	if p == nil {
		return false
	}
	_, done := p.state.Done(path)
	return done
}

func cutWAL(path string) (name string, ok bool) {
	dir, name := filepath.Split(path)
	return name, dir == "pg_wal/"
}

// begin is the point of no return: the journal is written, or gets one more session, and the start guard is put on. If it
// fails, or ctx ends, before anything else was changed, all of it is taken back, and the target is as it was.
func (r *run) begin(ctx context.Context, target fsx.FS, div divergence, f *facts, p *plan.Plan) (err error) {
	if r.past != nil {
		r.label = r.past.state.Facts.Label
	} else if r.label, err = r.readLabel(); err != nil {
		return err
	}
	if r.journal, err = r.openJournal(target, div, f); err != nil {
		return err
	}
	if r.past != nil && !r.cfg.NoSync {
		// What the earlier runs wrote, renamed and removed may be in the kernel's cache alone. Only what this one touches is
		// synced later.
		if err := target.SyncFS(); err != nil {
			return fault.Because(err, "could not synchronize file system for file \"%s\": %s", r.cfg.TargetDir, fault.M(err))
		}
	}
	guarding := false
	defer func() {
		if err == nil || r.committed {
			r.committed = true
			return
		}
		if undoErr := r.withdraw(target, guarding); undoErr != nil {
			r.committed, err = true, errors.Join(err, undoErr)
		}
	}()
	for _, step := range []func() error{
		func() error { _, err := r.journal.Session(r.newSession(div, f)); return err },
		func() error { return r.noteTouched(p) },
		func() error { return r.openUndo(ctx) },
		func() error { return r.saveUndo(ctx, p) },
		r.stillStopped,
		func() error { guarding = true; return r.guard(target) },
		// A server that was started in between has made its postmaster.pid before it read the control file.
		func() error { return pgbin.CheckStopped(r.cfg.TargetDir) },
		// Last: who finds the mark knows that from here on anything may have been changed.
		func() error { return r.journal.Mark(journal.Mark{Phase: journal.Guarded, Time: now()}) },
	} {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// stillStopped makes sure that no server was started, and that none has run, while the target was looked at.
func (r *run) stillStopped() error {
	if err := pgbin.CheckStopped(r.cfg.TargetDir); err != nil {
		return err
	}
	if r.past != nil {
		return nil // its guard was on
	}
	control, err := r.readTargetControl()
	if err != nil {
		return err
	}
	if !control.SameAs(r.target) {
		return fault.New("target server was started while the rewind was being prepared").
			Advise("Its control file is not the one that was read at the beginning. Nothing was changed; stop the server and run again.").Ours()
	}
	return nil
}

// openJournal makes the journal, or opens that of the earlier runs to go on in it.
func (r *run) openJournal(target fsx.FS, div divergence, f *facts) (*journal.Writer, error) {
	if r.past == nil {
		facts, err := r.facts(div, f)
		if err != nil {
			return nil, err
		}
		return journal.Create(target, journal.Options{Mode: r.modes.file, Sync: !r.cfg.NoSync, Replace: true}, facts, f.scan.Blocks)
	}
	old, err := os.Open(r.journalFile)
	if err != nil {
		return nil, fault.Because(err, "could not open file \"%s\": %s", r.journalFile, fault.M(err))
	}
	defer func() { _ = old.Close() }() // only read from
	return journal.Resume(target, old, r.past.state, !r.cfg.NoSync)
}

// noteTouched makes durable in the journal what the plan will make unknowable.
func (r *run) noteTouched(p *plan.Plan) error {
	files := touches(p, r.past)
	if len(files) == 0 {
		return nil
	}
	return r.journal.Touched(files)
}

// withdraw puts back what begin has changed.
func (r *run) withdraw(target fsx.FS, guarding bool) error {
	if guarding {
		if err := r.unguard(target); err != nil {
			return err
		}
	}
	return errors.Join(r.closeUndo(true), r.dropJournal(target))
}

// dropJournal closes and removes the journal.
func (r *run) dropJournal(target fsx.FS) error {
	if r.journal != nil {
		if err := r.journal.Close(); err != nil {
			return err
		}
		r.journal = nil
	}
	return journal.Remove(target, !r.cfg.NoSync)
}

func (r *run) facts(div divergence, f *facts) (*journal.Facts, error) {
	var history []byte
	tli := div.targetHistory.TLI()
	if tli > 1 {
		var err error
		if history, err = datadir.ReadFile(r.cfg.TargetDir, "pg_wal/"+pg.HistoryName(tli), pg.MaxHistoryBytes); err != nil {
			return nil, err
		}
	}
	return &journal.Facts{
		Created:        now(),
		SystemID:       r.target.SystemID,
		ControlVersion: r.target.Version.ControlVersion,
		CatalogVersion: r.target.Version.CatalogVersion,
		SegSize:        r.target.SegSize,
		Control:        r.target.Raw(),
		Label:          r.label,
		History:        history,
		TargetTLI:      tli,
		Divergence:     div.lsn,
		TargetEnd:      div.end,
		Checkpoint:     f.scan.Checkpoint,
		Redo:           f.scan.Redo,
		CheckpointTLI:  f.scan.CheckpointTLI,
		FirstSegment:   f.recovery.first,
		LastSegment:    div.lsn.Seg(r.target.SegSize),
	}, nil
}

func (r *run) newSession(div divergence, f *facts) journal.Session {
	s := journal.Session{
		Time:                now(),
		Source:              journal.Directory,
		Fsync:               r.syncMethod() == copier.SyncFsync,
		Restart:             r.cfg.Restart,
		History:             div.sourceHistory,
		SourceEnd:           f.sourceEnd,
		SourceCheckpoint:    r.sourceCtl.CheckPoint,
		SourceRedo:          r.sourceCtl.Redo,
		SourceCheckpointTLI: r.sourceCtl.TLI,
		Keep:                r.cfg.keep(),
		Exclude:             r.cfg.Exclude,
	}
	if r.live != nil {
		s.Source = journal.Server
	}
	return s
}

// journalSyncEvery is how often progress is made durable.
const journalSyncEvery = 5 * time.Second

// durable notes what the copier has copied and made durable, with how new its pages may be. It implements
// copier.Options.Durable.
func (r *run) durable(ctx context.Context, files []copier.DurableFile) error {
	bound, err := r.pageBound(ctx)
	if err != nil {
		return err
	}
	// A source that was promoted meanwhile, or follows one that was, may have given pages of its new timeline; the session
	// says that it is on the old one. The next session will say what is true.
	control, err := r.readSourceControl(ctx)
	if err != nil {
		return err
	}
	if control.CurrentTLI() != r.sourceCtl.CurrentTLI() {
		return nil
	}
	done := make([]journal.File, len(files))
	for i, f := range files {
		done[i] = journal.File{Path: f.Path, Size: f.Size}
	}
	if err := r.journal.Done(bound, done); err != nil {
		return err
	}
	// What a power failure would take of this is only copied again; but not hours of it.
	if time.Since(r.noted) < journalSyncEvery {
		return nil
	}
	r.noted = time.Now()
	return r.journal.Sync()
}

// pageBound is an LSN that no page read from the source so far is newer than.
func (r *run) pageBound(ctx context.Context) (pg.LSN, error) {
	if r.live == nil {
		return max(r.sourceCtl.CheckPoint, r.sourceCtl.MinRecoveryPoint), nil
	}
	return r.live.PageBound(ctx)
}
