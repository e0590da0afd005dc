package scan_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// randomRef is a block of few relations near each other, so that refs meet; often at a border of what the map is made
// of inside.
func randomRef(rng *rand.Rand) (pg.Rel, pg.BlockNo) {
	rel := pg.Rel{Tablespace: pg.Oid(1663 + rng.IntN(2)), Database: pg.Oid(rng.IntN(3)), Number: pg.RelNumber(rng.IntN(5))}
	var block uint32
	switch rng.IntN(3) {
	case 0:
		block = rng.Uint32() >> rng.IntN(32)
	case 1:
		block = uint32(rng.IntN(2000))
	default:
		border := []uint32{0, 64, 512, 1024, 2048, 4096, 8192, 131072, 262144, 1 << 31, 1<<32 - 1}[rng.IntN(11)]
		block = border + uint32(rng.IntN(5)) - 2
	}
	return rel, pg.BlockNo(block)
}

func refOf(rel pg.Rel, block pg.BlockNo) ref {
	return ref{pg.RelFile{Rel: rel, Segment: uint32(block) / pg.RelSegBlocks}, uint32(block) % pg.RelSegBlocks}
}

// TestBlockMap compares with a Go map.
func TestBlockMap(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		m := scan.NewBlockMap(0)
		a, b := m.NewInserter(), m.NewInserter()
		want := make(map[ref]bool)
		for range 1 + rng.IntN(5000) {
			rel, block := randomRef(rng)
			if rng.IntN(2) == 0 {
				a.Add(rel, block)
			} else {
				b.Add(rel, block)
			}
			want[refOf(rel, block)] = true
		}
		check(t, m, want)
	}
	empty := scan.NewBlockMap(0)
	check(t, empty, map[ref]bool{})
	for range empty.Blocks(pg.RelFile{}) {
		t.Error("an empty map has a block")
	}
}

func check(t *testing.T, m *scan.BlockMap, want map[ref]bool) {
	t.Helper()
	if got := refsOf(m); !maps.Equal(got, want) {
		t.Fatalf("%d blocks, want %d: %s", len(got), len(want), difference(got, want))
	}
	if m.Len() != int64(len(want)) {
		t.Fatalf("Len says %d, want %d", m.Len(), len(want))
	}
	files := slices.Collect(m.Files())
	seen := make(map[pg.RelFile]bool)
	for _, f := range files {
		if seen[f] {
			t.Fatalf("%+v comes twice", f)
		}
		seen[f] = true
		blocks := slices.Collect(m.Blocks(f))
		if len(blocks) == 0 || !slices.IsSorted(blocks) || len(slices.Compact(slices.Clone(blocks))) != len(blocks) {
			t.Fatalf("%+v: blocks %v", f, blocks)
		}
		for range m.Blocks(f) { // may be left early
			break
		}
	}
	for range m.Files() {
		break
	}
}

// TestBlockMapConcurrent fills one map from several goroutines, into the same words. Meant for the race detector.
func TestBlockMapConcurrent(t *testing.T) {
	for seed := range uint64(5) {
		m := scan.NewBlockMap(0)
		var wg sync.WaitGroup
		wants := make([]map[ref]bool, 6)
		for i := range wants {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i/2))) // pairs do the same
				in := m.NewInserter()
				want := make(map[ref]bool)
				for range 5000 {
					rel, block := randomRef(rng)
					in.Add(rel, block)
					want[refOf(rel, block)] = true
				}
				wants[i] = want
			})
		}
		wg.Wait()
		all := make(map[ref]bool)
		for _, w := range wants {
			maps.Copy(all, w)
		}
		check(t, m, all)
	}
}

