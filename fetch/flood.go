package fetch

import (
	"encoding/binary"
	"io"
	"sync/atomic"
)

// maxAside is how much a server may send beside the rows of a statement's result, in bytes: notices, parameters, its
// errors, the messages that frame a result.
const maxAside = 1 << 20

// asideReader follows the messages of the protocol on their way from the server and counts what is not a row of a
// result. pgconn keeps every parameter a server reports, under whatever name: a server that makes up names could fill
// our memory where many rows are allowed.
//
//	message: type (1 byte), length of what follows it (4 bytes, big-endian, counts itself), content
type asideReader struct {
	r     io.Reader
	conn  *watchedConn // to be given up with it
	aside atomic.Int64 // bytes of other messages since the last reset
	err   error

	header [5]byte
	have   int   // bytes of header
	body   int64 // bytes of the current message still to come
}

// Read implements io.Reader.
func (a *asideReader) Read(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.r.Read(p)
	for b := p[:n]; len(b) > 0; {
		if a.body > 0 {
			skip := min(a.body, int64(len(b)))
			a.body -= skip
			b = b[skip:]
			continue
		}
		c := copy(a.header[a.have:], b)
		a.have += c
		b = b[c:]
		if a.have < len(a.header) {
			break
		}
		a.have = 0
		length := int64(binary.BigEndian.Uint32(a.header[1:]))
		a.body = max(length-4, 0) // an impossible length is the frontend's to refuse
		if a.header[0] != 'D' && a.aside.Add(length+1) > maxAside {
			a.err = errFlood
			a.conn.giveUp(a.err)
			return 0, a.err
		}
	}
	return n, err
}
