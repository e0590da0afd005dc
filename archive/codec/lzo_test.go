package codec

import (
	"bytes"
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
)

// lzoWriter writes a block instruction by instruction, and what it decodes to.
type lzoWriter struct {
	src, dst []byte
	state    int // literals of the last instruction; 4: a run
}

// more writes the bytes of a length beyond an instruction's own bits.
func (w *lzoWriter) more(n int) {
	for ; n > 255; n -= 255 {
		w.src = append(w.src, 0)
	}
	w.src = append(w.src, byte(n))
}

func (w *lzoWriter) literal(b []byte) {
	w.src, w.dst = append(w.src, b...), append(w.dst, b...)
}

// run writes literals: 4 or more; at the start 1 to 238 by the first byte.
func (w *lzoWriter) run(b []byte, first bool) {
	switch n := len(b); {
	case first:
		w.src = append(w.src, byte(17+n))
	case n <= 18:
		w.src = append(w.src, byte(n-3))
	default:
		w.src = append(w.src, 0)
		w.more(n - 18)
	}
	w.literal(b)
	w.state = min(len(b), 4)
}

// match writes a match and up to 3 literals behind it.
func (w *lzoWriter) match(length, distance int, tail []byte) bool {
	s := len(tail)
	switch {
	case length == 2 && distance <= 1024 && w.state >= 1 && w.state <= 3:
		d := distance - 1
		w.src = append(w.src, byte(d&3<<2|s), byte(d>>2))
	case length == 3 && distance > 2048 && distance <= 3072 && w.state == 4:
		d := distance - 2049
		w.src = append(w.src, byte(d&3<<2|s), byte(d>>2))
	case length >= 3 && length <= 8 && distance <= 2048:
		d := distance - 1
		op := 0x40 | (length-3)<<5
		if length >= 5 {
			op = 0x80 | (length-5)<<5
		}
		w.src = append(w.src, byte(op|d&7<<2|s), byte(d>>3))
	case length >= 3 && distance <= 16384:
		d := (distance-1)<<2 | s
		if length <= 33 {
			w.src = append(w.src, byte(0x20|(length-2)))
		} else {
			w.src = append(w.src, 0x20)
			w.more(length - 33)
		}
		w.src = append(w.src, byte(d), byte(d>>8))
	case length >= 3 && distance > 16384 && distance <= 49151:
		d := distance - 16384
		op := byte(0x10 | d>>14<<3)
		if length <= 9 {
			w.src = append(w.src, op|byte(length-2))
		} else {
			w.src = append(w.src, op)
			w.more(length - 9)
		}
		w.src = append(w.src, byte(d&0x3fff<<2|s), byte(d&0x3fff>>6))
	default:
		return false
	}
	for range length {
		w.dst = append(w.dst, w.dst[len(w.dst)-distance])
	}
	w.literal(tail)
	w.state = s
	return true
}

func (w *lzoWriter) end() { w.src = append(w.src, 0x11, 0, 0) }

// writeLZO makes a block of random instructions.
func writeLZO(seed uint64, size int) *lzoWriter {
	r := rand.New(rand.NewPCG(2, seed))
	some := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	w := &lzoWriter{}
	if r.IntN(2) == 0 {
		w.run(some(1+r.IntN(238)), true)
	} else {
		w.run(some(4+r.IntN(600)), false)
	}
	for len(w.dst) < size {
		if w.state == 0 && r.IntN(3) == 0 {
			w.run(some(4+r.IntN([]int{10, 20, 300, 1000}[r.IntN(4)])), false)
			continue
		}
		farthest := min(len(w.dst), []int{1, 8, 1024, 2048, 3072, 16384, 49151}[r.IntN(7)])
		length := 2 + r.IntN([]int{2, 9, 40, 700}[r.IntN(4)])
		w.match(length, 1+r.IntN(farthest), some(r.IntN(4)))
	}
	w.end()
	return w
}