// TestBlockMapBound: a map that outgrows its bound says so, and before that it does not.
func TestBlockMapBound(t *testing.T) {
	const bound = 8 << 20
	m := scan.NewBlockMap(bound)
	in := m.NewInserter()
	n := 0
	for ; in.Err() == nil; n++ {
		in.Add(pg.Rel{Tablespace: 1663, Database: 1, Number: pg.RelNumber(n)}, 100000)
		if n > 1<<20 {
			t.Fatal("it has no bound")
		}
	}
	var f *fault.Error
	if err := in.Err(); !errors.As(err, &f) || !strings.Contains(err.Error(), "8 MB") || f.Advice == "" {
		t.Errorf("%v", err)
	}
	if m.MemoryBytes() < bound || m.MemoryBytes() > bound+4096 {
		t.Errorf("%d bytes are estimated", m.MemoryBytes())
	}
	if n < 1000 {
		t.Errorf("%d relations are too many", n)
	}
	// A run ends with that error.
	w, divergence, end := history()
	_, err := scan.Run(t.Context(), logSegments{Log: w.Log}, scan.Input{
		Format: w.Format, History: w.History, Divergence: divergence, End: end, Jobs: 2, MaxMapBytes: 100,
	})
	if err == nil || !strings.Contains(err.Error(), "more blocks than can be held") {
		t.Errorf("a run with 100 bytes: %v", err)
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapInuse)
}

// bigCluster notes 1% of the blocks of a cluster at random. Files are of the given number of blocks.
func bigCluster(in *scan.Inserter, clusterBytes int64, fileBlocks uint32) (refs int) {
	rng := rand.New(rand.NewPCG(10, 1))
	blocks := clusterBytes / pg.BlockSize
	perRel := int64(fileBlocks)
	if fileBlocks == pg.RelSegBlocks {
		perRel *= 32 // relations of 32 GiB
	}
	for refs = 0; int64(refs) < blocks/100; refs++ {
		b := rng.Int64N(blocks)
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: pg.RelNumber(16384 + b/perRel)}, pg.BlockNo(b%perRel))
	}
	return refs
}

// TestTenTerabytes: 1% of the blocks of a cluster of 10 TB, at random, stay under 512 MB; whether the relations are large
// or, a million of them, of 10 MB.
func TestTenTerabytes(t *testing.T) {
	cluster := int64(10e12)
	if testing.Short() {
		cluster /= 100
	} else {
		cluster /= 4 // all of it in BenchmarkTenTerabytes: half a minute
	}
	limit := int64(512e6 * (float64(cluster) / 10e12))
	for name, fileBlocks := range map[string]uint32{"large relations": pg.RelSegBlocks, "relations of 10 MB": 1280} {
		before := heap()
		m := scan.NewBlockMap(0)
		n := bigCluster(m.NewInserter(), cluster, fileBlocks)
		used := heap() - before
		t.Logf("%s: %d references, %d MB of heap, %d MB estimated", name, n, used/1e6, m.MemoryBytes()/1e6)
		if used > limit {
			t.Errorf("%s: %d MB for %d references, at most %d MB are allowed", name, used/1e6, n, limit/1e6)
		}
		if e := m.MemoryBytes(); e < used*7/10 || e > used*13/10 {
			t.Errorf("%s: %d MB are estimated, %d are used", name, e/1e6, used/1e6)
		}
		runtime.KeepAlive(m)
	}
}

// BenchmarkTenTerabytes is TestTenTerabytes at its full size.
func BenchmarkTenTerabytes(b *testing.B) {
	for name, fileBlocks := range map[string]uint32{"large": pg.RelSegBlocks, "10MB": 1280, "33MB": 4224, "4.2MB": 520} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				m := scan.NewBlockMap(0)
				start := time.Now()
				n := bigCluster(m.NewInserter(), 10e12, fileBlocks)
				b.ReportMetric(float64(time.Since(start).Nanoseconds())/float64(n), "ns/block")
				b.ReportMetric(float64(heap()-before)/1e6, "heap-MB")
				runtime.KeepAlive(m)
			}
		})
	}
}

// BenchmarkInsertRandom notes random blocks of 10 TB: nearly every one is a cache miss.
func BenchmarkInsertRandom(b *testing.B) {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		at := rng.Int64N(10e12 / pg.BlockSize)
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: pg.RelNumber(at / (32 * pg.RelSegBlocks))}, pg.BlockNo(at%(32*pg.RelSegBlocks)))
	}
	b.ReportMetric(float64(m.MemoryBytes())/float64(max(1, m.Len())), "bytes/block")
}

// BenchmarkInsertHot notes blocks as pgbench touches them: a table, its index, and a few pages again and again.
func BenchmarkInsertHot(b *testing.B) {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		rel, block := pg.RelNumber(16384+i%4), pg.BlockNo(rng.IntN(16))
		if i%4 == 0 {
			block = pg.BlockNo(rng.IntN(200000))
		}
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: rel}, block)
		i++
	}
}
