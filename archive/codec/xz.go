package codec

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The xz container (The .xz File Format, version 1.1.0):
//
//	stream header   magic, flags: which check; CRC-32
//	block           header with sizes and filters, CRC-32 | LZMA2 data | padding to 4 | check of the decoded data
//	...
//	index           0, number of blocks, per block its unpadded and its decoded size, padding to 4, CRC-32
//	stream footer   CRC-32, size of the index, flags, "YZ"
//
// Streams may follow one another, with multiples of four zeros between and after them.
//
// The library's own reader of it allocates what each block header asks for, up to 4 GiB, and keeps the sizes of all blocks.
// This one allocates no more than there can be use for, and keeps a hash of the sizes. As in the library, LZMA2 is the only
// filter: nothing else compresses WAL.
const (
	xzMagic      = "\xfd7zXZ\x00"
	xzHeaderSize = 12
	xzFooterSize = 12
	xzLZMA2      = 0x21
)

// openXZ reads the first stream header.
func openXZ(br *bufio.Reader, limit int64) (io.Reader, func(), error) {
	x := &xzReader{in: xzInput{br: br}, limit: limit}
	return x, func() {}, x.streamHeader()
}

// xzReader decodes one stream after the other.
type xzReader struct {
	in    xzInput
	limit int64

	flags byte // which check
	check hash.Hash
	block xzBlock
	lzma2 *lzma.Reader2 // of the block being read; nil between blocks

	blocks int64     // of the stream
	sizes  hash.Hash // of their sizes
	err    error     // sticky
}

// xzBlock is what a block is measured against.
type xzBlock struct {
	start        int64 // of its header, counted from the start of all
	headerSize   int64
	compressed   int64 // as the header says; -1 if it does not
	uncompressed int64 // likewise
	decoded      int64 // so far
}

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.lzma2 == nil {
			x.err = x.nextBlock()
			continue
		}
		n, err := x.lzma2.Read(p)
		x.block.decoded += int64(n)
		_, _ = x.check.Write(p[:n]) // hashes do not fail
		if errors.Is(err, io.EOF) {
			x.lzma2, err = nil, x.endBlock()
		}
		x.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// streamHeader begins a stream.
func (x *xzReader) streamHeader() error {
	var h [xzHeaderSize]byte
	if err := x.in.full(h[:]); err != nil {
		return err
	}
	if string(h[:len(xzMagic)]) != xzMagic {
		return damaged("no xz stream where the next one should begin")
	}
	flags := h[len(xzMagic):8]
	if crc32.ChecksumIEEE(flags) != binary.LittleEndian.Uint32(h[8:]) {
		return damaged("the CRC of the xz stream header is wrong")
	}
	if flags[0] != 0 {
		return damaged("unknown flags %x in the xz stream header", flags)
	}
	switch x.flags = flags[1]; x.flags {
	case 0:
		x.check = noCheck{}
	case 1:
		x.check = crc32.NewIEEE()
	case 4:
		x.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.check = sha256.New()
	default:
		return damaged("unknown check %d in the xz stream header", x.flags)
	}
	x.blocks, x.sizes = 0, sha256.New()
	return nil
}

// nextBlock reads a block header, or the end of the stream and what follows it. After the last stream it is io.EOF.
func (x *xzReader) nextBlock() error {
	x.block = xzBlock{start: x.in.n, compressed: -1, uncompressed: -1}
	size, err := x.in.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if size == 0 {
		if err := x.endStream(); err != nil {
			return err
		}
		return x.nextStream()
	}
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if err := x.in.full(h[1:]); err != nil {
		return err
	}
	x.block.headerSize = int64(len(h))
	h, crc := h[:len(h)-4], h[len(h)-4:]
	if crc32.ChecksumIEEE(h) != binary.LittleEndian.Uint32(crc) {
		return damaged("the CRC of the header of xz block %d is wrong", x.blocks+1)
	}
	return x.startBlock(h)
}

