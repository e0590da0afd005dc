package undo

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
)

// syncSpy knows what a crash could still take away: data that was written and not synced, names that were made or removed
// in a directory not synced since.
type syncSpy struct {
	fsx.FS
	// onRename is called before each renaming.
	onRename func(oldname, newname string)

	mu          sync.Mutex
	files, dirs map[string]bool
}

func newSyncSpy(inner fsx.FS) *syncSpy {
	return &syncSpy{FS: inner, files: map[string]bool{}, dirs: map[string]bool{}, onRename: func(_, _ string) {}}
}

func (s *syncSpy) note(in map[string]bool, name string, dirty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dirty {
		in[name] = true
	} else {
		delete(in, name)
	}
}

// unsafe lists what is not durable, except in the directory named.
func (s *syncSpy) unsafe(except string) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.files {
		out = append(out, "data of "+name)
	}
	for name := range s.dirs {
		if name != except {
			out = append(out, "names in "+name)
		}
	}
	return out
}

func (s *syncSpy) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	_, statErr := s.Lstat(name)
	f, err := s.FS.OpenFile(name, how, mode)
	if err != nil {
		return nil, err
	}
	if statErr != nil {
		s.note(s.dirs, path.Dir(name), true)
	}
	return &spyFile{f, s, name}, nil
}

func (s *syncSpy) Mkdir(name string, mode fs.FileMode) error {
	s.note(s.dirs, path.Dir(name), true)
	return s.FS.Mkdir(name, mode)
}

func (s *syncSpy) Symlink(target, name string) error {
	s.note(s.dirs, path.Dir(name), true)
	return s.FS.Symlink(target, name)
}

func (s *syncSpy) Rename(oldname, newname string) error {
	s.onRename(oldname, newname)
	s.note(s.dirs, path.Dir(newname), true)
	s.mu.Lock()
	if s.files[oldname] {
		delete(s.files, oldname)
		s.files[newname] = true
	}
	s.mu.Unlock()
	return s.FS.Rename(oldname, newname)
}

func (s *syncSpy) Remove(name string) error {
	err := s.FS.Remove(name)
	if err == nil {
		s.note(s.files, name, false)
		s.note(s.dirs, name, false)
		s.note(s.dirs, path.Dir(name), true)
	}
	return err
}

func (s *syncSpy) SyncDir(name string) error {
	s.note(s.dirs, name, false)
	return nil // to be told is enough
}

type spyFile struct {
	fsx.File
	spy  *syncSpy
	name string
}

func (f *spyFile) WriteAt(p []byte, offset int64) (int, error) {
	f.spy.note(f.spy.files, f.name, true)
	return f.File.WriteAt(p, offset)
}

func (f *spyFile) Truncate(size int64) error {
	f.spy.note(f.spy.files, f.name, true)
	return f.File.Truncate(size)
}

func (f *spyFile) Sync() error {
	f.spy.note(f.spy.files, f.name, false)
	return nil
}

// TestDurable: a part is durable before it has its name, and that before Save returns; what Apply puts back is durable
// before the control file that vouches for it, and the guard before anything else is changed.
func TestDurable(t *testing.T) {
	for seed := range uint64(pick(t, 3, 8)) {
		w := newWorld(t, 300+seed)
		p := w.plan()
		if p == nil {
			continue
		}
		var saved *syncSpy
		renamed := false
		_, err := Save(t.Context(), w.input(p), w.undo, Options{Wrap: func(inner fsx.FS) fsx.FS {
			saved = newSyncSpy(inner)
			saved.onRename = func(_, newname string) {
				if strings.HasPrefix(newname, "part-") {
					renamed = true
					if bad := saved.unsafe("."); len(bad) > 0 {
						t.Errorf("seed %d: the part gets its name before these are durable: %v", seed, bad)
					}
				}
			}
			return saved
		}})
		must(t, err)
		if bad := saved.unsafe(""); len(bad) > 0 || !renamed {
			t.Errorf("seed %d: not durable after Save: %v", seed, bad)
		}
		must(t, w.rewind(p, unlimited, unlimited))

		var target *syncSpy
		controls := 0
		err = w.apply(ApplyOptions{Wrap: func(inner fsx.FS) fsx.FS {
			target = newSyncSpy(inner)
			target.onRename = func(_, newname string) {
				if newname != controlName {
					return
				}
				if controls++; controls == 2 {
					if bad := target.unsafe(path.Dir(controlName)); len(bad) > 0 {
						t.Errorf("seed %d: the control file comes back before these are durable: %v", seed, bad)
					}
				}
			}
			return target
		}})
		must(t, err)
		if bad := target.unsafe(""); len(bad) > 0 || controls != 2 {
			t.Errorf("seed %d: not durable after Apply, %d control files: %v", seed, controls, bad)
		}
		w.same()
	}
}

// TestGuardFirst: no operation that changes anything comes before the guard, and the rewind's own files go before
// anything is put back.
func TestGuardFirst(t *testing.T) {
	w := rewound(t)
	var ops []string
	must(t, w.apply(ApplyOptions{Jobs: 1, Wrap: func(inner fsx.FS) fsx.FS { return &opSpy{FS: inner, ops: &ops} }}))
	want := []string{
		"remove global/pg_control.fastrewind.tmp", "open global/pg_control.fastrewind.tmp", "rename global/pg_control",
		"remove backup_label.fastrewind.tmp", "open backup_label.fastrewind.tmp", "rename backup_label", "remove " + journal,
	}
	if len(ops) < len(want) || fmt.Sprint(ops[:len(want)]) != fmt.Sprint(want) {
		t.Errorf("%q", ops[:min(len(ops), len(want))])
	}
	if last := ops[len(ops)-1]; last != "rename global/pg_control" {
		t.Errorf("the last is %q", last)
	}
}

type opSpy struct {
	fsx.FS
	ops *[]string
}

func (s *opSpy) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	*s.ops = append(*s.ops, "open "+name)
	return s.FS.OpenFile(name, how, mode)
}

func (s *opSpy) Mkdir(name string, mode fs.FileMode) error {
	*s.ops = append(*s.ops, "mkdir "+name)
	return s.FS.Mkdir(name, mode)
}

func (s *opSpy) Symlink(target, name string) error {
	*s.ops = append(*s.ops, "symlink "+name)
	return s.FS.Symlink(target, name)
}

func (s *opSpy) Rename(oldname, newname string) error {
	*s.ops = append(*s.ops, "rename "+newname)
	return s.FS.Rename(oldname, newname)
}

func (s *opSpy) Remove(name string) error {
	*s.ops = append(*s.ops, "remove "+name)
	return s.FS.Remove(name)
}
