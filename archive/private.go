package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// private is a directory of our own, mode 0700, outside the target. It is locked (flock) for as long as its owner lives:
// a directory of that name without a lock was left by a run that was killed.
type private struct {
	path string
	lock *os.File
}

const privatePrefix = ".fastrewind-wal-"

// newPrivate makes the directory: in dir if that is given; else beside dataDir if possible, so that it is on a file system
// of which the user knows that it holds a cluster; else where temporary files go. Directories of dead runs that lie there
// are removed.
func newPrivate(dataDir, dir string) (*private, error) {
	home, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fault.Because(err, "could not get current working directory: %s", fault.M(err))
	}
	if real, err := filepath.EvalSymlinks(home); err == nil {
		home = real
	}
	parents := []string{filepath.Dir(home), os.TempDir()}
	if dir != "" {
		parents = []string{dir}
	}
	for _, parent := range parents {
		removeStale(parent)
	}
	tried := `"` + strings.Join(parents, `" and "`) + `"`
	var last error
	for _, parent := range parents {
		parent, err := filepath.Abs(parent)
		if err != nil || !plain(parent) || within(parent, home) {
			continue
		}
		p, err := makePrivate(parent)
		if err == nil {
			return p, nil
		}
		last = err
	}
	if last == nil {
		return nil, fault.New("no usable directory to restore WAL into: %s will not do", tried).
			Advise("Its name would need quoting in a shell, or it lies in the target's data directory. Set TMPDIR to another directory.").
			Ours()
	}
	return nil, fault.Because(last, "could not create directory to restore WAL into: %s", fault.M(last)).
		Advise("Tried %s. Set TMPDIR to a directory with room for the missing WAL.", tried).Ours()
}

// plain reports whether path can be put into a command without quotes, as %p is. A blank in it would break commands that
// work for the server, where %p is relative.
func plain(path string) bool { return !strings.ContainsAny(path, " \t\n\"'`$&|;<>()*?[]#~%\\!{}") }

// within reports whether path is home or lies in it, by whatever way it is reached.
func within(path, home string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path == home || strings.HasPrefix(path, home+"/")
}

func makePrivate(parent string) (*private, error) {
	for {
		path, err := os.MkdirTemp(parent, privatePrefix)
		if err != nil {
			return nil, err
		}
		lock, held, err := lockDir(path)
		switch {
		case err == nil && held:
			return &private{path, lock}, nil
		case err == nil || errors.Is(err, fs.ErrNotExist):
			continue // another run took it for a dead one's before we had the lock
		default:
			_ = os.Remove(path)
			return nil, err
		}
	}
}

// lockDir locks a directory; held is false if somebody else has the lock, or has removed the directory. On file systems
// without locks every directory counts as held by whoever made it.
func lockDir(path string) (lock *os.File, held bool, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = f.Close()
		return nil, false, nil
	case err != nil:
		return f, true, nil //nolint:nilerr // see above
	}
	ours, err := f.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(path); err == nil && os.SameFile(ours, there) {
			return f, true, nil
		}
	}
	_ = f.Close()
	return nil, false, nil // it is no longer there
}

// removeStale removes the directories of dead runs of the same user. A failure is of no consequence for this run.
func removeStale(parent string) {
	found, err := filepath.Glob(filepath.Join(escapeGlob(parent), privatePrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range found {
		fi, err := os.Lstat(path)
		if err != nil || !fi.IsDir() {
			continue
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int64(st.Uid) != int64(os.Geteuid()) {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = unix.Close(fd)
	}
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// free is how many bytes may still be written there.
func (p *private) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// close removes the directory with all that is in it.
func (p *private) close() error {
	err := removeAll(p.path)
	_ = p.lock.Close() // the lock goes with it
	if err != nil {
		return fault.Because(err, "could not remove directory \"%s\": %s", p.path, fault.M(err)).
			Advise("It holds WAL restored for this run only. Remove it by hand.")
	}
	return nil
}

// removeAll removes a directory into which a program in the background may still put a file while it is being emptied.
func removeAll(path string) (err error) {
	for range 10 {
		if err = os.RemoveAll(path); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}
