package undo

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// The format of an undo directory, version 1. Numbers are little-endian; "uvarint" and "varint" are encoding/binary's.
//
//	head                    whose undo this is, and the target's control file and backup_label as they were
//	final                   the SHA-256 of every control file a rewind meant to end with; absent before the first
//	part-0001/entries       what the paths were that the first session was going to touch
//	part-0001/data-00 …     the bytes of theirs that it was going to overwrite or cut off
//	part-0001/clone-000001  a whole file, as a reflink; no frames, no checksum: it shares its blocks with the original
//	part-0002/…             what a later session of the same run was going to touch besides
//	part-0003.tmp/          a session that did not get as far as to touch anything: no part of the undo
//
// A part is made under its temporary name, synced, and renamed: it is there as a whole or not at all. head and final are
// replaced by rename.
//
// Every file but the clones is a header and then frames, the last of which is an end frame:
//
//	header, 16 bytes                        frame header, 16 bytes
//	 0  "FRUNDO"                             0  kind, 1 byte
//	 6  format version, 2 bytes              1  coding, 1 byte: 0 as it is, 1 zstd
//	 8  CRC-32C of the run's id, 4 bytes     2  zero, 2 bytes
//	12  number of the part, 2 bytes          4  bytes that follow, 4 bytes
//	14  number of the file, 2 bytes          8  bytes when decoded, 4 bytes; not fewer, and at most maxFrame
//	                                        12  CRC-32C of the 12 bytes before and of the bytes that follow
//
// head and final have part 0, and files 0 and 1; entries is file 0 of its part, data-NN file NN+1. What a frame holds:
//
//	kindJSON     a JSON object: of head, final, or, first in entries, of the part
//	kindEntries  entries, one after the other: uvarint length of the path, path, type (1 byte), then
//	             absent     nothing
//	             file       uvarint size, uvarint permission bits, varint mtime (ns since 1970), uvarint number of the
//	                        clone (0: none), uvarint number of spans, and for each of them uvarint bytes since the end
//	                        of the one before and uvarint length: what is saved of it in this part's data
//	             directory  uvarint permission bits
//	             link       uvarint length of what it holds, what it holds
//	kindData     pieces, one after the other: uvarint length of the path, path, uvarint offset, uvarint length, bytes
//	kindEnd      four uvarints. entries: entries, data files, clones, bytes in data; data: pieces, bytes, 0, 0; others: 0
//
// A path may have several entries, in one part or in several. The first says what the path was before the run; all
// their spans together are what is saved. If a byte is there twice, the earlier part has the right one.
const (
	formatVersion = 1
	fileMagic     = "FRUNDO"
	headerSize    = 16

	kindJSON    = 1
	kindEntries = 2
	kindData    = 3
	kindEnd     = 4

	codingRaw  = 0
	codingZstd = 1

	// fillFrame is the size, in decoded bytes, at which a frame is closed, and the greatest length of a piece.
	fillFrame = 1 << 20
	// maxFrame bounds what a reader allocates for a frame.
	maxFrame = fillFrame + 256<<10
	// maxName is longer than any path that PostgreSQL or the kernel can use (PATH_MAX).
	maxName = 4096
	// spansPerEntry keeps an entry far below a frame's size. A file with more spans gets several entries.
	spansPerEntry = 4096
)

// entryType is what a path was before the run.
type entryType uint8

const (
	absent entryType = iota
	regular
	directory
	link
)

func (t entryType) String() string {
	switch t {
	case absent:
		return "nothing"
	case regular:
		return "regular file"
	case directory:
		return "directory"
	case link:
		return "symbolic link"
	default:
		return "unknown"
	}
}

// entry is one path before the run, and what is saved of it.
type entry struct {
	path   string
	kind   entryType
	size   int64       // bytes, of a file
	mode   fs.FileMode // permission bits, of a file or directory
	mtime  int64       // ns since 1970, of a file
	clone  uint64      // number of the file's clone, 0 if there is none
	part   int         // that the clone is in; not stored
	target string      // of a link
	spans  []plan.Span // ascending, disjoint
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// damage is what is wrong with an undo file, without its name.
type damage struct{ text string }

func (d *damage) Error() string { return d.text }

func damaged(format string, args ...any) error { return &damage{fmt.Sprintf(format, args...)} }

// place says which file of which run a file has to be.
type place struct {
	run        string
	part, file uint16
}

func (p place) header() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint16(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum([]byte(p.run), crcTable))
	b = binary.LittleEndian.AppendUint16(b, p.part)
	return binary.LittleEndian.AppendUint16(b, p.file)
}

// coder turns payloads into frames. It belongs to one goroutine at a time.
type coder struct {
	enc *zstd.Encoder
	buf []byte
}

func newCoder() (*coder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	return &coder{enc: enc}, nil
}

