// Package crashfs is an instrument for tests of what writes through fsx: it numbers every operation on a target, lets any
// one of them fail, stops the world at any one of them, and writes down enough to say afterwards what a disk would hold
// if the power had failed at any moment.
//
//	crashfs.go  the wrapper around a real target: numbers, faults, the record
//	op.go       operations and the log of them
//	disk.go     what a log leaves on a disk: names, inodes, and which of their changes are durable
//	keep.go     which of the changes that are not durable survive
//	tree.go     directory trees in memory
//
// One recorded run is enough to look at every crash: Log.Crash(tree, at, n, keep) gives the tree a power failure just
// before operation n+1 would leave. A run that goes on after a process was killed, but not the machine, is recorded by a
// World of its own; Log.Then joins the two.
//
// What the model promises is what PostgreSQL relies on, and no more:
//
//   - data and size of a file are durable after its Sync, through whichever descriptor they were written and under
//     whichever name;
//   - names that were made, renamed or removed are durable after SyncDir of their directory. A file's Sync does not make
//     its name durable, nor does a directory's that of the directory itself;
//   - SyncFS makes everything durable;
//   - a rename happens entirely or not at all;
//   - all else may or may not have happened, in any order, writes in pieces of a sector or a page, sizes on their own;
//   - after a failed Sync, the data written since the last one that succeeded may be lost for ever, although the running
//     system still shows it: a later Sync that succeeds says nothing about it. The same goes for all files after a failed
//     SyncFS. Sizes and names are metadata, which no file system forgets in this way: they are still to be synced.
package crashfs

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/fastrewind/fastrewind/internal/fsx"
)

// ErrCrashed is what every operation returns once the world has stopped.
var ErrCrashed = errors.New("the world has stopped")

// Target is what is wrapped, and what the wrapper is.
type Target interface {
	fsx.FS
	Close() error
}

// Fault says what goes wrong. The zero value is no fault.
type Fault struct {
	// At is the number, from 1, of the operation that fails.
	At int
	// Err is the errno it fails with; nil: it does not. Nothing was done then; but Close closes, and Sync loses (see the
	// package).
	Err error
	// Short lets a write put the first half of its bytes.
	Short bool
	// Applied lets an operation that is neither Sync, SyncDir nor SyncFS do its work before it returns Err.
	Applied bool
	// Forever lets all later operations fail in the same way, except Close.
	Forever bool
	// Only, if not nil, restricts Forever to certain operations, as a full disk does.
	Only func(Kind) bool
	// Crash stops the world: the operation is not done, and it and everything after it return ErrCrashed.
	Crash bool
	// Before, if not nil, is called just before the operation, and may use the target.
	Before func()
}

// World is one process's view of a target: it counts operations over all wrappers it makes. Operations are done one at a
// time, so that the log has them in the order in which they took effect. Safe for concurrent use.
type World struct {
	mu      sync.Mutex
	fault   Fault
	called  bool // fault.Before was
	ops     []Op
	files   int
	stopped bool
}

// New makes a World in which one thing goes wrong.
func New(fault Fault) *World { return &World{fault: fault} }

// Wrap makes a target whose operations count. It owns inner, and closes it.
func (w *World) Wrap(inner Target) Target { return &wrapper{inner, w} }

// Log is what has been recorded so far.
func (w *World) Log() Log {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Log{Ops: w.ops[:len(w.ops):len(w.ops)]}
}

// Stopped reports whether the world has stopped.
func (w *World) Stopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped
}

func (w *World) alive() error {
	if w.Stopped() {
		return ErrCrashed
	}
	return nil
}

// verdict is what becomes of one operation.
type verdict struct {
	err  error // nil: it is done
	do   bool  // with err: it is done all the same
	half bool  // with err: the first half of a write is done
}

// judge says what happens to the next operation. w.mu is held.
func (w *World) judge(k Kind) verdict {
	n, f := len(w.ops)+1, &w.fault
	hit := f.At > 0 && (n == f.At || f.Forever && n > f.At && k != OpClose && (f.Only == nil || f.Only(k)))
	switch {
	case w.stopped:
		return verdict{err: ErrCrashed}
	case hit && f.Crash:
		w.stopped = true
		return verdict{err: ErrCrashed}
	case !hit || f.Err == nil:
		return verdict{}
	case k == OpSync || k == OpSyncDir || k == OpSyncFS:
		return verdict{err: f.Err}
	default:
		return verdict{err: f.Err, do: f.Applied, half: f.Short && k == OpWrite}
	}
}

// do numbers one operation and does it, or not. call does it and may complete op; fail makes an error of an errno.
func (w *World) do(op Op, call func(op *Op) error, fail func(errno error) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault.Before != nil && len(w.ops)+1 == w.fault.At && !w.called {
		w.called = true
		w.mu.Unlock()
		w.fault.Before()
		w.mu.Lock()
	}
	v := w.judge(op.Kind)
	if errors.Is(v.err, ErrCrashed) {
		return ErrCrashed
	}
	if op.Kind == OpWrite && v.half {
		op.Data = op.Data[:len(op.Data)/2]
		v.do = true
	}
	if v.err == nil || v.do {
		op.Err = call(&op)
		op.Done = op.Err == nil
	}
	if v.err != nil && op.Err == nil {
		op.Err = fail(v.err)
	}
	w.ops = append(w.ops, op)
	return op.Err
}

