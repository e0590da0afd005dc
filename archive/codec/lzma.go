package codec

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// openLZMA decodes LZMA-alone: a byte of properties, the dictionary's size (4 bytes, little-endian), the decoded size
// (8 bytes, or -1), then one LZMA stream. It has neither magic number nor checksum.
//
// The decoder allocates the dictionary at once. It need not be larger than what is decoded, so that the header handed on
// asks for no more than the limit.
func openLZMA(br *bufio.Reader, limit int64) (io.Reader, func(), error) {
	header := make([]byte, lzma.HeaderLen)
	if _, err := io.ReadFull(br, header); err != nil {
		return nil, nil, noEOF(err)
	}
	dict, err := dictionary(int64(binary.LittleEndian.Uint32(header[1:])), limit)
	if err != nil {
		return nil, nil, err
	}
	binary.LittleEndian.PutUint32(header[1:], uint32(dict))
	r, err := lzma.ReaderConfig{DictCap: maxWindow}.NewReader(&prefixed{head: header, Reader: br})
	return r, func() {}, err
}

// dictionary is how large a dictionary to allocate where one of declared bytes is asked for and limit bytes are of use.
func dictionary(declared, limit int64) (int, error) {
	n := max(min(declared, limit), lzma.MinDictCap)
	if n > maxWindow {
		return 0, damaged("it needs a dictionary of %d bytes, and at most %d are granted", declared, maxWindow)
	}
	return int(n), nil
}

// prefixed is a reader with some bytes before it. Its ReadByte is for when they have been read: who asks for single bytes
// takes it for the io.ByteReader it is, and reads no further than it must.
type prefixed struct {
	head []byte
	*bufio.Reader
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Reader.Read(b)
}
