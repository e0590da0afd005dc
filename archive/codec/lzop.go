package codec

import (
	"bufio"
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"io"
)

// The container of lzop (its lzop.c; all numbers big-endian):
//
//	magic    9 bytes
//	header   versions, method, flags, file mode and time, file name; Adler-32 or CRC-32
//	block    decoded size, stored size, checksums of the decoded and, if it is compressed, of the stored bytes; data
//	...
//	end      a decoded size of 0
//
// A block that did not become smaller is stored as it is. Another container may follow, and belongs to the same data.
const (
	lzopMagic = "\x89LZO\x00\x0d\x0a\x1a\x0a"
	// lzopBlock is the most a block may decode to, in bytes. lzop and all others write blocks of 256 KiB.
	lzopBlock = 8 << 20

	lzopAdlerDecoded = 0x1
	lzopAdlerStored  = 0x2
	lzopExtra        = 0x40
	lzopCRCDecoded   = 0x100
	lzopCRCStored    = 0x200
	lzopMultipart    = 0x400
	lzopFiltered     = 0x800
	lzopHeaderCRC    = 0x1000
)

func openLzop(br *bufio.Reader, _ int64) (io.Reader, func(), error) {
	l := &lzopReader{br: br}
	return l, func() {}, l.header()
}

// lzopReader decodes block by block.
type lzopReader struct {
	br     *bufio.Reader
	flags  uint32
	stored []byte // a block as it comes
	block  []byte // and decoded
	data   []byte // what of block was not yet read
	err    error  // sticky
}

func (l *lzopReader) Read(p []byte) (int, error) {
	for len(l.data) == 0 && l.err == nil {
		l.data, l.err = l.next()
	}
	if len(l.data) == 0 {
		return 0, l.err
	}
	n := copy(p, l.data)
	l.data = l.data[n:]
	return n, nil
}

// header reads magic and header.
func (l *lzopReader) header() error {
	var magic [len(lzopMagic)]byte
	if _, err := io.ReadFull(l.br, magic[:]); err != nil {
		return noEOF(err)
	}
	if string(magic[:]) != lzopMagic {
		return damaged("no lzop header where it should be")
	}
	h := &lzopHeader{br: l.br}
	const since094 = 0x0940 // the version that added some fields
	version := h.number(2)
	h.number(2) // of the library
	if version >= since094 {
		h.number(2) // needed to extract
	}
	method := h.number(1)
	if version >= since094 {
		h.number(1) // level
	}
	l.flags = h.number(4)
	if l.flags&lzopFiltered != 0 {
		h.number(4)
	}
	h.number(4) // mode
	h.number(4) // time
	if version >= since094 {
		h.number(4) // time, its upper half
	}
	h.bytes(int(h.number(1))) // name
	if err := h.checksum(l.flags); err != nil {
		return err
	}
	if l.flags&lzopExtra != 0 {
		h.all = h.all[:0]
		if n := h.number(4); n > maxTrailing {
			return damaged("the extra field of the lzop header has %d bytes", n)
		} else if h.bytes(int(n)); h.err == nil {
			if err := h.checksum(l.flags); err != nil {
				return err
			}
		}
		if h.err != nil {
			return h.err
		}
	}
	switch {
	case method < 1 || method > 3: // all of them LZO1X, differing in how hard it was tried
		return damaged("unknown lzop method %d", method)
	case l.flags&(lzopFiltered|lzopMultipart) != 0:
		return damaged("lzop flags %#x are not supported", l.flags)
	}
	return nil
}

// next decodes a block, and io.EOF after the last one.
func (l *lzopReader) next() ([]byte, error) {
	h := &lzopHeader{br: l.br}
	decoded := int(h.number(4))
	if h.err != nil {
		return nil, h.err
	}
	if decoded == 0 {
		// Whatever follows that is not another container is passed over, as lzop does.
		if head, _ := l.br.Peek(len(lzopMagic)); string(head) == lzopMagic {
			return nil, l.header()
		}
		return nil, io.EOF
	}
	stored := int(h.number(4))
	if h.err == nil && (decoded > lzopBlock || stored > decoded || stored == 0) {
		return nil, damaged("an lzop block of %d bytes that decode to %d does not make sense", stored, decoded)
	}
	// The checksums come in this order.
	var sums [4]uint32
	for i, flag := range []uint32{lzopAdlerDecoded, lzopCRCDecoded, lzopAdlerStored, lzopCRCStored} {
		if l.flags&flag != 0 && (i < 2 || stored < decoded) {
			sums[i] = h.number(4)
		}
	}
	if h.err != nil {
		return nil, h.err
	}
	l.stored = grow(l.stored, stored)
	if _, err := io.ReadFull(l.br, l.stored); err != nil {
		return nil, noEOF(err)
	}
	block := l.stored
	if stored < decoded {
		if !l.sound(l.stored, sums[2], lzopAdlerStored, sums[3], lzopCRCStored) {
			return nil, damaged("the checksum of an lzop block is wrong")
		}
		l.block = grow(l.block, decoded)
		if err := decodeLZO1X(l.block, l.stored); err != nil {
			return nil, err
		}
		block = l.block
	}
	if !l.sound(block, sums[0], lzopAdlerDecoded, sums[1], lzopCRCDecoded) {
		return nil, damaged("the checksum of an lzop block, decoded, is wrong")
	}
	return block, nil
}

// sound compares the checksums there are with data.
func (l *lzopReader) sound(data []byte, adler, adlerFlag, crc, crcFlag uint32) bool {
	return (l.flags&adlerFlag == 0 || adler32.Checksum(data) == adler) &&
		(l.flags&crcFlag == 0 || crc32.ChecksumIEEE(data) == crc)
}

// grow returns a slice of n bytes, b's own if they suffice.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// lzopHeader reads fields and keeps their bytes for the checksum. After an error all fields are 0.
type lzopHeader struct {
	br  *bufio.Reader
	all []byte
	err error
}

// bytes reads n bytes.
func (h *lzopHeader) bytes(n int) []byte {
	at := len(h.all)
	h.all = append(h.all, make([]byte, n)...)
	if h.err == nil {
		_, err := io.ReadFull(h.br, h.all[at:])
		h.err = noEOF(err)
	}
	if h.err != nil {
		clear(h.all[at:])
	}
	return h.all[at:]
}

// number reads a number of n bytes, at most 4.
func (h *lzopHeader) number(n int) uint32 {
	var b [4]byte
	copy(b[4-n:], h.bytes(n))
	return binary.BigEndian.Uint32(b[:])
}

// checksum reads the checksum of what was read and compares it.
func (h *lzopHeader) checksum(flags uint32) error {
	sum := adler32.New()
	if flags&lzopHeaderCRC != 0 {
		sum = crc32.NewIEEE()
	}
	_, _ = sum.Write(h.all) // hashes do not fail
	if want := h.number(4); h.err == nil && want != sum.Sum32() {
		return damaged("the checksum of the lzop header is wrong")
	}
	return h.err
}
