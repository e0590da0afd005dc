package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree makes files (name ending in anything), directories (ending in "/") and links ("name -> target") below a new
// directory and returns it.
func tree(t *testing.T, specs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, spec := range specs {
		name, target, isLink := strings.Cut(spec, " -> ")
		path := filepath.Join(dir, name)
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, path)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(name), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// lines prints a listing, one entry a line.
func lines(entries []pg.Entry) []string {
	var out []string
	for _, e := range entries {
		switch e.Type {
		case pg.RegularFile:
			out = append(out, fmt.Sprintf("%s %d", e.Path, e.Size))
		case pg.Directory:
			out = append(out, e.Path+"/")
		case pg.SymbolicLink:
			out = append(out, e.Path+" -> "+e.LinkTarget)
		default:
			out = append(out, fmt.Sprintf("%s: type %d", e.Path, e.Type))
		}
	}
	return out
}

func TestListRules(t *testing.T) {
	wal := tree(t, "000000010000000000000001", "archive_status/", "archive_status/x.ready", "inner -> archive_status")
	spc := tree(t, "PG_15_202209061/", "PG_15_202209061/5/", "PG_15_202209061/5/16384")
	elsewhere := tree(t, "secret")
	dir := tree(t, "PG_VERSION", "base/", "base/1/", "base/1/1259", "base-x", "base.y", "global/", "pg_tblspc/",
		"pg_wal -> "+wal, "pg_tblspc/16385 -> "+spc, "pg_log -> "+elsewhere, "dangling -> /nonexistent",
		"pg_tblspc/in_place/", "pg_tblspc/in_place/f", "base/pg_wal -> "+wal)
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PG_VERSION 10", "base/", "base-x 6", "base.y 6", "base/1/", "base/1/1259 11", "base/pg_wal -> " + wal,
		"dangling -> /nonexistent", "global/", "pg_log -> " + elsewhere, "pg_tblspc/",
		"pg_tblspc/16385 -> " + spc, "pg_tblspc/16385/PG_15_202209061/", "pg_tblspc/16385/PG_15_202209061/5/",
		"pg_tblspc/16385/PG_15_202209061/5/16384 23", "pg_tblspc/in_place/", "pg_tblspc/in_place/f 20",
		"pg_wal/", "pg_wal/000000010000000000000001 24", "pg_wal/archive_status/", "pg_wal/archive_status/x.ready 22",
		"pg_wal/inner -> archive_status",
	}
	for _, jobs := range []int{0, 1, 3, 50} {
		var counted atomic.Int64
		entries, err := List(t.Context(), dir, jobs, func(n int64) { counted.Add(n) })
		if err != nil {
			t.Fatal(err)
		}
		if got := lines(entries); !slices.Equal(got, want) {
			t.Errorf("jobs %d:\n got %q\nwant %q", jobs, got, want)
		}
		if counted.Load() != int64(len(want)) {
			t.Errorf("progress counted %d entries of %d", counted.Load(), len(want))
		}
	}
}

func TestListErrors(t *testing.T) {
	long := strings.Repeat("x", 200)
	tooLong := "/" + strings.Join([]string{long, long, long, long, long, long}, "/")
	for name, c := range map[string]struct{ dir, want string }{
		"no directory":    {"/nonexistent", `could not open directory "/nonexistent": No such file or directory`},
		"a file":          {tree(t, "f") + "/f", `/f": Not a directory`},
		"lost tablespace": {tree(t, "pg_tblspc/", "pg_tblspc/1 -> /nonexistent"), `/pg_tblspc/1": No such file or directory`},
		"lost WAL":        {tree(t, "pg_wal -> /nonexistent"), `/pg_wal": No such file or directory`},
		"long link":       {tree(t, "l -> "+tooLong), `/l" target is too long`},
	} {
		_, err := List(t.Context(), c.dir, 2, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := List(ctx, tree(t, "f"), 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A name that is gone by the time its size is read is left out, and nothing of another file is reported for it.
func TestVanished(t *testing.T) {
	dir := tree(t, "a", "c")
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := walker{dir: dir, progress: func(int64) {}}
	if err := w.batch(int(f.Fd()), "", []string{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	if got := lines(w.batches[0]); !slices.Equal(got, []string{"a 1", "c 1"}) {
		t.Errorf("got %q", got)
	}
}

func TestRoot(t *testing.T) {
	outside := tree(t, "secret")
	wal := tree(t, "seg", "out -> "+outside+"/secret")
	spc := tree(t, "PG_15/", "PG_15/16384")
	dir := tree(t, "PG_VERSION", "base/", "pg_tblspc/", "pg_wal -> "+wal, "pg_tblspc/16385 -> "+spc,
		"log -> "+outside, "f -> "+outside+"/secret", "base/up -> ..")
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, path := range []string{"PG_VERSION", "pg_wal/seg", "pg_tblspc/16385/PG_15/16384"} {
		f, err := r.Open(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if b, err := io.ReadAll(f); err != nil || !strings.HasSuffix(path, string(b)) {
			t.Errorf("%s: read %q, %v", path, b, err)
		}
		f.Close()
	}
	for _, path := range []string{
		"../" + filepath.Base(outside) + "/secret", outside + "/secret", "log/secret", "f", "pg_wal/out",
		"pg_wal/../../secret", "pg_tblspc/../PG_VERSION/../../x", "pg_tblspc/16385/../../../etc/passwd", "",
		"pg_tblspc/./x", "pg_tblspc//x",
	} {
		if f, err := r.Open(path); err == nil {
			b, rerr := io.ReadAll(f)
			if rerr == nil {
				t.Errorf("%q opened and read %q", path, b)
			}
			f.Close()
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := tree(t, "f", "empty", "d/")
	if err := os.Truncate(filepath.Join(dir, "empty"), 0); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"f": "f", "empty": ""} {
		b, err := ReadFile(dir, path, 1)
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	_, err := ReadFile(dir, "none", 10)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasSuffix(err.Error(), `/none" for reading: No such file or directory`) {
		t.Errorf("missing: %v", err)
	}
	if _, err := ReadFile(dir, "f", 0); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("too large: %v", err)
	}
	if _, err := ReadFile(dir, "d", 10); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("directory: %v", err)
	}
}

func TestMode(t *testing.T) {
	dir := t.TempDir()
	for mode, want := range map[fs.FileMode]Modes{0o700: OwnerModes, 0o750: GroupModes, 0o755: GroupModes, 0o740: OwnerModes, 0o710: OwnerModes} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if got, err := Mode(dir); err != nil || got != want {
			t.Errorf("%o: %+v, %v", mode, got, err)
		}
	}
	if _, err := Mode("/nonexistent"); err == nil ||
		err.Error() != `could not read permissions of directory "/nonexistent": No such file or directory` {
		t.Errorf("%v", err)
	}
}

func BenchmarkList(b *testing.B) {
	dir := b.TempDir()
	const dirs, files = 20, 2000
	for d := range dirs {
		sub := filepath.Join(dir, fmt.Sprintf("base-%d", 16384+d))
		if err := os.Mkdir(sub, 0o700); err != nil {
			b.Fatal(err)
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(16384+f)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, jobs := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := List(b.Context(), dir, jobs, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(dirs*files), "ns/file")
		})
	}
}