// TestLZO1X decodes blocks of all instructions there are, and damaged ones.
func TestLZO1X(t *testing.T) {
	for seed := range uint64(100) {
		w := writeLZO(seed, 1000+int(seed)*700)
		if testing.Short() && seed%5 != 0 {
			continue
		}
		dst := make([]byte, len(w.dst))
		if err := decodeLZO1X(dst, w.src); err != nil || !bytes.Equal(dst, w.dst) {
			t.Fatalf("block %d: %v", seed, err)
		}
		for _, n := range []int{0, len(w.dst) - 1, len(w.dst) + 1} {
			if decodeLZO1X(make([]byte, n), w.src) == nil {
				t.Errorf("block %d decodes to %d as well as to %d bytes", seed, n, len(w.dst))
			}
		}
		if decodeLZO1X(dst, append(slices.Clone(w.src), 0)) == nil {
			t.Errorf("block %d decodes with a byte more", seed)
		}
		for n := 0; n < len(w.src); n += 1 + len(w.src)/50 {
			if decodeLZO1X(dst, w.src[:n]) == nil {
				t.Errorf("block %d decodes from its first %d bytes", seed, n)
			}
		}
		src := slices.Clone(w.src)
		r := rand.New(rand.NewPCG(3, seed))
		for range 50 {
			i := r.IntN(len(src))
			src[i] ^= 1 << r.IntN(8)
			_ = decodeLZO1X(dst, src) // whatever it says: it must not panic
		}
	}
	for _, src := range [][]byte{
		{}, {0x11}, {0x11, 0}, {0x12, 0, 0}, {0x11, 0, 0, 0}, {0}, {0, 0, 0}, {0x15, 1, 2, 3, 4, 0xff}, {0x40, 0}, {0x20, 0, 0},
		append(make([]byte, 10000), 1), {0x19, 0, 0, 0},
	} {
		if decodeLZO1X(make([]byte, 100), src) == nil {
			t.Errorf("% x decodes", src)
		}
	}
	if err := decodeLZO1X(nil, []byte{0x11, 0, 0}); err != nil {
		t.Error("nothing:", err)
	}
}

// writeLzop makes a container of blocks with all that flags ask for.
func writeLzop(flags uint32, blocks ...*lzoWriter) []byte {
	number := binary.BigEndian.AppendUint32
	h := []byte{0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 3, 9}
	h = number(number(number(number(h, flags), 0o100600), 1), 0)
	h = append(append(h, 4), "name"...)
	check := adler32.Checksum
	if flags&lzopHeaderCRC != 0 {
		check = crc32.ChecksumIEEE
	}
	out := append([]byte(lzopMagic), number(h, check(h))...)
	if flags&lzopExtra != 0 {
		extra := append(number(nil, 5), "extra"...)
		out = append(out, number(extra, check(extra))...)
	}
	for _, b := range blocks {
		src := b.src
		if len(src) >= len(b.dst) {
			src = b.dst
		}
		out = number(number(out, uint32(len(b.dst))), uint32(len(src)))
		if flags&lzopAdlerDecoded != 0 {
			out = number(out, adler32.Checksum(b.dst))
		}
		if flags&lzopCRCDecoded != 0 {
			out = number(out, crc32.ChecksumIEEE(b.dst))
		}
		if flags&lzopAdlerStored != 0 && len(src) < len(b.dst) {
			out = number(out, adler32.Checksum(src))
		}
		if flags&lzopCRCStored != 0 && len(src) < len(b.dst) {
			out = number(out, crc32.ChecksumIEEE(src))
		}
		out = append(out, src...)
	}
	return number(out, 0)
}

// TestLzop decodes containers with all sorts of checksums.
func TestLzop(t *testing.T) {
	lzop, _ := ByExtension(".lzo")
	stored := &lzoWriter{dst: walLike(1000)}
	stored.src = stored.dst
	blocks := []*lzoWriter{writeLZO(1, 10000), stored, writeLZO(2, 200000)}
	want := slices.Concat(blocks[0].dst, blocks[1].dst, blocks[2].dst)
	for _, flags := range []uint32{0, 0x1, 0x2, 0x3, 0x100, 0x200, 0x300, 0x303, 0x1000, 0x1303, 0x40, 0x1040, 0x03000001} {
		b := writeLzop(flags, blocks...)
		if got, err := decode(t, Chain{Codec: lzop}, b, int64(len(want))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("flags %#x: %d bytes, %v", flags, len(got), err)
		}
		if flags&0x303 == 0 {
			continue
		}
		// Damage in a compressed block and in the one that is not.
		for _, from := range []int{200, len(blocks[0].src) + 300} {
			if from > len(b)-1000 {
				t.Fatal("the blocks are too small for the test")
			}
			if from != 200 && flags&0x101 == 0 {
				continue // a stored block has checksums of the decoded bytes only
			}
			bad := slices.Clone(b)
			bad[from] ^= 4
			if got, err := decode(t, Chain{Codec: lzop}, bad, int64(len(want))); err == nil && !bytes.Equal(got, want) {
				t.Errorf("flags %#x, damaged at %d: wrong bytes", flags, from)
			}
		}
	}
	for _, flags := range []uint32{lzopFiltered, lzopMultipart} {
		if _, err := decode(t, Chain{Codec: lzop}, writeLzop(flags, blocks...), 1<<20); err == nil {
			t.Errorf("flags %#x: no error", flags)
		}
	}
	two := slices.Concat(writeLzop(1, blocks[0]), writeLzop(0x1302, blocks[2]))
	if got, err := decode(t, Chain{Codec: lzop}, two, 1<<20); err != nil || !bytes.Equal(got, slices.Concat(blocks[0].dst, blocks[2].dst)) {
		t.Errorf("two containers: %d bytes, %v", len(got), err)
	}
}
