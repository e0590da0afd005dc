package fsx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Target is the real FS: a data directory, reached through an os.Root, so that no name, and no symbolic link found on the
// way, leads out of it. A data directory has links that must be followed all the same, and only these are: pg_wal, and
// those directly below pg_tblspc. Each is read once, when a name below it is first used (which is after its creation, for
// a tablespace made during the run), and becomes a root of its own, as closed as the first.
//
// Files are made with the mode given, less the process's umask, which is the caller's business (stock sets it from the
// data directory's mode).
type Target struct {
	dir  string
	main *root

	mu    sync.Mutex
	links map[string]*root // by "pg_wal" or "pg_tblspc/OID"; nil: an ordinary directory, part of main
	gone  []*root          // of links that were removed or renamed since; still to be synced and closed
}

// root is one directory tree that may be written.
type root struct {
	*os.Root
	// dir is for syncfs. The kernel reports a failed write once to every descriptor that was open when it failed
	// (s_wb_err is sampled at open), so the descriptor must be older than the first write.
	dir *os.File
}

// OpenTarget opens the data directory dir, which may itself be a symbolic link.
func OpenTarget(dir string) (*Target, error) {
	main, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Target{dir: dir, main: main, links: map[string]*root{}}
	if err := t.openLinks(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// openLinks opens what pg_wal and the links below pg_tblspc lead to, before anything is written there (see root.dir). A
// link that leads nowhere is left for whoever wants to use it.
func (t *Target) openLinks() error {
	prefixes := []string{"pg_wal"}
	dir, err := t.main.Open("pg_tblspc")
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		names, err := dir.Readdirnames(-1)
		if err = errors.Join(err, dir.Close()); err != nil {
			return err
		}
		for _, name := range names {
			prefixes = append(prefixes, "pg_tblspc/"+name)
		}
	}
	for _, prefix := range prefixes {
		if _, err := t.linkRoot(prefix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func openRoot(dir string) (*root, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	d, err := r.Open(".")
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &root{r, d}, nil
}

// Close gives the directories' descriptors back. No other method may be called then; files that are open stay usable.
func (t *Target) Close() error {
	var errs []error
	for _, r := range t.roots() {
		errs = append(errs, r.dir.Close(), r.Close())
	}
	return errors.Join(errs...)
}

func (t *Target) roots() []*root {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append([]*root{t.main}, t.gone...)
	for _, r := range t.links {
		if r != nil {
			all = append(all, r)
		}
	}
	return all
}

// Path implements FS.
func (t *Target) Path(name string) string { return filepath.Join(t.dir, name) }

// linkPrefix splits off the part of name that may be a link to be followed. below is "" if name is that part itself; the
// prefix is "" if there is none.
func linkPrefix(name string) (prefix, below string) {
	first, rest, _ := strings.Cut(name, "/")
	switch {
	case first == "pg_wal":
		return first, rest
	case first == "pg_tblspc" && rest != "":
		oid, rest, _ := strings.Cut(rest, "/")
		return first + "/" + oid, rest
	default:
		return "", name
	}
}

// locate finds the root that holds name, and the name there. If name is itself a link that is followed, that is the root
// the link lies in.
func (t *Target) locate(op, name string) (*root, string, error) {
	if !Local(name) {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: ErrUnsafe}
	}
	prefix, below := linkPrefix(name)
	if prefix == "" || below == "" {
		return t.main, name, nil
	}
	r, err := t.linkRoot(prefix)
	if err != nil {
		return nil, "", err
	}
	if r == nil {
		return t.main, name, nil
	}
	return r, below, nil
}

// linkRoot is the root a link leads to, or nil if there is no link.
func (t *Target) linkRoot(prefix string) (*root, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, known := t.links[prefix]; known {
		return r, nil
	}
	to, err := t.main.Readlink(prefix)
	switch {
	case errors.Is(err, syscall.EINVAL): // there is something, but no link
		t.links[prefix] = nil
		return nil, nil
	case errors.Is(err, fs.ErrNotExist): // nothing yet: not remembered
		return nil, nil
	case err != nil:
		return nil, markUnsafe(err)
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(t.dir, path.Dir(prefix), to)
	}
	r, err := openRoot(to)
	if err != nil {
		return nil, err
	}
	t.links[prefix] = r
	return r, nil
}

// forget drops what is known of name if it is a link prefix: it is being made, removed or renamed.
func (t *Target) forget(name string) {
	prefix, below := linkPrefix(name)
	if prefix == "" || below != "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.links[prefix]; r != nil {
		t.gone = append(t.gone, r)
	}
	delete(t.links, prefix)
}

// markUnsafe puts ErrUnsafe into the errors by which os.Root refuses a path. os does not export the error it uses; but
// whatever the kernel says is an errno, so a PathError with anything else in it is os.Root's own refusal.
func markUnsafe(err error) error {
	var p *fs.PathError
	var errno syscall.Errno
	if errors.As(err, &p) && !errors.As(p.Err, &errno) && !errors.Is(p.Err, fs.ErrClosed) && !errors.Is(p.Err, ErrUnsafe) {
		return &fs.PathError{Op: p.Op, Path: p.Path, Err: fmt.Errorf("%w: %w", ErrUnsafe, p.Err)}
	}
	var l *os.LinkError
	if errors.As(err, &l) && !errors.As(l.Err, &errno) && !errors.Is(l.Err, fs.ErrClosed) {
		return &os.LinkError{Op: l.Op, Old: l.Old, New: l.New, Err: fmt.Errorf("%w: %w", ErrUnsafe, l.Err)}
	}
	return err
}

// OpenFile implements FS.
//
// os.Root alone would follow a link in the last place if it stays inside; a file of the target is no link, so the last
// step is our own openat with O_NOFOLLOW, from the directory that os.Root found. O_NONBLOCK keeps a FIFO from holding us
// for ever; it means nothing to regular files.
func (t *Target) OpenFile(name string, how Open, mode fs.FileMode) (File, error) {
	r, below, err := t.locate("open", name)
	if err != nil {
		return nil, err
	}
	dir, err := r.OpenFile(path.Dir(below), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, markUnsafe(err)
	}
	defer func() { _ = dir.Close() }() // only read from

	flags := unix.O_WRONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	switch how {
	case Existing:
	case Create:
		flags |= unix.O_CREAT
	case CreateNew:
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	var fd int
	err = control(dir, func(dirfd int) (err error) {
		fd, err = unix.Openat(dirfd, path.Base(below), flags, uint32(mode.Perm()))
		return err
	})
	if err != nil {
		if errors.Is(err, syscall.ELOOP) {
			err = fmt.Errorf("%w: it is a symbolic link: %w", ErrUnsafe, err)
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := &file{os.NewFile(uintptr(fd), name)}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Mkdir implements FS.
func (t *Target) Mkdir(name string, mode fs.FileMode) error {
	r, below, err := t.locate("mkdir", name)
	if err != nil {
		return err
	}
	t.forget(name)
	return markUnsafe(r.Mkdir(below, mode.Perm()))
}

// Symlink implements FS.
func (t *Target) Symlink(target, name string) error {
	r, below, err := t.locate("symlink", name)
	if err != nil {
		return err
	}
	t.forget(name)
	return markUnsafe(r.Symlink(target, below))
}

// Readlink implements FS.
func (t *Target) Readlink(name string) (string, error) {
	r, below, err := t.locate("readlink", name)
	if err != nil {
		return "", err
	}
	to, err := r.Readlink(below)
	return to, markUnsafe(err)
}

// Lstat implements FS.
func (t *Target) Lstat(name string) (fs.FileInfo, error) {
	r, below, err := t.locate("lstat", name)
	if err != nil {
		return nil, err
	}
	info, err := r.Lstat(below)
	return info, markUnsafe(err)
}

// Rename implements FS.
func (t *Target) Rename(oldname, newname string) error {
	if !Local(newname) || path.Dir(oldname) != path.Dir(newname) {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: ErrUnsafe}
	}
	r, oldbelow, err := t.locate("rename", oldname)
	if err != nil {
		return err
	}
	t.forget(oldname)
	t.forget(newname)
	return markUnsafe(r.Rename(oldbelow, path.Join(path.Dir(oldbelow), path.Base(newname))))
}

// Remove implements FS.
func (t *Target) Remove(name string) error {
	r, below, err := t.locate("remove", name)
	if err != nil {
		return err
	}
	t.forget(name)
	return markUnsafe(r.Remove(below))
}

// SyncDir implements FS. Some systems cannot fsync a directory, and say so with EBADF or EINVAL: no error, as in
// PostgreSQL's fsync_fname (file_utils.c).
func (t *Target) SyncDir(name string) error {
	r, below := t.main, "."
	if name != "." {
		if !Local(name) {
			return &fs.PathError{Op: "open", Path: name, Err: ErrUnsafe}
		}
		below = name
		// A name that is itself a followed link means the directory behind it.
		if prefix, rest := linkPrefix(name); prefix != "" {
			linked, err := t.linkRoot(prefix)
			if err != nil {
				return err
			}
			if linked != nil {
				r, below = linked, path.Clean(rest)
			}
		}
	}
	dir, err := r.OpenFile(below, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return markUnsafe(err)
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, dir.Close())
}

// SyncFS implements FS: one syncfs for each file system that the data directory, pg_wal and the tablespaces lie on.
func (t *Target) SyncFS() error {
	done := map[uint64]bool{}
	for _, r := range t.roots() {
		info, err := r.dir.Stat()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if done[uint64(st.Dev)] {
				continue
			}
			done[uint64(st.Dev)] = true
		}
		if err := syncfs(r.dir); err != nil {
			return err
		}
	}
	return nil
}
