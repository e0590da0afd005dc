package fsx

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// layout makes a data directory with pg_wal and one tablespace elsewhere, and a directory that is none of its business.
func layout(t *testing.T) (dir, wal, space, outside string, target *Target) {
	t.Helper()
	dir, wal, space, outside = t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	for _, d := range []string{"base/5", "global", "pg_tblspc"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o700))
	}
	must(t, os.Symlink(wal, filepath.Join(dir, "pg_wal")))
	must(t, os.Symlink(space, filepath.Join(dir, "pg_tblspc/16400")))
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	target, err := OpenTarget(dir)
	must(t, err)
	t.Cleanup(func() { must(t, target.Close()) })
	return dir, wal, space, outside, target
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, target FS, name string) {
	t.Helper()
	f, err := target.OpenFile(name, Create, 0o600)
	must(t, err)
	_, err = f.WriteAt([]byte(name), 0)
	must(t, err)
	must(t, f.StartWriteback(0, int64(len(name))))
	must(t, f.Sync())
	if size, err := f.Size(); err != nil || size != int64(len(name)) {
		t.Fatalf("Size() = %d, %v", size, err)
	}
	must(t, f.Close())
}

func TestLinksThatAreFollowed(t *testing.T) {
	dir, wal, space, _, target := layout(t)
	write(t, target, "pg_wal/000000010000000000000001")
	must(t, target.Mkdir("pg_tblspc/16400/PG_15_202209061", 0o700))
	write(t, target, "pg_tblspc/16400/PG_15_202209061/16385")
	for _, name := range []string{
		filepath.Join(wal, "000000010000000000000001"),
		filepath.Join(space, "PG_15_202209061", "16385"),
	} {
		if _, err := os.Lstat(name); err != nil {
			t.Error(err)
		}
	}

	// A tablespace made during the run, absolute and relative.
	later := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "spaces"), 0o700))
	for oid, link := range map[string]string{"16500": later, "16501": "../spaces"} {
		if _, err := target.Lstat("pg_tblspc/" + oid + "/x"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("before the link: %v", err)
		}
		must(t, target.Symlink(link, "pg_tblspc/"+oid))
		write(t, target, "pg_tblspc/"+oid+"/x")
		must(t, target.SyncDir("pg_tblspc/"+oid))
	}
	for _, name := range []string{filepath.Join(later, "x"), filepath.Join(dir, "spaces/x")} {
		if _, err := os.Lstat(name); err != nil {
			t.Error(err)
		}
	}

	// An in-place tablespace is a directory.
	must(t, target.Mkdir("pg_tblspc/16600", 0o700))
	write(t, target, "pg_tblspc/16600/x")

	// Removing a link leaves what it points to.
	must(t, target.Remove("pg_tblspc/16500"))
	if _, err := os.Lstat(filepath.Join(later, "x")); err != nil {
		t.Error(err)
	}
	if _, err := target.OpenFile("pg_tblspc/16500/x", Existing, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("through a removed link: %v", err)
	}
	if err := target.SyncFS(); err != nil {
		t.Error(err)
	}
	for _, d := range []string{".", "base/5", "pg_wal", "pg_tblspc", "pg_tblspc/16400", "pg_tblspc/16400/PG_15_202209061"} {
		must(t, target.SyncDir(d))
	}
	if link, err := target.Readlink("pg_wal"); err != nil || link != wal {
		t.Errorf("Readlink(pg_wal) = %q, %v", link, err)
	}
}

