package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// Cold runs: no byte of a file of source or target is in memory when a program starts. What the kernel knows about names and
// sizes stays, and so do the programs themselves: to drop these takes root, and hits everybody on the machine.

// coldness is what was out of memory before a run.
type coldness struct {
	Bytes int64 `json:"bytes"` // of all files of source and target
	Cold  int64 `json:"cold"`  // of these, not in memory
}

func (c coldness) share() float64 { return quotient(float64(c.Cold), float64(c.Bytes)) }

// coldEnough is the share that must be out of memory: a running server touches a page now and then.
const coldEnough = 0.98

// rest makes the working copy pristine again, the machine quiet, and the caches what the scenario wants: warm, which is
// reported as nil, or cold.
func (s *scenario) rest(tb pgtest.TB, p *pair) *coldness {
	if !s.cold {
		rest(tb, p)
		return nil
	}
	err := p.mirror.restore()
	if err == nil {
		err = settle(p.env.Root) // what is not written yet cannot be dropped
	}
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	var c coldness
	const attempts = 5
	for i := range attempts {
		if c, err = chill(p.source.DataDir(), p.work.DataDir()); err != nil {
			tb.Fatalf("bench: %v", err)
		}
		if c.share() >= coldEnough {
			return &c
		}
		if i < attempts-1 { // pages that somebody has in hand are not dropped
			err = settle(p.env.Root)
		}
		if err != nil {
			tb.Fatalf("bench: %v", err)
		}
	}
	tb.Fatalf("bench: scenario %s: of %s in source and target only %s could be dropped from memory; is %s on a disk? (-colddir)",
		s.name, size(c.Bytes), size(c.Cold), p.env.Root)
	return nil
}

// chill drops all files below directories from memory, which must be written already, and looks how much of them is out of it.
func chill(dirs ...string) (coldness, error) {
	var sum coldness
	err := eachFile(dirs, dropFile)
	if err == nil {
		err = eachFile(dirs, func(f *os.File, size int64) error {
			warm, err := resident(f, size)
			sum.Bytes += size
			sum.Cold += size - warm
			return err
		})
	}
	return sum, err
}

// dropFile asks the kernel to forget a file's contents.
func dropFile(f *os.File, _ int64) error {
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return &fs.PathError{Op: "posix_fadvise", Path: f.Name(), Err: err}
	}
	return nil
}

// eachFile calls f with every file below directories that is not empty, opened for reading, and its size. A running server
// may remove one meanwhile.
func eachFile(dirs []string, f func(*os.File, int64) error) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return ignoreGone(err)
			}
			file, err := os.Open(path)
			if err != nil {
				return ignoreGone(err)
			}
			defer func() { _ = file.Close() }() // only read from
			info, err := file.Stat()
			if err != nil || info.Size() == 0 {
				return err
			}
			return f(file, info.Size())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// resident is how many bytes of a file are in memory (mincore(2); the kernel tells it of files that one could write).
func resident(f *os.File, size int64) (int64, error) {
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_NONE, unix.MAP_SHARED)
	if err != nil {
		return 0, &fs.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	page := int64(os.Getpagesize())
	pages := make([]byte, (size+page-1)/page)
	_, _, errno := syscall.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0])))
	if err := unix.Munmap(mapped); err != nil {
		return 0, &fs.PathError{Op: "munmap", Path: f.Name(), Err: err}
	}
	if errno != 0 {
		return 0, &fs.PathError{Op: "mincore", Path: f.Name(), Err: errno}
	}
	var n int64
	for i, flags := range pages {
		if flags&1 != 0 {
			n += min(page, size-int64(i)*page)
		}
	}
	return n, nil
}

// onDisk tells whether files in a directory can be cold at all.
func onDisk(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC, nil
}

// chooseColdDir is where the clusters of cold scenarios are made: where the user says; else where all of them are; else, if
// that is in memory, in the first usual place that is not.
func chooseColdDir(given, dir string) (string, error) {
	if given != "" {
		ok, err := onDisk(given)
		if err == nil && !ok {
			err = fmt.Errorf("-colddir is %s, which is in memory (tmpfs): files there cannot be cold; give a directory on a disk", given)
		}
		return given, err
	}
	for _, usual := range []string{dir, os.TempDir(), "/var/tmp"} {
		ok, err := onDisk(cmp.Or(usual, os.Getenv("PGTEST_DIR"), "/tmp")) // as pgtest chooses
		if err == nil && ok {
			return usual, nil
		}
	}
	return "", errors.New("the directory for clusters is in memory (tmpfs), and so are the usual places for temporary files: " +
		"files there cannot be cold; give a directory on a disk by -colddir, or leave out the scenarios cold-dir and cold-server")
}

// dirOf is where a scenario's clusters are made.
func (c *config) dirOf(s scenario) string {
	if s.cold {
		return c.coldDir
	}
	return c.dir
}

// withColdness adds to what a scenario is about where it ran and how cold that was, at the warmest start of all.
func withColdness(about, fileSystem string, samples [][]sample) string {
	var least *coldness
	for _, list := range samples {
		for _, m := range list {
			if m.Cold != nil && (least == nil || m.Cold.share() < least.share()) {
				least = m.Cold
			}
		}
	}
	if least == nil {
		return about
	}
	return fmt.Sprintf("%s; on %s; of %s in source and target at least %.1f%% not in memory before each run",
		about, fileSystem, size(least.Bytes), 100*least.share())
}
