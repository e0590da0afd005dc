package crashfs

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Tree is a directory tree in memory: what is below its root, by path joined with '/'. Data may be shared between trees
// and must not be changed.
type Tree map[string]Node

// Node is a file, a directory or a symbolic link.
type Node struct {
	Mode fs.FileMode // type and permissions; of a link only the type
	Data []byte      // of a file
	Link string      // of a link
}

// Load reads a tree. Links are not followed; what is neither file nor directory nor link is an error.
func Load(dir string) (Tree, error) {
	t := Tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var n Node
		switch mode := info.Mode(); mode.Type() {
		case 0:
			n.Mode = mode.Perm()
			n.Data, err = os.ReadFile(path)
		case fs.ModeDir:
			n.Mode = fs.ModeDir | mode.Perm()
		case fs.ModeSymlink:
			n.Mode = fs.ModeSymlink
			n.Link, err = os.Readlink(path)
		default:
			err = fmt.Errorf("%s: a %v is not modelled", path, mode.Type())
		}
		t[filepath.ToSlash(name)] = n
		return err
	})
	return t, err
}

// Write makes the tree below dir, which is made as well and must not hold any of it.
func (t Tree) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		n, path := t[name], filepath.Join(dir, name)
		switch n.Mode.Type() {
		case fs.ModeDir:
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
		case fs.ModeSymlink:
			if err := os.Symlink(n.Link, path); err != nil {
				return err
			}
			continue
		default:
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			err = writeSparse(f, n.Data)
			if closeErr := f.Close(); err == nil {
				err = closeErr
			}
			if err != nil {
				return err
			}
		}
		if perm := n.Mode.Perm(); perm&^0o700 != 0 || perm != 0o600 && perm != 0o700 { // whatever the umask is
			if err := os.Chmod(path, perm); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeSparse leaves out pages of zeros: WAL has many.
func writeSparse(f *os.File, data []byte) error {
	const page = 4096
	var zeros [page]byte
	zero := func(at int) bool {
		return bytes.Equal(data[at:min(at+page, len(data))], zeros[:min(page, len(data)-at)])
	}
	for at := 0; at < len(data); {
		end := at
		for end < len(data) && !zero(end) {
			end += page
		}
		if end = min(end, len(data)); end > at {
			if _, err := f.WriteAt(data[at:end], int64(at)); err != nil {
				return err
			}
		}
		for at = end; at < len(data) && zero(at); at += page {
		}
	}
	return f.Truncate(int64(len(data)))
}

// same compares, at no cost for data that is shared.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}

// block is the unit in which Diff says where content differs: PostgreSQL's.
const block = 8192

// Diff says in what t differs from want, path by path, in order; nil if in nothing.
func (t Tree) Diff(want Tree) []string {
	var out []string
	say := func(name, format string, args ...any) { out = append(out, name+": "+fmt.Sprintf(format, args...)) }
	names := maps.Clone(t)
	maps.Copy(names, want)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		got, there := t[name]
		w, wanted := want[name]
		switch {
		case !there:
			say(name, "is missing")
		case !wanted:
			say(name, "should not be there (%v, %d bytes)", got.Mode, len(got.Data))
		case got.Mode != w.Mode:
			say(name, "is %v, not %v", got.Mode, w.Mode)
		case got.Link != w.Link:
			say(name, "leads to %q, not to %q", got.Link, w.Link)
		case len(got.Data) != len(w.Data):
			say(name, "has %d bytes, not %d", len(got.Data), len(w.Data))
		case !same(got.Data, w.Data):
			at := 0
			for got.Data[at] == w.Data[at] {
				at++
			}
			say(name, "differs from byte %d (block %d) on: %.40q, not %.40q", at, at/block, got.Data[at:], w.Data[at:])
		}
	}
	return out
}
