package walcheck

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/crashtest"
	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// pairOf makes two clusters that came apart: the target's directory, and an archive to which both have archived all.
func pairOf(t *testing.T, seed uint64) (pair *crashtest.Pair, target, archive string) {
	t.Helper()
	pair = crashtest.New(seed)
	dir := t.TempDir()
	if err := pair.Target.Write(dir); err != nil {
		t.Fatal(err)
	}
	archive = t.TempDir()
	for _, tree := range []crashfs.Tree{pair.Source, pair.Target} {
		for path, node := range tree {
			name := filepath.Base(path)
			if strings.Contains(path, "pg_wal/") && (pg.IsSegmentName(name) || strings.HasSuffix(name, ".history")) {
				put(t, filepath.Join(archive, name), node.Data)
			}
		}
	}
	return pair, filepath.Join(dir, crashtest.DataDir), archive
}

// TestForTarget finds the range of a rewind, and checks it with all WAL in pg_wal, with some, and with none anywhere.
func TestForTarget(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		pair, target, archive := pairOf(t, seed)
		o := plain(Options{})
		o.TargetDir = target
		a := open(t, o, archive)
		span, err := a.ForTarget(t.Context())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		size := a.Target.SegSize
		if span.First > pair.Divergence.Seg(size) || span.Last != a.Target.CheckPoint.Seg(size) || span.Cluster.SystemID != a.Target.SystemID ||
			!strings.Contains(span.About, "forked off at "+pair.Divergence.String()) {
			t.Errorf("seed %d: segments %d to %d (%s), divergence %v, end %v", seed, span.First, span.Last, span.About, pair.Divergence, a.Target.CheckPoint)
		}
		tally, problems := checked(t, a, span, 2)
		if len(problems) > 0 || tally.Local != span.Segments() {
			t.Errorf("seed %d, all local: %+v, %q", seed, tally, problems)
		}
		// What is gone from pg_wal comes from the archive.
		tree, err := crashfs.Load(filepath.Dir(target))
		if err != nil {
			t.Fatal(err)
		}
		for path := range tree {
			if strings.Contains(path, "pg_wal/") && pg.IsSegmentName(filepath.Base(path)) {
				remove(t, filepath.Join(filepath.Dir(target), path))
			}
		}
		again, err := a.ForTarget(t.Context())
		if err != nil || again.First != span.First || again.Last != span.Last {
			t.Fatalf("seed %d, without pg_wal: %+v, %v", seed, again, err)
		}
		tally, problems = checked(t, a, again, 2)
		if len(problems) > 0 || tally.Local != 0 || tally.Segments != span.Segments() {
			t.Errorf("seed %d, all from the archive: %+v, %q", seed, tally, problems)
		}
		// What is gone from there, too, is named; what is needed to find the range is an error.
		_, last := span.Names()
		remove(t, filepath.Join(archive, last))
		if span.Last > pair.Divergence.Seg(size) {
			if _, problems := checked(t, a, span, 2); !slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, "missing "+last) }) {
				t.Errorf("seed %d, without %s: %q", seed, last, problems)
			}
		}
		first, _ := span.Names()
		removeIfThere(t, filepath.Join(archive, first))
		if _, err := a.ForTarget(t.Context()); err == nil || !strings.Contains(err.Error(), "could not find the last checkpoint") {
			t.Errorf("seed %d, without %s: %v", seed, first, err)
		}
	}
}

// TestForTargetWithoutFork: where no timeline forked off, there is nothing to find.
func TestForTargetWithoutFork(t *testing.T) {
	_, target, _ := pairOf(t, 0)
	o := plain(Options{})
	o.TargetDir = target
	empty := t.TempDir()
	put(t, filepath.Join(empty, "README"), nil)
	a := open(t, o, empty)
	if _, err := a.ForTarget(t.Context()); err == nil || !strings.Contains(err.Error(), "forked off") {
		t.Errorf("%v", err)
	}
}

// TestTargetOfAnotherCluster: WAL of another system than the target's is wrong, however sound.
func TestTargetOfAnotherCluster(t *testing.T) {
	_, target, _ := pairOf(t, 0)
	o := plain(Options{})
	o.TargetDir = target
	a := open(t, o, filepath.Join(unpack(t), "bucket", "plain", "lz4"))
	span := between(t, a, seg10, seg12, 0)
	if tally, problems := checked(t, a, span, 2); tally.Problems != 3 || !strings.Contains(problems[0], "different database system") {
		t.Errorf("%+v, %q", tally, problems)
	}
	if _, err := a.GetFile(t.Context(), seg10, filepath.Join(t.TempDir(), "x"), false); err == nil || !strings.Contains(err.Error(), "system identifier") {
		t.Errorf("%v", err)
	}
	o.SystemID = 5
	o.Where = []string{target}
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "were asked for") {
		t.Errorf("%v", err)
	}
}
