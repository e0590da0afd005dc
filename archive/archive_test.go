package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const segSize = 1 << 20

// world is a data directory with a pg_wal, and an archive directory beside it.
type world struct {
	data, wal, archive string
}

func newWorld(t *testing.T) world {
	t.Helper()
	top := t.TempDir()
	w := world{data: filepath.Join(top, "data")}
	w.wal, w.archive = filepath.Join(w.data, "pg_wal"), filepath.Join(top, "archive")
	for _, dir := range []string{w.wal, w.archive} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func name(n pg.SegNo) string { return pg.SegmentName(1, n, segSize) }

func content(n pg.SegNo) []byte { return bytes.Repeat([]byte{byte(n)}, segSize) }

func put(t *testing.T, dir string, n pg.SegNo, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name(n)), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w world) restore(t *testing.T, command string) *Restore {
	t.Helper()
	r, err := NewRestore(RestoreConfig{Command: command, DataDir: w.data, SegSize: segSize, Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(w.data), ".fastrewind-wal-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if left, _ := filepath.Glob(filepath.Join(w.wal, "*")); len(left) > 0 {
			for _, f := range left {
				if !pg.IsSegmentName(filepath.Base(f)) {
					t.Errorf("%s is in pg_wal", f)
				}
			}
		}
	})
	return r
}

func check(t *testing.T, s *Segment, n pg.SegNo) {
	t.Helper()
	defer s.Close()
	if s.Name() != name(n) || s.Size() != segSize {
		t.Errorf("name %s, size %d", s.Name(), s.Size())
	}
	got := make([]byte, segSize)
	if k, err := s.ReadAt(got, 0); k != segSize || err != nil && err != io.EOF {
		t.Fatalf("read %d bytes, %v", k, err)
	}
	if !bytes.Equal(got, content(n)) {
		t.Errorf("wrong content in %s", s.Path())
	}
	if k, err := s.ReadAt(got[:10], segSize-5); k != 5 || err != io.EOF {
		t.Errorf("at the end: %d bytes, %v", k, err)
	}
}

