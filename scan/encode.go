package scan

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// A block map as bytes: chunks of at most MaxMapChunk bytes, each of which can be read without the others. Equal maps give
// equal bytes. Integers are unsigned LEB128 varints of at most 32 bits.
//
//	chunk   one or more files, ascending by tablespace, database, number, segment
//	file    tablespace, database, number, segment    four varints
//	        one or more pieces, ascending
//	piece   tag                                      one byte: bits 0–4  which 4096 blocks of the file, 0 to 31
//	                                                           bit  5    form: 0 runs, 1 bitmap
//	                                                           bit  6    last piece of this file in this chunk
//	        runs:    n, then n times: gap, length-1  varints; blocks not in the map, then blocks in it
//	        bitmap:  n, then 8*n bytes               one byte, 1 to 64; bit b%8 of byte b/8 is block b of the piece, and the
//	                                                 last 8 bytes are not all zero
//
// Of the two forms the shorter is taken, so that no pattern of blocks makes more bytes than the map holds in memory.
// Files ascend over the borders of chunks too; the pieces of one file may be spread over several chunks.
const (
	// MaxMapChunk is the most bytes of one chunk of an encoded block map.
	MaxMapChunk = 32 << 10

	pieceWords    = pieceBlocks / 64
	bitmapBytes   = pieceBlocks / 8
	maxPieceBytes = 2 + bitmapBytes
	maxFileBytes  = 4 * binary.MaxVarintLen32

	tagBitmap = 1 << 5
	tagLast   = 1 << 6
	tagPiece  = tagBitmap - 1
)

// MapSize is what is in a block map.
type MapSize struct {
	Files  int64
	Blocks int64
}

// Encode gives the map's chunks to yield, one after the other, and stops at the first error, which it returns. A chunk is
// valid only until yield returns. The map must no longer be filled. Beside the map it takes memory for its sorted list of
// files, 16 bytes each.
func (m *BlockMap) Encode(yield func(chunk []byte) error) (MapSize, error) {
	var (
		size  MapSize
		chunk = make([]byte, 0, MaxMapChunk)
		words [pieceWords]uint64
	)
	for _, f := range m.sortedFiles() {
		set := m.find(f)
		tag := -1 // where in the chunk the file's latest tag is; -1: the file is not in this chunk yet
		found := false
		for piece := range uint32(pg.RelSegBlocks / pieceBlocks) {
			n := set.load(piece, &words)
			if n == 0 {
				continue
			}
			found = true
			size.Blocks += int64(n)
			if len(chunk)+maxFileBytes+maxPieceBytes > MaxMapChunk {
				if tag >= 0 {
					chunk[tag] |= tagLast
				}
				if err := yield(chunk); err != nil {
					return size, err
				}
				chunk, tag = chunk[:0], -1
			}
			if tag < 0 {
				for _, v := range [...]uint32{uint32(f.Tablespace), uint32(f.Database), uint32(f.Number), f.Segment} {
					chunk = binary.AppendUvarint(chunk, uint64(v))
				}
			}
			tag = len(chunk)
			chunk = appendPiece(chunk, piece, &words)
		}
		if found {
			chunk[tag] |= tagLast
			size.Files++
		}
	}
	if len(chunk) == 0 {
		return size, nil
	}
	return size, yield(chunk)
}

func compareFiles(a, b pg.RelFile) int {
	return cmp.Or(
		cmp.Compare(a.Tablespace, b.Tablespace), cmp.Compare(a.Database, b.Database),
		cmp.Compare(a.Number, b.Number), cmp.Compare(a.Segment, b.Segment),
	)
}

func (m *BlockMap) sortedFiles() []pg.RelFile {
	n := 0
	for i := range m.stripes {
		n += len(m.stripes[i].sets)
	}
	files := slices.AppendSeq(make([]pg.RelFile, 0, n), m.Files())
	slices.SortFunc(files, compareFiles)
	return files
}