// Whatever link lies where, no operation reaches what is outside.
func TestNothingLeavesTheTarget(t *testing.T) {
	dir, wal, space, outside, target := layout(t)
	plant := func(to, at string) {
		t.Helper()
		must(t, os.Symlink(to, at))
	}
	secret := filepath.Join(outside, "secret")
	plant(secret, filepath.Join(dir, "base/5/file"))
	plant(outside, filepath.Join(dir, "base/6"))
	plant("../../"+filepath.Base(outside), filepath.Join(dir, "base/7"))
	plant(outside, filepath.Join(wal, "archive_status"))
	plant(outside, filepath.Join(space, "PG_15_202209061"))
	plant("5", filepath.Join(dir, "base/8"))
	must(t, os.WriteFile(filepath.Join(dir, "base/5/inside"), nil, 0o600))
	plant("inside", filepath.Join(dir, "base/5/link"))

	for _, name := range []string{
		"base/5/file",                                                                         // a file that is a link
		"base/5/link",                                                                         // even to a file inside
		"base/6/secret",                                                                       // a directory that is a link
		"base/7/secret",                                                                       // a relative one
		"pg_wal/archive_status/secret",                                                        // below a link that is followed
		"pg_tblspc/16400/PG_15_202209061/secret",                                              // likewise
		"/etc/passwd", "../x", "base/../../x", "base//5", "", ".", "base/5/", "base/5/x\x00y", // by spelling
	} {
		for _, how := range []Open{Existing, Create} {
			if f, err := target.OpenFile(name, how, 0o600); !errors.Is(err, ErrUnsafe) {
				t.Errorf("OpenFile(%q, %d) = %v", name, how, err)
				if f != nil {
					f.Close()
				}
			}
		}
	}
	for _, name := range []string{"base/6/d", "base/7/d", "pg_wal/archive_status/d", "pg_tblspc/16400/PG_15_202209061/d", "../d"} {
		for op, err := range map[string]error{
			"Mkdir":    target.Mkdir(name, 0o700),
			"Symlink":  target.Symlink("x", name),
			"Remove":   target.Remove(filepath.ToSlash(filepath.Dir(name)) + "/secret"),
			"SyncDir":  target.SyncDir(name),
			"Rename":   target.Rename(filepath.ToSlash(filepath.Dir(name))+"/secret", name),
			"Lstat":    second(target.Lstat(name)),
			"Readlink": second(target.Readlink(name)),
		} {
			if !errors.Is(err, ErrUnsafe) {
				t.Errorf("%s(%q) = %v", op, name, err)
			}
		}
	}
	if err := target.Rename("base/5/inside", "global/inside"); !errors.Is(err, ErrUnsafe) {
		t.Errorf("rename into another directory: %v", err)
	}
	entries, err := os.ReadDir(outside)
	must(t, err)
	data, err := os.ReadFile(secret)
	must(t, err)
	if len(entries) != 1 || string(data) != "secret" {
		t.Errorf("outside changed: %v, %q", entries, data)
	}
	// The link itself may go.
	must(t, target.Remove("base/6"))
	must(t, target.Remove("base/5/file"))
	if _, err := os.Stat(secret); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestOpenFile(t *testing.T) {
	dir, _, _, _, target := layout(t)
	if _, err := target.OpenFile("base/5/1", Existing, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Existing without a file: %v", err)
	}
	write(t, target, "base/5/1")
	if _, err := target.OpenFile("base/5/1", CreateNew, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateNew with a file: %v", err)
	}
	must(t, os.Chmod(filepath.Join(dir, "base/5/1"), 0o640))
	f, err := target.OpenFile("base/5/1", Create, 0o600)
	must(t, err)
	must(t, f.Truncate(3))
	must(t, f.Close())
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("WriteAt after Close: %v", err)
	}
	if err := f.StartWriteback(0, 1); err == nil {
		t.Error("StartWriteback after Close succeeded")
	}
	info, err := target.Lstat("base/5/1")
	must(t, err)
	if info.Size() != 3 || info.Mode().Perm() != 0o640 {
		t.Errorf("size %d, mode %v; want 3 and the old mode", info.Size(), info.Mode())
	}
	must(t, target.Rename("base/5/1", "base/5/2"))
	if _, err := os.Stat(filepath.Join(dir, "base/5/2")); err != nil {
		t.Error(err)
	}

	// What is not a file is no file, and a FIFO does not make us wait.
	must(t, syscall.Mkfifo(filepath.Join(dir, "base/5/fifo"), 0o600))
	for _, name := range []string{"base/5", "base/5/fifo", "base/5/fifo/x"} {
		if _, err := target.OpenFile(name, Create, 0o600); err == nil || errors.Is(err, ErrUnsafe) {
			t.Errorf("OpenFile(%q) = %v", name, err)
		}
	}
}

func TestOpenTargetRefusesFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(name, nil, 0o600))
	for _, dir := range []string{name, name + ".missing"} {
		if _, err := OpenTarget(dir); err == nil {
			t.Errorf("OpenTarget(%q) succeeded", dir)
		}
	}
}

// What a server wrote before we came, into a tablespace or a pg_wal elsewhere, must be reached by SyncFS although nothing
// was written there by us.
func TestSyncFSReachesEveryLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "pg_tblspc"), 0o700),
		os.Symlink(elsewhere, filepath.Join(dir, "pg_tblspc", "16400")),
		os.Symlink(elsewhere, filepath.Join(dir, "pg_wal")),
		os.Symlink(filepath.Join(elsewhere, "gone"), filepath.Join(dir, "pg_tblspc", "16401")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	target, err := OpenTarget(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}()
	if n := len(target.roots()); n != 3 {
		t.Errorf("SyncFS would reach %d places, want the data directory, pg_wal and one tablespace", n)
	}
	if err := target.SyncFS(); err != nil {
		t.Error(err)
	}
}
