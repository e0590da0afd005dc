package rewind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fastrewind/fastrewind/archive"
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

// consistency is how far the rewound server must replay before the copied pages fit together.
type consistency struct {
	lsn     pg.LSN
	tli     pg.TLI
	control *pg.Control // the source's, read after the last page
	history pg.History  // the source's, by then
}

// copyAll carries the plan out, asks the source how far its pages may be ahead now that the last of them has been read,
// and completes the target's WAL up to there.
func (r *run) copyAll(
	ctx context.Context, cp *copier.Copier, p *plan.Plan, div divergence, f *facts,
) (consistency, error) {
	if err := cp.Run(ctx, r.copySource(p), p); err != nil { // begin has saved the undo
		return consistency{}, err
	}
	after, err := r.readSourceControl(ctx)
	if err != nil {
		return consistency{}, err
	}
	end, err := r.consistencyPoint(ctx, after)
	if err != nil {
		return consistency{}, err
	}
	if end.history, err = r.secondWALPass(ctx, cp, f.sourceEnd, end, div); err != nil {
		return consistency{}, err
	}
	if err := r.findGoneWAL(ctx, f, end); err != nil {
		return consistency{}, err
	}
	if err := r.keepNeededWAL(ctx, cp); err != nil {
		return consistency{}, err
	}
	return r.settle(ctx, end, div)
}

// finish makes the copied files a cluster that can be started. The order is that of durability: everything the control
// file will vouch for is on disk before the control file is replaced, last of all.
func (r *run) finish(ctx context.Context, target fsx.FS, cp *copier.Copier, f *facts, end consistency) error {
	r.rep.Progress("creating backup label and updating control file")
	r.rep.Progress("syncing target data directory")
	meter := r.rep.Start(PhaseSync, 0, None)
	err := cp.Sync(ctx)
	meter.Done()
	if err != nil {
		return err
	}
	method := r.syncMethod()
	if r.cfg.WriteRecoveryConf {
		if err := r.writeRecoverySettings(target); err != nil {
			return err
		}
	}
	end.control.MinRecoveryPoint, end.control.MinRecoveryPointTLI = end.lsn, end.tli
	end.control.State = pg.StateInArchiveRecovery
	end.control.Time = now()
	control := end.control.Encode()
	// From here on the target may be complete, whatever happens: a journal that is found later must say so.
	if err := r.journal.Mark(journal.Mark{Phase: journal.Finishing, Time: now(), Value: uint64(pg.CRC32C(control))}); err != nil {
		return err
	}
	if r.undo != nil {
		if err := r.undo.Finish(control); err != nil {
			return err
		}
	}
	if err := pgbin.CheckStopped(r.cfg.TargetDir); err != nil {
		return err
	}
	// The locks are taken off, the control file's last.
	if err := copier.WriteDurably(target, method, pg.BackupLabelName, r.backupLabel(f).Encode(), r.modes.file); err != nil {
		return err
	}
	if err := copier.WriteDurably(target, method, controlFile, control, r.modes.file); err != nil {
		return err
	}
	if err := r.dropJournal(target); err != nil {
		// The target is complete. The next run sees from the control file that the journal is done with.
		r.rep.Warn(err.Error(), "The rewind is complete all the same.")
	}
	s := cp.Stats()
	r.rep.Note("copied %d MB into %d files, made %d directories and links, truncated %d files, removed %d",
		s.Bytes>>20, s.Files, s.Made, s.Truncated, s.Removed+s.Gone)
	r.noteRate()
	r.rep.Info("Done!")
	return nil
}

