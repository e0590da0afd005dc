package walcheck

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal/waltest"
)

// checked is what a check found: its tally, and a line for each problem.
func checked(t *testing.T, a *Archives, span *Span, jobs int) (Tally, []string) {
	t.Helper()
	var bytes atomic.Int64
	var problems []string
	tally, err := a.Check(t.Context(), span, CheckOptions{
		Jobs:     jobs,
		Progress: func(n int64) { bytes.Add(n) },
		Problem:  func(p Problem) { problems = append(problems, fmt.Sprintf("%s %s-%s: %s", p.Kind, p.First, p.Last, p)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := span.Segments() * int64(span.Cluster.SegSize); bytes.Load() != want {
		t.Errorf("progress of %d bytes, want %d", bytes.Load(), want)
	}
	if (tally.Problems == 0) != (len(problems) == 0) {
		t.Errorf("%d problems, told %q", tally.Problems, problems)
	}
	return tally, problems
}

func between(t *testing.T, a *Archives, from, to string, tli pg.TLI) *Span {
	t.Helper()
	span, err := a.Between(t.Context(), from, to, tli)
	if err != nil {
		t.Fatalf("%s to %s: %v", from, to, err)
	}
	return span
}

// TestCheckFixtures: what the tools archived is sound, in every encoding that needs no key.
func TestCheckFixtures(t *testing.T) {
	dir := unpack(t)
	folders := []string{
		"walg/lz4", "walg/zstd", "walg/brotli", "walg/lzma", "pgbackrest/gz", "pgbackrest/lz4", "pgbackrest/zst", "pgbackrest/bz2",
		"barman/gz", "barman/bz2", "plain/gz", "plain/zst", "plain/lz4", "plain/xz", "plain/bz2", "plain/wale",
	}
	if testing.Short() {
		folders = folders[:2]
	}
	for _, folder := range folders {
		a := open(t, Options{}, filepath.Join(dir, "bucket", folder))
		tally, problems := checked(t, a, between(t, a, seg10, seg13on2, 0), 2)
		if len(problems) > 0 || tally.Segments != 4 || tally.Records != 60 || tally.Local != 0 || tally.Stored == 0 {
			t.Errorf("%s: %+v, %q", folder, tally, problems)
		}
		if folder == "walg/zstd" {
			byLSN := between(t, a, "0/1000028", "0/1300150", 2)
			if first, last := byLSN.Names(); first != seg10 || last != seg13on2 {
				t.Errorf("by LSN: %s to %s", first, last)
			}
		}
	}
}

// archived writes a log into a directory, as a plain archive.
func archived(t *testing.T, l *waltest.Log) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range l.Files {
		put(t, filepath.Join(dir, name), data)
	}
	return dir
}

// long is WAL of every kind, some segments of it.
func long(seed uint64, segments int) *waltest.Writer {
	w := waltest.New(1 << 20)
	rng := rand.New(rand.NewPCG(seed, 0))
	for w.Pos() < pg.SegNo(segments).Start(1<<20) {
		waltest.Random(w, rng, 50)
		w.Append(waltest.Noop(100_000))
	}
	w.Switch()
	return w
}

func plain(o Options) Options {
	o.Layout = string(location.Plain)
	return o
}

// logSpan is the whole of a log on its last timeline, with nothing found out.
func logSpan(l *waltest.Log, segments int) *Span {
	return &Span{
		Cluster: Cluster{SystemID: l.Format.SystemID, SegSize: l.Format.SegSize, Version: l.Format.Version},
		History: l.History, First: 1, Last: pg.SegNo(segments),
	}
}

// TestCheckSound: all records are read once, whatever the stretches, and none of the seams is wrong.
func TestCheckSound(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		w := long(seed, 12)
		last := int((w.Pos() - 1).Seg(1 << 20))
		a := open(t, plain(Options{}), archived(t, w.Log))
		for _, jobs := range []int{1, 8} {
			tally, problems := checked(t, a, logSpan(w.Log, last), jobs)
			if len(problems) > 0 || tally.Records != int64(len(w.Records)) || tally.Segments != int64(last) || tally.End != 0 || tally.Cut != 0 {
				t.Errorf("seed %d, %d jobs: %+v, %q, want %d records in %d segments", seed, jobs, tally, problems, len(w.Records), last)
			}
		}
	}
}

// TestCheckTimelines follows a history through files of three timelines.
func TestCheckTimelines(t *testing.T) {
	w := waltest.New(1 << 20)
	rng := rand.New(rand.NewPCG(1, 2))
	for tli := pg.TLI(2); tli <= 3; tli++ {
		waltest.Random(w, rng, 300)
		w.Append(waltest.Noop(3 << 20))
		w.Promote(tli)
	}
	waltest.Random(w, rng, 300)
	w.Switch()
	last := int((w.Pos() - 1).Seg(1 << 20))
	a := open(t, plain(Options{}), archived(t, w.Log))
	tally, problems := checked(t, a, logSpan(w.Log, last), 2)
	if len(problems) > 0 || tally.Records != int64(len(w.Records)) {
		t.Errorf("%+v, %q, want %d records", tally, problems, len(w.Records))
	}
	// The same files under a history that they did not go through.
	span := logSpan(w.Log, last)
	span.History = slices.Clone(span.History)
	span.History[1].End -= 2 << 20
	span.History[2].Begin -= 2 << 20
	if tally, problems := checked(t, a, span, 2); tally.Problems == 0 {
		t.Errorf("%+v, %q", tally, problems)
	}
}

// TestCheckProblems names what was done to the segments, and nothing else.
func TestCheckProblems(t *testing.T) {
	w := waltest.New(1 << 20)
	for w.Pos() < pg.SegNo(11).Start(1<<20)+5000 {
		w.Append(waltest.Noop(3000))
	}
	w.Append(waltest.Noop(100))
	name := func(seg pg.SegNo) string { return w.Name(seg) }
	other := long(99, 11)
	for _, c := range []struct {
		what string
		do   func(files map[string][]byte)
		want []string
		near pg.SegNo // told of this segment or its neighbours
	}{
		{"nothing", func(map[string][]byte) {}, nil, 0},
		{"one missing", func(f map[string][]byte) { delete(f, name(4)) }, []string{"missing 4-4"}, 0},
		{"first and last missing", func(f map[string][]byte) { delete(f, name(1)); delete(f, name(10)) }, []string{"missing 1-1", "missing 10-10"}, 0},
		{"several missing", func(f map[string][]byte) {
			for _, seg := range []pg.SegNo{2, 3, 4, 5, 7} {
				delete(f, name(seg))
			}
		}, []string{"missing 2-5", "missing 7-7"}, 0},
		{"all but one missing", func(f map[string][]byte) {
			maps.DeleteFunc(f, func(n string, _ []byte) bool { return n != name(9) })
		}, []string{"missing 1-8", "missing 10-10"}, 0},
		{"cut", func(f map[string][]byte) { f[name(6)] = f[name(6)][:500_000] }, []string{"damaged 6-6"}, 0},
		{"empty", func(f map[string][]byte) { f[name(6)] = nil }, []string{"damaged 6-6"}, 0},
		{"a flipped bit", func(f map[string][]byte) { f[name(6)][700_000] ^= 4 }, []string{"wrong 6-6"}, 0},
		{"two flipped bits", func(f map[string][]byte) { f[name(6)][700_000] ^= 4; f[name(8)][9000] ^= 1 }, []string{"wrong 6-6", "wrong 8-8"}, 0},
		{"zeros", func(f map[string][]byte) { clear(f[name(6)][700_000:]) }, []string{"wrong 6-6"}, 0},
		{"a neighbour", func(f map[string][]byte) { f[name(6)] = f[name(5)] }, []string{"wrong 6-6"}, 6},
		{"another cluster's", func(f map[string][]byte) { f[name(6)] = other.Files[name(6)] }, []string{"wrong 6-6"}, 6},
		{"cut and missing", func(f map[string][]byte) { f[name(3)] = f[name(3)][:8192]; delete(f, name(4)) }, []string{"damaged 3-3", "missing 4-4"}, 0},
	} {
		l := w.Clone()
		c.do(l.Files)
		a := open(t, plain(Options{}), archived(t, l))
		for _, jobs := range []int{1, 10} {
			var got []string
			var said []Problem
			_, err := a.Check(t.Context(), logSpan(l, 10), CheckOptions{Jobs: jobs, Problem: func(p Problem) {
				said = append(said, p)
				_, first, _ := pg.ParseSegmentName(p.First, 1<<20)
				_, last, _ := pg.ParseSegmentName(p.Last, 1<<20)
				if c.near != 0 && p.Kind == Wrong && first >= c.near-1 && first <= c.near+1 {
					first, last = c.near, c.near // which of the two is wrong cannot be told from a record that is in both
				}
				if line := fmt.Sprintf("%s %d-%d", p.Kind, first, last); slices.Contains(got, line) {
					return
				}
				got = append(got, fmt.Sprintf("%s %d-%d", p.Kind, first, last))
			}})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s, %d jobs: %q, want %q; %v", c.what, jobs, got, c.want, said)
			}
		}
	}
}

// TestCheckFlips: a bit that flips anywhere in what is WAL is found.
func TestCheckFlips(t *testing.T) {
	w := waltest.New(1 << 20)
	for w.Pos() < pg.SegNo(4).Start(1<<20) {
		w.Append(waltest.Noop(2000 + int(w.Pos()%4096)))
	}
	rng := rand.New(rand.NewPCG(3, 4))
	dir := archived(t, w.Log)
	a := open(t, plain(Options{}), dir)
	span := logSpan(w.Log, 3)
	n := 40
	if testing.Short() {
		n = 15
	}
	for range n {
		name := w.Name(pg.SegNo(1 + rng.IntN(3)))
		at := rng.IntN(1 << 20)
		if at%8192 >= 20 && at%8192 < 40 {
			continue // padding of the page header, which nothing protects
		}
		damaged := slices.Clone(w.Files[name])
		damaged[at] ^= 1 << rng.IntN(8)
		put(t, filepath.Join(dir, name), damaged)
		if tally, _ := checked(t, a, span, 2); tally.Problems == 0 && !padding(w, name, at) {
			t.Errorf("a bit in byte %d of %s was not noticed", at, name)
		}
		put(t, filepath.Join(dir, name), w.Files[name])
	}
}

// padding reports whether a byte lies between two records.
func padding(w *waltest.Writer, name string, at int) bool {
	_, seg, _ := pg.ParseSegmentName(name, 1<<20)
	lsn := seg.Start(1<<20) + pg.LSN(at)
	for _, r := range w.Records {
		if r.LSN <= lsn && lsn < r.End {
			return lsn >= r.End-8 // at most seven bytes, and the test need not count them
		}
	}
	return true
}

// TestCheckEnd: WAL may end in the last segment of a range, and a record may go on behind it; neither is a problem.
func TestCheckEnd(t *testing.T) {
	w := waltest.New(1 << 20)
	for w.Pos() < pg.SegNo(4).Start(1<<20)+100_000 {
		w.Append(waltest.Noop(3000))
	}
	a := open(t, plain(Options{}), archived(t, w.Log))
	if tally, problems := checked(t, a, logSpan(w.Log, 4), 2); len(problems) > 0 || tally.End != w.Pos() {
		t.Errorf("%+v, %q, want the end at %v", tally, problems, w.Pos())
	}
	delete(w.Files, w.Name(4))
	a = open(t, plain(Options{}), archived(t, w.Log))
	if tally, problems := checked(t, a, logSpan(w.Log, 3), 2); len(problems) > 0 || tally.Cut == 0 {
		t.Errorf("%+v, %q", tally, problems)
	}
}

func TestBetweenRefuses(t *testing.T) {
	dir := filepath.Join(unpack(t), "bucket", "plain", "gz")
	a := open(t, Options{}, dir)
	for _, c := range []struct {
		from, to string
		tli      pg.TLI
		want     string
	}{
		{seg10, "0/1300000", 1, "not of one kind"},
		{seg13, seg10, 0, "comes after"},
		{"000000020000000000000011", seg13on2, 0, "does not go through"},
		{seg10, "000000030000000000000013", 0, "is not in archive"},
		{seg10, "000000010000000000001000", 0, "no WAL segment of 1 MB"},
		{"0/1000000", "0/1300000", 0, "no timeline specified"},
		{"0/1300000", "0/1000000", 1, "comes after"},
		{"here", "there", 1, "neither names of WAL segments nor LSNs"},
		{"0/1000000", "0/1300000", 9, "is not in archive"},
	} {
		if _, err := a.Between(t.Context(), c.from, c.to, c.tli); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
	}
	if _, err := a.ForTarget(t.Context()); err == nil {
		t.Error("a rewind without a target")
	}
}

// TestCheckCancelled ends soon, with the context's cause.
func TestCheckCancelled(t *testing.T) {
	w := long(5, 8)
	a := open(t, plain(Options{}), archived(t, w.Log))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := a.Check(ctx, logSpan(w.Log, 8), CheckOptions{Jobs: 2, Progress: func(int64) { cancel() }, Problem: func(p Problem) { t.Error(p) }})
	if err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}
