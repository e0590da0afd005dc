package archive

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Segment is one WAL segment, open for reading. ReadAt may be called from several goroutines at once.
type Segment struct {
	file    *os.File
	size    int64
	suspect error // why its first page is not what it must be; the reader will find out by itself
	release func()
	once    sync.Once
}

// openSegment opens a file and finds out its size. Errors are those of package os, or errNotRegular.
func openSegment(path string) (*Segment, error) {
	// Without O_NONBLOCK, a named pipe would hold us until somebody writes to it.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		_ = f.Close() // only read from
		return nil, err
	}
	return &Segment{file: f, size: fi.Size()}, nil
}

var errNotRegular = errors.New("not a regular file")

// ReadAt reads as io.ReaderAt wants it. An error other than io.EOF is a *fault.Error with stock's text.
func (s *Segment) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.file.ReadAt(p, off)
	if err != nil && err != io.EOF {
		return n, fault.Because(err, "could not read file \"%s\": %s", s.Path(), fault.M(err)).
			Advise("After %d of %d bytes at offset %d.", n, len(p), off)
	}
	return n, err
}

// Close closes the file. The bytes a ReadAt returned stay the caller's. A second Close does nothing.
func (s *Segment) Close() (err error) {
	s.once.Do(func() {
		err = s.file.Close()
		if s.release != nil {
			s.release()
		}
	})
	return err
}

// Size is the file's size in bytes: the WAL segment size, for every store checks that.
func (s *Segment) Size() int64 { return s.size }

// Name is the segment's file name, 24 hexadecimal digits.
func (s *Segment) Name() string { return filepath.Base(s.file.Name()) }

// Path is where the file is, for messages.
func (s *Segment) Path() string { return s.file.Name() }
