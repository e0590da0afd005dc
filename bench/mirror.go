package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// mirror makes a working copy identical to a pristine tree again after a program has changed it, by copying only what
// was changed. The kernel says what that is: whatever is done to a file, its ctime moves, and nobody can set it.
type mirror struct {
	pristine, work string
	known          map[string]stamp // of every path in work when it was last identical
}

// stamp is what stays the same as long as nobody touches a file.
type stamp struct {
	ino   uint64
	size  int64
	ctime syscall.Timespec
}

// newMirror takes two trees that are identical now.
func newMirror(pristine, work string) (*mirror, error) {
	m := &mirror{pristine: pristine, work: work}
	return m, m.learn()
}

func (m *mirror) learn() error {
	m.known = map[string]stamp{}
	return m.each(m.work, func(name string, st *syscall.Stat_t) error {
		m.known[name] = stampOf(st)
		return nil
	})
}

// restore makes the working copy identical again. It may be missing altogether. Durability is the caller's business.
func (m *mirror) restore() error {
	keep := map[string]bool{}
	var dirs []string // whose times are set last, because what happens in them changes these
	err := m.each(m.pristine, func(name string, st *syscall.Stat_t) error {
		keep[name] = true
		if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			dirs = append(dirs, name)
		}
		return m.restoreOne(name, st)
	})
	if err != nil {
		return err
	}
	var extra []string
	err = m.each(m.work, func(name string, _ *syscall.Stat_t) error {
		if !keep[name] {
			extra = append(extra, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range extra {
		if err := os.RemoveAll(filepath.Join(m.work, name)); err != nil {
			return err
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		info, err := os.Lstat(filepath.Join(m.pristine, dirs[i]))
		if err == nil {
			err = os.Chtimes(filepath.Join(m.work, dirs[i]), info.ModTime(), info.ModTime())
		}
		if err != nil {
			return err
		}
	}
	return m.learn()
}

// restoreOne makes one path what it is in the pristine tree, whose st is given.
func (m *mirror) restoreOne(name string, st *syscall.Stat_t) error {
	from, to := filepath.Join(m.pristine, name), filepath.Join(m.work, name)
	var now syscall.Stat_t
	err := syscall.Lstat(to, &now)
	switch {
	case err == nil && now.Mode&syscall.S_IFMT == syscall.S_IFDIR && st.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		return own(to, st)
	case err == nil && m.known[name] == stampOf(&now):
		return nil
	case err == nil:
		err = os.RemoveAll(to)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		err = os.Mkdir(to, 0o700)
	case syscall.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			return errors.Join(os.Symlink(target, to), os.Lchown(to, int(st.Uid), int(st.Gid)))
		}
	case syscall.S_IFREG:
		if st.Nlink > 1 { // a filler: see growth_cluster.go
			return os.Link(from, to)
		}
		err = copyFile(from, to)
	default:
		err = &fs.PathError{Op: "copy", Path: from, Err: errors.New("neither a file, nor a directory, nor a link")}
	}
	if err != nil {
		return err
	}
	return own(to, st)
}

// own gives a path the owner and the mode of another.
func own(path string, st *syscall.Stat_t) error {
	if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return syscall.Chmod(path, st.Mode&0o7777)
}

// copyFile copies contents and times. os.File's ReadFrom clones where the file system can.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}

// each calls f for every path below root, root itself ("." ) included, directories before what is in them.
func (m *mirror) each(root string, f func(name string, st *syscall.Stat_t) error) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return f(name, &st)
	})
}

func stampOf(st *syscall.Stat_t) stamp { return stamp{st.Ino, st.Size, st.Ctim} }
