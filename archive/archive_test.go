package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

const (
	segSize  = 1 << 20
	systemID = 7710427983572053948
)

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

func version(t testing.TB) *pg.Version {
	t.Helper()
	v, ok := pg.VersionOf(15)
	if !ok {
		t.Fatal("15 is not known")
	}
	return v
}

func identity(t testing.TB) Identity {
	return Identity{Version: version(t), SegSize: segSize, SystemID: systemID, Histories: []pg.History{{{TLI: 1}}}}
}

func name(n pg.SegNo) string { return pg.SegmentName(1, n, segSize) }

// content is a segment of timeline 1 as a server would have begun it.
func content(n pg.SegNo) []byte {
	b := bytes.Repeat([]byte{byte(n)}, segSize)
	le := binary.LittleEndian
	le.PutUint16(b[0:], 0xD110)
	le.PutUint16(b[2:], longHeaderFlag)
	le.PutUint32(b[4:], 1)
	le.PutUint64(b[8:], uint64(n)*segSize)
	le.PutUint32(b[16:], 0)
	le.PutUint64(b[24:], systemID)
	le.PutUint32(b[32:], segSize)
	le.PutUint32(b[36:], pg.WALBlockSize)
	return b
}

func put(t *testing.T, dir string, n pg.SegNo, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name(n)), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// spool makes a Spool that must leave nothing behind, neither beside the data directory nor in it.
func (w world) spool(t *testing.T, cfg SpoolConfig) *Spool {
	t.Helper()
	cfg.DataDir, cfg.Identity = w.data, identity(t)
	if cfg.Margin == 0 {
		cfg.Margin = -1
	}
	before := w.inData(t)
	s, err := NewSpool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(w.data), privatePrefix+"*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		for _, path := range w.inData(t) {
			if !slices.Contains(before, path) && !pg.IsSegmentName(filepath.Base(path)) {
				t.Errorf("%s is in the data directory", path)
			}
		}
	})
	return s
}

func (w world) inData(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(w.data, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func (w world) command(t *testing.T, command string) *Spool {
	t.Helper()
	return w.spool(t, SpoolConfig{Fetchers: []Fetcher{NewCommand(CommandConfig{Command: command, Major: 15, SegSize: segSize})}})
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

func mustOpen(t *testing.T, s Store, n pg.SegNo) {
	t.Helper()
	seg, err := s.Open(t.Context(), 1, n)
	if err != nil {
		t.Fatalf("segment %d: %v", n, err)
	}
	check(t, seg, n)
}

func advice(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Advice
	}
	return ""
}

// events notes what was told.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) note(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) of(kind EventKind) (some []Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Kind == kind {
			some = append(some, ev)
		}
	}
	return some
}

