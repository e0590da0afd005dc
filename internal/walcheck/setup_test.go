package walcheck

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ulikunitz/xz"
	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/archive/place"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fixtureSystem = 7710433884157629511
	seg10         = "000000010000000000000010"
	seg12         = "000000010000000000000012"
	seg13         = "000000010000000000000013"
	seg13on2      = "000000020000000000000013"
)

// fixtures are archives that the real tools wrote, as files by their names.
var fixtures = sync.OnceValues(func() (map[string][]byte, error) {
	f, err := os.Open("../../archive/codec/testdata/wal-archives.tar.xz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	x, err := xz.NewReader(f)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for t := tar.NewReader(x); ; {
		h, err := t.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if files[filepath.Clean(h.Name)], err = io.ReadAll(t); err != nil {
				return nil, err
			}
		}
	}
})

// unpack puts all fixtures into a directory.
func unpack(t *testing.T) string {
	t.Helper()
	files, err := fixtures()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range files {
		put(t, filepath.Join(dir, name), data)
	}
	return dir
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// open opens archives that are directories.
func open(t *testing.T, o Options, dirs ...string) *Archives {
	t.Helper()
	o.Options = place.Options{Where: dirs, TargetDir: o.TargetDir, Layout: o.Layout, Concurrency: 4}
	a, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func removeIfThere(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}
