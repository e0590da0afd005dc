package rewind

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// lockTarget makes sure that this is the only rewind of the target: an advisory lock of its directory (flock), which needs
// no file and ends with the process, however that ends. A file system without such locks is worked on without.
func lockTarget(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, openDirError(dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil, errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EINVAL):
		return f, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = f.Close() // only held for the lock
		return nil, fault.New("another rewind of \"%s\" is running", dir).
			Advise("It holds the lock of the directory (see \"fuser -v %s\" or lslocks). Wait for it, or stop it with SIGTERM: it can be run again.", dir).Ours()
	default:
		_ = f.Close()
		return nil, fault.Because(err, "could not lock directory \"%s\": %s", dir, fault.M(err))
	}
}
