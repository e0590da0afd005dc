package fsx

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// StartWriteback implements File. Only SYNC_FILE_RANGE_WRITE: the waiting flags would consume a write error that the
// descriptor's Sync has to see.
func (f *file) StartWriteback(offset, n int64) error {
	err := control(f.File, func(fd int) error {
		return unix.SyncFileRange(fd, offset, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	// Some containers' kernels and filters, file systems and special files do not do it; the Sync that follows does not need it.
	for _, none := range []error{unix.ENOSYS, unix.EPERM, unix.EOPNOTSUPP, unix.ESPIPE} {
		if errors.Is(err, none) {
			return nil
		}
	}
	if err != nil {
		return &fs.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
	}
	return nil
}

func syncfs(dir *os.File) error {
	if err := control(dir, unix.Syncfs); err != nil {
		return &fs.PathError{Op: "syncfs", Path: dir.Name(), Err: err}
	}
	return nil
}
