package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// settle leaves one run's dirty pages, freed blocks and journal to nobody else: everything on the file system of dir is
// written, and the disk is given a moment.
func settle(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only a handle
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	const quiet, longest, pause = 4 << 20, 3 * time.Second, 50 * time.Millisecond
	for end := time.Now().Add(longest); underWriteback() > quiet && time.Now().Before(end); {
		time.Sleep(pause)
	}
	time.Sleep(pause)
	return nil
}

// underWriteback is how many bytes the kernel is writing to disks now.
func underWriteback() int64 {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(info)) {
		if kb, ok := strings.CutPrefix(line, "Writeback:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kb), " kB"), 10, 64) // 0 is as good as unknown
			return n << 10
		}
	}
	return 0
}

// warm reads every file below the directories, so that no run has to wait for the disk where another did not.
func warm(dirs ...string) error {
	paths := make(chan string)
	errs := make(chan error, 2)
	var readers sync.WaitGroup
	for range cap(errs) {
		readers.Go(func() {
			buf := make([]byte, 256<<10)
			var failed error
			for path := range paths {
				if failed == nil {
					failed = readThrough(path, buf)
				}
			}
			errs <- failed
		})
	}
	var walkErr error
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !linked(d) {
				paths <- path
			}
			return err
		})
		if walkErr == nil {
			walkErr = err
		}
	}
	close(paths)
	readers.Wait()
	close(errs)
	for err := range errs {
		if walkErr == nil {
			walkErr = err
		}
	}
	return walkErr
}

func readThrough(path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	for {
		if _, err := f.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
