package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

func TestMain(m *testing.M) {
	syscall.Umask(0o077)
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTarget makes a data directory with the files given, "name/" being a directory.
func newTarget(t *testing.T, files map[string]string) (dir string, spy *spyFS) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		at := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(at, 0o700))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(at), 0o700))
		must(t, os.WriteFile(at, []byte(content), 0o600))
	}
	target, err := fsx.OpenTarget(dir)
	must(t, err)
	t.Cleanup(func() { must(t, target.Close()) })
	return dir, &spyFS{FS: target}
}

var modes = Options{FileMode: 0o600, DirMode: 0o700}

func copyWhole(name string, size int) plan.Action {
	return plan.Action{Path: name, Kind: plan.Copy, Type: pg.RegularFile, SourceSize: int64(size)}
}

// contents reads a tree of regular files.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	must(t, filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, at)
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(at)
		got[name] = string(data)
		return err
	}))
	return got
}

// What becomes of one file, for each kind and each thing a source can do.
func TestOneFile(t *testing.T) {
	const old, fresh = "oooooooo", "ffffffff"
	blocks := func(kind plan.Kind, source, target int64, spans ...plan.Span) plan.Action {
		return plan.Action{Path: "f", Kind: kind, Type: pg.RegularFile, SourceSize: source, TargetSize: target, Blocks: spans}
	}
	const gone = "\x00gone"
	for _, c := range []struct {
		name           string
		target, source string // contents; gone: no such file
		action         plan.Action
		want           string
		strict         string // the error for a source that must not change; empty: the same as otherwise
	}{
		{"new", gone, "abc", copyWhole("f", 3), "abc", ""},
		{"overwrite", old, "abcdefgh", copyWhole("f", 8), "abcdefgh", ""},
		{"overwrite a longer one", old, "abc", copyWhole("f", 3), "abc", ""},
		{"overwrite a shorter one", "o", "abc", copyWhole("f", 3), "abc", ""},
		{"empty", old, "", copyWhole("f", 0), "", ""},
		{"new and empty", gone, "", copyWhole("f", 0), "", ""},
		{"was empty and grew", gone, "abc", copyWhole("f", 0), "abc", `size of source file "/src/f" changed concurrently: 0 bytes expected, 3 copied`},
		{"grew", old, "abcdefghijk", copyWhole("f", 3), "abcdefghijk", `size of source file "/src/f" changed concurrently: 3 bytes expected, 11 copied`},
		{"shrank", old, "ab", copyWhole("f", 3), "ab", `size of source file "/src/f" changed concurrently: 3 bytes expected, 2 copied`},
		{"gone", old, gone, copyWhole("f", 3), gone, `could not open source file "/src/f": No such file or directory`},
		{"gone and never here", gone, gone, copyWhole("f", 3), gone, `could not open source file "/src/f": No such file or directory`},
		{"blocks", old, fresh, blocks(plan.None, 8, 8, plan.Span{Offset: 2, Length: 2}, plan.Span{Offset: 6, Length: 1}), "ooffoofo", ""},
		{"blocks behind the end by now", old, "fff", blocks(plan.None, 8, 8, plan.Span{Offset: 2, Length: 2}, plan.Span{Offset: 6, Length: 1}), "oofooooo", `unexpected EOF while reading file "/src/f"`},
		{"blocks of a file that is gone", old, gone, blocks(plan.None, 8, 8, plan.Span{Offset: 2, Length: 2}), gone, `could not open source file "/src/f": No such file or directory`},
		{"tail", "oooo", fresh, blocks(plan.CopyTail, 8, 4), "ooooffff", ""},
		{"tail and blocks", "oooo", fresh, blocks(plan.CopyTail, 8, 4, plan.Span{Offset: 1, Length: 1}), "ofooffff", ""},
		{"tail and adjacent block", "oooo", fresh, blocks(plan.CopyTail, 8, 4, plan.Span{Offset: 3, Length: 1}), "ooofffff", ""},
		{"tail that shrank", "oooo", "ffffff", blocks(plan.CopyTail, 8, 4), "ooooff", `unexpected EOF while reading file "/src/f"`},
		{"truncate", old, "ffff", blocks(plan.Truncate, 4, 8), "oooo", ""},
		{"truncate and blocks", old, "ffff", blocks(plan.Truncate, 4, 8, plan.Span{Offset: 0, Length: 2}), "ffoo", ""},
		{"truncate what is gone", old, gone, blocks(plan.Truncate, 4, 8, plan.Span{Offset: 0, Length: 2}), gone, `could not open source file "/src/f": No such file or directory`},
		{"remove", old, gone, plan.Action{Path: "f", Kind: plan.Remove, Type: pg.RegularFile}, gone, ""},
	} {
		for _, strict := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/strict=%t", c.name, strict), func(t *testing.T) {
				before := map[string]string{}
				if c.target != gone {
					before["f"] = c.target
				}
				source := &memSource{files: map[string][]byte{}}
				if c.source != gone {
					source.files["f"] = []byte(c.source)
				}
				dir, spy := newTarget(t, before)
				opts := modes
				opts.StrictSizes, opts.SourceDir = strict, "/src"
				copier := New(spy, opts)
				err := copier.Run(t.Context(), source, &plan.Plan{Actions: []plan.Action{c.action}})
				if n := spy.stillOpen(); n != 0 {
					t.Errorf("%d files left open", n)
				}
				if strict && c.strict != "" {
					var f *fault.Error
					if !errors.As(err, &f) || f.Text != c.strict || f.Advice == "" {
						t.Fatalf("error %v\nwant  %s", err, c.strict)
					}
					return
				}
				must(t, err)
				must(t, copier.Sync(t.Context()))
				got, there := contents(t, dir)["f"]
				if !there {
					got = gone
				}
				if got != c.want {
					t.Errorf("target has %q, want %q", got, c.want)
				}
				if there {
					info, err := os.Stat(filepath.Join(dir, "f"))
					must(t, err)
					if info.Mode() != 0o600 {
						t.Errorf("mode %v", info.Mode())
					}
				}
			})
		}
	}
}

