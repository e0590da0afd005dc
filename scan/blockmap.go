package scan

import (
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// BlockMap is the set of changed blocks of relations' main forks: per segment file of at most 1 GiB (131072 blocks) a
// bitmap, allocated in pieces as blocks are noted.
//
// A bitmap costs one bit for each 8 kB block of the pieces touched, 16 kB for a segment file of 1 GiB whatever the
// pattern; and inserting is one atomic OR without a lock. Measured for 1% of the blocks of a cluster of 10 TB at random
// (2 cores, tools/blockmaps; the time is that of one goroutine, and most of it is cache misses):
//
//	                      relations of 32 GiB     relations of 10 MB      pgbench
//	these bitmaps         166 MB, 250-490 ns      330 MB, 660-910 ns      10-16 ns
//	roaring, one lock      37 MB, 160-270 ns      258 MB, 1100-1600 ns    46-55 ns
//	sorted slices          62 MB, 115-240 ns      190 MB, 630-1770 ns     83-132 ns, and 4 bytes per reference
//
// The others are smaller, but neither can be filled by several goroutines; and 363 MB is the most these bitmaps take with
// relations of 4 MiB or more. WAL as servers write it is like the last column.
//
// While it is filled, use one Inserter per goroutine. Once Run has returned it, it is read-only and safe for concurrent
// use.
type BlockMap struct {
	stripes [64]struct {
		sync.RWMutex
		sets map[pg.RelFile]*blockSet
	}
	bytes    atomic.Int64 // of memory held, estimated
	maxBytes int64
}

// DefaultMaxMapBytes bounds a block map's memory. WAL that refers to more distinct places than this holds is not a
// server's: the largest clusters in use need a tenth of it.
const DefaultMaxMapBytes = 2 << 30

// A set begins with the smallest bitmaps and goes on with larger ones, each covering as much as all before it, up to
// pieces of 4096 blocks: a small relation costs little, and one reference into a large one half a kilobyte.
const (
	nearBlocks  = 512            // held in the set itself: relations up to 4 MiB need nothing else
	pieceBlocks = 8 * nearBlocks // in each piece behind the first: 512 bytes for 32 MiB of relation
	setBytes    = 160            // a set with its place in the map
	dirBytes    = 8 * (pg.RelSegBlocks / pieceBlocks)
)

// blockSet is the blocks of one segment file.
type blockSet struct {
	near [nearBlocks / 64]uint64                     // blocks 0–511
	mid1 atomic.Pointer[[nearBlocks / 64]uint64]     // 512–1023
	mid2 atomic.Pointer[[2 * nearBlocks / 64]uint64] // 1024–2047
	mid4 atomic.Pointer[[4 * nearBlocks / 64]uint64] // 2048–4095
	far  atomic.Pointer[directory]                   // from 4096 on
}

// directory is the pieces of a file by number; the first stays empty.
type directory [pg.RelSegBlocks / pieceBlocks]atomic.Pointer[piece]

type piece [pieceBlocks / 64]uint64

// NewBlockMap makes an empty map that refuses to grow over maxBytes of memory; 0 means DefaultMaxMapBytes.
func NewBlockMap(maxBytes int64) *BlockMap {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxMapBytes
	}
	m := &BlockMap{maxBytes: maxBytes}
	for i := range m.stripes {
		m.stripes[i].sets = make(map[pg.RelFile]*blockSet)
	}
	return m
}

func stripeOf(f pg.RelFile) uint32 {
	h := uint32(f.Number)*2654435761 ^ uint32(f.Database)*40503 ^ uint32(f.Tablespace) ^ f.Segment*97
	return h ^ h>>15
}

// set finds the set of a file, making it if it is not there.
func (m *BlockMap) set(f pg.RelFile) *blockSet {
	s := &m.stripes[stripeOf(f)%uint32(len(m.stripes))]
	s.RLock()
	set := s.sets[f]
	s.RUnlock()
	if set != nil {
		return set
	}
	s.Lock()
	defer s.Unlock()
	if set = s.sets[f]; set == nil {
		set = new(blockSet)
		s.sets[f] = set
		m.bytes.Add(setBytes)
	}
	return set
}

func (m *BlockMap) find(f pg.RelFile) *blockSet {
	s := &m.stripes[stripeOf(f)%uint32(len(m.stripes))]
	s.RLock()
	defer s.RUnlock()
	return s.sets[f]
}

// add notes a block by its number within the segment file.
func (s *blockSet) add(m *BlockMap, block uint32) {
	word := block / 64
	switch {
	case block < nearBlocks:
		setBit(&s.near[word], block)
	case block < 2*nearBlocks:
		setBit(&made(&s.mid1, m, nearBlocks/8)[word-nearBlocks/64], block)
	case block < 4*nearBlocks:
		setBit(&made(&s.mid2, m, 2*nearBlocks/8)[word-2*nearBlocks/64], block)
	case block < pieceBlocks:
		setBit(&made(&s.mid4, m, 4*nearBlocks/8)[word-4*nearBlocks/64], block)
	default:
		dir := made(&s.far, m, dirBytes)
		setBit(&made(&dir[block/pieceBlocks], m, pieceBlocks/8)[block%pieceBlocks/64], block)
	}
}

