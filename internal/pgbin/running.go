package pgbin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// CheckStopped returns an error if a server, or what a dead one left running, uses the data directory. It looks where a
// starting server looks, at postmaster.pid, and believes what that believes (CreateLockFile, miscinit.c):
//
//   - no file, or a process that is gone, or one of another user: no server, as far as the file goes. A number that is
//     our own or our parent's is from before a container's restart.
//   - a living process of ours: a server, unless it can be seen that its working directory is another one. Stock's servers
//     do not look that closely, and refuse to start.
//   - the shared memory noted in the file is attached by somebody: the server was killed, but backends are still there,
//     perhaps writing.
//
// A server on another host, on storage that is shared, cannot be seen.
func CheckStopped(dataDir string) error {
	path := filepath.Join(dataDir, "postmaster.pid")
	lock, err := readLock(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if lock.alive(dataDir) {
		what := "the server"
		if lock.standalone {
			what = "the single-user server"
		}
		return fault.New("target server is running (pid %d)", lock.pid).
			Advise("Its lock file is %s. Stop %s first, with pg_ctl stop -m fast or through what manages it; a cluster in use cannot be rewound.", path, what).
			Ours()
	}
	if lock.shmInUse(dataDir) {
		return fault.New("pre-existing shared memory block (key %d, ID %d) is still in use", lock.shmKey, lock.shmID).
			WithHint("Terminate any old server processes associated with data directory \"%s\".", dataDir).
			Advise("The target's server (pid %d, from %s) is gone, but processes it started are still there and may write.", lock.pid, path).
			Ours()
	}
	return nil
}

// lockFile is what postmaster.pid says (pidfile.h).
type lockFile struct {
	pid           int
	standalone    bool // written by a single-user server
	shmKey, shmID int  // of its System V shared memory; meaningful if hasShm
	hasShm        bool
}

// The lines of postmaster.pid, counted from 0, and how much of it is read (LOCK_FILE_LINE_*, pidfile.h).
const (
	lockLinePID  = 0
	lockLineShm  = 6
	maxLockBytes = 8192
)

func readLock(path string) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Because(err, "could not open lock file \"%s\": %s", path, fault.M(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLockBytes))
	if err != nil {
		return nil, fault.Because(err, "could not read lock file \"%s\": %s", path, fault.M(err))
	}
	if len(text) == 0 {
		return nil, fault.New("lock file \"%s\" is empty", path).
			WithHint("Either another server is starting, or the lock file is the remnant of a previous server startup crash.")
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[lockLinePID]))
	// kill(2) gives numbers below 1 another meaning.
	if err != nil || pid == 0 || pid < -1<<31 || pid > 1<<31-1 {
		return nil, fault.New("bogus data in lock file \"%s\": \"%s\"", path, printable(lines[lockLinePID])).
			Advise("Its first line should be the number of the server's process. If no server is running on this directory, remove the file.").
			Ours()
	}
	lock := &lockFile{pid: pid}
	if pid < 0 {
		lock.pid, lock.standalone = -pid, true
	}
	if len(lines) > lockLineShm {
		var key, id uint32
		if n, _ := fmt.Sscan(lines[lockLineShm], &key, &id); n == 2 {
			lock.shmKey, lock.shmID, lock.hasShm = int(key), int(id), true
		}
	}
	return lock, nil
}

// printable shortens and cleans what a file held instead of a number.
func printable(s string) string {
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return strings.Trim(strconv.Quote(s), `"`)
}

// alive reports whether the process is there and is not known to be something else.
func (l *lockFile) alive(dataDir string) bool {
	if l.pid == os.Getpid() || l.pid == os.Getppid() {
		return false
	}
	// EPERM: a process of another user cannot be the server of a directory that is ours.
	if err := syscall.Kill(l.pid, 0); err != nil {
		return false
	}
	// Dead, but not yet collected by its parent, which takes for ever in a container without an init. To say "running"
	// would be wrong, although a starting server does so.
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.pid)); err == nil && strings.Contains(string(stat), ") Z ") {
		return false
	}
	// A server's working directory is its data directory (ChangeToDataDir). Where that cannot be read (no /proc), the
	// process is taken for the server, as a starting server would.
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", l.pid))
	if err != nil {
		return true
	}
	dir, err := os.Stat(dataDir)
	return err != nil || os.SameFile(cwd, dir)
}

// The header of PostgreSQL's shared memory, struct PGShmemHeader (storage/pg_shmem.h): it begins with the magic and ends with
// the device and the inode of the data directory, 8 bytes each. 19 has one pointer less before them, and often a segment that
// is no longer than the header. Checked with 13 to 19.
const (
	shmMagic       = 679834894
	shmHeaderBytes = 48 // the shortest
)

var shmDeviceOffsets = []int{40, 32} // up to 18, from 19 on

// shmInUse reports whether somebody is attached to the shared memory the lock file names, and it is this directory's. After
// a restart of the machine the same number may belong to any cluster, so the header is asked (PGSharedMemoryAttach,
// sysv_shmem.c). What cannot be looked at belongs to another user, so to another cluster.
func (l *lockFile) shmInUse(dataDir string) bool {
	if !l.hasShm {
		return false
	}
	var desc unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(l.shmID, unix.IPC_STAT, &desc); err != nil || desc.Nattch == 0 || desc.Segsz < shmHeaderBytes {
		return false
	}
	mem, err := unix.SysvShmAttach(l.shmID, 0, unix.SHM_RDONLY)
	if err != nil {
		return false
	}
	defer func() { _ = unix.SysvShmDetach(mem) }()
	var dir unix.Stat_t
	if err := unix.Stat(dataDir, &dir); err != nil || len(mem) < shmHeaderBytes {
		return false
	}
	native := binary.NativeEndian
	return native.Uint32(mem) == shmMagic && slices.ContainsFunc(shmDeviceOffsets, func(at int) bool {
		return at+16 <= len(mem) && native.Uint64(mem[at:]) == uint64(dir.Dev) && native.Uint64(mem[at+8:]) == dir.Ino
	})
}