func TestMissingTargetFileIsNotMade(t *testing.T) {
	dir, spy := newTarget(t, nil)
	err := New(spy, modes).Run(t.Context(), &memSource{files: map[string][]byte{"f": []byte("ffff")}}, &plan.Plan{Actions: []plan.Action{
		{Path: "f", Kind: plan.None, Type: pg.RegularFile, SourceSize: 4, TargetSize: 4, Blocks: []plan.Span{{Offset: 2, Length: 1}}}}})
	if want := `could not open target file "` + filepath.Join(dir, "f") + `": No such file or directory`; err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}

// A file whose size changes up and down between its chunks is what a file that was empty before would have become.
func TestHolesAreZeroes(t *testing.T) {
	const size = 4 << 20
	dir, spy := newTarget(t, map[string]string{"f": strings.Repeat("o", size)})
	source := &memSource{files: map[string][]byte{"f": bytes.Repeat([]byte("n"), size)}}
	source.answer = func(r pg.FileRange, c pg.FileChunk) pg.FileChunk {
		switch r.Offset {
		case 1 << 20:
			c.Data = c.Data[:100]
		case 3 << 20:
			c.Data = c.Data[:200]
		}
		return c
	}
	must(t, New(spy, modes).Run(t.Context(), source, &plan.Plan{Actions: []plan.Action{copyWhole("f", size)}}))
	want := bytes.Repeat([]byte("n"), 3<<20+200)
	clear(want[1<<20+100 : 2<<20])
	if got := contents(t, dir)["f"]; got != string(want) {
		t.Errorf("%d bytes, want %d; or a hole with something in it", len(got), len(want))
	}
}

func TestMoreThanAskedFor(t *testing.T) {
	for _, a := range []plan.Action{
		copyWhole("f", 5),
		{Path: "f", Kind: plan.None, Type: pg.RegularFile, SourceSize: 4, TargetSize: 4, Blocks: []plan.Span{{Offset: 2, Length: 1}}},
	} {
		dir, spy := newTarget(t, map[string]string{"f": "oooo"})
		source := &memSource{answer: func(r pg.FileRange, _ pg.FileChunk) pg.FileChunk {
			return pg.FileChunk{Data: make([]byte, r.Length+1)}
		}}
		err := New(spy, modes).Run(t.Context(), source, &plan.Plan{Actions: []plan.Action{a}})
		if err == nil || err.Error() != `received more than requested for file "f"` {
			t.Errorf("error %v", err)
		}
		if got := contents(t, dir)["f"]; got != "oooo" {
			t.Errorf("written all the same: %q", got)
		}
	}
}

