package rewind

import (
	"context"
	"errors"
	"io/fs"

	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin"
)

const controlFile = "global/pg_control"

// modes are the permissions of what is made in the target.
type modes struct{ file, dir fs.FileMode }

// openTarget makes sure that nobody uses the target, and asks for its restore_command if that was wished for.
func (r *run) openTarget(ctx context.Context) error {
	m, err := datadir.Mode(r.cfg.TargetDir)
	if err != nil {
		return err
	}
	r.modes = modes{file: m.File, dir: m.Dir}
	setUmask(m.Umask)
	if r.lock, err = lockTarget(r.cfg.TargetDir); err != nil {
		return err
	}
	if err := pgbin.CheckStopped(r.cfg.TargetDir); err != nil {
		return err
	}
	if err := r.openPast(); err != nil {
		return err
	}
	if !r.cfg.RestoreTargetWAL && !r.cfg.wantsSettings() {
		return nil
	}
	postgres, err := r.findPostgres(ctx)
	if err != nil {
		return err
	}
	output, done := r.rep.Output()
	defer done()
	r.restoreCmd, err = postgres.RestoreCommand(ctx, r.cfg.TargetDir, r.cfg.ConfigFile, output)
	switch {
	case err == nil:
	case !r.cfg.RestoreTargetWAL:
		// Only what it says about the archive was wanted.
		r.rep.Debug("no restore_command to learn from: %v", err)
		return nil
	case r.past != nil && ctx.Err() == nil:
		// The configuration may be half copied. The WAL that had to be read was read.
		r.rep.Warn(err.Error(), "The interrupted run goes on without it.")
		r.cfg.RestoreTargetWAL = false
		return nil
	}
	if err != nil {
		return err
	}
	r.rep.Debug("using for rewind restore_command = '%s'", r.restoreCmd)
	return nil
}

func (r *run) findPostgres(ctx context.Context) (*pgbin.Postgres, error) {
	major, err := pgbin.MajorOf(r.cfg.TargetDir)
	if err != nil {
		return nil, err
	}
	return pgbin.Find(ctx, pgbin.Options{
		DataDir:     r.cfg.TargetDir,
		Major:       major,
		BinDir:      r.cfg.PgBinDir,
		ProgramPath: r.cfg.ProgramPath,
		ProgramName: r.cfg.ProgramName,
	})
}

// shutDownTarget reads the target's control file, and lets the target's own server recover it first if it was not shut
// down cleanly (ensureCleanShutdown, pg_rewind.c).
func (r *run) shutDownTarget(ctx context.Context) error {
	if r.past != nil {
		r.target = r.past.target
		return nil
	}
	var err error
	if r.target, err = r.readTargetControl(); err != nil {
		return err
	}
	if r.target.State.CleanlyShutDown() || r.cfg.NoEnsureShutdown {
		return nil
	}
	postgres, err := r.findPostgres(ctx)
	if err != nil {
		return err
	}
	r.rep.Info("executing \"%s\" for target server to complete crash recovery", postgres.Path)
	if r.cfg.DryRun {
		return nil // the check for a clean shutdown will then say so
	}
	// Opened before recovery writes: a descriptor hears only of writes that failed after it was opened.
	recovered, err := fsx.OpenTarget(r.cfg.TargetDir)
	if err != nil {
		return openDirError(r.cfg.TargetDir, err)
	}
	defer func() { _ = recovered.Close() }()
	meter := r.rep.Start(PhaseRecovery, 0, None)
	output, done := r.rep.Output()
	err = postgres.RecoverSingleUser(ctx, r.cfg.TargetDir, r.cfg.ConfigFile, output)
	done()
	meter.Done()
	if err != nil {
		return err
	}
	if err := r.syncRecovered(recovered); err != nil {
		return err
	}
	r.target, err = r.readTargetControl()
	return err
}

// syncRecovered makes durable what recovery wrote: it ran without fsync, as stock's does. Stock then syncs the whole
// directory at its end; we sync only what we touch, so what recovery touched is seen to here, file system by file
// system.
func (r *run) syncRecovered(target fsx.FS) error {
	if r.cfg.NoSync {
		return nil
	}
	if err := target.SyncFS(); err != nil {
		return fault.Because(err, "could not synchronize file system for file \"%s\": %s", r.cfg.TargetDir, fault.M(err))
	}
	return nil
}

func (r *run) readTargetControl() (*pg.Control, error) {
	data, err := datadir.ReadFile(r.cfg.TargetDir, controlFile, 2*pg.ControlSize)
	if err != nil {
		var f *fault.Error
		if errors.Is(err, fs.ErrNotExist) && errors.As(err, &f) && f.Advice == "" {
			return nil, f.Advise("\"%s\" does not look like a PostgreSQL data directory: is the path right?", r.cfg.TargetDir)
		}
		return nil, err
	}
	return decodeControl(data, "target", r.cfg.TargetDir)
}

// decodeControl words what can be wrong with a control file. side is source or target, where is its path or server.
func decodeControl(data []byte, side, where string) (*pg.Control, error) {
	c, err := pg.DecodeControl(data)
	var unknown *pg.UnknownVersionError
	var bad *pg.ControlError
	switch {
	case err == nil:
		return c, nil
	// Stock has these words for majors that are not its own; which ones this program does not know is its own affair.
	case errors.As(err, &unknown) && unknown.PreRelease() != 0:
		return nil, fault.Because(err, "clusters are not compatible with this version of pg_rewind").
			Advise("The %s %s has pg_control version %d and catalog version %d. It may be a beta or release candidate of PostgreSQL %d other "+
				"than the one this program knows. Use a newer fastrewind, or the pg_rewind that came with that server.",
				side, where, unknown.ControlVersion, unknown.CatalogVersion, unknown.PreRelease()).Ours()
	case errors.As(err, &unknown):
		return nil, fault.Because(err, "clusters are not compatible with this version of pg_rewind").
			Advise("The %s %s has pg_control version %d and catalog version %d; this program knows the PostgreSQL majors %v only. "+
				"Use a newer fastrewind, or the pg_rewind of that major.",
				side, where, unknown.ControlVersion, unknown.CatalogVersion, pg.Majors()).Ours()
	case errors.As(err, &bad):
		f := fault.Because(err, "%s", bad.Text)
		if bad.Message.Format != "" {
			f = fault.Because(err, bad.Message.Format, bad.Message.Args...)
		}
		if bad.Detail != "" {
			return nil, f.Advise("In global/pg_control of the %s %s: %s.", side, where, bad.Detail)
		}
		return nil, f.Advise("In global/pg_control of the %s %s.", side, where)
	default:
		return nil, err
	}
}

func openDirError(dir string, err error) error {
	return fault.Because(err, "could not open directory \"%s\": %s", dir, fault.M(err))
}