// wrapper is a target whose operations count.
type wrapper struct {
	Target
	w *World
}

func (t *wrapper) do(op Op, call func(op *Op) error) error {
	return t.w.do(op, call, func(errno error) error {
		if op.Kind == OpRename {
			return &os.LinkError{Op: op.Kind.String(), Old: op.Name, New: op.To, Err: errno}
		}
		return &fs.PathError{Op: op.Kind.String(), Path: op.Name, Err: errno}
	})
}

// OpenFile implements fsx.FS.
func (t *wrapper) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	var opened *file
	err := t.do(Op{Kind: OpOpen, Name: name}, func(op *Op) error {
		_, before := t.Target.Lstat(name)
		f, err := t.Target.OpenFile(name, how, mode)
		if err != nil {
			return err
		}
		if errors.Is(before, fs.ErrNotExist) {
			info, err := t.Target.Lstat(name)
			if err != nil {
				return err
			}
			op.Created, op.Mode = true, info.Mode().Perm()
		}
		t.w.files++
		op.File = t.w.files
		opened = &file{f, t, name, op.File}
		return nil
	})
	if err != nil && opened != nil { // and reported as failed
		_ = opened.File.Close()
	}
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// Mkdir implements fsx.FS.
func (t *wrapper) Mkdir(name string, mode fs.FileMode) error {
	return t.do(Op{Kind: OpMkdir, Name: name}, func(op *Op) error {
		if err := t.Target.Mkdir(name, mode); err != nil {
			return err
		}
		info, err := t.Target.Lstat(name)
		if err != nil {
			return err
		}
		op.Mode = info.Mode().Perm()
		return nil
	})
}

// Symlink implements fsx.FS.
func (t *wrapper) Symlink(target, name string) error {
	return t.do(Op{Kind: OpSymlink, Name: name, To: target}, func(*Op) error { return t.Target.Symlink(target, name) })
}

// Readlink implements fsx.FS.
func (t *wrapper) Readlink(name string) (string, error) {
	if err := t.w.alive(); err != nil {
		return "", err
	}
	return t.Target.Readlink(name)
}

// Lstat implements fsx.FS.
func (t *wrapper) Lstat(name string) (fs.FileInfo, error) {
	if err := t.w.alive(); err != nil {
		return nil, err
	}
	return t.Target.Lstat(name)
}

// Rename implements fsx.FS.
func (t *wrapper) Rename(oldname, newname string) error {
	return t.do(Op{Kind: OpRename, Name: oldname, To: newname}, func(*Op) error { return t.Target.Rename(oldname, newname) })
}

// Remove implements fsx.FS.
func (t *wrapper) Remove(name string) error {
	return t.do(Op{Kind: OpRemove, Name: name}, func(*Op) error { return t.Target.Remove(name) })
}

// SyncDir implements fsx.FS.
func (t *wrapper) SyncDir(name string) error {
	return t.do(Op{Kind: OpSyncDir, Name: name}, func(*Op) error { return t.Target.SyncDir(name) })
}

// SyncFS implements fsx.FS.
func (t *wrapper) SyncFS() error {
	return t.do(Op{Kind: OpSyncFS, Name: "."}, func(*Op) error { return t.Target.SyncFS() })
}

// file is an open file of a wrapper.
type file struct {
	fsx.File
	t    *wrapper
	name string // it was opened under
	id   int
}

func (f *file) do(op Op, call func(op *Op) error) error {
	op.Name, op.File = f.name, f.id
	return f.t.do(op, call)
}

// WriteAt implements fsx.File.
func (f *file) WriteAt(p []byte, offset int64) (n int, err error) {
	op := Op{Kind: OpWrite, Offset: offset, Length: int64(len(p)), Data: append([]byte(nil), p...)}
	err = f.do(op, func(op *Op) (err error) {
		n, err = f.File.WriteAt(op.Data, offset)
		if op.Data = op.Data[:n]; err != nil && n > 0 {
			op.Partly = true
		}
		return err
	})
	return n, err
}

// Truncate implements fsx.File.
func (f *file) Truncate(size int64) error {
	return f.do(Op{Kind: OpTruncate, Length: size}, func(*Op) error { return f.File.Truncate(size) })
}

// Size implements fsx.File.
func (f *file) Size() (int64, error) {
	if err := f.t.w.alive(); err != nil {
		return 0, err
	}
	return f.File.Size()
}

// StartWriteback implements fsx.File. It promises nothing, so it is not counted.
func (f *file) StartWriteback(offset, n int64) error {
	if err := f.t.w.alive(); err != nil {
		return err
	}
	return f.File.StartWriteback(offset, n)
}

// Sync implements fsx.File.
func (f *file) Sync() error { return f.do(Op{Kind: OpSync}, func(*Op) error { return f.File.Sync() }) }

// Close implements fsx.File. It closes, as close(2) does, even when it fails.
func (f *file) Close() error {
	var closed bool
	err := f.do(Op{Kind: OpClose}, func(*Op) error {
		closed = true
		return f.File.Close()
	})
	if !closed {
		_ = f.File.Close()
	}
	return err
}