// miscounting emits the chunks of a list of indexes.
type miscounting []int

func (m miscounting) Fetch(_ context.Context, _ []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	for _, i := range m {
		if err := emit(i, pg.FileChunk{}); err != nil {
			return err
		}
	}
	return nil
}

func TestChunksMustMatchRanges(t *testing.T) {
	for _, order := range []miscounting{{}, {0}, {1}, {0, 0}, {0, 1, 2}, {-1}} {
		_, spy := newTarget(t, nil)
		err := New(spy, modes).Run(t.Context(), order, &plan.Plan{Actions: []plan.Action{copyWhole("a", 1), copyWhole("b", 1)}})
		if err == nil || err.Error() != "unexpected number of data chunks received" {
			t.Errorf("%v: %v", order, err)
		}
	}
}

// everything is a plan with all kinds, on a target with a pg_wal elsewhere, a tablespace to be made and one to be removed.
func everything(t *testing.T) (dir string, spy *spyFS, source *memSource, p *plan.Plan) {
	t.Helper()
	fresh, wal, dropped := t.TempDir(), t.TempDir(), t.TempDir()
	dir, spy = newTarget(t, map[string]string{
		"base/5/1": "oooooooo", "base/5/2": "oooo", "base/5/3": "oooooooo", "base/5/3_fsm": "oooooooo", "base/5/4": "oooooooo",
		"base/6/1": "o", "pg_tblspc/": "", "global/": "", "PG_VERSION": "15\n", "gone": "o",
	})
	must(t, os.Symlink(wal, filepath.Join(dir, "pg_wal")))
	must(t, os.Symlink(dropped, filepath.Join(dir, "pg_tblspc/16399")))
	must(t, os.MkdirAll(filepath.Join(dropped, "PG_15_202209061"), 0o700))
	source = &memSource{files: map[string][]byte{
		"base/5/1": []byte("ffffffff"), "base/5/2": []byte("ffffffff"), "base/5/3": []byte("ffff"), "base/5/3_fsm": []byte("fff"),
		"base/7/1": []byte("f"), "pg_tblspc/16400/PG_15_202209061/1": []byte("f"), "pg_wal/0000000200000000000000AA": []byte("wal"),
	}}
	reg, directory := pg.RegularFile, pg.Directory
	span := []plan.Span{{Offset: 1, Length: 1}, {Offset: 3, Length: 1}}
	p = &plan.Plan{Actions: []plan.Action{
		{Path: "base/7", Kind: plan.Create, Type: directory},
		{Path: "pg_tblspc/16400", Kind: plan.Create, Type: pg.SymbolicLink, LinkTarget: fresh},
		{Path: "pg_tblspc/16400/PG_15_202209061", Kind: plan.Create, Type: directory},
		copyWhole("base/5/3_fsm", 3),
		copyWhole("base/7/1", 1),
		copyWhole("gone", 1),
		copyWhole("pg_tblspc/16400/PG_15_202209061/1", 1),
		copyWhole("pg_wal/0000000200000000000000AA", 3),
		{Path: "base/5/2", Kind: plan.CopyTail, Type: reg, SourceSize: 8, TargetSize: 4, Blocks: span},
		{Path: "base/5/1", Kind: plan.None, Type: reg, SourceSize: 8, TargetSize: 8, Blocks: span},
		{Path: "base/5/3", Kind: plan.Truncate, Type: reg, SourceSize: 4, TargetSize: 8, Blocks: span},
		{Path: "base/5/4", Kind: plan.Truncate, Type: reg, SourceSize: 4, TargetSize: 8},
		{Path: "pg_tblspc/16399/PG_15_202209061", Kind: plan.Remove, Type: directory},
		{Path: "pg_tblspc/16399", Kind: plan.Remove, Type: pg.SymbolicLink},
		{Path: "base/6/1", Kind: plan.Remove, Type: reg},
		{Path: "base/6", Kind: plan.Remove, Type: directory},
	}}
	return dir, spy, source, p
}

