package crashfs

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// initial is the tree all tests begin with.
func initial() Tree {
	return Tree{
		"d":     {Mode: fs.ModeDir | 0o700},
		"d/old": {Mode: 0o600, Data: bytes.Repeat([]byte("o"), 20000)},
		"e":     {Mode: fs.ModeDir | 0o700},
		"e/x":   {Mode: 0o600, Data: []byte("x")},
		"gone":  {Mode: 0o600, Data: []byte("gone")},
	}
}

// world is a recorded target that begins as initial().
type world struct {
	*testing.T
	*World
	Target
	dir  string
	base Tree
}

func newWorld(t *testing.T, fault Fault) *world {
	t.Helper()
	w := &world{T: t, World: New(fault), dir: filepath.Join(t.TempDir(), "target"), base: initial()}
	must(t, w.base.Write(w.dir))
	inner, err := fsx.OpenTarget(w.dir)
	must(t, err)
	w.Target = w.Wrap(inner)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

func (w *world) open(name string, how fsx.Open) fsx.File {
	w.Helper()
	f, err := w.OpenFile(name, how, 0o600)
	must(w.T, err)
	return f
}

func (w *world) write(f fsx.File, data string, at int64) {
	w.Helper()
	_, err := f.WriteAt([]byte(data), at)
	must(w.T, err)
}

// crash is what a crash now leaves.
func (w *world) crash(keep Keep) Tree {
	w.Helper()
	log := w.Log()
	tree, err := log.Crash(w.base, ".", log.Len(), keep)
	must(w.T, err)
	return tree
}

// agrees checks that the model shows what the directory has.
func (w *world) agrees() {
	w.Helper()
	real, err := Load(w.dir)
	must(w.T, err)
	for _, d := range real.Diff(w.crash(All())) {
		w.Errorf("the directory and the model differ: %s", d)
	}
}

// only checks that nothing differs from the initial tree but what is named: by its content, or "" for what is missing.
func (w *world) only(got Tree, want map[string]string) {
	w.Helper()
	tree := initial()
	for name, data := range want {
		switch data {
		case "":
			delete(tree, name)
		case "/":
			tree[name] = Node{Mode: fs.ModeDir | 0o700}
		default:
			tree[name] = Node{Mode: 0o600, Data: []byte(data)}
		}
	}
	for _, d := range got.Diff(tree) {
		w.Error(d)
	}
}

// outcomes are the contents a file may have, over many random crashes; "-" if it is not there.
func (w *world) outcomes(name string) []string {
	w.Helper()
	seen := map[string]bool{}
	for seed := range uint64(400) {
		n, there := w.crash(Random(seed))[name]
		if !there {
			seen["-"] = true
			continue
		}
		seen[string(n.Data)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func (w *world) mayBe(name string, want ...string) {
	w.Helper()
	slices.Sort(want)
	if got := w.outcomes(name); !slices.Equal(got, want) {
		w.Errorf("%s may be %q, want %q", name, got, want)
	}
}

func TestNothingIsDurableByItself(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("d/new", fsx.CreateNew)
	w.write(f, "new", 0)
	must(t, f.Close())
	old := w.open("d/old", fsx.Existing)
	w.write(old, "NEW", 100)
	must(t, old.Truncate(50))
	must(t, old.Close())
	must(t, w.Mkdir("d/sub", 0o700))
	must(t, w.Symlink("old", "d/link"))
	must(t, w.Rename("e/x", "e/y"))
	must(t, w.Remove("gone"))
	w.agrees()
	w.only(w.crash(Synced()), nil)

	must(t, w.SyncFS())
	w.agrees()
	for _, d := range w.crash(Synced()).Diff(w.crash(All())) {
		t.Error(d)
	}
	for seed := range uint64(50) {
		for _, d := range w.crash(Random(seed)).Diff(w.crash(All())) {
			t.Error(d)
		}
	}
}

func TestFileSyncDoesNotMakeItsNameDurable(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("d/new", fsx.CreateNew)
	w.write(f, "new", 0)
	must(t, f.Sync())
	w.only(w.crash(Synced()), nil)
	w.mayBe("d/new", "-", "new")
	must(t, w.SyncDir("."))
	w.only(w.crash(Synced()), nil)
	must(t, w.SyncDir("d"))
	w.only(w.crash(Synced()), map[string]string{"d/new": "new"})
	w.mayBe("d/new", "new")
	must(t, f.Close())
}

func TestNameIsNotData(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("d/new", fsx.CreateNew)
	w.write(f, "new", 0)
	must(t, w.SyncDir("d"))
	w.mayBe("d/new", "", "\x00\x00\x00", "new")
	if n, there := w.crash(Synced())["d/new"]; !there || len(n.Data) != 0 {
		t.Errorf("d/new is %q, %t: want an empty file", n.Data, there)
	}
	must(t, f.Close())
}

// A directory's name is in its parent; what is in it goes with it.
func TestDirectories(t *testing.T) {
	w := newWorld(t, Fault{})
	must(t, w.Mkdir("d/sub", 0o700))
	f := w.open("d/sub/new", fsx.CreateNew)
	w.write(f, "new", 0)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, w.SyncDir("d/sub"))
	w.only(w.crash(Synced()), nil)
	w.mayBe("d/sub/new", "-", "new")
	must(t, w.SyncDir("d"))
	w.only(w.crash(Synced()), map[string]string{"d/sub": "/", "d/sub/new": "new"})

	must(t, w.Remove("e/x"))
	must(t, w.Remove("e"))
	must(t, w.SyncDir("."))
	w.only(w.crash(Synced()), map[string]string{"d/sub": "/", "d/sub/new": "new", "e": "", "e/x": ""})
	w.agrees()
}

// Data goes with the inode, whatever it is called.
func TestRename(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("e/x.tmp", fsx.CreateNew)
	w.write(f, "replaced", 0)
	must(t, f.Sync())
	must(t, w.Rename("e/x.tmp", "e/x"))
	w.only(w.crash(Synced()), nil)
	// Never anything else, never missing.
	w.mayBe("e/x", "replaced", "x")
	w.mayBe("e/x.tmp", "-", "replaced")
	must(t, w.SyncDir("e"))
	w.only(w.crash(Synced()), map[string]string{"e/x": "replaced"})

	// Written through the descriptor after the rename.
	w.write(f, "REPLACED", 0)
	w.only(w.crash(Synced()), map[string]string{"e/x": "replaced"})
	must(t, f.Sync())
	w.only(w.crash(Synced()), map[string]string{"e/x": "REPLACED"})
	must(t, f.Close())

	// Synced through another descriptor.
	a, b := w.open("e/x", fsx.Existing), w.open("e/x", fsx.Existing)
	w.write(a, "replaced", 0)
	must(t, b.Sync())
	must(t, a.Close())
	must(t, b.Close())
	w.only(w.crash(Synced()), map[string]string{"e/x": "replaced"})
	w.agrees()
}

// A rename without fsync before it is the classic way to lose a file.
func TestRenameOfUnsyncedData(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("e/x.tmp", fsx.CreateNew)
	w.write(f, "new", 0)
	must(t, f.Close())
	must(t, w.Rename("e/x.tmp", "e/x"))
	must(t, w.SyncDir("e"))
	w.mayBe("e/x", "", "\x00\x00\x00", "new")
}

func TestRemovedNamesComeBack(t *testing.T) {
	w := newWorld(t, Fault{})
	must(t, w.Remove("gone"))
	f := w.open("gone", fsx.CreateNew)
	w.write(f, "back", 0)
	must(t, f.Sync())
	must(t, f.Close())
	w.mayBe("gone", "-", "gone", "back")
	must(t, w.SyncDir("."))
	w.only(w.crash(Synced()), map[string]string{"gone": "back"})
}

// Pieces of writes survive one by one, and sizes have a will of their own.
func TestPieces(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("d/old", fsx.Existing)
	w.write(f, strings.Repeat("1", 4096), 0)
	w.write(f, strings.Repeat("2", 4096), 2048)
	must(t, f.Truncate(6000))
	must(t, f.Truncate(30000))
	must(t, f.Close())
	w.agrees()
	sizes, firsts, mixed, holes := map[int]bool{}, map[byte]bool{}, false, false
	for seed := range uint64(2000) {
		data := w.crash(Random(seed))["d/old"].Data
		sizes[len(data)] = true
		firsts[data[0]] = true
		mixed = mixed || data[0] == 'o' && data[3000] == '2' || data[0] == '1' && data[1024] == 'o'
		holes = holes || len(data) == 30000 && data[29999] == 0 && data[7000] == 0 && data[0] == 'o'
		for i, b := range data {
			if b != 0 && b != 'o' && (b != '1' || i >= 4096) && (b != '2' || i < 2048 || i >= 6144) {
				t.Fatalf("seed %d: byte %d is %q", seed, i, b)
			}
		}
	}
	if !maps.Equal(sizes, map[int]bool{20000: true, 6000: true, 30000: true}) ||
		!maps.Equal(firsts, map[byte]bool{'o': true, '1': true}) || !mixed || !holes {
		t.Errorf("sizes %v, first bytes %v, mixed %t, holes %t", sizes, firsts, mixed, holes)
	}
}

func TestSizeIsDurableWithData(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("e/x", fsx.Existing)
	w.write(f, "y", 5)
	must(t, f.Sync())
	must(t, f.Truncate(1))
	w.only(w.crash(Synced()), map[string]string{"e/x": "x\x00\x00\x00\x00y"})
	w.mayBe("e/x", "x", "x\x00\x00\x00\x00\x00", "x\x00\x00\x00\x00y") // the cut page written, the size not
	must(t, f.Sync())
	w.only(w.crash(Synced()), nil)
	must(t, f.Close())
}

// After an fsync that failed, the next one succeeds and proves nothing: what happened in 2018.
func TestFailedSync(t *testing.T) {
	w := newWorld(t, Fault{At: 3, Err: syscall.EIO})
	f := w.open("e/x", fsx.Existing)
	w.write(f, "lost", 0)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync() = %v", err)
	}
	w.only(w.crash(Synced()), nil)
	must(t, f.Sync())
	w.only(w.crash(Synced()), map[string]string{"e/x": "x\x00\x00\x00"}) // but the size is metadata
	w.agrees()                                                           // the running system shows what is not there
	w.mayBe("e/x", "x\x00\x00\x00", "lost")
	w.write(f, "LOST", 0)
	must(t, f.Sync())
	w.mayBe("e/x", "LOST")
	must(t, f.Close())
}

// A directory's sync that failed can be done again, and so can that of a truncation: metadata is not forgotten.
func TestFailedSyncOfMetadata(t *testing.T) {
	w := newWorld(t, Fault{At: 5, Err: syscall.EIO})
	f := w.open("d/old", fsx.Existing)
	must(t, f.Truncate(1))
	w.write(f, "2", 1)
	must(t, w.Remove("e/x"))
	if err := w.SyncFS(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("SyncFS() = %v", err)
	}
	w.only(w.crash(Synced()), nil)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, w.SyncDir("e"))
	w.only(w.crash(Synced()), map[string]string{"d/old": "o\x00", "e/x": ""})
	w.only(w.crash(All()), map[string]string{"d/old": "o2", "e/x": ""})
	w.agrees()
}

func TestBefore(t *testing.T) {
	var w *world
	called := 0
	w = newWorld(t, Fault{At: 2, Before: func() {
		called++
		must(t, w.Remove("gone")) // is operation 2 now
	}})
	must(t, w.Mkdir("d/1", 0o700))
	must(t, w.Mkdir("d/2", 0o700))
	must(t, w.Mkdir("d/3", 0o700))
	if ops := w.Log().Ops; called != 1 || len(ops) != 4 || ops[1].Kind != OpRemove {
		t.Errorf("called %d times; %v", called, ops)
	}
}

func TestFaults(t *testing.T) {
	w := newWorld(t, Fault{At: 2, Err: syscall.ENOSPC, Short: true, Forever: true, Only: func(k Kind) bool { return k == OpWrite }})
	f := w.open("e/x", fsx.Existing)
	if n, err := f.WriteAt([]byte("1234"), 0); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt = %d, %v", n, err)
	}
	must(t, f.Truncate(9))
	if n, err := f.WriteAt([]byte("5678"), 2); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt = %d, %v", n, err)
	}
	must(t, f.Sync())
	must(t, f.Close())
	w.agrees()
	w.only(w.crash(Synced()), map[string]string{"e/x": "1256\x00\x00\x00\x00\x00"})

	// Each operation, failing without and with effect.
	ops := map[Kind]func(w *world) error{
		OpOpen: func(w *world) error {
			f, err := w.OpenFile("d/new", fsx.Create, 0o600)
			if err == nil {
				f.Close()
			}
			return err
		},
		OpMkdir:   func(w *world) error { return w.Mkdir("d/sub", 0o700) },
		OpSymlink: func(w *world) error { return w.Symlink("x", "d/link") },
		OpRename:  func(w *world) error { return w.Rename("e/x", "e/y") },
		OpRemove:  func(w *world) error { return w.Remove("gone") },
		OpSyncDir: func(w *world) error { return w.SyncDir("d") },
		OpSyncFS:  func(w *world) error { return w.SyncFS() },
	}
	for kind, op := range ops {
		for _, applied := range []bool{false, true} {
			w := newWorld(t, Fault{At: 1, Err: syscall.EIO, Applied: applied})
			err := op(w)
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%v: %v", kind, err)
			}
			w.agrees()
			if changed := len(w.crash(All()).Diff(initial())) > 0; changed != (applied && kind < OpSync) {
				t.Errorf("%v, applied %t: changed %t", kind, applied, changed)
			}
			if n := w.Log().Len(); n != 1 {
				t.Errorf("%v: %d operations", kind, n)
			}
		}
	}
}