func TestPgWal(t *testing.T) {
	w := newWorld(t)
	store := NewPgWal(w.data, segSize)
	put(t, w.wal, 3, content(3))
	put(t, w.wal, 4, content(4)[:1000])
	put(t, w.wal, 5, nil)
	if err := os.Mkdir(filepath.Join(w.wal, name(6)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(w.wal, name(7)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name(8), filepath.Join(w.wal, name(8))); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 3)

	tests := []struct {
		what string
		seg  pg.SegNo
		text string // %s is the full path
		is   error
	}{
		{"missing", 2, `could not open file "%s": No such file or directory`, fs.ErrNotExist},
		{"too short", 4, `unexpected file size for "%s": 1000 instead of 1048576`, ErrSize},
		{"empty", 5, `unexpected file size for "%s": 0 instead of 1048576`, ErrSize},
		{"a directory", 6, `could not open file "%s": not a regular file`, errNotRegular},
		{"a pipe", 7, `could not open file "%s": not a regular file`, errNotRegular},
		{"a link to itself", 8, `could not open file "%s": Too many levels of symbolic links`, syscall.ELOOP},
	}
	for _, tt := range tests {
		_, err := store.Open(t.Context(), 1, tt.seg)
		if want := fmt.Sprintf(tt.text, w.data+"/pg_wal/"+name(tt.seg)); err == nil || err.Error() != want || !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, want %s", tt.what, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Open(ctx, 1, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReadError(t *testing.T) {
	w := newWorld(t)
	put(t, w.wal, 3, content(3))
	s, err := NewPgWal(w.data, segSize).Open(t.Context(), 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, err = s.ReadAt(make([]byte, 8), 16)
	var f *fault.Error
	if !errors.As(err, &f) || !strings.HasPrefix(f.Text, `could not read file "`+s.Path()+`": `) {
		t.Errorf("got %v", err)
	}
}

func TestRestore(t *testing.T) {
	w := newWorld(t)
	put(t, w.archive, 3, content(3))
	log := filepath.Join(w.archive, "log")
	r := w.restore(t, fmt.Sprintf("echo %%f %%p >> %s; cp %s/%%f %%p", log, w.archive))
	for range 2 {
		s, err := r.Open(t.Context(), 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		check(t, s, 3)
	}
	ran, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.dir, name(3))
	if want := name(3) + " " + path + "\n"; string(ran) != want {
		t.Errorf("ran with %q, want once %q", ran, want)
	}
	if !filepath.IsAbs(path) {
		t.Errorf("%%p is %s, not absolute", path)
	}
	if fi, err := os.Stat(r.dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("private directory: %v, %v", fi.Mode(), err)
	}
	if filepath.Dir(r.dir) != filepath.Dir(w.data) {
		t.Errorf("private directory %s is not beside %s", r.dir, w.data)
	}

	if _, err := r.Open(t.Context(), 1, 4); !errors.Is(err, fs.ErrNotExist) || err.Error() != `could not restore file "`+name(4)+`" from archive` {
		t.Errorf("missing in the archive: %v", err)
	}

	if _, ok := r.Keep(name(4)); ok {
		t.Error("keeps what was not restored")
	}
	kept, ok := r.Keep(name(3))
	if !ok {
		t.Fatal("does not keep a restored segment")
	}
	if err := os.Rename(kept, filepath.Join(w.wal, name(3))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(t.Context(), 1, 3); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a segment moved away: %v", err)
	}
}

// TestRestoreResults has a row for every way a command can end (facts from runs of 15.18).
func TestRestoreResults(t *testing.T) {
	missing := `could not restore file "` + name(3) + `" from archive`
	tests := []struct {
		what, command string
		want          string
		notThere      bool // another store may be asked
	}{
		{"it fails", "exit 1", missing, true},
		{"it fails with the highest ordinary status", "exit 125", missing, true},
		{"it cannot be executed", "exit 126", "restore_command failed: command not executable", false},
		{"it is not there", "/no/such/command", "restore_command failed: command not found", false},
		{"its child was interrupted", "exit 130", "restore_command failed: child process exited with exit code 130", false},
		{"it was killed", "kill -KILL $$", "restore_command failed: child process was terminated by signal 9: Killed", false},
		{"it was terminated", "kill -TERM $$", "restore_command failed: child process was terminated by signal 15: Terminated", false},
		{"it is content with nothing", "true", missing, true},
		{"it leaves a short file", "head -c 1000 /dev/zero > %p", `unexpected file size for "` + name(3) + `": 1000 instead of 1048576`, false},
		{"it leaves a long file", "head -c 1048577 /dev/zero > %p", `unexpected file size for "` + name(3) + `": 1048577 instead of 1048576`, false},
		{"it fails after a whole file", "head -c 1048576 /dev/zero > %p; exit 3", missing, true},
		{"it leaves a directory", "mkdir -p %p", `could not open file "%DIR/` + name(3) + `" restored from archive: not a regular file`, false},
		{"it wants to know the restart point", "cp %r %p", "cannot use restore_command with %r placeholder", false},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			r := w.restore(t, tt.command)
			for range 2 { // a second attempt must not see the first one's leavings
				_, err := r.Open(t.Context(), 1, 3)
				want := strings.ReplaceAll(tt.want, "%DIR", r.dir)
				if err == nil || err.Error() != want || errors.Is(err, fs.ErrNotExist) != tt.notThere {
					t.Fatalf("got %v, want %s", err, want)
				}
			}
			if _, ok := r.Keep(name(3)); ok {
				t.Error("keeps what did not arrive")
			}
		})
	}
}

func TestRestoreLinkIntoArchive(t *testing.T) {
	w := newWorld(t)
	put(t, w.archive, 3, content(3))
	r := w.restore(t, "ln -s "+w.archive+"/%f %p")
	s, err := r.Open(t.Context(), 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 3)
	if path, ok := r.Keep(name(3)); ok {
		t.Errorf("keeps %s, which is a link", path)
	}
}

func TestRestoreOutputAndDebug(t *testing.T) {
	w := newWorld(t)
	put(t, w.archive, 3, content(3))
	var out, debug bytes.Buffer
	r, err := NewRestore(RestoreConfig{Command: "echo one; echo two >&2; cp " + w.archive + "/%f %p", DataDir: w.data, SegSize: segSize, Output: &out,
		Debug: func(format string, args ...any) { fmt.Fprintf(&debug, format, args...) }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := r.Open(t.Context(), 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if out.String() != "one\ntwo\n" {
		t.Errorf("output %q", out.String())
	}
	if want := fmt.Sprintf("using file %q restored from archive", filepath.Join(r.dir, name(3))); debug.String() != want {
		t.Errorf("debug %q, want %q", debug.String(), want)
	}
}

func TestRestoreCancelled(t *testing.T) {
	w := newWorld(t)
	pidFile := filepath.Join(w.archive, "pid")
	r := w.restore(t, "sleep 600 & echo $! > "+pidFile+"; wait")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := r.Open(ctx, 1, 3)
		done <- err
	}()
	pid := waitForPID(t, pidFile)
	// One that waits for its turn is released as well.
	waiting := make(chan error)
	go func() {
		_, err := r.Open(ctx, 1, 4)
		waiting <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("the one waiting: %v", err)
	}
	waitForEnd(t, pid)
}

func TestRestoreOneAtATime(t *testing.T) {
	w := newWorld(t)
	for n := range pg.SegNo(6) {
		put(t, w.archive, n, content(n))
	}
	lock := filepath.Join(w.archive, "lock")
	r := w.restore(t, fmt.Sprintf("mkdir %[1]s || exit 200; cp %[2]s/%%f %%p; rmdir %[1]s", lock, w.archive))
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			n := pg.SegNo(i % 6)
			s, err := r.Open(t.Context(), 1, n)
			if err != nil {
				t.Error(err)
				return
			}
			check(t, s, n)
		})
	}
	wg.Wait()
}