func TestEverything(t *testing.T) {
	for _, method := range []SyncMethod{SyncFsync, SyncSyncfs, SyncNone} {
		dir, spy, source, p := everything(t)
		opts := modes
		opts.Sync = method
		var progress int64
		opts.Progress = func(n int64) { progress += n }
		c := New(spy, opts)
		must(t, c.Run(t.Context(), source, p))
		must(t, c.Sync(t.Context()))

		want := map[string]string{
			"base/5/1": "ofofoooo", "base/5/2": "ofofffff", "base/5/3": "ofof", "base/5/3_fsm": "fff", "base/5/4": "oooo",
			"base/7/1": "f", "PG_VERSION": "15\n",
			"pg_tblspc/16400/PG_15_202209061/1": "f", "pg_wal/0000000200000000000000AA": "wal",
		}
		for name, content := range want {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || string(got) != content {
				t.Errorf("%s: %q, %v; want %q", name, got, err, content)
			}
		}
		for _, name := range []string{"base/6", "gone", "pg_tblspc/16399"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there", name)
			}
		}
		s := c.Stats()
		if s.Bytes != 18 || progress != 18 || s.Files != 7 || s.Made != 3 || s.Truncated != 2 || s.Removed != 4 || s.Gone != 1 {
			t.Errorf("progress %d, %+v", progress, s)
		}
		checkOrder(t, spy.ops)
		checkSyncs(t, spy.ops, method)
	}
}