// startBlock takes the block header apart. h begins with its size and ends before its CRC.
func (x *xzReader) startBlock(h []byte) error {
	const (
		moreFilters     = 0x03
		reserved        = 0x3c
		hasCompressed   = 0x40
		hasUncompressed = 0x80
	)
	bad := func() error { return damaged("the header of xz block %d does not make sense", x.blocks+1) }
	flags, rest := h[1], bytes.NewReader(h[2:])
	if flags&reserved != 0 {
		return bad()
	}
	if flags&moreFilters != 0 {
		return damaged("xz block %d is filtered by more than LZMA2", x.blocks+1)
	}
	var err error
	if flags&hasCompressed != 0 {
		if x.block.compressed, err = xzNumber(rest); err != nil {
			return bad()
		}
	}
	if flags&hasUncompressed != 0 {
		if x.block.uncompressed, err = xzNumber(rest); err != nil {
			return bad()
		}
	}
	id, err := xzNumber(rest)
	if err != nil {
		return bad()
	}
	if id != xzLZMA2 {
		return damaged("xz block %d is filtered by %#x, and not by LZMA2", x.blocks+1, id)
	}
	properties, err := xzNumber(rest)
	if err != nil || properties != 1 {
		return bad()
	}
	bits, err := rest.ReadByte()
	if err != nil || bits > 40 {
		return bad()
	}
	for rest.Len() > 0 {
		if b, _ := rest.ReadByte(); b != 0 { // there is one
			return bad()
		}
	}
	// 2 or 3 times a power of two, from 4 kB on; 40 stands for 4 GiB - 1.
	declared := int64(2|bits&1) << (bits/2 + 11)
	dict, err := dictionary(declared, x.limit)
	if err != nil {
		return err
	}
	x.check.Reset()
	x.lzma2, err = lzma.Reader2Config{DictCap: dict}.NewReader2(&x.in)
	return err
}

// endBlock checks the block against its header and its checksum.
func (x *xzReader) endBlock() error {
	b := x.block
	x.blocks++
	compressed := x.in.n - b.start - b.headerSize
	if b.compressed >= 0 && b.compressed != compressed || b.uncompressed >= 0 && b.uncompressed != b.decoded {
		return damaged("xz block %d has %d bytes that decode to %d, and its header says %d and %d",
			x.blocks, compressed, b.decoded, b.compressed, b.uncompressed)
	}
	if err := x.in.padding(compressed); err != nil {
		return err
	}
	want := make([]byte, x.check.Size())
	if err := x.in.full(want); err != nil {
		return err
	}
	if got := x.check.Sum(nil); !bytes.Equal(got, sumOrder(x.flags, want)) {
		return damaged("the checksum of xz block %d is wrong", x.blocks)
	}
	x.sizes.Write(sizePair(b.headerSize+compressed+int64(len(want)), b.decoded))
	return nil
}

// sumOrder turns a stored checksum into the order of bytes that package hash has: the CRCs are stored little-endian.
func sumOrder(flags byte, sum []byte) []byte {
	if flags == 1 || flags == 4 {
		for i, j := 0, len(sum)-1; i < j; i, j = i+1, j-1 {
			sum[i], sum[j] = sum[j], sum[i]
		}
	}
	return sum
}

// sizePair is one entry of the index, in a form of ours.
func sizePair(unpadded, decoded int64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(unpadded)), uint64(decoded))
}

