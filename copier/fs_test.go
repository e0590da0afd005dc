package copier

import (
	"fmt"
	"io/fs"
	"sync"

	"github.com/fastrewind/fastrewind/internal/fsx"
)

// spyFS is a real target that writes down every operation and can be told to fail one.
type spyFS struct {
	fsx.FS
	// before, if not nil, is asked before each operation, with its number from 1; an error is the operation's result.
	before func(n int, op string) error

	mu   sync.Mutex
	ops  []string
	open map[string]int // by name
}

func (s *spyFS) note(format string, args ...any) error {
	op := fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.ops = append(s.ops, op)
	n := len(s.ops)
	s.mu.Unlock()
	if s.before != nil {
		return s.before(n, op)
	}
	return nil
}

func (s *spyFS) stillOpen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, k := range s.open {
		n += k
	}
	return n
}

func (s *spyFS) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	if err := s.note("open %s", name); err != nil {
		return nil, err
	}
	f, err := s.FS.OpenFile(name, how, mode)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]int{}
	}
	s.open[name]++
	return &spyFile{f, s, name}, nil
}

func (s *spyFS) Mkdir(name string, mode fs.FileMode) error {
	if err := s.note("mkdir %s", name); err != nil {
		return err
	}
	return s.FS.Mkdir(name, mode)
}

func (s *spyFS) Symlink(target, name string) error {
	if err := s.note("symlink %s", name); err != nil {
		return err
	}
	return s.FS.Symlink(target, name)
}

func (s *spyFS) Rename(oldname, newname string) error {
	if err := s.note("rename %s %s", oldname, newname); err != nil {
		return err
	}
	return s.FS.Rename(oldname, newname)
}

func (s *spyFS) Remove(name string) error {
	if err := s.note("remove %s", name); err != nil {
		return err
	}
	return s.FS.Remove(name)
}

func (s *spyFS) SyncDir(name string) error {
	if err := s.note("syncdir %s", name); err != nil {
		return err
	}
	return s.FS.SyncDir(name)
}

func (s *spyFS) SyncFS() error {
	if err := s.note("syncfs"); err != nil {
		return err
	}
	return s.FS.SyncFS()
}

type spyFile struct {
	fsx.File
	fs   *spyFS
	name string
}

func (f *spyFile) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.fs.note("write %s %d+%d", f.name, offset, len(p)); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, offset)
}

func (f *spyFile) Truncate(size int64) error {
	if err := f.fs.note("truncate %s %d", f.name, size); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *spyFile) Size() (int64, error) {
	if err := f.fs.note("size %s", f.name); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f *spyFile) StartWriteback(offset, n int64) error {
	if err := f.fs.note("writeback %s", f.name); err != nil {
		return err
	}
	return f.File.StartWriteback(offset, n)
}

func (f *spyFile) Sync() error {
	if err := f.fs.note("sync %s", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

// Close closes, as close(2) does, even when it fails.
func (f *spyFile) Close() error {
	noted := f.fs.note("close %s", f.name)
	f.fs.mu.Lock()
	f.fs.open[f.name]--
	f.fs.mu.Unlock()
	if err := f.File.Close(); err != nil {
		return err
	}
	return noted
}
