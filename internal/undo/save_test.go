package undo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// small makes a world of one directory with files of known sizes in base/5, and nothing else of interest.
func small(t *testing.T, sizes map[string]int) *world {
	t.Helper()
	w := newWorld(t, 1)
	w.label = nil
	must(t, os.RemoveAll(w.target))
	for _, d := range []string{"base/5", "global", "pg_wal", "pg_tblspc"} {
		must(t, os.MkdirAll(filepath.Join(w.target, d), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(w.target, controlName), w.control, 0o600))
	for name, size := range sizes {
		must(t, os.WriteFile(filepath.Join(w.target, name), w.noise(size), 0o600))
	}
	w.before = snapshot(t, w.target)
	return w
}

func actions(a ...plan.Action) *plan.Plan { return &plan.Plan{Actions: a} }

func change(name string, blocks ...plan.Span) plan.Action {
	return plan.Action{Path: name, Kind: plan.None, Type: pg.RegularFile, Blocks: blocks}
}

func scribble(t *testing.T, name string, spans ...plan.Span) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	for _, s := range spans {
		_, err := f.WriteAt(make([]byte, s.Length), s.Offset)
		must(t, err)
	}
}

// TestWhatIsSaved looks at the bytes: only what the plan overwrites, and in a second session only what is new.
func TestWhatIsSaved(t *testing.T) {
	const f, g = "base/5/1", "base/5/2"
	w := small(t, map[string]int{f: 10 * block, g: 4*block + 100, "base/5/3": 3 * block})
	first := actions(
		plan.Action{Path: "base/5/new", Kind: plan.Copy, SourceSize: 100},
		plan.Action{Path: g, Kind: plan.CopyTail, SourceSize: 9 * block, TargetSize: 4*block + 100, Blocks: []plan.Span{{Offset: block, Length: block}}},
		change(f, plan.Span{Offset: 0, Length: 2 * block}, plan.Span{Offset: 5 * block, Length: block}),
		plan.Action{Path: "base/5/3", Kind: plan.Truncate, SourceSize: block, TargetSize: 3 * block},
	)
	stats := w.save(first)
	if want := (Stats{Part: 1, Paths: 4 + 4, Bytes: (1 + 3 + 2) * block, Stored: stats.Stored}); stats != want {
		t.Errorf("first: %+v, want %+v", stats, want)
	}
	scribble(t, filepath.Join(w.target, f), plan.Span{Offset: 0, Length: 2 * block}, plan.Span{Offset: 5 * block, Length: block})
	must(t, os.Truncate(filepath.Join(w.target, "base/5/3"), block))
	must(t, os.Truncate(filepath.Join(w.target, g), 9*block))
	must(t, os.WriteFile(filepath.Join(w.target, "base/5/new"), []byte("new"), 0o600))

	if stats := w.save(first); stats != (Stats{Already: 6 * block}) {
		t.Errorf("the same again: %+v", stats)
	}
	second := actions(
		plan.Action{Path: "base/5/new", Kind: plan.Copy, SourceSize: 100},
		change(f, plan.Span{Offset: block, Length: 5 * block}),
		change(g, plan.Span{Offset: 4 * block, Length: 3 * block}), // of which 100 bytes are the original's
		plan.Action{Path: "base/5/3", Kind: plan.Remove},
	)
	stats = w.save(second)
	if want := (Stats{Part: 2, Bytes: 3*block + 100 + block, Already: 2*block + 2*block, Stored: stats.Stored}); stats != want {
		t.Errorf("second: %+v, want %+v", stats, want)
	}
	scribble(t, filepath.Join(w.target, f), plan.Span{Offset: block, Length: 5 * block})
	scribble(t, filepath.Join(w.target, g), plan.Span{Offset: block, Length: block}, plan.Span{Offset: 4 * block, Length: 3 * block})
	must(t, os.Remove(filepath.Join(w.target, "base/5/3")))
	must(t, w.apply(ApplyOptions{}))
	if d := diff(w.before, snapshot(t, w.target)); d != "" {
		t.Error(d)
	}
	info, err := os.Stat(w.undo)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v", info.Mode())
	}
	must(t, filepath.WalkDir(w.undo, func(name string, d fs.DirEntry, err error) error {
		if info, infoErr := d.Info(); infoErr != nil || !d.IsDir() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return err
	}))
}

