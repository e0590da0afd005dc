package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// reader reads frames through a window over the file, which moves forward.
type reader struct {
	r      io.ReaderAt
	size   int64
	window []byte // what is in it; its capacity is windowSize
	at     int64  // where the window begins
	long   []byte // a record of several frames
	hashed int64  // bytes that CRCs were taken of
}

const windowSize = 4 * maxFrame

func newReader(r io.ReaderAt, size int64) *reader {
	size = max(size, 0)
	return &reader{r: r, size: size, window: make([]byte, 0, min(windowSize, size))}
}

// get gives n bytes at offset, at most windowSize and all within the file. They are valid until the next call.
func (in *reader) get(offset int64, n int) ([]byte, error) {
	if offset < in.at || offset+int64(n) > in.at+int64(len(in.window)) {
		in.at = offset
		in.window = in.window[:min(int64(cap(in.window)), in.size-offset)]
		got, err := in.r.ReadAt(in.window, offset)
		if got < len(in.window) {
			in.window = in.window[:0]
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, unreadable(err, offset+int64(got))
		}
	}
	return in.window[offset-in.at:][:n], nil
}

// preamble reads the first bytes and decides whether this is a journal.
func (in *reader) preamble() (preamble, error) {
	b, err := in.get(0, int(min(preambleSize, in.size)))
	if err != nil {
		return preamble{}, err
	}
	switch {
	case !strings.HasPrefix(magic, string(b[:min(len(b), len(magic))])) || len(b) == 0:
		return preamble{}, notJournal(in.size)
	case len(b) < preambleSize:
		return preamble{}, damagedHead(in.size, "it ends there, within the head")
	}
	p, ok := decodePreamble(b)
	switch {
	case !ok:
		return p, damagedHead(0, "CRC of the first 32 bytes is wrong")
	case p.version > Version:
		return p, newerVersion(p.version)
	case p.version == 0:
		return p, damagedHead(8, "format version 0")
	}
	return p, nil
}

// problem is why there is no proven frame at offset.
type problem struct {
	offset int64
	reason string
}

// record is the payloads of the frames that belong together.
type record struct {
	kind    kind
	payload []byte // valid until the next call of the reader
	end     int64
	frames  uint32
	synced  int64 // the greatest of the frames'
}

// record reads the record at offset, of which the first frame must have the number given.
func (in *reader) record(offset int64, number, tag uint32) (rec record, bad *problem, err error) {
	in.long = in.long[:0]
	for rec.end = offset; ; {
		f, bad, err := in.frame(rec.end)
		if bad != nil || err != nil {
			return rec, bad, err
		}
		switch {
		case f.tag != tag:
			bad = &problem{f.offset, "a frame of another journal"}
		case f.number != number+rec.frames:
			bad = &problem{f.offset, fmt.Sprintf("frame number is %d, expected %d", f.number, number+rec.frames)}
		case f.synced < 0 || f.synced > f.offset:
			bad = &problem{f.offset, fmt.Sprintf("%d bytes fsynced, of %d", f.synced, f.offset)}
		case rec.frames > 0 && f.kind != rec.kind:
			bad = &problem{f.offset, fmt.Sprintf("record \"%v\" goes on as \"%v\"", rec.kind, f.kind)}
		case len(in.long)+len(f.payload) > f.kind.most():
			bad = &problem{f.offset, fmt.Sprintf("record \"%v\" is longer than %d bytes", f.kind, f.kind.most())}
		case f.goesOn && len(f.payload) == 0:
			bad = &problem{f.offset, "an empty frame that goes on"}
		}
		if bad != nil {
			return rec, bad, nil
		}
		rec.kind, rec.end, rec.synced = f.kind, f.end(), max(rec.synced, f.synced)
		rec.frames++
		if !f.goesOn && rec.frames == 1 {
			rec.payload = f.payload
			return rec, nil, nil
		}
		in.long = append(in.long, f.payload...)
		if !f.goesOn {
			rec.payload = in.long
			return rec, nil, nil
		}
	}
}

// frame reads the frame at offset and checks its CRC.
func (in *reader) frame(offset int64) (f frame, bad *problem, err error) {
	left := in.size - offset
	if left < frameHeader {
		return f, &problem{offset, fmt.Sprintf("%d bytes, where a frame of at least %d is expected", left, frameHeader)}, nil
	}
	b, err := in.get(offset, frameHeader)
	if err != nil {
		return f, nil, err
	}
	if string(b[:len(frameMarker)]) != frameMarker {
		return f, &problem{offset, fmt.Sprintf("no frame begins with % x", b[:len(frameMarker)])}, nil
	}
	f, crc, n := decodeHeader(b, offset)
	if n > maxPayload || int64(n) > left-frameHeader {
		return f, &problem{offset, fmt.Sprintf("a frame of %d bytes, where at most %d are expected",
			n, min(maxPayload, left-frameHeader))}, nil
	}
	if b, err = in.get(offset, frameHeader+n); err != nil {
		return f, nil, err
	}
	in.hashed += int64(len(b))
	if got := frameCRC(offset, b[8:]); got != crc {
		return f, &problem{offset, fmt.Sprintf("CRC of the frame is %08X, expected %08X", got, crc)}, nil
	}
	f.payload = b[frameHeader:]
	return f, nil, nil
}

// errSearch is the end of a search that would take too long.
var errSearch = errors.New("too many bytes that look like the beginning of a frame")

// search finds the next frame, of whatever journal, that begins at offset or later. Bytes that look like frames everywhere
// would each time take a CRC of up to 64 kB; when limit bytes have been hashed in all, it gives up with errSearch.
func (in *reader) search(offset, limit int64) (f frame, found bool, err error) {
	for in.size-offset >= frameHeader {
		if in.hashed > limit {
			return f, false, errSearch
		}
		b, err := in.get(offset, int(min(maxFrame, in.size-offset)))
		if err != nil {
			return f, false, err
		}
		i := bytes.Index(b, []byte(frameMarker))
		if i < 0 {
			offset += int64(len(b) - len(frameMarker) + 1)
			continue
		}
		offset += int64(i)
		f, bad, err := in.frame(offset)
		if err != nil || bad == nil {
			return f, err == nil, err
		}
		offset++
	}
	return f, false, nil
}

// searchLimit is how much a search behind offset may hash: what intact frames there take, and something for lookalikes.
func (in *reader) searchLimit(offset int64) int64 { return in.hashed + 64<<20 + 4*(in.size-offset) }
