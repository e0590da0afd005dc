package undo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// rewound is a world after a finished rewind.
func rewound(t *testing.T) *world {
	t.Helper()
	for seed := uint64(50); ; seed++ {
		w := newWorld(t, seed)
		p := w.plan()
		if p == nil {
			continue
		}
		w.save(p)
		must(t, w.rewind(p, unlimited, unlimited))
		return w
	}
}

// TestDamage changes every file of an undo in every way, and Apply must see it before it touches the target.
func TestDamage(t *testing.T) {
	w := rewound(t)
	after := snapshot(t, w.target)
	refused := func(what string) {
		t.Helper()
		err := w.apply(ApplyOptions{})
		if err == nil || !strings.Contains(advice(err), "undo") {
			t.Fatalf("%s: %q", what, advice(err))
		}
		if d := diff(after, snapshot(t, w.target)); d != "" {
			t.Fatalf("%s: the target was touched:\n%s", what, d)
		}
	}
	files, err := filepath.Glob(filepath.Join(w.undo, "part-0001/*"))
	must(t, err)
	for _, name := range append(files, filepath.Join(w.undo, headFile), filepath.Join(w.undo, finalFile)) {
		whole, err := os.ReadFile(name)
		must(t, err)
		base := filepath.Base(name)
		for range pick(t, 5, 60) {
			damaged := bytes.Clone(whole)
			damaged[w.r.IntN(len(damaged))] ^= 1 << w.r.IntN(8)
			must(t, os.WriteFile(name, damaged, 0o600))
			refused("a flipped bit in " + base)
			must(t, os.WriteFile(name, whole[:w.r.IntN(len(whole))], 0o600))
			refused("a cut of " + base)
		}
		must(t, os.WriteFile(name, append(bytes.Clone(whole), 0), 0o600))
		refused("a byte more in " + base)
		if base != finalFile { // without it, no rewind of the run got to its end
			must(t, os.Remove(name))
			refused("no " + base)
		} else {
			must(t, os.Remove(name))
			expect(t, w.apply(ApplyOptions{}), "has changed since the rewind")
		}
		must(t, os.Mkdir(name, 0o700))
		refused("a directory for " + base)
		must(t, os.Remove(name))
		must(t, os.WriteFile(name, whole, 0o600))
	}
	// A data file that is whole, and of the same run, but saved less.
	name := filepath.Join(w.undo, "part-0001", dataName(0))
	whole, err := os.ReadFile(name)
	must(t, err)
	less := w.input(actions(plan.Action{Path: "global/1260", Kind: plan.Copy}))
	if _, err := os.Stat(filepath.Join(w.target, "global/1260")); err != nil {
		t.Fatal(err)
	}
	_, err = Save(t.Context(), less, filepath.Join(w.top, "less"), Options{Jobs: 1})
	must(t, err)
	other, err := os.ReadFile(filepath.Join(w.top, "less/part-0001", dataName(0)))
	must(t, err)
	must(t, os.WriteFile(name, other, 0o600))
	refused("another data file")
	must(t, os.WriteFile(name, whole, 0o600))

	must(t, os.Rename(filepath.Join(w.undo, "part-0001"), filepath.Join(w.undo, "part-0002")))
	refused("a part that was renamed")
	must(t, os.Rename(filepath.Join(w.undo, "part-0002"), filepath.Join(w.undo, "part-0001")))
	must(t, w.apply(ApplyOptions{}))
	w.same()
}

// TestForged: pieces whose checksums are right, in files that nobody saved them for.
func TestForged(t *testing.T) {
	const f = "base/5/1"
	w := small(t, map[string]int{f: 4 * block})
	w.save(actions(change(f, plan.Span{Offset: 0, Length: block}), plan.Action{Path: "base/5", Kind: plan.Remove, Type: pg.Directory}))
	c, err := newCoder()
	must(t, err)
	name := filepath.Join(w.undo, "part-0001", dataName(0))
	for what, p := range map[string]piece{
		"a path of no entry":   {path: "base/5/2"},
		"an absolute path":     {path: "/etc/passwd"},
		"a directory":          {path: "base/5"},
		"what is no file":      {path: "standby.signal"},
		"bytes behind the end": {path: f, offset: 3*block + 1},
	} {
		file := place{run: w.run, part: 1, file: 1}.header()
		file = append(file, c.frame(kindData, appendPiece(nil, p.path, p.offset, block))...)
		file = append(file, c.frame(kindEnd, appendEnd(nil, [4]uint64{1, block}))...)
		must(t, os.WriteFile(name, file, 0o600))
		err := w.apply(ApplyOptions{})
		if !strings.Contains(advice(err), "which are no part of such a file") {
			t.Errorf("%s: %q", what, advice(err))
		}
		w.same()
	}
}

