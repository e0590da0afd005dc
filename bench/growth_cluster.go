package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// growingCluster is small and has little WAL; what makes it large comes later. See filler.
var growingCluster = &fixture{
	name: "growing cluster",
	load: randomUpdates.load,
	diverge: func(old, promoted *pgtest.Cluster, s scale) {
		updateRows(old, s, s.WALBytes/4)
		updateRows(promoted, s, s.WALBytes/40)
	},
}

// clusterPoints are the clusters' sizes, ascending, as far as there is room for them.
func clusterPoints(s scale, room int64) []int64 {
	sizes := []int64{1 << 30, 3 << 30, 10 << 30, 30 << 30}
	if s.Name == scales[0].Name {
		sizes = sizes[:2]
	}
	var points []int64
	for i, n := range sizes {
		n = int64(float64(n) * s.partOfFull())
		if i > 0 && n > room*8/10 {
			break
		}
		points = append(points, n)
	}
	return points
}

func measureGrowingCluster(tb pgtest.TB, cfg *config, res *result, p *pair, s scenario, ours pgtest.Binaries) scenarioResult {
	points := clusterPoints(cfg.scale, roomIn(p.env.Root))
	f := newFiller(tb, p, int64(float64(1<<30)*cfg.scale.partOfFull()))
	defer f.remove(tb)
	g := newGrowth(tb, cfg, res, p, s, ours, func(i int) (func(growthPoint) int64, bool) {
		if i == len(points) {
			return nil, false
		}
		cfg.logf("%s: %s in files that do not change", s.name, size(points[i]))
		f.growTo(tb, p, points[i])
		return func(growthPoint) int64 { return res.Clusters[len(res.Clusters)-1].TargetBytes }, true
	})
	f.check(tb)
	g.Axis = "cluster"
	return g.finish(s)
}

// filler is relation segments that nobody changes, the bulk of a large cluster. They are real files of random bytes, one
// for each 1 GB at full scale, that no catalog knows: to a rewind a file is a name and a size until the WAL or the other side
// says otherwise. As no program reads or writes them, target, source and copies share them by links, which the rest of
// the benchmark knows by their number of links; that nobody wrote is checked at the end.
type filler struct {
	dir   string
	bytes int64 // of each file
	files []fs.FileInfo
}

func newFiller(tb pgtest.TB, p *pair, bytes int64) *filler {
	dir, err := os.MkdirTemp(p.env.Root, "filler")
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	return &filler{dir: dir, bytes: bytes}
}

func (f *filler) name(i int) string { return filepath.Join(f.dir, fmt.Sprint(i)) }

// growTo makes files until there are so many bytes in them, in all clusters.
func (f *filler) growTo(tb pgtest.TB, p *pair, total int64) {
	must := func(err error) {
		if err != nil {
			tb.Fatalf("bench: filler: %v", err)
		}
	}
	must(p.mirror.restore()) // what is in work is what was last rewound
	databases, err := filepath.Glob(p.old.Path("base", "[0-9]*"))
	if err != nil || len(databases) == 0 {
		tb.Fatalf("bench: no database in %s: %v", p.old.Path("base"), err)
	}
	database := filepath.Base(databases[0])
	var owner syscall.Stat_t
	must(syscall.Stat(p.old.DataDir(), &owner))
	for i := len(f.files); int64(i)*f.bytes < total; i++ {
		must(writeRandom(f.name(i), f.bytes, uint64(i)))
		must(os.Lchown(f.name(i), int(owner.Uid), int(owner.Gid)))
		for _, c := range []*pgtest.Cluster{p.old, p.source, p.work} {
			// Far beyond the numbers that the clusters have given to anything.
			must(os.Link(f.name(i), c.Path("base", database, fmt.Sprint(3_000_000_000+i))))
		}
		info, err := os.Stat(f.name(i))
		must(err)
		f.files = append(f.files, info)
	}
	must(p.mirror.learn())
}

// check finds out whether somebody wrote into the files.
func (f *filler) check(tb pgtest.TB) {
	for i, before := range f.files {
		now, err := os.Stat(f.name(i))
		if err != nil || now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime()) {
			tb.Fatalf("bench: a file that no rewind has to touch was written: %s (%v)", f.name(i), err)
		}
	}
}

func (f *filler) remove(tb pgtest.TB) {
	if err := os.RemoveAll(f.dir); err != nil {
		tb.Fatalf("bench: %v", err)
	}
}

// writeRandom makes a file of bytes that no file system makes smaller.
func writeRandom(path string, n int64, seed uint64) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	rng := rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%032d", seed)))
	buf := make([]byte, 1<<20)
	for left := n; left > 0 && err == nil; left -= int64(len(buf)) {
		_, _ = rng.Read(buf) // it never fails
		_, err = out.Write(buf[:min(left, int64(len(buf)))])
	}
	return errors.Join(err, out.Close())
}

// linked reports whether a file has more than one name: only fillers do.
func linked(d fs.DirEntry) bool {
	info, err := d.Info()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && d.Type().IsRegular() && st.Nlink > 1
}

// dropLinked removes the fillers from trees that are to be compared: they are the same files.
func dropLinked(tb pgtest.TB, dirs ...string) {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && linked(d) {
				err = os.Remove(path)
			}
			return err
		})
		if err != nil {
			tb.Fatalf("bench: %v", err)
		}
	}
}
