// Command blockmaps measures ways to hold the set of changed blocks: memory and time per insertion, for 1% of the blocks
// of a cluster at random, and for a stretch of WAL in which they come in some order. Its numbers are quoted in
// scan/blockmap.go. Run it with
//
//	go run -C tools/blockmaps .
package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

const clusterBytes int64 = 10e12 / 4 // a quarter of the 10 TB the project speaks of: all figures grow with it

// set is one way to hold blocks.
type set interface {
	add(rel pg.RelNumber, block pg.BlockNo)
	done() // all were added
}

type bitmaps struct {
	m  *scan.BlockMap
	in *scan.Inserter
}

func (s *bitmaps) add(rel pg.RelNumber, block pg.BlockNo) {
	s.in.Add(pg.Rel{Tablespace: pg.DefaultTablespace, Database: 5, Number: rel}, block)
}
func (s *bitmaps) done() {}

// rows is any set by segment file, behind one lock, as neither of the libraries' sets may be filled concurrently.
type rows[T any] struct {
	mu   sync.Mutex
	m    map[pg.RelFile]*T
	put  func(*T, uint32)
	pack func(*T)
}

func (s *rows[T]) add(rel pg.RelNumber, block pg.BlockNo) {
	f := pg.RelFile{Rel: pg.Rel{Tablespace: pg.DefaultTablespace, Database: 5, Number: rel}, Segment: uint32(block) / pg.RelSegBlocks}
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.m[f]
	if row == nil {
		row = new(T)
		s.m[f] = row
	}
	s.put(row, uint32(block)%pg.RelSegBlocks)
}

func (s *rows[T]) done() {
	for _, row := range s.m {
		s.pack(row)
	}
}

func newRoaring() set {
	return &rows[roaring.Bitmap]{
		m:    make(map[pg.RelFile]*roaring.Bitmap),
		put:  func(b *roaring.Bitmap, block uint32) { b.Add(block) },
		pack: func(b *roaring.Bitmap) { b.RunOptimize() },
	}
}

func newSlices() set {
	return &rows[[]uint32]{
		m:   make(map[pg.RelFile]*[]uint32),
		put: func(s *[]uint32, block uint32) { *s = append(*s, block) },
		pack: func(s *[]uint32) {
			slices.Sort(*s)
			*s = slices.Clip(slices.Compact(*s))
		},
	}
}

func newBitmaps() set {
	m := scan.NewBlockMap(0)
	return &bitmaps{m, m.NewInserter()}
}

// load gives blocks, one after the other.
type load struct {
	name string
	run  func(rng *rand.Rand, add func(pg.RelNumber, pg.BlockNo)) int
}

// scattered takes 1% of all blocks at random from relations of the given number of blocks.
func scattered(relBlocks int64) func(*rand.Rand, func(pg.RelNumber, pg.BlockNo)) int {
	return func(rng *rand.Rand, add func(pg.RelNumber, pg.BlockNo)) int {
		blocks := clusterBytes / pg.BlockSize
		for range blocks / 100 {
			b := rng.Int64N(blocks)
			add(pg.RelNumber(16384+b/relBlocks), pg.BlockNo(b%relBlocks))
		}
		return int(blocks / 100)
	}
}

// busy is what pgbench does: a random row of a large table, its index's leaf, and a few hot pages.
func busy(rng *rand.Rand, add func(pg.RelNumber, pg.BlockNo)) int {
	const rows = 5_000_000
	for i := range rows {
		block := pg.BlockNo(rng.IntN(4 * pg.RelSegBlocks))
		add(16384, block)
		add(16385, block/20)
		add(16386, pg.BlockNo(i/100%64))
		add(16387, pg.BlockNo(i/150))
	}
	return 4 * rows
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapInuse)
}

func main() {
	fmt.Printf("%-28s %-16s %12s %10s %14s\n", "blocks", "held as", "references", "heap MB", "ns/reference")
	for _, l := range []load{
		{"1%, relations of 32 GiB", scattered(32 * pg.RelSegBlocks)},
		{"1%, relations of 10 MB", scattered(1280)},
		{"pgbench", busy},
	} {
		for _, kind := range []struct {
			name string
			make func() set
		}{{"bitmaps (ours)", newBitmaps}, {"roaring", newRoaring}, {"sorted slices", newSlices}} {
			before := heap()
			s := kind.make()
			start := time.Now()
			n := l.run(rand.New(rand.NewPCG(1, 2)), s.add)
			s.done()
			took := time.Since(start)
			fmt.Printf("%-28s %-16s %12d %10.1f %14.1f\n", l.name, kind.name, n, float64(heap()-before)/1e6, float64(took.Nanoseconds())/float64(n))
			runtime.KeepAlive(s)
		}
	}
}