// endStream checks index and footer. The index's first byte has been read.
func (x *xzReader) endStream() error {
	crc := crc32.NewIEEE()
	_, _ = crc.Write([]byte{0})
	start := x.in.n - 1
	x.in.tee = crc
	err := x.index(start)
	x.in.tee = nil
	if err != nil {
		return err
	}
	var tail [4 + xzFooterSize]byte // the index's CRC, the footer
	if err := x.in.full(tail[:]); err != nil {
		return err
	}
	if crc.Sum32() != binary.LittleEndian.Uint32(tail[:]) {
		return damaged("the CRC of the xz index is wrong")
	}
	f := tail[4:]
	size := x.in.n - xzFooterSize - start
	switch {
	case crc32.ChecksumIEEE(f[4:10]) != binary.LittleEndian.Uint32(f), string(f[10:]) != "YZ":
		return damaged("the xz stream footer is damaged")
	case f[8] != 0 || f[9] != x.flags, (int64(binary.LittleEndian.Uint32(f[4:]))+1)*4 != size:
		return damaged("the xz stream footer is not that of the stream")
	}
	return nil
}

// index compares the index with the blocks there were.
func (x *xzReader) index(start int64) error {
	n, err := xzNumber(&x.in)
	if err != nil {
		return noEOF(err)
	}
	if n != x.blocks {
		return damaged("the xz index has %d blocks, and there are %d", n, x.blocks)
	}
	sizes := sha256.New()
	for range n {
		unpadded, err := xzNumber(&x.in)
		if err != nil {
			return noEOF(err)
		}
		decoded, err := xzNumber(&x.in)
		if err != nil {
			return noEOF(err)
		}
		sizes.Write(sizePair(unpadded, decoded))
	}
	if !bytes.Equal(sizes.Sum(nil), x.sizes.Sum(nil)) {
		return damaged("the xz index has other blocks than there are")
	}
	return x.in.padding(x.in.n - start)
}

// nextStream passes over padding. It is io.EOF if nothing else follows.
func (x *xzReader) nextStream() error {
	for {
		head, err := x.in.br.Peek(4)
		switch {
		case len(head) == 0 || err != nil && err != io.EOF:
			return err
		case len(head) == 4 && bytes.Equal(head, make([]byte, 4)):
			if err := x.in.full(make([]byte, 4)); err != nil {
				return err
			}
		case len(head) == 4 && string(head) == xzMagic[:4]:
			return x.streamHeader()
		default:
			return damaged("bytes follow the end of the xz stream")
		}
	}
}

// xzNumber reads a number of the format: seven bits a byte, the lowest first, nine bytes at most, none of them in vain.
func xzNumber(r io.ByteReader) (int64, error) {
	var n int64
	for i := range 9 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int64(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			if b == 0 && i > 0 {
				break
			}
			return n, nil
		}
	}
	return 0, damaged("a number in the xz container does not make sense")
}

// xzInput counts what is read.
type xzInput struct {
	br  *bufio.Reader
	n   int64
	tee hash.Hash32 // nil, or what is read is hashed
}

func (in *xzInput) Read(p []byte) (int, error) {
	n, err := in.br.Read(p)
	in.n += int64(n)
	if in.tee != nil {
		_, _ = in.tee.Write(p[:n])
	}
	return n, err
}

func (in *xzInput) ReadByte() (byte, error) {
	b, err := in.br.ReadByte()
	if err == nil {
		in.n++
		if in.tee != nil {
			_, _ = in.tee.Write([]byte{b})
		}
	}
	return b, err
}

// full fills p.
func (in *xzInput) full(p []byte) error {
	_, err := io.ReadFull(in, p)
	return noEOF(err)
}

// padding reads the zeros that follow size bytes.
func (in *xzInput) padding(size int64) error {
	pad := make([]byte, -size&3)
	if err := in.full(pad); err != nil {
		return err
	}
	if !bytes.Equal(pad, make([]byte, len(pad))) {
		return damaged("the padding of the xz container is not zero")
	}
	return nil
}

// noCheck is the check of streams without one.
type noCheck struct{}

func (noCheck) Write(p []byte) (int, error) { return len(p), nil }
func (noCheck) Sum(b []byte) []byte         { return b }
func (noCheck) Reset()                      {}
func (noCheck) Size() int                   { return 0 }
func (noCheck) BlockSize() int              { return 1 }