func TestChain(t *testing.T) {
	w := newWorld(t)
	put(t, w.wal, 3, content(3))
	put(t, w.wal, 4, content(4)[:77])
	put(t, w.wal, 6, nil)
	put(t, w.archive, 4, content(4))
	put(t, w.archive, 5, content(5))
	log := filepath.Join(w.archive, "log")
	chain := Chain{NewPgWal(w.data, segSize), w.restore(t, "echo %f >> "+log+"; cp "+w.archive+"/%f %p")}
	for n := pg.SegNo(3); n <= 5; n++ {
		s, err := chain.Open(t.Context(), 1, n)
		if err != nil {
			t.Fatalf("segment %d: %v", n, err)
		}
		check(t, s, n)
	}
	if asked, _ := os.ReadFile(log); string(asked) != name(4)+"\n"+name(5)+"\n" {
		t.Errorf("the archive was asked for %q", asked)
	}

	var f *fault.Error
	_, err := chain.Open(t.Context(), 1, 6)
	if !errors.As(err, &f) || !errors.Is(err, fs.ErrNotExist) || f.Text != `could not restore file "`+name(6)+`" from archive` ||
		!strings.Contains(f.Advice, `unexpected file size for "`+filepath.Join(w.wal, name(6))) {
		t.Errorf("damaged here, missing there: %v (%s)", err, f.Advice)
	}
	if _, err := (Chain{NewPgWal(w.data, segSize)}).Open(t.Context(), 1, 9); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `/pg_wal/`+name(9)+`": No such file or directory`) {
		t.Errorf("pg_wal alone: %v", err)
	}
	if _, err := (Chain{}).Open(t.Context(), 1, 9); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty chain: %v", err)
	}

	// What is neither there nor missing is not looked for elsewhere.
	if err := os.Mkdir(filepath.Join(w.wal, name(5)), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Open(t.Context(), 1, 5); !errors.Is(err, errNotRegular) {
		t.Errorf("a directory in pg_wal: %v", err)
	}
}

func TestPrivateDirAvoidsTargetAndBlanks(t *testing.T) {
	top := filepath.Join(t.TempDir(), "with blank")
	data := filepath.Join(top, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := privateDir(data)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if strings.Contains(dir, " ") || filepath.Dir(dir) != filepath.Clean(os.TempDir()) {
		t.Errorf("made %s", dir)
	}
	t.Setenv("TMPDIR", filepath.Join(data, "tmp"))
	if dir, err := privateDir(data); err == nil {
		t.Errorf("made %s in the data directory", dir)
	}
	t.Setenv("TMPDIR", "/no/such/directory")
	if _, err := privateDir(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no temporary directory: %v", err)
	}
}

func waitForPID(t *testing.T, path string) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var pid int
		if data, err := os.ReadFile(path); err == nil {
			if _, err := fmt.Sscanf(string(data), "%d\n", &pid); err == nil {
				return pid
			}
		}
	}
	t.Fatalf("%s was not written", path)
	return 0
}

// waitForEnd waits until a process that is no child of ours is gone, or dead and not yet collected by its new parent.
func waitForEnd(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is still running", pid)
}
