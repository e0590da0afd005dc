package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPrivateAvoidsTargetAndBlanks(t *testing.T) {
	top := filepath.Join(t.TempDir(), "with blank")
	data := filepath.Join(top, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := newPrivate(data, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.close() }()
	if strings.Contains(p.path, " ") || filepath.Dir(p.path) != filepath.Clean(os.TempDir()) {
		t.Errorf("made %s", p.path)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(data, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(data, "tmp"), data, link, top} {
		if p, err := newPrivate(data, dir); err == nil {
			t.Errorf("in %s: made %s", dir, p.path)
		}
	}
	t.Setenv("TMPDIR", filepath.Join(data, "tmp"))
	if p, err := newPrivate(data, ""); err == nil {
		t.Errorf("made %s in the data directory", p.path)
	}
	t.Setenv("TMPDIR", "/no/such/directory")
	if _, err := newPrivate(data, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no temporary directory: %v", err)
	}
	chosen := t.TempDir()
	p, err = newPrivate(data, chosen)
	if err != nil || filepath.Dir(p.path) != chosen {
		t.Fatalf("chosen: %v", err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}

// What a killed run has left is removed by the next one; what belongs to one that lives, or to somebody else, is not.
func TestStale(t *testing.T) {
	w := newWorld(t)
	parent := filepath.Dir(w.data)
	stale := filepath.Join(parent, privatePrefix+"123")
	if err := os.MkdirAll(filepath.Join(stale, "fetch-1", "deeper"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stale, name(1)), content(1), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	elsewhere := filepath.Join(tmp, privatePrefix+"123")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	precious := t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, filepath.Join(parent, privatePrefix+"link")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(parent, privatePrefix+"file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	living, err := newPrivate(w.data, "")
	if err != nil {
		t.Fatal(err)
	}
	others := filepath.Join(parent, privatePrefix+"others")
	if err := os.Mkdir(others, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(others, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	// A fetch in a child process must not hold the lock when we are gone.
	if flags, err := unix.FcntlInt(living.lock.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
	next, err := newPrivate(w.data, "")
	if err != nil {
		t.Fatal(err)
	}
	exists := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	for _, path := range []string{stale, elsewhere} {
		if exists(path) {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range []string{living.path, next.path, filepath.Join(precious, "file"), file} {
		if !exists(path) {
			t.Errorf("%s is gone", path)
		}
	}
	if os.Geteuid() == 0 && !exists(others) {
		t.Error("another user's directory is gone")
	}
	for _, p := range []*private{living, next} {
		if err := p.close(); err != nil || exists(p.path) {
			t.Errorf("%s: %v", p.path, err)
		}
	}
}

// Runs that begin at the same time do not take each other's directories for dead ones.
func TestStaleRace(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				p, err := newPrivate(w.data, "")
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(p.path, "x"), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := p.close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(w.data), privatePrefix+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