// frame is valid until the next call.
func (c *coder) frame(kind byte, payload []byte) []byte {
	c.buf = append(c.buf[:0], make([]byte, headerSize)...)
	coding := byte(codingZstd)
	c.buf = c.enc.EncodeAll(payload, c.buf)
	if len(c.buf)-headerSize >= len(payload) {
		coding = codingRaw
		c.buf = append(c.buf[:headerSize], payload...)
	}
	h := c.buf[:headerSize]
	h[0], h[1] = kind, coding
	binary.LittleEndian.PutUint32(h[4:], uint32(len(c.buf)-headerSize))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(payload)))
	crc := crc32.Update(crc32.Checksum(h[:12], crcTable), crcTable, c.buf[headerSize:])
	binary.LittleEndian.PutUint32(h[12:], crc)
	return c.buf
}

func appendEnd(b []byte, counts [4]uint64) []byte {
	for _, n := range counts {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendName(b []byte, name string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(name))), name...)
}

func appendEntry(b []byte, e *entry) []byte {
	b = append(appendName(b, e.path), byte(e.kind))
	switch e.kind {
	case regular:
		b = binary.AppendUvarint(b, uint64(e.size))
		b = binary.AppendUvarint(b, uint64(e.mode.Perm()))
		b = binary.AppendVarint(b, e.mtime)
		b = binary.AppendUvarint(b, e.clone)
		b = binary.AppendUvarint(b, uint64(len(e.spans)))
		var end int64
		for _, s := range e.spans {
			b = binary.AppendUvarint(b, uint64(s.Offset-end))
			b = binary.AppendUvarint(b, uint64(s.Length))
			end = s.Offset + s.Length
		}
	case directory:
		b = binary.AppendUvarint(b, uint64(e.mode.Perm()))
	case link:
		b = appendName(b, e.target)
	case absent:
	}
	return b
}

// piece is some bytes of a file as it was. data aliases the reader's buffer.
type piece struct {
	path   string
	offset int64
	data   []byte
}

// appendPiece leaves room for n bytes at the end.
func appendPiece(b []byte, path string, offset int64, n int) []byte {
	b = binary.AppendUvarint(appendName(b, path), uint64(offset))
	b = binary.AppendUvarint(b, uint64(n))
	return slices.Grow(b, n)[:len(b)+n]
}

// reader reads the frames of one file. All that it reads may be anything: whatever it is, reader returns frames that were
// written, or a *damage, and allocates no more than two frames.
type reader struct {
	in     *bufio.Reader
	dec    *zstd.Decoder
	stored []byte
	raw    []byte
	offset int64 // of the frame that comes next, for messages
}

func newReader(in io.Reader, want place) (*reader, error) {
	r := &reader{in: bufio.NewReaderSize(in, 256<<10)}
	var h [headerSize]byte
	if _, err := io.ReadFull(r.in, h[:]); err != nil {
		return nil, cutShort(err, 0)
	}
	switch version := binary.LittleEndian.Uint16(h[6:]); {
	case string(h[:6]) != fileMagic:
		return nil, damaged("it does not begin as a file of an undo")
	case version != formatVersion:
		return nil, damaged("its format has version %d, and this program knows version %d", version, formatVersion)
	case string(h[:]) != string(want.header()):
		return nil, damaged("it belongs to another run or has another file's place")
	}
	var err error
	r.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	r.offset = headerSize
	return r, nil
}

func (r *reader) close() { r.dec.Close() }

// cutShort words the end of a file where none should be; other errors stay as they are.
func cutShort(err error, offset int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it ends in the middle, after the frame or header at offset %d", offset)
	}
	return err
}

// next gives the next frame's kind and payload, which is valid until the next call.
func (r *reader) next() (kind byte, payload []byte, err error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r.in, h[:]); err != nil {
		return 0, nil, cutShort(err, r.offset)
	}
	stored, raw := binary.LittleEndian.Uint32(h[4:]), binary.LittleEndian.Uint32(h[8:])
	if h[1] > codingZstd || h[2] != 0 || h[3] != 0 || raw > maxFrame || stored > raw {
		return 0, nil, damaged("there is no frame header at offset %d", r.offset)
	}
	r.stored = resize(r.stored, int(stored))
	if _, err := io.ReadFull(r.in, r.stored); err != nil {
		return 0, nil, cutShort(err, r.offset)
	}
	crc := crc32.Update(crc32.Checksum(h[:12], crcTable), crcTable, r.stored)
	if want := binary.LittleEndian.Uint32(h[12:]); crc != want {
		return 0, nil, damaged("the checksum of the frame at offset %d is %08X, and %08X was expected", r.offset, crc, want)
	}
	payload = r.stored
	if h[1] == codingZstd {
		r.raw = resize(r.raw, int(raw))
		payload, err = r.dec.DecodeAll(r.stored, r.raw[:0])
		if err != nil {
			return 0, nil, damaged("the frame at offset %d cannot be decoded: %v", r.offset, err)
		}
		r.raw = payload
	}
	if len(payload) != int(raw) {
		return 0, nil, damaged("the frame at offset %d has %d bytes, and %d were expected", r.offset, len(payload), raw)
	}
	r.offset += headerSize + int64(stored)
	return h[0], payload, nil
}

