package copier

import (
	"errors"
	"io/fs"
	"path"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// TempSuffix ends the name of the temporary file of WriteDurably, which lies beside the file itself. One that a crash left
// behind is in no source, so the next rewind's plan removes it.
const TempSuffix = plan.TempSuffix

// WriteDurably replaces the file name, or makes it with mode, such that after a crash at any moment there is either the old
// file (or none) or the new one, complete: temporary file, fsync, rename, fsync of the directory. When it returns nil the
// new one is durable. With SyncNone the fsyncs are left out; on ext4 one fsync would wait for all data written before.
//
// It is for the small files that end a rewind: backup_label, the recovery settings, and last pg_control.
func WriteDurably(target fsx.FS, method SyncMethod, name string, data []byte, mode fs.FileMode) (err error) {
	if !fsx.Local(name) {
		return unsafePath(fsx.ErrUnsafe, `target file path is unsafe for open: "%s"`, name)
	}
	temp := name + TempSuffix
	// What an earlier run left there may have another mode, or be a link.
	if err := target.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return openFault(target, err, temp)
	}
	f, err := target.OpenFile(temp, fsx.CreateNew, mode)
	if err != nil {
		return openFault(target, err, temp)
	}
	if err := writeAll(target, f, method, temp, data); err != nil {
		// Best effort: the error at hand says more, and the name is no obstacle to the next run.
		_ = target.Remove(temp)
		return err
	}
	if err := target.Rename(temp, name); err != nil {
		_ = target.Remove(temp)
		return fault.Because(err, `could not rename file "%s" to "%s": %s`, target.Path(temp), target.Path(name), fault.M(err))
	}
	if method == SyncNone {
		return nil
	}
	if err := target.SyncDir(path.Dir(name)); err != nil {
		return syncFault(err, target.Path(path.Dir(name)))
	}
	return nil
}

// writeAll fills and closes f.
func writeAll(target fsx.FS, f fsx.File, method SyncMethod, name string, data []byte) (err error) {
	defer func() {
		if closeErr := f.Close(); closeErr != nil && err == nil {
			err = fault.Because(closeErr, `could not close file "%s": %s`, target.Path(name), fault.M(closeErr))
		}
	}()
	if _, err := f.WriteAt(data, 0); err != nil {
		return fault.Because(err, `could not write file "%s": %s`, target.Path(name), fault.M(err))
	}
	if method == SyncNone {
		return nil
	}
	if err := f.Sync(); err != nil {
		return syncFault(err, target.Path(name))
	}
	return nil
}

func openFault(target fsx.FS, err error, name string) error {
	if errors.Is(err, fsx.ErrUnsafe) {
		return unsafePath(err, `target file path is unsafe for open: "%s"`, name)
	}
	return fault.Because(err, `could not open file "%s": %s`, target.Path(name), fault.M(err))
}
