package undo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	block   = pg.BlockSize
	spcDir  = "PG_15_202209061"
	journal = "fastrewind.journal"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a target and a source, with tablespaces and pg_wal elsewhere.
type world struct {
	t                      *testing.T
	r                      *rand.Rand
	top                    string
	target, source, undo   string
	blocks                 noted
	before                 map[string]string // the target's tree
	control, guard, label  []byte
	guardLabel, finalLabel []byte
	run                    string
}

type noted map[string][]uint32

func (n noted) Blocks(f pg.RelFile) iter.Seq[uint32] { return slices.Values(n[f.Path(spcDir)]) }

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	top := t.TempDir()
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 99)), top: top, run: "run-1", blocks: noted{},
		target: filepath.Join(top, "target"), source: filepath.Join(top, "source"), undo: filepath.Join(top, "undo"),
		guardLabel: []byte("do not start this\n"), finalLabel: []byte("START WAL LOCATION\n"),
	}
	w.control, w.guard = w.noise(8192), w.noise(8192)
	w.tree(w.target, "t")
	w.tree(w.source, "s")
	must(t, os.WriteFile(filepath.Join(w.target, controlName), w.control, 0o600))
	must(t, os.WriteFile(filepath.Join(w.source, controlName), w.noise(8192), 0o600))
	if w.r.IntN(2) == 0 {
		w.label = []byte("a label of before\n")
		must(t, os.WriteFile(filepath.Join(w.target, labelName), w.label, 0o640))
	}
	w.before = snapshot(t, w.target)
	return w
}

// noise is bytes of which some compress and some do not.
func (w *world) noise(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		word := w.r.Uint64()
		if len(b)%512 > 100 {
			word = uint64(len(b) / 512)
		}
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b[:n:n]
}

// relations are the paths of relation files that either side may have.
var relations = []string{"base/5/1247", "base/5/1249", "base/5/16384", "base/5/16384.1", "base/5/16385", "base/6/16390",
	"global/1260", "pg_tblspc/16400/" + spcDir + "/5/16500", "pg_tblspc/16400/" + spcDir + "/5/16501", "pg_tblspc/16401/" + spcDir + "/5/16510"}

// tree makes a data directory. Its directories, links and files are there or not by chance.
func (w *world) tree(dir, side string) {
	t := w.t
	t.Helper()
	wal := filepath.Join(w.top, side+"-wal")
	for _, d := range []string{dir, wal, dir + "/base", dir + "/base/5", dir + "/global", dir + "/pg_tblspc", dir + "/pg_xact"} {
		must(t, os.Mkdir(d, 0o700))
	}
	if w.r.IntN(2) == 0 {
		must(t, os.Symlink(wal, dir+"/pg_wal"))
	} else {
		must(t, os.Mkdir(dir+"/pg_wal", 0o700))
	}
	for _, d := range []string{"base/6", "log", "conf.d", "conf.d/deep", "conf.d/deep/deeper", "pg_wal/archive_status", "pg_replslot", "pg_replslot/s1"} {
		if w.r.IntN(3) > 0 {
			_ = os.Mkdir(filepath.Join(dir, d), fs.FileMode([]int{0o700, 0o750, 0o500 | 0o200}[w.r.IntN(3)])) // unless its parent is not there
		}
	}
	for _, oid := range []string{"16400", "16401"} {
		if w.r.IntN(3) == 0 {
			continue
		}
		space := filepath.Join(w.top, side+"-space-"+oid)
		must(t, os.MkdirAll(filepath.Join(space, spcDir, "5"), 0o700))
		must(t, os.Symlink(space, filepath.Join(dir, "pg_tblspc", oid)))
	}
	for _, name := range relations {
		if w.r.IntN(4) > 0 {
			w.file(dir, name, w.r.IntN(30)*block+w.r.IntN(2)*100)
		}
		for b := range uint32(31) {
			if w.r.IntN(4) == 0 {
				w.blocks[name] = append(w.blocks[name], b)
			}
		}
		slices.Sort(w.blocks[name])
		w.blocks[name] = slices.Compact(w.blocks[name])
	}
	for i := range 14 {
		names := []string{"pg_xact/%04d", "conf.d/%d.conf", "conf.d/deep/%d", "conf.d/deep/deeper/%d", "log/%d", "pg_wal/00000001000000000000000%d",
			"pg_replslot/s1/%d", "pg_replslot/%d", "pg_wal/archive_status/%d.done", "f%d"}
		if w.r.IntN(3) > 0 {
			w.file(dir, fmt.Sprintf(names[w.r.IntN(len(names))], i%10), w.r.IntN(3)*w.r.IntN(300000))
		}
	}
	for i := range 3 {
		if w.r.IntN(2) == 0 {
			must(t, os.Symlink([]string{"/nowhere", "base", "../x"}[w.r.IntN(3)], filepath.Join(dir, fmt.Sprintf("link%d", i))))
		}
	}
}

