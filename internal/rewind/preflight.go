package rewind

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/fetch"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/journal"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
	"github.com/fastrewind/fastrewind/internal/preflight"
	"github.com/fastrewind/fastrewind/internal/undo"
)

// preflight looks for everything that would make the run fail half-way, and reports all of it together. With
// --fix-permissions what can be repaired is, unless this is a dry run; should the run fail before it has changed anything
// else, that is taken back, too.
func (r *run) preflight(ctx context.Context, div divergence, f *facts, p *plan.Plan) error {
	in := preflight.Input{
		TargetDir:     r.cfg.TargetDir,
		SourceDir:     r.cfg.SourceDir,
		Plan:          p,
		Source:        f.source,
		Target:        f.target,
		TablespaceDir: r.target.Version.TablespaceDir,
		Replaced:      []string{pg.BackupLabelName, controlFile, journal.Name},
		Needs:         r.needs(div, f, p),
		Resuming:      r.past != nil,
		Jobs:          r.cfg.Jobs,
	}
	if r.cfg.WriteRecoveryConf {
		in.Replaced = append(in.Replaced, autoConf, standbySignal)
		in.Appended = []string{autoConf}
	}
	problems, err := preflight.Check(ctx, in)
	if err != nil {
		return err
	}
	if r.cfg.FixPermissions && !r.cfg.DryRun {
		if problems, err = r.fixPermissions(ctx, in, problems); err != nil {
			return err
		}
	}
	unreadable, err := r.unreadable(ctx, p)
	if err != nil {
		return err
	}
	problems = append(problems, unreadable...)
	if err := r.checkUndoDir(); err != nil {
		problems = append(problems, preflight.Of(preflight.Undo, err))
	}
	for i := range problems {
		if problems[i].Warning {
			r.rep.Warn(problems[i].Text, problems[i].Advice)
		}
	}
	return preflight.Join(problems)
}

// probedFiles is how many files the source is asked for a byte of in one statement.
const probedFiles = 1000

// unreadable finds a file that the source server lists and cannot read. Its own it can; but it would not be the first data
// directory with somebody else's key or log in it, and no rerun would get past that.
func (r *run) unreadable(ctx context.Context, p *plan.Plan) ([]preflight.Problem, error) {
	if r.live == nil {
		return nil, nil // looked at by preflight.Check
	}
	var first []pg.FileRange
	for i := range p.Actions {
		if a := &p.Actions[i]; a.Kind == plan.Copy && plan.IsForeign(a.Path) {
			first = append(first, pg.FileRange{Path: a.Path, Length: 1})
		}
	}
	for ranges := range slices.Chunk(first, probedFiles) {
		err := r.source.Fetch(ctx, ranges, func(int, pg.FileChunk) error { return nil })
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, fetch.ErrSourceLost) {
			return nil, err
		}
		problem := preflight.Of(preflight.Grant, err)
		problem.Advice = strings.TrimSpace("The source server cannot read a file in its own data directory. Give it to the server's user, " +
			"move it away, or leave it out with --exclude. " + problem.Advice)
		return []preflight.Problem{problem}, nil
	}
	return nil, nil
}

// fixPermissions repairs what can be repaired, and looks again as long as that brings something new to light.
func (r *run) fixPermissions(
	ctx context.Context, in preflight.Input, problems []preflight.Problem,
) ([]preflight.Problem, error) {
	for {
		changed, err := preflight.FixPermissions(r.cfg.TargetDir, problems)
		r.repaired = append(r.repaired, changed...)
		if err != nil {
			return nil, err
		}
		if len(changed) == 0 {
			return problems, nil
		}
		r.rep.Note("gave the owner the permissions that %d paths of the target lacked, the first \"%s\"", len(changed), changed[0].Path)
		if problems, err = preflight.Check(ctx, in); err != nil {
			return nil, err
		}
	}
}

// walReserve is room for what the source writes to its WAL while the rewind runs, in segments.
const walReserve = 8

// needs is the room that is taken by what the plan does not speak of.
func (r *run) needs(div divergence, f *facts, p *plan.Plan) []preflight.Need {
	segSize := int64(r.target.SegSize)
	needs := []preflight.Need{
		{Dir: r.cfg.TargetDir, Bytes: f.scan.Blocks.MemoryBytes() + 64*int64(len(p.Actions)) + 1<<20, What: "the journal of this run"},
	}
	wal := r.cfg.TargetDir + "/pg_wal"
	if r.live != nil {
		needs = append(needs, preflight.Need{Dir: wal, Bytes: walReserve * segSize, What: "WAL that the source writes meanwhile"})
	}
	if n := int64(len(r.missingWAL(f, p, div.sourceHistory))); n > 0 && r.wal.spool != nil {
		needs = append(needs, preflight.Need{Dir: wal, Bytes: n * segSize, What: "WAL that the source has removed, from the archive"})
	}
	if r.cfg.KeepUndo != "" {
		needs = append(needs, preflight.Need{Dir: r.cfg.KeepUndo, Bytes: undo.Bytes(p), What: "what --keep-undo saves", AtMost: true})
	}
	return needs
}

// explain adds to the error of a plan that could not be made what else is wrong, so that one look at the report is enough.
func (r *run) explain(ctx context.Context, f *facts, err error) error {
	problems, checkErr := preflight.Check(ctx, preflight.Input{
		TargetDir: r.cfg.TargetDir, SourceDir: r.cfg.SourceDir, Source: f.source, Target: f.target,
		TablespaceDir: r.target.Version.TablespaceDir, Resuming: r.past != nil, Jobs: r.cfg.Jobs,
	})
	var said *fault.Error
	if checkErr != nil || !errors.As(err, &said) {
		return err
	}
	var others *fault.Error
	if errors.As(preflight.Join(problems), &others) && others.Text != said.Text {
		said.Advice = strings.TrimSpace(said.Advice + "\nAlso: " + others.Text + ". " + others.Advice)
	}
	return err
}
