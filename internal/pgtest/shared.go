package pgtest

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// sharedMemory is what a server shares with its processes, and leaves behind when it is killed: a file in memory, or a System V
// segment, of which a machine has 4096 at most. Until the environment ends it stays, as it would after a real crash.
type sharedMemory struct {
	path string // or
	id   int    // shmid
}

// sharedMemoryOf is the shared memory that a server has mapped and that other programs do not have.
func sharedMemoryOf(pid int) (found []sharedMemory) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil // it has ended by itself, and removed it
	}
	for line := range strings.Lines(string(maps)) {
		// "7f0c-7f0d rw-s 00000000 00:01 4711    /SYSV0000162e (deleted)": for a segment the inode is its number
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		switch path := fields[5]; {
		case strings.HasPrefix(path, "/dev/shm/PostgreSQL."):
			found = append(found, sharedMemory{path: path})
		case strings.HasPrefix(path, "/SYSV"):
			var id int
			if _, err := fmt.Sscan(fields[4], &id); err == nil {
				found = append(found, sharedMemory{id: id})
			}
		}
	}
	return found
}

// remove removes it, if that has not been done by a later start of the server on the same directory.
func (s sharedMemory) remove() {
	if s.path != "" {
		_ = os.Remove(s.path)
		return
	}
	_, _ = unix.SysvShmCtl(s.id, unix.IPC_RMID, nil)
}