// made gives what p points to, making it if it is not there. size is its size in bytes.
func made[T any](p *atomic.Pointer[T], m *BlockMap, size int64) *T {
	v := p.Load()
	if v == nil {
		if p.CompareAndSwap(nil, new(T)) {
			m.bytes.Add(size)
		}
		v = p.Load()
	}
	return v
}

// setBit sets a block's bit in its word, without writing to the cache line if it is set already: hot blocks are noted
// again and again.
func setBit(word *uint64, block uint32) {
	mask := uint64(1) << (block % 64)
	if atomic.LoadUint64(word)&mask == 0 {
		atomic.OrUint64(word, mask)
	}
}

// overflow is the error for a map that has outgrown its bound.
func (m *BlockMap) overflow() error {
	if m.bytes.Load() <= m.maxBytes {
		return nil
	}
	return fault.New("the WAL refers to more blocks than can be held in %d MB of memory", m.maxBytes>>20).
		Advise("This is not what a healthy cluster writes: check the target's WAL with pg_waldump, or take a new base backup.").Ours()
}

// Inserter notes blocks in a BlockMap. It remembers where it was last, which is where most records go. One per
// goroutine.
type Inserter struct {
	m         *BlockMap
	last      pg.Rel // noted last, with lastBlock; neighbouring records often change the same block
	lastBlock pg.BlockNo
	recent    [256]struct {
		file pg.RelFile
		set  *blockSet
	}
}

// NewInserter makes an Inserter into m.
func (m *BlockMap) NewInserter() *Inserter { return &Inserter{m: m, lastBlock: noBlock} }

// noBlock is a block number that no block has (InvalidBlockNumber, block.h), so a record with it is as good as refused:
// plan.Make finds no such file.
const noBlock = ^pg.BlockNo(0)

// Add notes a block of a relation's main fork.
func (in *Inserter) Add(rel pg.Rel, block pg.BlockNo) {
	if block == in.lastBlock && rel == in.last {
		return
	}
	in.last, in.lastBlock = rel, block
	f := pg.RelFile{Rel: rel, Segment: uint32(block) / pg.RelSegBlocks}
	slot := &in.recent[stripeOf(f)%uint32(len(in.recent))]
	if slot.set == nil || slot.file != f {
		slot.file, slot.set = f, in.m.set(f)
	}
	slot.set.add(in.m, uint32(block)%pg.RelSegBlocks)
}

// Err is not nil once the map has outgrown its bound. Check it now and then.
func (in *Inserter) Err() error { return in.m.overflow() }

// Files yields every segment file with at least one noted block, in no particular order.
func (m *BlockMap) Files() iter.Seq[pg.RelFile] {
	return func(yield func(pg.RelFile) bool) {
		for i := range m.stripes {
			for f := range m.stripes[i].sets {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// Blocks yields the noted blocks of one segment file, ascending, numbered within that file: 0 to 131071.
func (m *BlockMap) Blocks(f pg.RelFile) iter.Seq[uint32] {
	set := m.find(f)
	if set == nil {
		return func(func(uint32) bool) {}
	}
	return set.blocks()
}

// Len counts the noted blocks.
func (m *BlockMap) Len() int64 {
	var n int64
	for i := range m.stripes {
		for _, s := range m.stripes[i].sets {
			for range s.blocks() {
				n++
			}
		}
	}
	return n
}

// MemoryBytes estimates the memory the map holds.
func (m *BlockMap) MemoryBytes() int64 { return m.bytes.Load() }

func (s *blockSet) blocks() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if !yieldBits(s.near[:], 0, yield) {
			return
		}
		if p := s.mid1.Load(); p != nil && !yieldBits(p[:], nearBlocks, yield) {
			return
		}
		if p := s.mid2.Load(); p != nil && !yieldBits(p[:], 2*nearBlocks, yield) {
			return
		}
		if p := s.mid4.Load(); p != nil && !yieldBits(p[:], 4*nearBlocks, yield) {
			return
		}
		dir := s.far.Load()
		if dir == nil {
			return
		}
		for i := range dir {
			if p := dir[i].Load(); p != nil && !yieldBits(p[:], uint32(i)*pieceBlocks, yield) {
				return
			}
		}
	}
}

func yieldBits(words []uint64, base uint32, yield func(uint32) bool) bool {
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			if !yield(base + uint32(i)*64 + uint32(bits.TrailingZeros64(w))) {
				return false
			}
		}
	}
	return true
}