func where(ops []string, prefix string) (first, last int) {
	first = -1
	for i, op := range ops {
		if strings.HasPrefix(op, prefix) {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	return first, last
}

// checkOrder: entries before copies, all copies before the truncations, those before the removals, directories at the end.
func checkOrder(t *testing.T, ops []string) {
	t.Helper()
	_, made := where(ops, "mkdir")
	firstWrite, lastWrite := where(ops, "write ")
	cut, _ := where(ops, "truncate base/5/3 4")
	cut2, lastCut := where(ops, "truncate base/5/4 4")
	removed, _ := where(ops, "remove pg_tblspc/16399/PG")
	link, _ := where(ops, "remove pg_tblspc/16399")
	inside, _ := where(ops, "remove base/6/1")
	dir, _ := where(ops, "remove base/6")
	at := []int{made, firstWrite, lastWrite, cut, cut2, lastCut, removed}
	if !slices.IsSorted(at) || made < 0 || cut < 0 || removed < 0 || link < removed || dir < inside {
		t.Errorf("order %v in\n%s", at, strings.Join(ops, "\n"))
	}
}

func checkSyncs(t *testing.T, ops []string, method SyncMethod) {
	t.Helper()
	var files, dirs []string
	for i, op := range ops {
		if name, ok := strings.CutPrefix(op, "sync "); ok {
			files = append(files, name)
			// Through the descriptor that wrote: nothing was closed between.
			opened := i
			for opened > 0 && ops[opened] != "open "+name {
				opened--
			}
			if slices.Contains(ops[opened:i], "close "+name) || ops[opened] != "open "+name {
				t.Errorf("%s was closed before its fsync", name)
			}
		}
		if name, ok := strings.CutPrefix(op, "syncdir "); ok {
			dirs = append(dirs, name)
		}
	}
	slices.Sort(files)
	slices.Sort(dirs)
	var wantFiles, wantDirs []string
	var wantFS int
	switch method {
	case SyncFsync:
		wantFiles = []string{"base/5/1", "base/5/2", "base/5/3", "base/5/3", "base/5/3_fsm", "base/5/4", "base/7/1",
			"pg_tblspc/16400/PG_15_202209061/1", "pg_wal/0000000200000000000000AA"}
		wantDirs = []string{".", "base", "base/5", "base/7", "pg_tblspc", "pg_tblspc/16399", "pg_tblspc/16400",
			"pg_tblspc/16400/PG_15_202209061", "pg_wal"}
	case SyncSyncfs:
		wantDirs = []string{"pg_tblspc/16399"}
		wantFS = 1
	}
	if !slices.Equal(files, wantFiles) {
		t.Errorf("method %d: files synced %v\nwant %v", method, files, wantFiles)
	}
	if !slices.Equal(dirs, wantDirs) {
		t.Errorf("method %d: directories synced %v\nwant %v", method, dirs, wantDirs)
	}
	if n := strings.Count(strings.Join(ops, "\n"), "syncfs"); n != wantFS {
		t.Errorf("method %d: syncfs %d times", method, n)
	}
}

var errInjected = errors.New("injected")

// Every operation fails once, and each time the error comes out; after an fsync that failed there is no other of that file.
func TestEveryFailureComesOut(t *testing.T) {
	for _, method := range []SyncMethod{SyncFsync, SyncSyncfs, SyncNone} {
		for n := 1; ; n++ {
			_, spy, source, p := everything(t)
			var failed string
			spy.before = func(i int, op string) error {
				if i == n {
					failed = op
					return &fs.PathError{Op: op, Path: op, Err: errInjected}
				}
				return nil
			}
			opts := modes
			opts.Jobs, opts.Sync = 2, method
			c := New(spy, opts)
			err := c.Run(t.Context(), source, p)
			if err == nil {
				err = c.Sync(t.Context())
			}
			if open := spy.stillOpen(); open != 0 {
				t.Errorf("method %d, operation %d (%s): %d files left open", method, n, failed, open)
			}
			if failed == "" {
				must(t, err)
				if n < 30 {
					t.Errorf("only %d operations", n)
				}
				break
			}
			var f *fault.Error
			if !errors.Is(err, errInjected) || !errors.As(err, &f) {
				t.Errorf("method %d, operation %d (%s): error %v", method, n, failed, err)
			}
			if strings.HasPrefix(failed, "sync") {
				if again := slices.Index(spy.ops[n:], failed); again >= 0 {
					t.Errorf("%s again after it failed", failed)
				}
				ops := len(spy.ops)
				if err := c.Sync(t.Context()); err == nil || len(spy.ops) != ops {
					t.Errorf("Sync after a failed %s: %v", failed, err)
				}
			}
		}
	}
}

func TestUnsafePaths(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	act := func(kind plan.Kind, typ pg.EntryType, name string) plan.Action {
		return plan.Action{Path: name, Kind: kind, Type: typ, SourceSize: 3, TargetSize: 3, LinkTarget: "x"}
	}
	for _, c := range []struct {
		action plan.Action
		want   string
	}{
		{act(plan.Copy, pg.RegularFile, "../f"), `target file path is unsafe for open: "../f"`},
		{act(plan.Copy, pg.RegularFile, secret), `target file path is unsafe for open: "` + secret + `"`},
		{act(plan.Copy, pg.RegularFile, "base/out/secret"), `target file path is unsafe for open: "base/out/secret"`},
		{act(plan.Copy, pg.RegularFile, "base/secret"), `target file path is unsafe for open: "base/secret"`},
		{act(plan.Truncate, pg.RegularFile, "base/secret"), `target file path is unsafe for truncation: "base/secret"`},
		{act(plan.Truncate, pg.RegularFile, "base/../../f"), `target file path is unsafe for truncation: "base/../../f"`},
		{act(plan.Remove, pg.RegularFile, "base/out/secret"), `target file path is unsafe for removal: "base/out/secret"`},
		{act(plan.Remove, pg.Directory, "base/out/dir"), `target directory path is unsafe for directory removal: "base/out/dir"`},
		{act(plan.Remove, pg.SymbolicLink, "../link"), `target symlink path is unsafe for removal: "../link"`},
		{act(plan.Create, pg.Directory, "base/out/new"), `target directory path is unsafe for directory creation: "base/out/new"`},
		{act(plan.Create, pg.Directory, "/tmp/new"), `target directory path is unsafe for directory creation: "/tmp/new"`},
		{act(plan.Create, pg.SymbolicLink, "base/out/new"), `target symlink path is unsafe for creation: "base/out/new"`},
	} {
		dir, spy := newTarget(t, map[string]string{"base/1": ""})
		must(t, os.Symlink(outside, filepath.Join(dir, "base/out")))
		must(t, os.Symlink(secret, filepath.Join(dir, "base/secret")))
		source := &memSource{answer: func(pg.FileRange, pg.FileChunk) pg.FileChunk { return pg.FileChunk{Data: []byte("bad")} }}
		err := New(spy, modes).Run(t.Context(), source, &plan.Plan{Actions: []plan.Action{c.action}})
		if err == nil || err.Error() != c.want || !errors.Is(err, fsx.ErrUnsafe) {
			t.Errorf("error %v\nwant  %s", err, c.want)
		}
	}
	if got := contents(t, outside); len(got) != 1 || got["secret"] != "secret" {
		t.Errorf("outside changed: %v", got)
	}
	// A source that lists a link first and then a file below it.
	dir, spy := newTarget(t, nil)
	link := act(plan.Create, pg.SymbolicLink, "dir")
	link.LinkTarget = outside
	err := New(spy, modes).Run(t.Context(), &memSource{files: map[string][]byte{"dir/secret": []byte("bad")}},
		&plan.Plan{Actions: []plan.Action{link, copyWhole("dir/secret", 3)}})
	if err == nil || err.Error() != `target file path is unsafe for open: "dir/secret"` {
		t.Errorf("below a link of the source's: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "dir")); err != nil {
		t.Error(err)
	}
}

// Random plans, cut in random ways and run by several workers, end in what they say.
func TestRandomPlans(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 18))
	bytesFrom := rand.NewChaCha8([32]byte{15, 18})
	content := func(n int) []byte {
		data := make([]byte, n)
		_, _ = bytesFrom.Read(data) // cannot fail
		return data
	}
	for round := range 10 {
		before, want := map[string]string{}, map[string]string{}
		source := &memSource{files: map[string][]byte{}}
		p := &plan.Plan{}
		for _, kind := range []plan.Kind{plan.Copy, plan.CopyTail, plan.None, plan.Truncate} {
			for i := range 1 + rng.IntN(8) {
				name := fmt.Sprintf("%s%02d", kind, i)
				short, long := 1+rng.IntN(200_000), 200_001+rng.IntN(1_500_000)
				a := plan.Action{Path: name, Kind: kind, Type: pg.RegularFile}
				switch kind {
				case plan.CopyTail:
					a.TargetSize, a.SourceSize = int64(short), int64(long)
				case plan.Truncate:
					a.TargetSize, a.SourceSize = int64(long), int64(short)
				case plan.None:
					a.TargetSize, a.SourceSize = int64(short), int64(short)
				case plan.Copy:
					a.TargetSize, a.SourceSize = int64(rng.IntN(long)), int64(rng.IntN(long))
				}
				from, to := content(int(a.SourceSize)), content(int(a.TargetSize))
				source.files[name], before[name] = from, string(to)
				result := make([]byte, a.SourceSize)
				copy(result, to)
				if kind != plan.Copy {
					limit := min(a.SourceSize, a.TargetSize)
					for at := int64(rng.IntN(5000)); at < limit; at += 2 + int64(rng.IntN(20000)) {
						s := plan.Span{Offset: at, Length: min(1+int64(rng.IntN(9000)), limit-at)}
						a.Blocks = append(a.Blocks, s)
						at += s.Length
					}
				}
				for _, s := range a.CopySpans() {
					copy(result[s.Offset:s.Offset+s.Length], from[s.Offset:])
				}
				want[name] = string(result)
				p.Actions = append(p.Actions, a)
			}
		}
		dir, spy := newTarget(t, before)
		opts := modes
		opts.Jobs = 1 + rng.IntN(6)
		opts.ChunkBytes = 10_000 + int64(rng.IntN(200_000))
		opts.BatchBytes = 1 + int64(rng.IntN(1_000_000))
		opts.BatchRanges = 1 + rng.IntN(50)
		opts.OpenFiles = 1
		opts.StrictSizes = rng.IntN(2) == 0
		opts.Sync = []SyncMethod{SyncFsync, SyncNone}[round%2]
		c := New(spy, opts)
		must(t, c.Run(t.Context(), source, p))
		must(t, c.Sync(t.Context()))
		got := contents(t, dir)
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s differs: %d bytes, want %d (%+v)", name, len(got[name]), len(want[name]), opts)
			}
		}
		if s := c.Stats(); s.LargestOpen > 8*opts.Jobs {
			t.Errorf("%d files open at once, %d jobs", s.LargestOpen, opts.Jobs)
		}
	}
}