// consistencyPoint says up to where the rewound server must replay, and on which timeline. after is the source's control
// file, read after the last page.
//
// A standby writes no page before its control file says that replay must go at least as far as that page. A primary
// writes no page before the WAL is flushed that far: its flush position. Stock asks for the insert position instead,
// which may lie behind a page header no WAL has been written after; a standby of an idle primary would then wait for
// ever.
func (r *run) consistencyPoint(ctx context.Context, after *pg.Control) (consistency, error) {
	end := consistency{control: after}

	if r.live == nil {
		if !after.SameAs(r.sourceCtl) {
			return end, fault.New("source system was modified while pg_rewind was running").
				Advise("The source's control file has changed: a server was started on %s.", r.cfg.SourceDir)
		}
		if after.State == pg.StateShutdownedInRecovery && after.MinRecoveryPoint > after.CheckPoint {
			// A stopped standby's pages may be newer than its last restart point. Stock forgets about them.
			end.lsn, end.tli = after.MinRecoveryPoint, after.CurrentTLI()
			return end, nil
		}
		end.lsn, end.tli = after.CheckPoint, after.TLI
		return end, nil
	}
	switch after.State {
	case pg.StateInArchiveRecovery:
		end.lsn, end.tli = after.MinRecoveryPoint, after.MinRecoveryPointTLI
		return end, nil
	case pg.StateInProduction:
		var err error
		end.lsn, err = r.live.FlushLSN(ctx)
		end.tli = after.CurrentTLI()
		return end, err
	default:
		return end, fault.New("source system was in unexpected state at end of rewind").
			Advise("Its state is \"%v\".", after.State)
	}
}

// secondWALPass copies again what the source has written to its WAL since it was listed, up to end, so that the rewound
// server can reach its consistency point with what it has. Stock leaves that to streaming, from a source that may have
// removed it by then.
func (r *run) secondWALPass(
	ctx context.Context, cp *copier.Copier, listed pg.LSN, end consistency, div divergence,
) (pg.History, error) {
	history := div.sourceHistory
	if r.live == nil || end.lsn <= listed {
		return history, nil
	}
	p := &plan.Plan{}
	if tli := end.control.CurrentTLI(); tli > history.TLI() {
		// The source was promoted meanwhile. Its new history file came after the listing.
		var err error
		if history, err = r.sourceHistory(ctx, tli); err != nil {
			return nil, err
		}
		if _, lsn, ok := pg.CommonAncestor(history, div.targetHistory); !ok || lsn < div.lsn {
			return nil, fault.New("source was promoted while pg_rewind was running, before the point of divergence").
				Advise("It left the common history at %v, before %v.", lsn, div.lsn)
		}
		p.Actions = append(p.Actions, plan.Action{
			Path: "pg_wal/" + pg.HistoryName(tli), Kind: plan.Copy, Type: pg.RegularFile, SourceSize: 1,
		})
	}
	segSize := r.target.SegSize
	for seg := listed.Seg(segSize); seg <= end.lsn.SegOfEnd(segSize); seg++ {
		p.Actions = append(p.Actions, plan.Action{
			Path:       "pg_wal/" + pg.SegmentName(history.SegmentTLI(seg, segSize), seg, segSize),
			Kind:       plan.Copy,
			Type:       pg.RegularFile,
			SourceSize: int64(segSize),
			KeepIfGone: true, // the first copy may be complete
		})
	}
	// What an earlier session copied of them, be it whole, is written over.
	if err := r.noteTouched(p); err != nil {
		return nil, err
	}
	return history, r.carryOut(ctx, cp, r.copySource(p), p)
}

// settle moves the consistency point to where a record ends, so that it can be reached with the WAL there is; and not
// before the divergence: pages that were not copied are as new as that.
func (r *run) settle(ctx context.Context, end consistency, div divergence) (consistency, error) {
	if r.live != nil && end.control.State == pg.StateInProduction {
		own := &walStores{store: archive.Chain{archive.NewPgWal(r.cfg.TargetDir, r.target.SegSize)}}
		lsn, err := scan.LastRecordEnd(ctx, own, r.format(), end.history, end.lsn)
		if err != nil {
			return end, err
		}
		end.lsn = lsn
	}
	if end.lsn < div.lsn {
		end.lsn, end.tli = div.lsn, end.history.TLIAt(div.lsn-1)
	}
	return end, nil
}

// restoredWAL is the segments that were restored from the archive, as a source of copies.
type restoredWAL struct{ spool *archive.Spool }

// Fetch implements copier.Source.
func (s restoredWAL) Fetch(
	ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error,
) error {
	buf := make([]byte, copier.MaxRange)
	for i, rng := range ranges {
		if err := ctx.Err(); err != nil {
			return err
		}
		path, ok := s.spool.Keep(filepath.Base(rng.Path))
		if !ok {
			return fault.New("could not open file \"%s\" restored from archive", rng.Path)
		}
		n, err := readRange(path, buf[:rng.Length], rng.Offset)
		if err != nil {
			return fault.Because(err, "could not read file \"%s\": %s", path, fault.M(err))
		}
		if err := emit(i, pg.FileChunk{Data: buf[:n]}); err != nil {
			return err
		}
	}
	return nil
}