// TestControlDecides refuses a target on which a server has run.
func TestControlDecides(t *testing.T) {
	w := rewound(t)
	control := filepath.Join(w.target, controlName)
	final, err := os.ReadFile(control)
	must(t, err)
	started := w.noise(8192)
	must(t, os.WriteFile(control, started, 0o600))
	after := snapshot(t, w.target)
	expect(t, w.apply(ApplyOptions{}), "has changed since the rewind", "a server has been started")
	if d := diff(after, snapshot(t, w.target)); d != "" {
		t.Errorf("the target was touched:\n%s", d)
	}
	for what, content := range map[string][]byte{"the final one": final, "the guard": w.guard, "the original": w.control} {
		must(t, os.WriteFile(control, content, 0o600))
		if err := w.apply(ApplyOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		w.same()
	}
	must(t, os.WriteFile(control, started, 0o600))
	must(t, w.apply(ApplyOptions{Ours: func(c []byte) bool { return bytes.Equal(c, started) }}))
	must(t, os.Remove(control))
	must(t, w.apply(ApplyOptions{}))
	w.same()
}

// TestUnannounced removes and cuts files of which only blocks are in the undo: Apply says so before it touches anything.
func TestUnannounced(t *testing.T) {
	for what, harm := range map[string]func(name string) error{
		"removed": os.Remove,
		"cut":     func(name string) error { return os.Truncate(name, 3*block) },
	} {
		w := small(t, map[string]int{"base/5/1": 10 * block})
		p := actions(change("base/5/1", plan.Span{Offset: 5 * block, Length: block}))
		w.save(p)
		name := filepath.Join(w.target, "base/5/1")
		whole, err := os.ReadFile(name)
		must(t, err)
		must(t, harm(name))
		after := snapshot(t, w.target)
		expect(t, w.apply(ApplyOptions{}), "cannot be put back", "are lost")
		if d := diff(after, snapshot(t, w.target)); d != "" {
			t.Errorf("%s: the target was touched:\n%s", what, d)
		}
		// Nor can a second session save what is not there.
		_, err = Save(t.Context(), w.input(actions(plan.Action{Path: "base/5/1", Kind: plan.Remove})), w.undo, Options{})
		if err == nil {
			t.Errorf("%s: it was saved", what)
		}
		must(t, os.WriteFile(name, whole, 0o600))
		w.save(actions(plan.Action{Path: "base/5/1", Kind: plan.Remove}))
		must(t, harm(name))
		must(t, w.apply(ApplyOptions{}))
		now, err := os.ReadFile(name)
		must(t, err)
		if !bytes.Equal(now, whole) {
			t.Errorf("%s: not as it was", what)
		}
	}
}

// TestTraps plants links where Save reads and Apply writes: nothing outside is read or written.
func TestTraps(t *testing.T) {
	w := small(t, map[string]int{"base/5/1": 4 * block, "base/5/2": 4 * block})
	outside := filepath.Join(w.top, "outside")
	must(t, os.Mkdir(outside, 0o700))
	secret := filepath.Join(outside, "1")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	trap := func(to, name string) {
		t.Helper()
		must(t, os.RemoveAll(filepath.Join(w.target, name)))
		must(t, os.Symlink(to, filepath.Join(w.target, name)))
	}
	p := actions(
		plan.Action{Path: "base/5/1", Kind: plan.Copy, Type: pg.RegularFile},
		change("base/5/2", plan.Span{Offset: 0, Length: block}),
		plan.Action{Path: "base/6/new", Kind: plan.Copy, Type: pg.RegularFile},
	)
	w.save(p)

	// A file that is a link: it goes, and the file comes back. What it led to stays.
	trap(secret, "base/5/1")
	must(t, w.apply(ApplyOptions{}))
	w.same()

	// A directory that is one.
	must(t, os.Rename(filepath.Join(w.target, "base/5"), filepath.Join(w.top, "5")))
	trap(outside, "base/5")
	trap(outside, "base/6")
	err := w.apply(ApplyOptions{})
	if err == nil {
		t.Error("a directory that leads outside was followed")
	}
	_, err = Save(t.Context(), w.input(p), filepath.Join(w.top, "second"), Options{})
	if err == nil {
		t.Error("a directory that leads outside was read")
	}
	entries, err := os.ReadDir(outside)
	must(t, err)
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" || len(entries) != 1 {
		t.Errorf("outside is now %v, %q", entries, data)
	}
	must(t, os.Remove(filepath.Join(w.target, "base/5")))
	must(t, os.Remove(filepath.Join(w.target, "base/6")))
	must(t, os.Rename(filepath.Join(w.top, "5"), filepath.Join(w.target, "base/5")))
	must(t, w.apply(ApplyOptions{}))
	w.same()

	for _, name := range []string{"../x", "/etc/passwd", "base/../../x", ""} {
		_, err := Save(t.Context(), w.input(actions(plan.Action{Path: name, Kind: plan.Copy})), filepath.Join(w.top, "third"), Options{})
		expect(t, err, "unsafe")
	}
	// Undo files that name what lies outside.
	for _, e := range []entry{{path: "../x"}, {path: "/x", kind: link, target: "y"}, {path: "a//b", kind: directory}} {
		if err := decodeEntries(appendEntry(nil, &e), func(entry) error { return nil }); err == nil {
			t.Errorf("%+v was believed", e)
		}
	}
}