// file makes a file if there is a directory for it.
func (w *world) file(dir, name string, size int) {
	full := filepath.Join(dir, name)
	if _, err := os.Stat(filepath.Dir(full)); err != nil {
		return
	}
	_ = os.Remove(full)
	must(w.t, os.WriteFile(full, w.noise(size), 0o600))
	must(w.t, os.Chmod(full, fs.FileMode([]int{0o600, 0o640, 0o400}[w.r.IntN(3)])))
}

// snapshot is a tree with what it follows: type, permissions, content or link of every path, and of the tablespaces the
// directories they are in.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(full, name string)
	walk = func(full, name string) {
		entries, err := os.ReadDir(full)
		must(t, err)
		for _, e := range entries {
			full, name := filepath.Join(full, e.Name()), strings.TrimPrefix(name+"/"+e.Name(), "/")
			info, err := os.Lstat(full)
			must(t, err)
			switch {
			case info.IsDir():
				out[name] = "directory " + info.Mode().String()
				walk(full, name)
			case info.Mode()&fs.ModeSymlink != 0:
				to, err := os.Readlink(full)
				must(t, err)
				out[name] = "link " + to
				if followed(name) {
					walk(full, name)
				}
			default:
				data, err := os.ReadFile(full)
				must(t, err)
				out[name] = fmt.Sprintf("file %v %d bytes %s", info.Mode(), info.Size(), digest(data))
				if name != controlName && name != labelName {
					out[name] += info.ModTime().String()
				}
			}
		}
	}
	walk(dir, "")
	return out
}

func followed(name string) bool {
	return name == "pg_wal" || strings.HasPrefix(name, "pg_tblspc/") && strings.Count(name, "/") == 1
}

// withoutTemporary leaves out what replaces small files, which no server looks at.
func withoutTemporary(tree map[string]string) map[string]string {
	maps.DeleteFunc(tree, func(name, _ string) bool { return strings.HasSuffix(name, copier.TempSuffix) })
	return tree
}