// TestSpanSets compares the span arithmetic with sets of numbers.
func TestSpanSets(t *testing.T) {
	w := &world{t: t, r: newWorld(t, 3).r}
	set := func() ([]plan.Span, map[int64]bool) {
		var spans []plan.Span
		in := map[int64]bool{}
		for at := int64(w.r.IntN(3)); at < 40; {
			n := 1 + w.r.Int64N(6)
			spans = append(spans, plan.Span{Offset: at, Length: n})
			for i := range n {
				in[at+i] = true
			}
			at += n + w.r.Int64N(5)
		}
		return spans, in
	}
	list := func(spans []plan.Span) map[int64]bool {
		out := map[int64]bool{}
		end := int64(-1)
		for _, s := range spans {
			if s.Length <= 0 || s.Offset < end {
				t.Fatalf("spans %v", spans)
			}
			end = s.Offset + s.Length
			for i := range s.Length {
				out[s.Offset+i] = true
			}
		}
		return out
	}
	for range 2000 {
		a, inA := set()
		b, inB := set()
		limit := w.r.Int64N(50)
		minus, plus, below := map[int64]bool{}, map[int64]bool{}, map[int64]bool{}
		for i := range int64(60) {
			if inA[i] && !inB[i] {
				minus[i] = true
			}
			if inA[i] || inB[i] {
				plus[i] = true
			}
			if inA[i] && i < limit {
				below[i] = true
			}
		}
		copied := append([]plan.Span(nil), a...)
		if got := list(subtract(a, b)); !reflect.DeepEqual(got, minus) {
			t.Fatalf("%v - %v = %v", a, b, got)
		}
		if got := list(merge(a, b)); !reflect.DeepEqual(got, plus) {
			t.Fatalf("%v + %v = %v", a, b, got)
		}
		if got := list(clip(a, limit)); !reflect.DeepEqual(got, below) {
			t.Fatalf("%v below %d = %v", a, limit, got)
		}
		if !reflect.DeepEqual(a, copied) {
			t.Fatalf("%v became %v", copied, a)
		}
	}
}

// TestSaveFails ends a Save at every operation on the undo directory: the target stays as it is, and the next Save, of
// the same run or of another, finds nothing in its way.
func TestSaveFails(t *testing.T) {
	w := newWorld(t, 4)
	for seed := uint64(5); w.plan() == nil; seed++ {
		w = newWorld(t, seed)
	}
	w.before = snapshot(t, w.target)
	p := w.plan()
	for ops := int64(0); ; ops++ {
		in := w.input(p)
		in.RunID = []string{"one", "two"}[ops%2]
		_, err := Save(t.Context(), in, w.undo, Options{Wrap: cutAfter(ops), Jobs: 1})
		if err == nil {
			if ops < 10 {
				t.Errorf("only %d operations", ops)
			}
			w.run = in.RunID
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatalf("after %d operations: %v", ops, err)
		}
		w.same()
		if _, err := Describe(w.undo); err == nil {
			// The very last operations: the part had its name already.
			must(t, Discard(w.undo, in.RunID))
		}
	}
	must(t, w.rewind(p, unlimited, unlimited))
	must(t, w.apply(ApplyOptions{}))
	w.same()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Save(ctx, w.input(p), filepath.Join(w.top, "other"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancellation: %v", err)
	}
}

// advice is an error's text and advice.
func advice(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Text + "\n" + f.Advice
	}
	if err == nil {
		return "no error"
	}
	return err.Error()
}

func expect(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(advice(err), part) {
			t.Errorf("error is %q, which says nothing of %q", advice(err), part)
		}
	}
}