// What failed by itself is in the log, and changed nothing.
func TestRealErrors(t *testing.T) {
	w := newWorld(t, Fault{})
	if err := w.Remove("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := w.Mkdir("d", 0o700); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if err := w.SyncDir("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := w.OpenFile("missing", fsx.Existing, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if n := w.Log().Len(); n != 4 {
		t.Errorf("%d operations, want 4", n)
	}
	w.agrees()
	w.only(w.crash(All()), nil)
}

func TestTheWorldStops(t *testing.T) {
	w := newWorld(t, Fault{At: 2, Crash: true})
	f := w.open("e/x", fsx.Existing)
	_, writeErr := f.WriteAt([]byte("1"), 0)
	_, sizeErr := f.Size()
	_, lstatErr := w.Lstat("e/x")
	_, linkErr := w.Readlink("e/x")
	_, openErr := w.OpenFile("e/x", fsx.Existing, 0)
	for op, err := range map[string]error{
		"write": writeErr, "size": sizeErr, "lstat": lstatErr, "readlink": linkErr, "open": openErr, "sync": f.Sync(),
		"writeback": f.StartWriteback(0, 1), "close": f.Close(), "mkdir": w.Mkdir("q", 0o700), "syncfs": w.SyncFS(),
	} {
		if !errors.Is(err, ErrCrashed) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if w.Log().Len() != 1 || !w.Stopped() {
		t.Errorf("%d operations, stopped %t", w.Log().Len(), w.Stopped())
	}
	w.agrees()
	w.only(w.crash(All()), nil)
}

// A process that was killed leaves what it has not synced to the one after it; only together are the two logs the disk's.
func TestTwoProcesses(t *testing.T) {
	w := newWorld(t, Fault{})
	f := w.open("e/x", fsx.Existing)
	w.write(f, "1", 0)
	must(t, w.Mkdir("d/sub", 0o700))
	first := w.Log()

	second := New(Fault{})
	inner, err := fsx.OpenTarget(w.dir)
	must(t, err)
	target := second.Wrap(inner)
	defer func() { must(t, target.Close()) }()
	g, err := target.OpenFile("e/x", fsx.Existing, 0)
	must(t, err)
	_, err = g.WriteAt([]byte("2"), 1)
	must(t, err)
	h, err := target.OpenFile("d/sub/new", fsx.CreateNew, 0o600)
	must(t, err)
	must(t, h.Sync())
	must(t, target.SyncDir("d/sub"))

	both := first.Then(second.Log())
	tree, err := both.Crash(w.base, ".", both.Len(), Synced())
	must(t, err)
	w.only(tree, nil) // d/sub was never synced by anybody
	must(t, g.Sync())
	both = first.Then(second.Log())
	if tree, err = both.Crash(w.base, ".", both.Len(), Synced()); err != nil {
		t.Fatal(err)
	}
	w.only(tree, map[string]string{"e/x": "12"})
	if tree, err = first.Crash(w.base, ".", first.Len(), Synced()); err != nil {
		t.Fatal(err)
	}
	w.only(tree, nil)
	for _, f := range []fsx.File{f, g, h} {
		must(t, f.Close())
	}
}

// A data directory below the root, and a tablespace beside it.
func TestLinks(t *testing.T) {
	root := t.TempDir()
	base := Tree{
		"data":                  {Mode: fs.ModeDir | 0o700},
		"data/pg_tblspc":        {Mode: fs.ModeDir | 0o700},
		"data/pg_tblspc/16400":  {Mode: fs.ModeSymlink, Link: "../../space"},
		"space":                 {Mode: fs.ModeDir | 0o700},
		"space/PG_15_202209061": {Mode: fs.ModeDir | 0o700},
		"later":                 {Mode: fs.ModeDir | 0o700},
	}
	must(t, base.Write(filepath.Join(root, "r")))
	inner, err := fsx.OpenTarget(filepath.Join(root, "r/data"))
	must(t, err)
	w := New(Fault{})
	target := w.Wrap(inner)
	defer func() { must(t, target.Close()) }()
	must(t, target.Symlink("../../later", "pg_tblspc/16500"))
	for _, oid := range []string{"16400", "16500"} {
		f, err := target.OpenFile("pg_tblspc/"+oid+"/1", fsx.CreateNew, 0o600)
		must(t, err)
		must(t, f.Close())
		must(t, target.SyncDir("pg_tblspc/"+oid))
	}
	log := w.Log()
	all, err := log.Crash(base, "data", log.Len(), All())
	must(t, err)
	real, err := Load(filepath.Join(root, "r"))
	must(t, err)
	if d := real.Diff(all); d != nil {
		t.Error(d)
	}
	synced, err := log.Crash(base, "data", log.Len(), Synced())
	must(t, err)
	base["space/1"], base["later/1"] = Node{Mode: 0o600}, Node{Mode: 0o600} // but not the link
	if d := synced.Diff(base); d != nil {
		t.Error(d)
	}

	base["data/pg_tblspc/16600"] = Node{Mode: fs.ModeSymlink, Link: "/elsewhere"}
	if _, err := (Log{Ops: []Op{{Kind: OpMkdir, Name: "pg_tblspc/16600/x", Done: true}}}).Crash(base, "data", 1, All()); err == nil {
		t.Error("a link out of the tree was followed")
	}
}

func TestTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "t")
	tree := initial()
	tree["link"] = Node{Mode: fs.ModeSymlink, Link: "d/old"}
	tree["d/group"] = Node{Mode: 0o640, Data: []byte("g")}
	must(t, tree.Write(dir))
	again, err := Load(dir)
	must(t, err)
	if d := again.Diff(tree); d != nil {
		t.Error(d)
	}
	must(t, os.Chmod(filepath.Join(dir, "d/group"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "e/x"), []byte("z"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "e/more"), nil, 0o600))
	must(t, os.Truncate(filepath.Join(dir, "d/old"), 1))
	must(t, os.Remove(filepath.Join(dir, "gone")))
	again, err = Load(dir)
	must(t, err)
	want := []string{
		"d/group: is -rw-------, not -rw-r-----",
		"d/old: has 1 bytes, not 20000",
		"e/more: should not be there (-rw-------, 0 bytes)",
		`e/x: differs from byte 0 (block 0) on: "z", not "x"`,
		"gone: is missing",
	}
	if d := again.Diff(tree); !slices.Equal(d, want) {
		t.Errorf("Diff: %q", d)
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	if _, err := Load(dir); err == nil {
		t.Error("a FIFO was loaded")
	}
}
