package walcheck

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// publish lets fill write a temporary file beside path, and gives it that name when all is well. Without force, a file
// that is there already stays, also if it came meanwhile.
func publish(path string, force bool, fill func(*os.File) error) (err error) {
	if _, err := os.Lstat(path); err == nil && !force {
		return exists(path) // before anything is fetched
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fault.Because(err, "could not create a file beside \"%s\": %s", path, fault.M(err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name())))
		}
	}()
	err = fill(f)
	if err == nil {
		if err = f.Sync(); err != nil {
			err = fault.Because(err, "could not fsync file \"%s\": %s", f.Name(), fault.M(err))
		}
	}
	if cerr := f.Close(); cerr != nil && err == nil {
		err = fault.Because(cerr, "could not close file \"%s\": %s", f.Name(), fault.M(cerr))
	}
	if err != nil {
		return err
	}
	return rename(f.Name(), path, force)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func rename(from, to string, force bool) error {
	var err error
	if force {
		err = os.Rename(from, to)
	} else {
		err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			// A file system that cannot; a link does not replace anything either.
			if err = os.Link(from, to); err == nil {
				err = os.Remove(from)
			}
		}
	}
	if errors.Is(err, fs.ErrExist) && !force {
		return exists(to)
	}
	if err != nil {
		return fault.Because(err, "could not rename file \"%s\" to \"%s\": %s", from, to, fault.M(err))
	}
	return nil
}

func exists(path string) error {
	return fault.Because(fs.ErrExist, "file \"%s\" is there already", path).Advise("Give another name, or --force to replace it.")
}