// load copies the bits of one piece, and counts them. Of an empty one it need not copy anything.
func (s *blockSet) load(piece uint32, words *[pieceWords]uint64) (n int) {
	if piece == 0 {
		clear(words[copy(words[:], s.near[:]):])
		if p := s.mid1.Load(); p != nil {
			copy(words[nearBlocks/64:], p[:])
		}
		if p := s.mid2.Load(); p != nil {
			copy(words[2*nearBlocks/64:], p[:])
		}
		if p := s.mid4.Load(); p != nil {
			copy(words[4*nearBlocks/64:], p[:])
		}
	} else {
		dir := s.far.Load()
		if dir == nil {
			return 0
		}
		p := dir[piece].Load()
		if p == nil {
			return 0
		}
		*words = *p
	}
	for _, w := range words {
		n += bits.OnesCount64(w)
	}
	return n
}

// store is load's reverse. Nothing else may use the map meanwhile.
func (s *blockSet) store(m *BlockMap, piece uint32, words *[pieceWords]uint64) {
	if piece > 0 {
		dir := made(&s.far, m, dirBytes)
		*made(&dir[piece], m, pieceBlocks/8) = *words
		return
	}
	const near = nearBlocks / 64
	copy(s.near[:], words[:near])
	if w := words[near : 2*near]; anyBit(w) {
		copy(made(&s.mid1, m, nearBlocks/8)[:], w)
	}
	if w := words[2*near : 4*near]; anyBit(w) {
		copy(made(&s.mid2, m, 2*nearBlocks/8)[:], w)
	}
	if w := words[4*near:]; anyBit(w) {
		copy(made(&s.mid4, m, 4*nearBlocks/8)[:], w)
	}
}

func anyBit(words []uint64) bool {
	return slices.ContainsFunc(words, func(w uint64) bool { return w != 0 })
}

