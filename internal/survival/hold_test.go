package survival

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// A program can be held at any of its system calls that change files: a seccomp filter makes each wait until the test says
// go on (seccomp_unotify(2)). A thread's filters are inherited by the children it starts, so that the filter is put on a
// thread of the test that ends with it. No privilege is needed, and none is left: the program has no_new_privs.

// changingCalls are the system calls at which programs are held.
var changingCalls = []uint32{
	unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNCFS, unix.SYS_RENAMEAT,
	unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_SYMLINKAT, unix.SYS_COPY_FILE_RANGE,
}

// held is a program that asks before it changes files.
type held struct {
	*pgtest.Process
	ear *ear

	fd     int    // of the filter's listener
	reply  []byte // to the call that it is held at
	pumped sync.WaitGroup
	caught bool
}

// Sizes of the two structures, and where their fields are: seccomp_notif and seccomp_notif_resp (linux/seccomp.h).
const (
	notifSize = 80
	respSize  = 24
	respFlags = 20

	ioctlRecv      = 0xc0502100
	ioctlSend      = 0xc0182101
	flagContinue   = 1
	filterListener = 1 << 3
	modeFilter     = 1
	retAllow       = 0x7fff0000
	retNotify      = 0x7fc00000
)

// hold begins a rewind and lets each of its changing calls wait until at has returned. It returns when at was true, and the
// program is held there; or when the program has ended.
func (s *stage) hold(w *way, target *pgtest.Cluster, at func() bool, args ...string) *held {
	s.Helper()
	return s.holdProgram(at, func(e *ear) *pgtest.Process {
		return target.BeginRewind(s.bin.Fastrewind, w.from, e, append(append([]string{}, arguments...), args...)...)
	})
}

func (s *stage) holdProgram(at func() bool, begin func(*ear) *pgtest.Process) *held {
	s.Helper()
	h := &held{ear: &ear{}}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		var err error
		if h.fd, err = filterThread(); err == nil {
			h.Process = begin(h.ear)
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		s.Fatalf("seccomp: %v", err)
	}
	s.Cleanup(func() {
		h.Signal(unix.SIGKILL)
		h.pumped.Wait()
		_ = unix.Close(h.fd)
	})
	for {
		call, err := h.next()
		if err != nil {
			s.Fatalf("seccomp: %v", err)
		}
		if call == nil {
			return h
		}
		if at() {
			h.reply, h.caught = call, true
			if err := settle(binary.NativeEndian.Uint32(call[8:])); err != nil {
				s.Fatalf("%v", err)
			}
			return h
		}
		h.answer(call)
	}
}

// settle waits until no thread of the program that a thread belongs to runs any more: others may have been let go just
// before, and a file can still be made, by openat, before its writer is held.
func settle(tid uint32) error {
	stats := fmt.Sprintf("/proc/%d/task/*/stat", tid)
	for began, quiet := time.Now(), 0; quiet < 10; time.Sleep(2 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			return fmt.Errorf("the program that is held has not come to rest")
		}
		threads, err := filepath.Glob(stats)
		if err != nil {
			return err
		}
		quiet++
		for _, name := range threads {
			// After the name in parentheses comes the state; a thread that has ended meanwhile does not run.
			text, err := os.ReadFile(name)
			if _, state, ok := strings.Cut(string(text), ") "); err == nil && ok && !strings.HasPrefix(state, "S") {
				quiet = 0
			}
		}
	}
	return nil
}

// holding reports whether the program waits.
func (h *held) holding() bool { return h.caught }

// release lets the program go on, to its end.
func (h *held) release() {
	h.answer(h.reply)
	h.pumped.Add(1)
	go func() { // ends with the program
		defer h.pumped.Done()
		for {
			call, err := h.next()
			if call == nil || err != nil {
				return
			}
			h.answer(call)
		}
	}()
}

// next waits for the next call and returns the answer to it, or nil if the program has ended.
func (h *held) next() ([]byte, error) {
	for {
		poll := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, patience)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return nil, err
		case n == 1 && poll[0].Revents&unix.POLLIN != 0:
		case h.ended():
			return nil, nil
		default:
			continue
		}
		var call [notifSize]byte
		if err := ioctl(h.fd, ioctlRecv, &call[0]); err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
				continue // killed, or interrupted by a signal, meanwhile
			}
			return nil, err
		}
		reply := make([]byte, respSize)
		copy(reply, call[:8]) // its number
		binary.NativeEndian.PutUint32(reply[respFlags:], flagContinue)
		return reply, nil
	}
}

// patience is how long the listener is waited for before it is looked whether the program still runs, in milliseconds. That
// nobody has the filter any more cannot be relied on: the runtime keeps the thread that had it if it is the process's first.
const patience = 20

func (h *held) ended() bool {
	select {
	case <-h.Done():
		return true
	default:
		return false
	}
}

// answer lets a call go on. There may be nobody who waits for it any more.
func (h *held) answer(reply []byte) { _ = ioctl(h.fd, ioctlSend, &reply[0]) }

func ioctl(fd int, request uintptr, arg *byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return errno
	}
	return nil
}

// filterThread puts the filter on the thread that calls, and returns its listener.
func filterThread() (int, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the call's number
	for i, nr := range changingCalls {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(len(changingCalls) - i)})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: retAllow},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: retNotify})
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, modeFilter, filterListener, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return 0, errno
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// waitFor waits until a held program says that it has received a signal, which it can say although it is held.
func (h *held) waitFor(sig unix.Signal) {
	for name := unix.SignalName(sig) + " received"; !h.ear.heard(name); {
		select {
		case <-h.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}
