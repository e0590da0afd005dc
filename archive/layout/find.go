package layout

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// found are the objects that may be a WAL file.
type found struct {
	objects []listed // the one to be tried first in front
	// guessed: they were not listed; the file may well be none of them.
	guessed bool
}

// find finds the objects that may be w, best first. None is not an error. fresh: listings made before do not count.
func (r *Repository) find(ctx context.Context, w walName, fresh bool) (found, error) {
	if r.hashed() && (w.kind == History || w.kind == Backup) {
		return found{objects: r.guess(w, []string{""}), guessed: true}, nil
	}
	var f found
	for _, dir := range r.dirs(w) {
		objects, err := r.cache.find(ctx, r.listPrefix(dir, w), w, fresh)
		if errors.Is(err, object.ErrDenied) && !r.hashed() {
			return found{objects: r.guess(w, r.probes()), guessed: true}, nil
		}
		if errors.Is(err, object.ErrDenied) {
			return found{}, fault.Because(err, "could not look for WAL file \"%s\" in \"%s\": %s", w.name, r.bucket.Path(dir), err).
				Advise("The names in a pgBackRest repository cannot be guessed: the right to list it is needed (s3:ListBucket).")
		}
		if err != nil {
			return found{}, err
		}
		f.objects = append(f.objects, objects...)
	}
	if r.hashed() {
		if err := r.duplicates(w, f.objects); err != nil {
			return found{}, err
		}
	}
	order := r.order()
	slices.SortStableFunc(f.objects, func(a, b listed) int { return slices.Index(order, a.ext) - slices.Index(order, b.ext) })
	return f, nil
}

// dirs are the folders that may hold w.
func (r *Repository) dirs(w walName) []string {
	below := ""
	if r.foldered() && w.kind != History {
		below = w.folder() + "/"
	}
	dirs := make([]string, len(r.ids))
	for i, id := range r.ids {
		dirs[i] = r.dir + slashed(id) + below
	}
	return dirs
}

// listPrefix is what is listed to find w in dir. Folders that hold everything are listed in parts, of the size that the
// others' folders have.
func (r *Repository) listPrefix(dir string, w walName) string {
	switch {
	case w.kind == History:
		return dir + w.name
	case r.foldered():
		return dir
	}
	return dir + w.folder()
}

// guess makes objects of the names that w may have in each of its folders.
func (r *Repository) guess(w walName, exts []string) []listed {
	var objects []listed
	for _, ext := range exts {
		for _, dir := range r.dirs(w) {
			objects = append(objects, listed{objectName{walName: w, ext: ext}, dir + w.name + ext, -1})
		}
	}
	return objects
}

// order is the extensions in the order in which copies of one WAL file are tried: what the settings name, then those whose
// format has a checksum.
func (r *Repository) order() []string {
	exts := codec.Known()
	slices.SortStableFunc(exts, func(a, b string) int { return unprotected(a) - unprotected(b) })
	return first(exts, r.archive.Extension)
}

// unprotected is 1 for formats in which a flipped bit need not be noticed.
func unprotected(ext string) int {
	switch ext {
	case "", ".br", ".lzma":
		return 1
	}
	return 0
}

// probes is the extensions in the order in which they are tried where nothing can be listed.
func (r *Repository) probes() []string {
	exts := first(codec.Known(), r.archive.Extension)
	if r.archive.Layout == location.WALE {
		exts = first(exts, ".lzo")
	}
	if worked := r.worked.Load(); worked != nil {
		exts = first(exts, *worked)
	}
	return exts
}

// first puts one of the extensions in front. An unknown one, or none, changes nothing.
func first(exts []string, ext string) []string {
	i := slices.Index(exts, ext)
	if ext == "" || i < 0 {
		return exts
	}
	return append([]string{ext}, slices.Delete(slices.Clone(exts), i, i+1)...)
}

// missing is the error of a WAL file that the archive does not have.
func (r *Repository) missing(w walName) error {
	return fault.Because(fs.ErrNotExist, "WAL file \"%s\" is not in archive \"%s\"", w.name, r.archive.Where()).
		Advise("Looked in %s.", strings.Join(r.paths(r.dirs(w)), ", "))
}

func (r *Repository) paths(keys []string) []string {
	paths := make([]string, len(keys))
	for i, key := range keys {
		paths[i] = r.bucket.Path(key)
	}
	return paths
}