// appendPiece appends a piece that is not empty, in the shorter of the two forms.
func appendPiece(b []byte, piece uint32, words *[pieceWords]uint64) []byte {
	start := len(b)
	n, used := 0, 0 // runs, words of the bitmap
	for i, w := range words {
		if w != 0 {
			used = i + 1
		}
		// A run begins where a bit is set and the one before it is not.
		before := uint64(0)
		if i > 0 {
			before = words[i-1] >> 63
		}
		n += bits.OnesCount64(w &^ (w<<1 | before))
	}
	if 2*n < 8*used { // each run takes two bytes or more
		b = append(b, byte(piece))
		b = binary.AppendUvarint(b, uint64(n))
		end := uint32(0) // of the run before
		for first := nextBit(words, 0, 0); first < pieceBlocks; {
			behind := nextBit(words, first, ^uint64(0))
			b = binary.AppendUvarint(b, uint64(first-end))
			b = binary.AppendUvarint(b, uint64(behind-first-1))
			end = behind
			first = nextBit(words, behind, 0)
		}
		if len(b)-start <= 2+8*used {
			return b
		}
	}
	b = append(b[:start], byte(piece)|tagBitmap, byte(used))
	for _, w := range words[:used] {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// nextBit is the first block from from on whose bit, after XOR with flip, is set; or pieceBlocks.
func nextBit(words *[pieceWords]uint64, from uint32, flip uint64) uint32 {
	if from >= pieceBlocks {
		return pieceBlocks
	}
	i := from / 64
	w := (words[i] ^ flip) &^ (1<<(from%64) - 1)
	for w == 0 {
		if i++; i == pieceWords {
			return pieceBlocks
		}
		w = words[i] ^ flip
	}
	return i*64 + uint32(bits.TrailingZeros64(w))
}

// MapDecoder puts a block map together from its chunks. The bytes need not be believed: nothing is allocated beyond the
// map itself, and the map not beyond its bound.
type MapDecoder struct {
	m    *BlockMap
	size MapSize

	file  pg.RelFile // the latest
	piece int        // of it; -1 before the first file
}

// NewMapDecoder makes a decoder for a map of at most maxBytes of memory; 0 means DefaultMaxMapBytes.
func NewMapDecoder(maxBytes int64) *MapDecoder {
	return &MapDecoder{m: NewBlockMap(maxBytes), piece: -1}
}

// Map is the map of the chunks given so far. The decoder must not be given any others once it is in use.
func (d *MapDecoder) Map() *BlockMap { return d.m }

// Size is what is in the map so far.
func (d *MapDecoder) Size() MapSize { return d.size }

// Add decodes the next chunk, which it does not keep. After an error the map is of no use.
func (d *MapDecoder) Add(chunk []byte) error {
	if len(chunk) == 0 || len(chunk) > MaxMapChunk {
		return fault.New("invalid chunk of a block map: %d bytes, expected 1 to %d", len(chunk), MaxMapChunk)
	}
	rest := chunk
	for len(rest) > 0 {
		at := len(chunk) - len(rest)
		var why string
		if rest, why = d.addFile(rest); why != "" {
			return fault.New("invalid chunk of a block map: file at byte %d of %d: %s", at, len(chunk), why)
		}
		if err := d.m.overflow(); err != nil {
			return err
		}
	}
	return nil
}

// addFile decodes one file with its pieces, and says what is wrong with it if something is.
func (d *MapDecoder) addFile(b []byte) (rest []byte, why string) {
	var v [4]uint32
	for i := range v {
		var ok bool
		if v[i], b, ok = uvarint32(b); !ok {
			return nil, "its name is cut short or no number"
		}
	}
	f := pg.RelFile{
		Rel:     pg.Rel{Tablespace: pg.Oid(v[0]), Database: pg.Oid(v[1]), Number: pg.RelNumber(v[2])},
		Segment: v[3],
	}
	if f.Segment > pg.MaxRelSegment {
		return nil, "no relation has so many segment files"
	}
	switch {
	case d.piece < 0 || compareFiles(d.file, f) < 0:
		d.file, d.piece = f, -1
		d.size.Files++
	case d.file != f:
		return nil, "it is out of order"
	}
	set := d.m.set(f)
	for {
		if len(b) == 0 {
			return nil, "its blocks are cut short"
		}
		tag := b[0]
		piece := int(tag & tagPiece)
		if piece <= d.piece {
			return nil, "its blocks are out of order"
		}
		if tag&^(tagPiece|tagBitmap|tagLast) != 0 {
			return nil, "its blocks are in an unknown form"
		}
		var words [pieceWords]uint64
		if b, why = decodePiece(b[1:], tag&tagBitmap != 0, &words); why != "" {
			return nil, why
		}
		d.piece = piece
		set.store(d.m, uint32(piece), &words)
		for _, w := range words {
			d.size.Blocks += int64(bits.OnesCount64(w))
		}
		if tag&tagLast != 0 {
			return b, ""
		}
	}
}

func decodePiece(b []byte, bitmap bool, words *[pieceWords]uint64) (rest []byte, why string) {
	const cut = "its blocks are cut short or no numbers"
	if bitmap {
		if len(b) == 0 {
			return nil, cut
		}
		used := int(b[0])
		if used == 0 || used > pieceWords {
			return nil, "a bitmap of an impossible size"
		}
		if b = b[1:]; len(b) < 8*used {
			return nil, cut
		}
		for i := range used {
			words[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		if words[used-1] == 0 {
			return nil, "a bitmap longer than its blocks"
		}
		return b[8*used:], ""
	}
	n, b, ok := uvarint32(b)
	if !ok {
		return nil, cut
	}
	if n == 0 || n > pieceBlocks/2 {
		return nil, "an impossible number of runs of blocks"
	}
	end := uint64(0)
	for i := range n {
		var gap, more uint32
		if gap, b, ok = uvarint32(b); !ok {
			return nil, cut
		}
		if more, b, ok = uvarint32(b); !ok {
			return nil, cut
		}
		first := end + uint64(gap)
		if end = first + uint64(more) + 1; end > pieceBlocks || gap == 0 && i > 0 {
			return nil, "an impossible run of blocks"
		}
		setRun(words, uint32(first), uint32(end))
	}
	return b, ""
}

// setRun sets the bits from first up to, not including, end.
func setRun(words *[pieceWords]uint64, first, end uint32) {
	for i := first / 64; i*64 < end; i++ {
		w := ^uint64(0)
		if i == first/64 {
			w <<= first % 64
		}
		if left := end - i*64; left < 64 {
			w &= 1<<left - 1
		}
		words[i] |= w
	}
}

func uvarint32(b []byte) (v uint32, rest []byte, ok bool) {
	u, n := binary.Uvarint(b)
	if n <= 0 || u > 1<<32-1 {
		return 0, nil, false
	}
	return uint32(u), b[n:], true
}