// Many more files than descriptors, several workers: nobody waits for ever.
func TestDescriptorsAreBounded(t *testing.T) {
	for jobs := 1; jobs <= 4; jobs++ {
		_, spy := newTarget(t, nil)
		source := &memSource{files: map[string][]byte{}}
		p := &plan.Plan{}
		for i := range 500 {
			name := fmt.Sprintf("%03d", i)
			source.files[name] = bytes.Repeat([]byte{byte(i)}, 3000)
			p.Actions = append(p.Actions, copyWhole(name, 3000))
		}
		opts := modes
		opts.Jobs, opts.OpenFiles, opts.BatchRanges = jobs, 1, 7
		c := New(spy, opts)
		must(t, c.Run(t.Context(), source, p))
		if s := c.Stats(); s.LargestOpen > 8*jobs || s.FileSyncs != 500 || spy.stillOpen() != 0 {
			t.Errorf("jobs %d: %+v", jobs, s)
		}
	}
}

// stuck emits a few chunks, and then waits for the context.
type stuck struct {
	memSource
	reached chan struct{}
}

func (s *stuck) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	if err := s.memSource.Fetch(ctx, ranges[:len(ranges)/2], emit); err != nil {
		return err
	}
	select {
	case s.reached <- struct{}{}:
	case <-ctx.Done():
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestCancel(t *testing.T) {
	_, spy := newTarget(t, nil)
	p := &plan.Plan{}
	source := &stuck{memSource: memSource{files: map[string][]byte{}}, reached: make(chan struct{})}
	for i := range 100 {
		name := fmt.Sprintf("%03d", i)
		source.files[name] = []byte(name)
		p.Actions = append(p.Actions, copyWhole(name, 3))
	}
	opts := modes
	opts.Jobs, opts.BatchRanges = 3, 10
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- New(spy, opts).Run(ctx, source, p) }()
	<-source.reached
	cancel()
	select {
	case err := <-result:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not return")
	}
	if n := spy.stillOpen(); n != 0 {
		t.Errorf("%d files left open", n)
	}
}