// FuzzReader reads files that are damaged below the checksums, too: what is read is whole, or refused.
func FuzzReader(f *testing.F) {
	at := place{run: "run", part: 1}
	c, err := newCoder()
	if err != nil {
		f.Fatal(err)
	}
	entries := appendEntry(nil, &entry{path: "base/5/1", kind: regular, size: 100000, mode: 0o600, mtime: -5, spans: []plan.Span{{Offset: 8192, Length: 8192}, {Offset: 40000, Length: 1}}})
	entries = appendEntry(entries, &entry{path: "pg_tblspc/1", kind: link, target: "/space"})
	entries = appendEntry(entries, &entry{path: "x", kind: directory, mode: 0o700})
	entries = appendEntry(entries, &entry{path: "y"})
	pieces := append(appendPiece(nil, "base/5/1", 8192, 3), "abc"...)
	pieces = append(appendPiece(pieces[:len(pieces)-3], "base/5/2", 0, 100), "rest"...)
	for _, payload := range [][]byte{entries, pieces, appendEnd(nil, [4]uint64{1, 2, 3, 4}), bytes.Repeat([]byte("x"), 5000), {}} {
		for kind := byte(1); kind <= kindEnd; kind++ {
			file := append(at.header(), c.frame(kind, payload)...)
			f.Add(file, payload, kind)
		}
	}
	f.Fuzz(func(t *testing.T, file, payload []byte, kind byte) {
		read := func(file []byte) {
			r, err := newReader(bytes.NewReader(file), at)
			if err != nil {
				return
			}
			defer r.close()
			for {
				kind, payload, err := r.next()
				if err != nil {
					return
				}
				if len(payload) > maxFrame {
					t.Fatalf("a frame of %d bytes", len(payload))
				}
				switch kind {
				case kindEnd:
					if _, err := r.end(payload); err == nil {
						return
					}
				case kindData:
					_ = decodePieces(payload, func(p piece) error {
						if p.offset < 0 || len(p.data) == 0 || len(p.path) > maxName {
							t.Fatalf("piece %+v", p)
						}
						return nil
					})
				default:
					_ = decodeEntries(payload, func(e entry) error {
						if !fsx.Local(e.path) || e.size < 0 || e.mode != e.mode.Perm() || total(e.spans) > e.size {
							t.Fatalf("entry %+v", e)
						}
						var end int64
						for _, s := range e.spans {
							if s.Length <= 0 || s.Offset < end || s.Offset+s.Length > e.size {
								t.Fatalf("spans of %+v", e)
							}
							end = s.Offset + s.Length
						}
						return nil
					})
				}
			}
		}
		read(file)
		if len(payload) <= maxFrame {
			read(append(at.header(), c.frame(kind, payload)...)) // a whole frame around anything
		}
	})
}
