package object

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/fastrewind/fastrewind/internal/fault"
)

const (
	// maxEntries is how many names of one directory are held, to sort them: a million segments are 16 TB of WAL.
	maxEntries = 1 << 20
	// maxDirs is how many directories one listing visits. Links can make a small tree look endless.
	maxDirs = 1 << 17
)

// List implements Bucket. Links are followed; those that lead nowhere are left out, and so is what is neither a regular
// file nor a directory.
func (d *dirBucket) List(ctx context.Context, prefix string, fn func(Object) error) error {
	if !validPrefix(prefix) {
		return badKey(d.Path(prefix))
	}
	w := &walk{d: d, ctx: ctx, prefix: prefix, fn: fn}
	folder := folderOf(prefix)
	return w.dir(folder, prefix[len(folder):], nil)
}

// Folders implements Bucket.
func (d *dirBucket) Folders(ctx context.Context, folder string, limit int) ([]string, error) {
	if !validFolder(folder) {
		return nil, badKey(d.Path(folder))
	}
	if limit <= 0 {
		return nil, nil
	}
	entries, _, err := d.entries(ctx, folder, "")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.dir || len(names) == limit {
			continue
		}
		// A folder without an object is none, as in a bucket.
		found := errors.New("found")
		err := d.List(ctx, folder+e.name+"/", func(Object) error { return found })
		switch {
		case errors.Is(err, found):
			names = append(names, e.name)
		case err != nil:
			return nil, err
		}
	}
	slices.Sort(names) // they sort otherwise with a slash at their end
	return names, nil
}

// walk is one listing, depth first. A directory sorts as its name with a slash, so that keys come in order.
type walk struct {
	d      *dirBucket
	ctx    context.Context
	prefix string
	fn     func(Object) error
	dirs   int
}

// dir lists what is in a folder under names beginning with start, and below them. The ancestors are the directories that
// lead here: a link to one of them is not followed.
func (w *walk) dir(folder, start string, ancestors []fs.FileInfo) error {
	if w.dirs++; w.dirs > maxDirs {
		return fault.New("could not list directory \"%s\": there are more than %d directories below it", clean(w.d.Path(w.prefix)), maxDirs).
			Advise("Name the archive's own directory. Do links in it lead round in circles?")
	}
	entries, self, err := w.d.entries(w.ctx, folder, start)
	if err != nil {
		return err
	}
	if self == nil || slices.ContainsFunc(ancestors, func(a fs.FileInfo) bool { return os.SameFile(a, self) }) {
		return nil
	}
	ancestors = append(slices.Clip(ancestors), self)
	for _, e := range entries {
		key := folder + e.name
		if e.dir {
			err = w.dir(key+"/", "", ancestors)
		} else {
			err = w.fn(Object{Key: key, Size: e.size})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry is a name in a directory.
type entry struct {
	name string
	dir  bool
	size int64
}

// sortName is what the entry's keys are ordered by.
func (e entry) sortName() string {
	if e.dir {
		return e.name + "/"
	}
	return e.name
}

// entries are a folder's files and folders with names that begin with start, in the order of their keys. If there is no such
// folder there are none, and self is nil.
func (d *dirBucket) entries(ctx context.Context, folder, start string) (list []entry, self fs.FileInfo, err error) {
	const what = "could not list directory"
	f, err := d.root.OpenFile("./"+folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil, nil, nil
		}
		return nil, nil, d.explain(err, what, folder)
	}
	defer f.Close()
	if self, err = f.Stat(); err != nil {
		return nil, nil, d.explain(err, what, folder)
	}
	for {
		if ctx.Err() != nil {
			return nil, nil, d.explain(context.Cause(ctx), what, folder)
		}
		read, err := f.ReadDir(1024)
		for _, r := range read {
			if !strings.HasPrefix(r.Name(), start) || !validKey(folder+r.Name()) {
				continue
			}
			e, ok, err := d.entry(folder, r)
			if err != nil {
				return nil, nil, err
			}
			if ok {
				list = append(list, e)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, d.explain(err, what, folder)
		}
		if len(list) > maxEntries {
			return nil, nil, fault.New("could not list directory \"%s\": it has more than %d entries", clean(d.Path(folder)), maxEntries)
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.sortName(), b.sortName()) })
	return list, self, nil
}

// entry looks at one name. ok is false for what is no object and no folder, or is gone.
func (d *dirBucket) entry(folder string, r fs.DirEntry) (e entry, ok bool, err error) {
	if r.IsDir() {
		return entry{name: r.Name(), dir: true}, true, nil
	}
	if !r.Type().IsRegular() && r.Type()&fs.ModeSymlink == 0 && r.Type() != fs.ModeIrregular {
		return e, false, nil
	}
	fi, err := d.root.Stat(folder + r.Name())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return e, false, nil
	case err != nil:
		return e, false, d.explain(err, "could not stat file", folder+r.Name())
	}
	return entry{r.Name(), fi.IsDir(), fi.Size()}, fi.IsDir() || fi.Mode().IsRegular(), nil
}