// brokenSource fails in its second call.
type brokenSource struct {
	memSource
	calls chan struct{}
}

func (s *brokenSource) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	select {
	case s.calls <- struct{}{}:
		return s.memSource.Fetch(ctx, ranges, emit)
	default:
		return errInjected
	}
}

func TestSourceFails(t *testing.T) {
	_, spy := newTarget(t, nil)
	p := &plan.Plan{}
	source := &brokenSource{memSource{files: map[string][]byte{}}, make(chan struct{}, 1)}
	for i := range 100 {
		p.Actions = append(p.Actions, copyWhole(fmt.Sprintf("%03d", i), 3))
		source.files[fmt.Sprintf("%03d", i)] = []byte("abc")
	}
	opts := modes
	opts.Jobs, opts.BatchRanges = 2, 3
	if err := New(spy, opts).Run(t.Context(), source, p); !errors.Is(err, errInjected) {
		t.Errorf("error %v", err)
	}
	if n := spy.stillOpen(); n != 0 {
		t.Errorf("%d files left open", n)
	}
}

func TestSmallFilesAreAskedForInOneRange(t *testing.T) {
	_, spy := newTarget(t, nil)
	var asked []pg.FileRange
	source := &memSource{answer: func(r pg.FileRange, _ pg.FileChunk) pg.FileChunk {
		asked = append(asked, r)
		return pg.FileChunk{}
	}}
	opts := modes
	opts.ChunkBytes = 256 << 10
	must(t, New(spy, opts).Run(t.Context(), source, &plan.Plan{Actions: []plan.Action{
		copyWhole("a", 100), copyWhole("b", 0), copyWhole("c", 1<<20), copyWhole("d", 1<<20+1)}}))
	want := []pg.FileRange{{Path: "a", Length: 1 << 20}, {Path: "b", Length: 1 << 20}, {Path: "c", Length: 1 << 20}}
	for off := int64(0); off < 1<<20; off += 256 << 10 {
		want = append(want, pg.FileRange{Path: "d", Offset: off, Length: 256 << 10})
	}
	want = append(want, pg.FileRange{Path: "d", Offset: 1 << 20, Length: 1})
	if !slices.Equal(asked, want) {
		t.Errorf("asked for %v\nwant %v", asked, want)
	}
}

// A file of more than one range that grew is seen to have grown, although what is asked for is its size.
func TestStrictSizesSeeBigFilesGrow(t *testing.T) {
	const size = 2 << 20
	for _, strict := range []bool{false, true} {
		_, spy := newTarget(t, nil)
		opts := modes
		opts.StrictSizes = strict
		source := &memSource{files: map[string][]byte{"f": make([]byte, size+1)}}
		err := New(spy, opts).Run(t.Context(), source, &plan.Plan{Actions: []plan.Action{copyWhole("f", size)}})
		if strict != (err != nil && strings.HasPrefix(err.Error(), `size of source file "f" changed concurrently: `)) {
			t.Errorf("strict %t: %v", strict, err)
		}
	}
}