// end reads the counts of an end frame, and sees that nothing comes after it.
func (r *reader) end(payload []byte) (counts [4]uint64, err error) {
	c := cursor{b: payload}
	for i := range counts {
		counts[i] = c.uvarint()
	}
	if c.bad || len(c.b) > 0 {
		return counts, damaged("its end frame is not what it should be")
	}
	if _, err := r.in.ReadByte(); err == nil {
		return counts, damaged("something comes after its end, at offset %d", r.offset)
	} else if !errors.Is(err, io.EOF) {
		return counts, err
	}
	return counts, nil
}

func resize(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// cursor takes values off a payload; bad stays set once there was not enough left, and all values are zero from then on.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	return uint64(c.advance(int64(v), n))
}

// size takes a number that must fit a file's size or offset.
func (c *cursor) size() int64 {
	v := int64(c.uvarint())
	if v < 0 {
		c.bad = true
		return 0
	}
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	return c.advance(v, n)
}

func (c *cursor) advance(v int64, n int) int64 {
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes(n int64) []byte {
	if c.bad || n < 0 || n > int64(len(c.b)) {
		c.bad = true
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) text() string {
	n := c.size()
	if n > maxName {
		c.bad = true
	}
	return string(c.bytes(n))
}

// decodeEntries calls each for every entry of a frame.
func decodeEntries(payload []byte, each func(entry) error) error {
	c := cursor{b: payload}
	for len(c.b) > 0 {
		e := entry{path: c.text()}
		kind := c.bytes(1)
		if c.bad {
			return damaged("an entry is cut short")
		}
		e.kind = entryType(kind[0])
		switch e.kind {
		case absent:
		case regular:
			e.decodeFile(&c)
		case directory:
			e.mode = fs.FileMode(c.uvarint())
		case link:
			e.target = c.text()
		default:
			return damaged("the entry of \"%s\" has the unknown type %d", e.path, kind[0])
		}
		switch {
		case c.bad:
			return damaged("the entry of \"%s\" is cut short or has impossible numbers", e.path)
		case !fsx.Local(e.path):
			return damaged("the path \"%s\" leads out of the target", e.path)
		case e.mode != e.mode.Perm():
			return damaged("the entry of \"%s\" has impossible permissions", e.path)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

func (e *entry) decodeFile(c *cursor) {
	e.size = c.size()
	e.mode = fs.FileMode(c.uvarint())
	e.mtime = c.varint()
	e.clone = c.uvarint()
	n := c.size()
	if n > spansPerEntry {
		c.bad = true
		return
	}
	var end int64
	for range n {
		gap, length := c.size(), c.size()
		if c.bad || length == 0 || gap > e.size-end || length > e.size-end-gap {
			c.bad = true
			return
		}
		e.spans = append(e.spans, plan.Span{Offset: end + gap, Length: length})
		end += gap + length
	}
}

// decodePieces calls each for every piece of a frame.
func decodePieces(payload []byte, each func(piece) error) error {
	c := cursor{b: payload}
	for len(c.b) > 0 {
		p := piece{path: c.text(), offset: c.size()}
		p.data = c.bytes(c.size())
		if c.bad || len(p.data) == 0 || p.offset+int64(len(p.data)) < p.offset {
			return damaged("a piece is cut short or has impossible numbers")
		}
		if err := each(p); err != nil {
			return err
		}
	}
	return nil
}

// headInfo is the JSON of head.
type headInfo struct {
	Run       string    `json:"run"`
	SystemID  uint64    `json:"system_id"`
	TargetDir string    `json:"target_dir"`
	Created   time.Time `json:"created"`

	Control     []byte      `json:"control"`
	ControlMode fs.FileMode `json:"control_mode"` // permission bits
	HasLabel    bool        `json:"has_label"`
	Label       []byte      `json:"label"`
	LabelMode   fs.FileMode `json:"label_mode"` // permission bits
}

// partInfo is the JSON of a part.
type partInfo struct {
	Created      time.Time `json:"created"`
	GuardControl []byte    `json:"guard_control"`
	GuardLabel   []byte    `json:"guard_label"`
	Own          []string  `json:"own"` // files of the rewind itself in the target
}

// finalInfo is the JSON of final.
type finalInfo struct {
	Controls []string `json:"control_sha256"` // hexadecimal
}

// maxControls bounds final: sessions of one run that got to their end.
const maxControls = 1000

const (
	controlName = "global/pg_control"
	labelName   = pg.BackupLabelName
)