func diff(a, b map[string]string) string {
	var out []string
	for name, what := range a {
		if b[name] != what {
			out = append(out, fmt.Sprintf("%s: was %s, is %s", name, what, b[name]))
		}
	}
	for name, what := range b {
		if a[name] == "" {
			out = append(out, fmt.Sprintf("%s: was not, is %s", name, what))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// plan is what a rewind of the two trees would do, or nil if they are of different types somewhere.
func (w *world) plan() *plan.Plan {
	w.t.Helper()
	source, err := datadir.List(w.t.Context(), w.source, 1, nil)
	must(w.t, err)
	target, err := datadir.List(w.t.Context(), w.target, 1, nil)
	must(w.t, err)
	own := func(e pg.Entry) bool {
		return e.Path == journal || e.Path == labelName || strings.HasSuffix(e.Path, copier.TempSuffix)
	}
	p, err := plan.Make(plan.Input{
		Source: source, Target: slices.DeleteFunc(target, own), Blocks: w.blocks, SegSize: 16 << 20, TablespaceDir: spcDir,
		MaxGapBlocks: w.r.IntN(3),
	})
	if err != nil && strings.Contains(err.Error(), "different type") {
		return nil
	}
	must(w.t, err)
	// A source's tablespace is not where the target's are.
	for i := range p.Actions {
		a := &p.Actions[i]
		if a.Kind == plan.Create && strings.HasPrefix(a.LinkTarget, w.top) {
			a.LinkTarget = strings.Replace(a.LinkTarget, "/s-", "/t-", 1)
			must(w.t, os.MkdirAll(a.LinkTarget, 0o700))
			must(w.t, os.RemoveAll(filepath.Join(a.LinkTarget, spcDir)))
		}
	}
	return p
}

func (w *world) input(p *plan.Plan) Input {
	return Input{
		RunID: w.run, SystemID: 7, TargetDir: w.target, Plan: p, Extra: []string{"postgresql.auto.conf", "standby.signal"},
		Own: []string{journal}, Control: w.control, Label: w.label, GuardControl: w.guard, GuardLabel: w.guardLabel,
	}
}

func (w *world) save(p *plan.Plan) Stats {
	w.t.Helper()
	s, err := Save(w.t.Context(), w.input(p), w.undo, Options{Wrap: cutAfter(math.MaxInt64)})
	must(w.t, err)
	return s
}

var errCut = errors.New("cut off")

// dirSource gives pieces of a directory's files, and fails after a number of ranges.
type dirSource struct {
	dir  string
	left atomic.Int64
}

func (s *dirSource) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	for i, r := range ranges {
		if s.left.Add(-1) < 0 {
			return errCut
		}
		f, err := os.Open(filepath.Join(s.dir, r.Path))
		if err != nil {
			return err
		}
		buf := make([]byte, r.Length)
		n, err := f.ReadAt(buf, r.Offset)
		f.Close()
		if err != nil && err != io.EOF {
			return err
		}
		if err := emit(i, pg.FileChunk{Data: buf[:n]}); err != nil {
			return err
		}
	}
	return nil
}

// rewind carries a plan out as internal/rewind does, up to the given number of ranges and operations; errCut if it did
// not get to the end. Only blocks of the target that the undo has, or that were not there, may be written.
func (w *world) rewind(p *plan.Plan, ranges, ops int64) error {
	t := w.t
	t.Helper()
	target, err := fsx.OpenTarget(w.target)
	must(t, err)
	defer target.Close()
	must(t, os.WriteFile(filepath.Join(w.target, journal), []byte("journal"), 0o600))
	must(t, copier.WriteDurably(target, copier.SyncNone, controlName, w.guard, 0o600))
	must(t, copier.WriteDurably(target, copier.SyncNone, labelName, w.guardLabel, 0o600))
	for _, a := range p.Actions { // the user who may not write them would have had them mended before
		if info, err := os.Lstat(filepath.Join(w.target, a.Path)); err == nil && info.Mode().IsRegular() && a.Kind != plan.Remove {
			must(t, os.Chmod(filepath.Join(w.target, a.Path), info.Mode()|0o200))
		}
	}
	own := *p
	own.Actions = slices.DeleteFunc(slices.Clone(p.Actions), func(a plan.Action) bool { return a.Path == labelName })
	source := &dirSource{dir: w.source}
	source.left.Store(ranges)
	cut := &cutFS{FS: target}
	cut.left.Store(ops)
	c := copier.New(cut, copier.Options{Jobs: 2, Sync: copier.SyncNone, FileMode: 0o600, DirMode: 0o700})
	if err := c.Run(t.Context(), source, &own); err != nil {
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		return err
	}
	for name, data := range map[string]string{labelName: string(w.finalLabel), "postgresql.auto.conf": "primary_conninfo", "standby.signal": ""} {
		must(t, copier.WriteDurably(target, copier.SyncNone, name, []byte(data), 0o600))
	}
	final := w.noise(8192)
	s, err := Open(t.Context(), w.input(nil), w.undo, Options{Wrap: cutAfter(math.MaxInt64)})
	must(t, err)
	must(t, s.Finish(final))
	must(t, s.Close())
	must(t, copier.WriteDurably(target, copier.SyncNone, controlName, final, 0o600))
	must(t, os.Remove(filepath.Join(w.target, journal)))
	return nil
}

func (w *world) apply(o ApplyOptions) error {
	if o.Wrap == nil {
		o.Wrap = cutAfter(math.MaxInt64)
	}
	_, err := Apply(w.t.Context(), w.undo, w.target, o)
	return err
}

// same fails the test unless the target is what it was.
func (w *world) same() {
	w.t.Helper()
	after := snapshot(w.t, w.target)
	if d := diff(w.before, after); d != "" {
		w.t.Fatalf("the target is not what it was:\n%s", d)
	}
}

// startable reports whether the target's control file is one that a server would take.
func (w *world) startable() bool {
	w.t.Helper()
	now, err := os.ReadFile(filepath.Join(w.target, controlName))
	must(w.t, err)
	return !bytes.Equal(now, w.guard)
}

// cutFS fails every operation that changes something after the first few.
type cutFS struct {
	fsx.FS
	left atomic.Int64
}

func (c *cutFS) spend() error {
	if c.left.Add(-1) < 0 {
		return errCut
	}
	return nil
}

func (c *cutFS) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	f, err := c.FS.OpenFile(name, how, mode)
	if err != nil {
		return nil, err
	}
	return &cutFile{f, c}, nil
}

func (c *cutFS) Mkdir(name string, mode fs.FileMode) error {
	return c.first(func() error { return c.FS.Mkdir(name, mode) })
}

func (c *cutFS) Symlink(target, name string) error {
	return c.first(func() error { return c.FS.Symlink(target, name) })
}

func (c *cutFS) Rename(oldname, newname string) error {
	return c.first(func() error { return c.FS.Rename(oldname, newname) })
}

func (c *cutFS) Remove(name string) error { return c.first(func() error { return c.FS.Remove(name) }) }
func (c *cutFS) SyncDir(_ string) error   { return c.spend() } // nothing here asks what a crash would leave

func (c *cutFS) first(do func() error) error {
	if err := c.spend(); err != nil {
		return err
	}
	return do()
}

type cutFile struct {
	fsx.File
	fs *cutFS
}

// WriteAt writes half of what it cannot write whole.
func (f *cutFile) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.fs.spend(); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], offset)
		return n, err
	}
	return f.File.WriteAt(p, offset)
}

func (f *cutFile) Truncate(size int64) error {
	return f.fs.first(func() error { return f.File.Truncate(size) })
}
func (f *cutFile) Sync() error { return f.fs.spend() }

// cutAfter lets so many operations through.
func cutAfter(ops int64) func(fsx.FS) fsx.FS {
	return func(target fsx.FS) fsx.FS {
		c := &cutFS{FS: target}
		c.left.Store(ops)
		return c
	}
}
