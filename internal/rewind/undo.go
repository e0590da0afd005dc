package rewind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/journal"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin"
	"github.com/fastrewind/fastrewind/internal/plan"
	"github.com/fastrewind/fastrewind/internal/undo"
)

// openUndo opens the directory of --keep-undo, and keeps it for the run.
func (r *run) openUndo(ctx context.Context) error {
	if r.cfg.KeepUndo == "" {
		return nil
	}
	in := undo.Input{
		RunID:        r.journal.Run().String(),
		SystemID:     r.target.SystemID,
		TargetDir:    r.cfg.TargetDir,
		Own:          []string{journal.Name, journal.TempName},
		Modes:        map[string]fs.FileMode{},
		Control:      r.target.Raw(),
		Label:        r.label,
		GuardControl: r.target.Guarded(),
	}
	for _, change := range slices.Backward(r.repaired) { // the oldest wins
		in.Modes[change.Path] = change.Old
	}
	var err error
	if r.undo, err = undo.Open(ctx, in, r.cfg.KeepUndo, undo.Options{Jobs: r.cfg.Jobs}); err != nil {
		return err
	}
	return r.journal.Mark(journal.Mark{Phase: journal.UndoKept, Time: now()})
}

// saveUndo saves what carrying out p will overwrite or remove, under --keep-undo. It comes before every plan that is
// carried out.
func (r *run) saveUndo(ctx context.Context, p *plan.Plan) error {
	if r.undo == nil {
		return nil
	}
	var extra []string
	if r.cfg.WriteRecoveryConf {
		extra = []string{autoConf, standbySignal}
	}
	stats, err := r.undo.Save(ctx, p, extra...)
	if err != nil {
		return err
	}
	if stats.Bytes+stats.CloneBytes > 0 {
		r.rep.Note("saved %d MB of the target in \"%s\", where they take %d MB", (stats.Bytes+stats.CloneBytes)>>20, r.cfg.KeepUndo, stats.Stored>>20)
	}
	return nil
}

// closeUndo lets go of the undo directory. With discard, what a run has saved that has changed nothing is removed.
func (r *run) closeUndo(discard bool) error {
	if r.undo == nil {
		return nil
	}
	err := r.undo.Close()
	r.undo = nil
	if discard {
		err = errors.Join(err, undo.Discard(r.cfg.KeepUndo, r.journal.Run().String()))
	}
	return err
}

// vanishing saves a file that is removed although no plan has said so. It implements copier.Options.Vanishing.
func (r *run) vanishing(ctx context.Context, path string) error {
	return r.saveUndo(ctx, &plan.Plan{Actions: []plan.Action{{Path: path, Kind: plan.Remove, Type: pg.RegularFile}}})
}

// carryOut saves what p overwrites if that was asked for, and copies.
func (r *run) carryOut(ctx context.Context, cp *copier.Copier, source copier.Source, p *plan.Plan) error {
	if err := r.saveUndo(ctx, p); err != nil {
		return err
	}
	return cp.Run(ctx, source, p)
}

// Undo puts the target of an earlier run with --keep-undo back as it was before that run, from the directory named there.
// cfg needs TargetDir, KeepUndo and Jobs. Errors are as Run's; what was interrupted can be run again.
func Undo(ctx context.Context, cfg Config, rep Reporter) error {
	cfg.decideJobs()
	m, err := datadir.Mode(cfg.TargetDir)
	if err != nil {
		return err
	}
	setUmask(m.Umask)
	lock, err := lockTarget(cfg.TargetDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // held for its lock only
	if err := pgbin.CheckStopped(cfg.TargetDir); err != nil {
		return err
	}
	if err := checkKept(cfg.TargetDir); err != nil {
		return err
	}
	info, err := undo.Describe(cfg.KeepUndo)
	if err != nil {
		return err
	}
	rep.Note("putting back what a rewind of \"%s\" took away since %v", info.TargetDir, info.Created)
	var total int64
	for _, part := range info.Parts {
		total += part.Bytes
	}
	meter := rep.Start(PhaseUndo, total, Bytes)
	stats, err := undo.Apply(ctx, cfg.KeepUndo, cfg.TargetDir, undo.ApplyOptions{Jobs: cfg.Jobs, Progress: meter.Add})
	meter.Done()
	if err != nil {
		if ctx.Err() != nil {
			return Interrupted.Of(err)
		}
		return err
	}
	rep.Note("removed %d paths, made %d, wrote %d MB", stats.Removed, stats.Made, stats.Bytes>>20)
	rep.Info("Done!")
	return nil
}

// checkUndoDir finds out before a run whether its undo can be kept where the user wants it.
func (r *run) checkUndoDir() error {
	if r.cfg.KeepUndo == "" {
		return nil
	}
	if r.past != nil && r.committed {
		// What earlier runs have overwritten is lost unless they saved it, too.
		info, err := undo.Describe(r.cfg.KeepUndo)
		if err != nil || info.RunID != r.past.state.Run.String() || !keptUndo(r.past.state) {
			return fault.New("directory \"%s\" does not hold what the interrupted rewind has overwritten", r.cfg.KeepUndo).
				Advise("%s. Give --keep-undo the same directory as the run that was interrupted, or leave it out.", describeUndo(info, err)).Ours()
		}
	}
	return undo.CheckDir(r.cfg.KeepUndo, r.cfg.TargetDir)
}

// keptUndo reports whether all sessions have saved what they overwrote.
func keptUndo(state *journal.State) bool {
	kept := map[int]bool{}
	for _, m := range state.Marks {
		if m.Phase == journal.UndoKept {
			kept[m.Session] = true
		}
	}
	return len(kept) == len(state.Sessions)
}

// checkKept refuses to undo what an interrupted rewind has done if one of its sessions has not saved what it overwrote.
func checkKept(targetDir string) error {
	state, _, err := loadJournal(targetDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // finished, or an undo was begun
	}
	if err != nil {
		return err
	}
	if !keptUndo(state) {
		return NotRewindable.Of(fault.New("not all that was overwritten in \"%s\" has been saved", targetDir).
			Advise("The interrupted rewind was run again without --keep-undo. It can only be finished: run the rewind again."))
	}
	return nil
}

func describeUndo(info undo.Info, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("It holds the undo of another rewind, run %s", info.RunID)
}
