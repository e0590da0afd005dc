package rewind

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// The start guard: from the first modification to the last no server can be started on the target, by two locks that
// have nothing to do with each other.
//
//   - global/pg_control has a version that no server accepts (pg.Control.Guarded). It is there, and true in all else,
//     because HA managers read it before they call pg_rewind again; a missing one would keep Patroni from ever doing so.
//   - backup_label is a text that no server can parse: it ends with "invalid data in file "backup_label"" on every major
//     (read_backup_label, xlogrecovery.c). It holds when somebody puts an old pg_control back, as CloudNativePG does after
//     a pg_rewind that failed. And it is what a person who looks around finds.

// maxLabelBytes bounds a backup_label; a server's has a few hundred bytes.
const maxLabelBytes = 1 << 20

// guardLabel is the text in backup_label. The first line must not be a START WAL LOCATION.
func guardLabel(program, systemID string) []byte {
	return fmt.Appendf(nil, `This data directory is half rewound. No server can be started on it, and none must be.

%s was interrupted here, or is at work. Run the same command again: it goes on where it stopped, against the same
source or another server of the same system (%s), and needs no WAL of this directory any more.
What it needs to know is in fastrewind.journal; do not remove that file. "fastrewind journal" prints it.

Do not remove this file either, and do not put another pg_control in place: the files here are of two histories, and a
server would serve both. If the rewind cannot be finished, take a new base backup, or, if it was run with --keep-undo,
put everything back with "fastrewind undo".
`, program, systemID)
}

// isGuardLabel reports whether a backup_label is ours.
func isGuardLabel(label []byte) bool {
	first, _, _ := bytes.Cut(guardLabel("", ""), []byte("\n"))
	return bytes.HasPrefix(label, first)
}

// guard puts both locks on. It may be called on a target that has them.
func (r *run) guard(target fsx.FS) error {
	label := guardLabel("fastrewind", fmt.Sprintf("system identifier %d", r.target.SystemID))
	if err := copier.WriteDurably(target, r.syncMethod(), pg.BackupLabelName, label, r.modes.file); err != nil {
		return err
	}
	return copier.WriteDurably(target, r.syncMethod(), controlFile, r.target.Guarded(), r.modes.file)
}

// unguard takes the locks off again, before anything else was changed.
func (r *run) unguard(target fsx.FS) error {
	err := copier.WriteDurably(target, r.syncMethod(), controlFile, r.target.Raw(), r.modes.file)
	if err != nil {
		return err
	}
	if r.label != nil {
		return copier.WriteDurably(target, r.syncMethod(), pg.BackupLabelName, r.label, r.modes.file)
	}
	if err := target.Remove(pg.BackupLabelName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Because(err, "could not remove file \"%s\": %s", target.Path(pg.BackupLabelName), fault.M(err))
	}
	if r.syncMethod() == copier.SyncNone {
		return nil
	}
	return target.SyncDir(".")
}

// readLabel reads the target's backup_label; nil if there is none.
func (r *run) readLabel() ([]byte, error) {
	label, err := datadir.ReadFile(r.cfg.TargetDir, pg.BackupLabelName, maxLabelBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return label, err
}
