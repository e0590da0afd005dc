package fault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestParts(t *testing.T) {
	e := Because(fs.ErrNotExist, "could not open file \"%s\": %s", "x", "why").WithDetail("read %d of %d", 1, 2).WithHint("try %q", "y").Advise("100%% sure, %s", "z")
	if e.Error() != `could not open file "x": why` || e.Detail != "read 1 of 2" || e.Hint != `try "y"` || e.Advice != "100% sure, z" {
		t.Errorf("%+v", e)
	}
	if !errors.Is(e, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if e.Own || e.Ours() != e || !e.Own {
		t.Errorf("ours: %v", e.Own)
	}
	var found *Error
	if !errors.As(fmt.Errorf("wrapped: %w", e), &found) || found != e {
		t.Error("it is not found in what wraps it")
	}
	if e := New("%d%%", 5); e.Error() != "5%" || e.Unwrap() != nil {
		t.Errorf("%+v", e)
	}
}

func TestMessage(t *testing.T) {
	first := New("%d of %s", 1, "two")
	set := New("%d", 1)
	set.Text = "another"
	later := []byte("x")
	changed := New("%s", later)
	later[0] = 'y'
	for _, tt := range []struct {
		e            *Error
		format, text string
	}{
		{first, "%d of %s", "1 of two"},
		{Because(first, "%s", first.Error()), "%d of %s", "1 of two"},
		{Because(fmt.Errorf("wrapped: %w", first), "%s", first), "%d of %s", "1 of two"},
		{Because(first, "%s, and more", first), "%s, and more", "1 of two, and more"},
		{Because(fs.ErrNotExist, "%s", "x"), "%s", "x"},
		{set, "%s", "another"},
		{changed, "%s", "x"},
		{&Error{Text: "50%"}, "%s", "50%"},
		{New("50%%"), "50%%", "50%"},
	} {
		if got := tt.e.Message(); got.Format != tt.format || got.String() != tt.text {
			t.Errorf("%q: %+v", tt.e, got)
		}
	}
}

// TestM compares with the C library's strerror (glibc 2.36).
func TestM(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EPERM: "Operation not permitted", syscall.ENOENT: "No such file or directory", syscall.EIO: "Input/output error",
		syscall.ENXIO: "No such device or address", syscall.EBADF: "Bad file descriptor", syscall.ENOMEM: "Cannot allocate memory",
		syscall.EACCES: "Permission denied", syscall.EBUSY: "Device or resource busy", syscall.EEXIST: "File exists",
		syscall.EXDEV: "Invalid cross-device link", syscall.ENOTDIR: "Not a directory", syscall.EISDIR: "Is a directory",
		syscall.EINVAL: "Invalid argument", syscall.ENFILE: "Too many open files in system", syscall.EMFILE: "Too many open files",
		syscall.ETXTBSY: "Text file busy", syscall.EFBIG: "File too large", syscall.ENOSPC: "No space left on device",
		syscall.ESPIPE: "Illegal seek", syscall.EROFS: "Read-only file system", syscall.ENAMETOOLONG: "File name too long",
		syscall.ENOTEMPTY: "Directory not empty", syscall.ELOOP: "Too many levels of symbolic links", syscall.EDQUOT: "Disk quota exceeded",
		syscall.ESTALE: "Stale file handle", syscall.ECONNREFUSED: "Connection refused", syscall.ETIMEDOUT: "Connection timed out",
	} {
		if got := M(errno); got != want {
			t.Errorf("errno %d: %q, want %q", int(errno), got, want)
		}
		if got := M(Because(&fs.PathError{Op: "open", Path: "/x", Err: errno}, "y")); got != want {
			t.Errorf("errno %d, wrapped: %q, want %q", int(errno), got, want)
		}
	}
	_, err := os.Open(filepath.Join(t.TempDir(), "missing"))
	if got := M(err); got != "No such file or directory" {
		t.Errorf("of a missing file: %q", got)
	}
	if got := M(io.ErrUnexpectedEOF); got != "unexpected EOF" {
		t.Errorf("without an errno: %q", got)
	}
	if got := M(errors.New("two lines\n")); got != "two lines" {
		t.Errorf("with a final newline: %q", got)
	}
	if got := M(nil); got != "Success" {
		t.Errorf("of nothing: %q", got)
	}
}
