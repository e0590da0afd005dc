package object

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// TestDirErrors is about what a test cannot make a file system say, root least of all.
func TestDirErrors(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, out := root.Open("../x")
	d := &dirBucket{root, "/archive"}
	for _, c := range []struct {
		err  error
		is   error
		text string
	}{
		{syscall.EACCES, ErrDenied, "Permission denied"}, {syscall.EPERM, ErrDenied, "Operation not permitted"},
		{syscall.ENOENT, fs.ErrNotExist, "No such file or directory"}, {syscall.ENOTDIR, fs.ErrNotExist, "No such file or directory"},
		{syscall.EIO, nil, "Input/output error"}, {syscall.ESTALE, nil, "Stale file handle"}, {syscall.ELOOP, nil, "Too many levels of symbolic links"},
		{context.Canceled, context.Canceled, "context canceled"},
	} {
		err := c.err
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = &fs.PathError{Op: "openat", Path: "key", Err: c.err}
		}
		check(t, d.explain(err, "could not open file", "key"), c.is, `could not open file "/archive/key": `+c.text)
	}
	check(t, d.explain(out, "could not open file", "x"), nil, `could not open file "/archive/x": it is a link that leads out of the archive`)
}

func check(t *testing.T, err, is error, want string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Text != want {
		t.Errorf("%v, want %q", err, want)
	}
	for _, e := range []error{ErrDenied, fs.ErrNotExist, context.Canceled} {
		if errors.Is(err, e) != (e == is) {
			t.Errorf("%v: errors.Is(%v) is %v", err, e, errors.Is(err, e))
		}
	}
}