func TestWhereAnUndoMayLie(t *testing.T) {
	w := small(t, nil)
	p := actions()
	wal, space := filepath.Join(w.top, "wal"), filepath.Join(w.top, "space")
	must(t, os.MkdirAll(filepath.Join(space, spcDir), 0o700))
	must(t, os.Mkdir(wal, 0o700))
	must(t, os.Remove(filepath.Join(w.target, "pg_wal")))
	must(t, os.Symlink(wal, filepath.Join(w.target, "pg_wal")))
	must(t, os.Symlink(space, filepath.Join(w.target, "pg_tblspc/16400")))
	must(t, os.Symlink(filepath.Join(w.target, "base"), filepath.Join(w.top, "way-in")))
	must(t, os.Mkdir(filepath.Join(w.top, "full"), 0o700))
	must(t, os.WriteFile(filepath.Join(w.top, "full/letter"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(w.top, "file"), nil, 0o600))
	before := snapshot(t, w.top)
	for _, c := range []struct{ dir, says string }{
		{w.target, "lies inside the target"},
		{filepath.Join(w.target, "base/undo"), "lies inside the target"},
		{filepath.Join(w.target, "a/b/c"), "lies inside the target"},
		{filepath.Join(wal, "undo"), "lies inside the target"},
		{filepath.Join(space, spcDir, "undo"), "lies inside the target"},
		{filepath.Join(w.top, "way-in", "undo"), "lies inside the target"},
		{filepath.Join(w.top, "full"), "is not empty"},
		{w.top, "is not empty"},
		{filepath.Join(w.top, "file"), "Not a directory"},
	} {
		_, err := Save(t.Context(), w.input(p), c.dir, Options{})
		expect(t, err, c.says)
		expect(t, CheckDir(c.dir, w.target), c.says)
	}
	_, err := Save(t.Context(), w.input(p), filepath.Join(w.top, "no/parent"), Options{})
	expect(t, err, "could not create directory", "No such file or directory")
	if d := diff(before, snapshot(t, w.top)); d != "" {
		t.Errorf("something was changed:\n%s", d)
	}
	must(t, CheckDir(w.undo, w.target))
	must(t, os.Mkdir(w.undo, 0o755))
	must(t, CheckDir(w.undo, w.target))
	w.save(p)
	must(t, CheckDir(w.undo, w.target))

	// Another run's undo.
	other := w.input(p)
	other.RunID = "another"
	_, err = Save(t.Context(), other, w.undo, Options{})
	expect(t, err, "belongs to another rewind", w.run)
	expect(t, Finish(w.undo, "another", w.control), "belongs to another rewind")
	must(t, Discard(w.undo, "another"))
	must(t, Verify(t.Context(), w.undo))

	// In use, and open to others.
	s, err := openStore(w.undo, nil)
	must(t, err)
	_, err = Save(t.Context(), w.input(p), w.undo, Options{})
	expect(t, err, "is in use")
	expect(t, w.apply(ApplyOptions{}), "is in use")
	must(t, s.close())
	must(t, os.Chmod(w.undo, 0o770))
	expect(t, w.apply(ApplyOptions{}), "invalid permissions")
	must(t, os.Chmod(w.undo, 0o700))
	if os.Geteuid() == 0 {
		must(t, os.Chown(w.undo, 12345, -1))
		expect(t, w.apply(ApplyOptions{}), "wrong ownership")
		must(t, os.Chown(w.undo, 0, -1))
	}

	must(t, Discard(w.undo, w.run))
	if entries, err := os.ReadDir(w.undo); err != nil || len(entries) > 0 {
		t.Errorf("after Discard: %v, %v", entries, err)
	}
	expect(t, Verify(t.Context(), w.undo), "holds no undo")
	expect(t, w.apply(ApplyOptions{}), "holds no undo")
	must(t, Discard(filepath.Join(w.top, "nowhere"), w.run))
	must(t, Discard(filepath.Join(w.top, "full"), w.run))
	must(t, Discard(filepath.Join(w.top, "file"), w.run))
	must(t, os.Chmod(filepath.Join(w.top, "full"), 0o777))
	must(t, Discard(filepath.Join(w.top, "full"), w.run)) // nor any other that Save refuses
}

// TestClones stands a copy in for a reflink, which few file systems have.
func TestClones(t *testing.T) {
	const whole, late, tiny = "base/5/1", "base/5/2", "base/5/3"
	w := small(t, map[string]int{whole: 40 * block, late: 40 * block, tiny: block})
	left := 1
	opts := Options{clone: func(dst, src *os.File) error {
		if left--; left < 0 {
			return fs.ErrInvalid
		}
		_, err := io.Copy(dst, src)
		return err
	}}
	p := actions(plan.Action{Path: whole, Kind: plan.Copy}, plan.Action{Path: late, Kind: plan.Copy}, plan.Action{Path: tiny, Kind: plan.Remove})
	stats, err := Save(t.Context(), w.input(p), w.undo, opts)
	must(t, err)
	if stats.Clones != 1 || stats.CloneBytes != 40*block || stats.Bytes != 41*block {
		t.Errorf("%+v", stats)
	}
	for _, name := range []string{whole, late} {
		must(t, os.WriteFile(filepath.Join(w.target, name), []byte("other"), 0o600))
	}
	must(t, os.Remove(filepath.Join(w.target, tiny)))
	again, err := Save(t.Context(), w.input(p), w.undo, opts)
	must(t, err)
	if again != (Stats{Already: 81 * block}) {
		t.Errorf("again: %+v", again)
	}
	info, err := Describe(w.undo)
	must(t, err)
	if p := info.Parts[0]; p.Clones != 1 || p.CloneBytes != 40*block || p.Bytes != 41*block {
		t.Errorf("%+v", p)
	}
	must(t, w.apply(ApplyOptions{}))
	w.same()

	clone := filepath.Join(w.undo, partName(1), cloneName(1))
	must(t, os.Truncate(clone, 5))
	expect(t, w.apply(ApplyOptions{}), "is damaged", "5 bytes")
	must(t, os.Remove(clone))
	expect(t, w.apply(ApplyOptions{}), "clone-000001", "No such file")
	must(t, os.Symlink("/etc/passwd", clone))
	expect(t, w.apply(ApplyOptions{}), "clone-000001")
	w.same()
}

// TestSession saves from an open session, some of it while nothing else can, and goes on after a failure.
func TestSession(t *testing.T) {
	sizes := map[string]int{}
	for i := range 20 {
		sizes[fmt.Sprintf("base/5/%d", i)] = 3 * block
	}
	w := small(t, sizes)
	fail := &cutFS{}
	fail.left.Store(math.MaxInt64)
	s, err := Open(t.Context(), w.input(nil), w.undo, Options{Wrap: func(inner fsx.FS) fsx.FS { fail.FS = inner; return fail }})
	must(t, err)
	expect(t, w.apply(ApplyOptions{}), "is in use")
	p := actions()
	for i := range 10 {
		p.Actions = append(p.Actions, change(fmt.Sprintf("base/5/%d", i), plan.Span{Offset: block, Length: block}))
	}
	fail.left.Store(9)
	if _, err := s.Save(t.Context(), p, "standby.signal"); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	fail.left.Store(math.MaxInt64)
	stats, err := s.Save(t.Context(), p, "standby.signal")
	must(t, err)
	if stats.Part != 1 || stats.Paths != 12 || stats.Bytes != 10*block {
		t.Errorf("%+v", stats)
	}
	var g errgroup.Group
	for i := range 20 { // as files vanish from the source, from the copier's goroutines
		g.Go(func() error {
			name := fmt.Sprintf("base/5/%d", i)
			if _, err := s.Save(t.Context(), actions(plan.Action{Path: name, Kind: plan.Remove})); err != nil {
				return err
			}
			return os.Remove(filepath.Join(w.target, name))
		})
	}
	must(t, g.Wait())
	if stats, err := s.Save(t.Context(), p); err != nil || stats.Part != 0 || stats.Already != 10*block {
		t.Errorf("%+v, %v", stats, err)
	}
	must(t, s.Finish(w.noise(8192)))
	must(t, s.Close())
	final := w.noise(8192)
	must(t, Finish(w.undo, w.run, final))
	must(t, Finish(w.undo, w.run, final))
	must(t, os.WriteFile(filepath.Join(w.target, controlName), final, 0o600))
	info, err := Describe(w.undo)
	must(t, err)
	if len(info.Parts) != 21 || !info.Finished {
		t.Errorf("%+v", info)
	}
	must(t, w.apply(ApplyOptions{}))
	w.same()
}

// TestEarlierPartWins: should two parts have the same byte, the first is the one that was there before the rewind.
func TestEarlierPartWins(t *testing.T) {
	const f = "base/5/1"
	w := small(t, map[string]int{f: 4 * block})
	whole := plan.Span{Offset: 0, Length: 4 * block}
	p := actions(change(f, whole))
	w.save(p)
	scribble(t, filepath.Join(w.target, f), whole)
	s, err := Open(t.Context(), w.input(nil), w.undo, Options{})
	must(t, err)
	s.known = known{} // it forgets
	stats, err := s.Save(t.Context(), p)
	must(t, err)
	must(t, s.Close())
	if stats.Bytes != 4*block {
		t.Fatalf("%+v", stats)
	}
	must(t, w.apply(ApplyOptions{}))
	w.same()
}

// TestModes: what --fix-permissions has changed is restored, too, also where nothing else was.
func TestModes(t *testing.T) {
	const f, g = "base/5/1", "base/5/2"
	w := small(t, map[string]int{f: 4 * block, g: block})
	modes := map[string]fs.FileMode{f: 0o400, g: 0o440, "base/5": 0o500, ".": 0o500, controlName: 0o600}
	for name, mode := range modes {
		must(t, os.Chmod(filepath.Join(w.target, name), mode))
	}
	w.before = snapshot(t, w.target)
	for name := range modes {
		must(t, os.Chmod(filepath.Join(w.target, name), 0o700))
	}
	in := w.input(actions(change(f, plan.Span{Offset: 0, Length: block})))
	in.Modes = modes
	_, err := Save(t.Context(), in, w.undo, Options{})
	must(t, err)
	scribble(t, filepath.Join(w.target, f), plan.Span{Offset: 0, Length: block})
	must(t, os.Chmod(filepath.Join(w.target, controlName), 0o600))
	must(t, w.apply(ApplyOptions{}))
	w.same()
	must(t, os.Chmod(w.target, 0o700)) // the user's own affair
	w.before = snapshot(t, w.target)
	must(t, w.apply(ApplyOptions{}))
	w.same()
	must(t, os.Chmod(filepath.Join(w.target, "base/5"), 0o700)) // so that it can be removed
}
