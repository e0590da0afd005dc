package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// dirBucket is a directory as a Bucket.
//
// It is held open as an os.Root: links in it are followed as long as they stay in it, and no further, so that whoever may
// write to an archive cannot make us read something else.
type dirBucket struct {
	root *os.Root
	path string
}

// NewDir makes a Bucket of a local or mounted directory, which may be a link. Close closes it.
func NewDir(dir string) (Bucket, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Because(hidden(err), "could not get current working directory: %s", fault.M(err))
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fault.Because(hidden(err), "could not open directory \"%s\": %s", path, fault.M(err)).
			Advise("It is to be a WAL archive. Is it mounted, and may the user who runs this read it?")
	}
	return &dirBucket{root, path}, nil
}

// Close implements io.Closer.
func (d *dirBucket) Close() error { return d.root.Close() }

// Path implements Bucket.
func (d *dirBucket) Path(key string) string {
	if key == "" {
		return d.path
	}
	return filepath.Join(d.path, key)
}

// Open implements Bucket.
func (d *dirBucket) Open(ctx context.Context, key string) (io.ReadCloser, Object, error) {
	if !validKey(key) {
		return nil, Object{}, badKey(d.Path(key))
	}
	if ctx.Err() != nil {
		return nil, Object{}, d.explain(context.Cause(ctx), "could not open file", key)
	}
	// A named pipe would be waited for: without O_NONBLOCK for ever.
	f, err := d.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, Object{}, d.explain(err, "could not open file", key)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		if err = error(errNotRegular); fi.IsDir() {
			err = fs.ErrNotExist // as in a bucket, where folders are no objects
		}
	}
	if err != nil {
		_ = f.Close() // only read from
		return nil, Object{}, d.explain(err, "could not open file", key)
	}
	return &dirBody{d: d, ctx: ctx, f: f, key: key, size: fi.Size()}, Object{Key: key, Size: fi.Size()}, nil
}

var errNotRegular = errors.New("it is not a regular file")

// explain makes an error of what the operating system said about what lies below a key.
func (d *dirBucket) explain(err error, what, key string) error {
	text, is, advice := fault.M(err), hidden(err), ""
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		is, text = fs.ErrNotExist, fault.M(syscall.ENOENT)
	case errors.Is(err, fs.ErrPermission):
		is = ErrDenied
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		is = err
	case escapes(err):
		text = "it is a link that leads out of the archive"
		advice = fmt.Sprintf("Links are followed inside \"%s\" only, and only relative ones. Name the directory in which both ends lie.", d.path)
	}
	return fault.Because(is, "%s \"%s\": %s", what, clean(d.Path(key)), text).Advise("%s", advice)
}

// escapes reports what os.Root says of a name that leads out of it. It has no error of its own for that, but it is the
// only *fs.PathError without an errno.
func escapes(err error) bool {
	var path *fs.PathError
	var errno syscall.Errno
	return errors.As(err, &path) && !errors.As(err, &errno) && !errors.Is(err, fs.ErrClosed)
}

// dirBody is a file's bytes, as many as it had when it was opened.
type dirBody struct {
	d         *dirBucket
	ctx       context.Context
	f         *os.File
	key       string
	off, size int64
}

// Read implements io.Reader.
func (r *dirBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.ctx.Err() != nil {
		return 0, r.d.explain(context.Cause(r.ctx), "could not read file", r.key)
	}
	if r.off == r.size {
		var more [1]byte
		if n, err := r.f.Read(more[:]); n == 0 && errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		return 0, r.changed("longer")
	}
	n, err := r.f.Read(p[:min(int64(len(p)), r.size-r.off)])
	r.off += int64(n)
	switch {
	case n > 0 || err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		return 0, r.changed("shorter")
	}
	return 0, r.d.explain(err, "could not read file", r.key)
}

func (r *dirBody) changed(how string) error {
	return fault.New("could not read file \"%s\": it became %s than the %d bytes it had when it was opened", clean(r.d.Path(r.key)), how, r.size).
		Advise("Is it still being archived?")
}

// Close implements io.Closer.
func (r *dirBody) Close() error { return r.f.Close() }
