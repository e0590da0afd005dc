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
// A bitmap costs one bit for each 8 kB block of the pieces touched: at most 1/65536 of the cluster's size whatever the
// pattern (10 TB: 160 MiB), and inserting is one atomic OR without a lock. Compressed sets (roaring) take a sixth of
// that at 1% random blocks but need a lock and a search for each insert; measurements are in the benchmark beside this
// file and in the tools directory.
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

const (
	nearBlocks  = 512  // held in the set itself: relations up to 4 MiB need nothing else
	pieceBlocks = 4096 // in each further piece: 512 bytes for 32 MiB of relation
	setBytes    = 160  // a set with its place in the map
	dirBytes    = 8 * (pg.RelSegBlocks / pieceBlocks)
	pieceBytes  = pieceBlocks / 8
)

// blockSet is the blocks of one segment file.
type blockSet struct {
	near [nearBlocks / 64]uint64
	far  atomic.Pointer[[pg.RelSegBlocks / pieceBlocks]atomic.Pointer[piece]]
}

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
	if block < nearBlocks {
		setBit(&s.near[block/64], block%64)
		return
	}
	dir := s.far.Load()
	if dir == nil {
		fresh := new([pg.RelSegBlocks / pieceBlocks]atomic.Pointer[piece])
		if s.far.CompareAndSwap(nil, fresh) {
			m.bytes.Add(dirBytes)
		}
		dir = s.far.Load()
	}
	slot := &dir[block/pieceBlocks]
	p := slot.Load()
	if p == nil {
		if slot.CompareAndSwap(nil, new(piece)) {
			m.bytes.Add(pieceBytes)
		}
		p = slot.Load()
	}
	setBit(&p[block%pieceBlocks/64], block%64)
}

// setBit sets a bit, without writing to the cache line if it is set already: hot blocks are noted again and again.
func setBit(word *uint64, bit uint32) {
	mask := uint64(1) << bit
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
		Advise("this is not what a healthy cluster writes: check the target's WAL with pg_waldump, or take a new base backup")
}

// Inserter notes blocks in a BlockMap. It remembers where it was last, which is where most records go. One per
// goroutine.
type Inserter struct {
	m      *BlockMap
	recent [256]struct {
		file pg.RelFile
		set  *blockSet
	}
}

// NewInserter makes an Inserter into m.
func (m *BlockMap) NewInserter() *Inserter { return &Inserter{m: m} }

// Add notes a block of a relation's main fork.
func (in *Inserter) Add(rel pg.Rel, block pg.BlockNo) {
	f := pg.RelFile{Rel: rel, Segment: uint32(block) / pg.RelSegBlocks}
	slot := &in.recent[stripeOf(f)%uint32(len(in.recent))]
	if slot.set == nil || slot.file != f {
		slot.file, slot.set = f, in.m.set(f)
	}
	slot.set.add(in.m, uint32(block)%pg.RelSegBlocks)
}

// reset makes the Inserter note into another map.
func (in *Inserter) reset(m *BlockMap) {
	*in = Inserter{m: m}
}

// Err is not nil once the map has outgrown its bound. Check it now and then.
func (in *Inserter) Err() error { return in.m.overflow() }

// merge adds all of from, whose filling is over.
func (m *BlockMap) merge(from *BlockMap) {
	for f := range from.Files() {
		src, dst := from.find(f), m.set(f)
		for b := range src.blocks() {
			dst.add(m, b)
		}
	}
}

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