func readRange(path string, buf []byte, offset int64) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	n, err := f.ReadAt(buf, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// backupLabel says where replay starts: at the last checkpoint both have in common; or at the source's own last
// checkpoint if its redo point lies before even that, as on a standby that has not replayed it yet.
func (r *run) backupLabel(f *facts) pg.BackupLabel {
	l := pg.BackupLabel{
		Redo:       f.scan.Redo,
		Checkpoint: f.scan.Checkpoint,
		TLI:        f.scan.CheckpointTLI,
		SegSize:    r.target.SegSize,
		WideLSN:    r.target.Version.WideLSN,
		Method:     pg.BackupMethodRewind,
		From:       pg.BackupFromStandby,
		StartTime:  now(),
	}
	if s := r.sourceCtl; s.Redo < l.Redo {
		l.Redo, l.Checkpoint, l.TLI = s.Redo, s.CheckPoint, s.TLI
	}
	return l
}

const (
	autoConf      = "postgresql.auto.conf"
	standbySignal = "standby.signal"
	// maxAutoConfBytes bounds what ALTER SYSTEM and its like have left.
	maxAutoConfBytes = 16 << 20
)

// nothingToRewind is what is done all the same when there is nothing to rewind: the recovery settings of -R, and a journal
// that is done with is removed.
func (r *run) nothingToRewind(ctx context.Context) error {
	if r.cfg.DryRun || !r.cfg.WriteRecoveryConf && !r.staleJournal {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	target, err := openTargetFS(r.cfg.TargetDir)
	if err != nil {
		return openDirError(r.cfg.TargetDir, err)
	}
	defer func() { _ = target.Close() }()
	if r.staleJournal {
		if err := r.dropJournal(target); err != nil {
			return err
		}
	}
	if !r.cfg.WriteRecoveryConf {
		return nil
	}
	return r.writeRecoverySettings(target)
}

// writeRecoverySettings makes the target a standby of the source: primary_conninfo goes to the end of
// postgresql.auto.conf, where the last setting wins, and standby.signal is created (WriteRecoveryConfig,
// fe_utils/recovery_gen.c).
func (r *run) writeRecoverySettings(target fsx.FS) error {
	conf, err := datadir.ReadFile(r.cfg.TargetDir, autoConf, maxAutoConfBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	conninfo, lost := r.live.PrimaryConnInfo()
	conf = withLastLine(conf, fmt.Appendf(nil, "primary_conninfo = '%s'\n", escapeSetting(conninfo)))
	if len(lost) > 0 {
		// The source's major is the target's, whose control file need not have been read if it was rewound before.
		r.rep.Warn(fmt.Sprintf("primary_conninfo is written without what PostgreSQL %d does not understand: %s",
			r.sourceCtl.Version.Major, strings.Join(lost, ", ")),
			"The rewind kept to it, the standby's connection to the source will not. Before the server is started, set in "+
				autoConf+" what can stand in for it (sslrootcert=FILE for system, sslcrl for sslcrldir), or let the source's "+
				"pg_hba.conf demand it.")
	}
	method := r.syncMethod()
	if err := copier.WriteDurably(target, method, autoConf, conf, r.modes.file); err != nil {
		return err
	}
	return copier.WriteDurably(target, method, standbySignal, nil, r.modes.file)
}

// withLastLine is a configuration file with a line at its end, as it is if it ends with that line already: the target's own,
// kept, of an earlier run. Whoever wrote the file by hand may have left out its last newline; the setting would then become
// a part of that line, or of a comment.
func withLastLine(conf, line []byte) []byte {
	rest, there := bytes.CutSuffix(conf, line)
	if whole := len(rest) == 0 || rest[len(rest)-1] == '\n'; there && whole {
		return conf
	}
	if len(conf) > 0 && conf[len(conf)-1] != '\n' {
		conf = append(conf, '\n')
	}
	return append(conf, line...)
}

// escapeSetting doubles what the configuration file's lexer would take for an end of the string or an escape
// (escape_single_quotes_ascii, port/quotes.c).
func escapeSetting(s string) string {
	return strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(s)
}
