package settings

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/fastrewind/fastrewind/archive/location"
)

// world is an Env without any real environment: variables, and files by their absolute names.
type world struct {
	vars   map[string]string
	files  map[string]string
	denied []string // names that may not be read
}

const (
	home   = "/var/lib/postgresql"
	target = "/var/lib/postgresql/15/main"
)

func (w world) env(restoreCommand string) Env {
	m := fstest.MapFS{}
	for name, data := range w.files {
		m[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(data)}
	}
	check := func(name string) error {
		if !path.IsAbs(name) || path.Clean(name) != name {
			return &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
		}
		if slices.Contains(w.denied, name) {
			return &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
		}
		return nil
	}
	return Env{
		Getenv: func(name string) string { return w.vars[name] },
		ReadFile: func(name string) ([]byte, error) {
			if err := check(name); err != nil {
				return nil, err
			}
			return m.ReadFile(strings.TrimPrefix(name, "/"))
		},
		ReadDir: func(name string) ([]fs.DirEntry, error) {
			if err := check(name); err != nil {
				return nil, err
			}
			return m.ReadDir(strings.TrimPrefix(name, "/"))
		},
		HomeDir: home, RestoreCommand: restoreCommand, TargetDir: target,
	}
}

// s3At is an archive in a bucket, without credentials.
func s3At(origin string, layout location.Layout, bucket, prefix string) location.Archive {
	return location.Archive{Origin: origin, Layout: layout, Prefix: prefix, S3: &location.S3{Bucket: bucket}}
}

// change changes a copy of an archive.
func change(a location.Archive, f func(a *location.Archive)) location.Archive {
	if a.S3 != nil {
		s3 := *a.S3
		a.S3 = &s3
	}
	f(&a)
	return a
}

// same reports whether two archives are the same, secrets included.
func same(t *testing.T, got, want location.Archive) bool {
	t.Helper()
	if (got.S3 == nil) != (want.S3 == nil) {
		return false
	}
	if got.S3 != nil {
		g, w := *got.S3, *want.S3
		if len(g.Headers) != len(w.Headers) {
			return false
		}
		for k, v := range w.Headers {
			if g.Headers[k] != v {
				return false
			}
		}
		g.Headers, w.Headers = nil, nil
		if !equalS3(g, w) {
			return false
		}
	}
	got.S3, want.S3 = nil, nil
	return got == want
}