// patience is how long a test waits for what must happen, however slow the machine; it decides only how a failing test
// ends.
const patience = time.Minute

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to that %s", what)
		}
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
	mustOpen(t, store, 3)

	tests := []struct {
		what string
		seg  pg.SegNo
		text string // %s is the full path
		is   error
	}{
		{"missing", 2, `could not open file "%s": No such file or directory`, fs.ErrNotExist},
		{"too short", 4, `unexpected file size for "%s": 1000 instead of 1048576`, ErrWrongSegment},
		{"empty", 5, `unexpected file size for "%s": 0 instead of 1048576`, ErrWrongSegment},
		{"a directory", 6, `could not open file "%s": not a regular file`, errNotRegular},
		{"a pipe", 7, `could not open file "%s": not a regular file`, errNotRegular},
		{"a link to itself", 8, `could not open file "%s": Too many levels of symbolic links`, syscall.ELOOP},
	}
	for _, tt := range tests {
		_, err := store.Open(t.Context(), 1, tt.seg)
		if want := fmt.Sprintf(tt.text, w.data+"/pg_wal/"+name(tt.seg)); err == nil || err.Error() != want || !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, want %s", tt.what, err, want)
		}
		if store.Has(1, tt.seg) {
			t.Errorf("%s: it has it", tt.what)
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

func TestChain(t *testing.T) {
	w := newWorld(t)
	put(t, w.wal, 3, content(3))
	put(t, w.wal, 4, content(4)[:77])
	put(t, w.wal, 6, nil)
	put(t, w.archive, 4, content(4))
	put(t, w.archive, 5, content(5))
	log := filepath.Join(w.archive, "log")
	chain := Chain{NewPgWal(w.data, segSize), w.command(t, "echo %f >> "+log+"; cp "+w.archive+"/%f %p")}
	for n := pg.SegNo(3); n <= 5; n++ {
		mustOpen(t, chain, n)
	}
	if asked, _ := os.ReadFile(log); string(asked) != name(4)+"\n"+name(5)+"\n" {
		t.Errorf("the archive was asked for %q", asked)
	}

	_, err := chain.Open(t.Context(), 1, 6)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || err.Error() != `could not restore file "`+name(6)+`" from archive` ||
		!strings.Contains(advice(err), w.wal+`: unexpected file size for "`+filepath.Join(w.wal, name(6))) ||
		!strings.Contains(advice(err), "restore_command: child process exited with exit code 1") {
		t.Errorf("damaged here, missing there: %v (%s)", err, advice(err))
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

// A segment of pg_wal that is not what it is named after is read only if there is no other.
func TestChainSuspect(t *testing.T) {
	w := newWorld(t)
	foreign := content(3)
	foreign[24]++
	for n := pg.SegNo(3); n <= 4; n++ {
		put(t, w.wal, n, foreign)
	}
	put(t, w.archive, 3, content(3))
	local := NewPgWal(w.data, segSize).Expect(identity(t))
	if local.Has(1, 3) {
		t.Error("pg_wal has it")
	}
	chain := Chain{local, w.command(t, "cp "+w.archive+"/%f %p")}
	mustOpen(t, chain, 3)
	for _, c := range []Chain{chain, {local}} {
		s, err := c.Open(t.Context(), 1, 4)
		if err != nil {
			t.Fatal(err)
		}
		if s.Path() != filepath.Join(w.wal, name(4)) {
			t.Errorf("opened %s", s.Path())
		}
		s.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	hanging := Chain{local, newWorld(t).spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(func(context.Context, pg.SegNo, string) error { cancel(); return errors.New("late") })}})}
	if _, err := hanging.Open(ctx, 1, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestMissingEverywhere has a row for every combination of answers: whose words the error has, and that all are listed.
func TestMissingEverywhere(t *testing.T) {
	gone := fault.Because(fs.ErrNotExist, "no such object")
	denied := fault.New("access denied")
	wrong := fault.Because(ErrWrongSegment, "another cluster's")
	tests := []struct {
		what    string
		said    []error // by the named archives
		command string  // restore_command, or none
		want    string
		missing bool
		listed  []string
	}{
		{"nothing but pg_wal and an archive", []error{gone}, "", `could not open file "WAL/NAME": No such file or directory`, true,
			[]string{"WAL: not there", "archive 0: not there"}},
		{"two archives and a command", []error{gone, gone}, "exit 3", `could not restore file "NAME" from archive`, true,
			[]string{"WAL: not there", "archive 0: not there", "archive 1: not there", "restore_command: child process exited with exit code 3"}},
		{"one archive cannot tell", []error{denied, gone}, "", "access denied", false,
			[]string{"WAL: not there", "archive 0: access denied", "archive 1: not there"}},
		{"an archive cannot tell, the command does not have it", []error{denied}, "exit 1", "access denied", false,
			[]string{"archive 0: access denied", "restore_command: child process exited with exit code 1"}},
		{"an archive has a wrong one", []error{wrong}, "exit 1", "another cluster's", false, []string{"archive 0: another cluster's"}},
		{"the command cannot run", []error{denied}, "exit 127", "restore_command failed: command not found", false,
			[]string{"archive 0: access denied", "restore_command: restore_command failed: command not found"}},
		{"an archive fails without words", []error{errors.New("boom")}, "", `could not fetch "NAME" from archive 0: boom`, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			var from []Fetcher
			for i, err := range tt.said {
				from = append(from, namedFetcher{fmt.Sprintf("archive %d", i), func(context.Context, pg.SegNo, string) error { return err }})
			}
			if tt.command != "" {
				from = append(from, NewCommand(CommandConfig{Command: tt.command, Major: 15, SegSize: segSize}))
			}
			chain := Chain{NewPgWal(w.data, segSize), w.spool(t, SpoolConfig{Fetchers: from})}
			_, err := chain.Open(t.Context(), 1, 3)
			r := strings.NewReplacer("WAL", w.wal, "NAME", name(3))
			if err == nil || err.Error() != r.Replace(tt.want) || errors.Is(err, fs.ErrNotExist) != tt.missing {
				t.Fatalf("got %v (missing: %v), want %s", err, errors.Is(err, fs.ErrNotExist), r.Replace(tt.want))
			}
			for _, line := range tt.listed {
				if !strings.Contains(advice(err), "\n  "+r.Replace(line)+"\n") {
					t.Errorf("not in the advice: %s\n%s", r.Replace(line), advice(err))
				}
			}
		})
	}
}

// TestOwnErrors: the error is ours, not stock's, if a place was asked that stock does not know.
func TestOwnErrors(t *testing.T) {
	missing := fault.Because(fs.ErrNotExist, "not there")
	pgWal, command, bucket := answer{err: missing, local: true}, answer{err: missing, stock: true}, answer{err: missing}
	for _, tt := range []struct {
		asked answers
		own   bool
	}{
		{answers{pgWal}, false}, {answers{pgWal, command}, false}, {answers{command}, false},
		{answers{pgWal, bucket}, true}, {answers{bucket, command}, true}, {answers{bucket}, true},
	} {
		var f *fault.Error
		if err := tt.asked.conclude(); !errors.As(err, &f) || f.Own != tt.own {
			t.Errorf("%+v: %+v", tt.asked, err)
		}
	}
	if missing.Own {
		t.Error("what a place said was changed")
	}
}

// fetcher and namedFetcher are places that a test makes up.
type fetcher func(ctx context.Context, seg pg.SegNo, path string) error

func (f fetcher) Fetch(ctx context.Context, _ pg.TLI, seg pg.SegNo, path string) error {
	return f(ctx, seg, path)
}
func (f fetcher) String() string { return "a place" }

type namedFetcher struct {
	name string
	fetcher
}

func (f namedFetcher) String() string { return f.name }

// have is a place that has all segments.
func have(_ context.Context, seg pg.SegNo, path string) error {
	return os.WriteFile(path, content(seg), 0o600)
}
