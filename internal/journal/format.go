// Package journal keeps what a rewind must not lose when it is interrupted: what it found out before it touched the
// target, and how far it has come. It is the file fastrewind.journal in the target's data directory.
//
//	format.go   the format, byte by byte; frames
//	record.go   what is in the records, and their bytes
//	paths.go    batches of paths with sizes
//	writer.go   Create, Resume, Remove, and appending
//	load.go     Load, and the State it gives
//	reader.go   finding frames and proving them
//	errors.go   what can be wrong with a journal
//	dump.go     Dump: all of it for a human, damaged or not
//
// # What it promises
//
// The journal appears complete, with its whole head, or not at all: it is written under another name, fsynced, renamed,
// and the directory fsynced, before Create returns. From then on it only grows at its end. What the writer has fsynced is
// found again after any crash; of what was not yet fsynced, any part may be missing, and the first record that cannot be
// proven and everything behind it is cut off (the torn tail). Nothing in it is believed unproven: each frame has a CRC
// that covers its place in the file too, a number, and a tag of this journal, so that old blocks of another journal on the
// same disk are not taken for part of it. No length in it makes a reader allocate more than the limits in this file.
//
// # Crashes, and what loading concludes
//
//	before the rename            no journal; the temporary file is overwritten by the next run
//	after it                     the head is complete
//	while a record is appended   the tail is torn: cut off at the first frame that is not proven
//	several records appended,    the same, even if a later one reached the disk and an earlier one did not: no
//	none fsynced                 frame behind says that the missing one had been fsynced
//	an fsynced record is bad     a frame behind says that it had been fsynced: the file was damaged. That is
//	                             an error, not a torn tail; what is before it can be used. (Damage in the last
//	                             records, with nothing behind that knows them to be fsynced, looks like a torn tail.)
//
// # Format, version 1
//
// Integers of fixed size are little-endian. "varint" is an unsigned LEB128 number of at most 64 bits.
//
//	file      preamble, then frames without gaps
//
//	preamble  0  8  "frwjrnl\n"
//	          8  4  version of the format
//	         12 16  run id, random
//	         28  4  CRC-32C of bytes 0 to 27. Later versions begin with the same 32 bytes.
//
//	frame     0  4  f5 4a 52 0a
//	          4  4  CRC-32C of the frame's offset in the file (8 bytes), then of the frame from byte 8 to its end
//	          8  4  bits 0–23 length of the payload, at most 65536; bits 24–30 kind; bit 31: the record goes on in
//	                the next frame, which has the same kind
//	         12  4  number of the frame, from 0
//	         16  4  the first 4 bytes of the run id
//	         20  8  how much of the file, in bytes from its start, had been fsynced when this frame was written
//	         28     payload
//
// A record is the payloads of one or more frames. The order of records:
//
//	1  facts     one: what was found out (see Facts)
//	2  map       any number: a chunk each of the block map (scan/encode.go)
//	3  head end  one: number of map records, of files and of blocks in the map: varints
//
//	             the head ends here; all that follows was appended later, the first being a session
//
//	4  session   a run begins or goes on (see Session)
//	5  touched   paths about to be modified, with the sizes they had
//	6  done      paths completely copied and fsynced, with the sizes copied
//	7  mark      a phase was reached (see Mark)
//
// Facts, session and mark are their fields in the order of declaration: numbers as varints, signed ones zig-zag encoded,
// byte strings as length and bytes, absent ones as one zero byte and present ones as a byte 1 before their length; a
// history is a number of spans, then timeline, begin and end of each; patterns are their number, then length and bytes of
// each. Touched is a list of paths; done is session and LSN
// bound, then a list of paths.
//
//	paths     ascending, none twice; each: how many bytes it has in common with the one before, how many follow, those
//	          bytes, and the size plus 1: varints. -1 is "there is no such file".
package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/fastrewind/fastrewind/internal/fsx"
)

const (
	// Name is the journal's file name in the data directory.
	Name = "fastrewind.journal"
	// TempName is what it is called until its head is complete.
	TempName = Name + ".tmp"
	// Version is the version of the format that is written, and the highest that is read.
	Version = 1
)

const (
	magic        = "frwjrnl\n"
	preambleSize = 32
	frameMarker  = "\xf5JR\n"
	frameHeader  = 28
	maxPayload   = 64 << 10
	maxFrame     = frameHeader + maxPayload

	goesOn = 1 << 31 // of the word of kind and length
)

// Limits. What the writer refuses to write, the reader refuses to read.
const (
	MaxPath         = 4096     // bytes of a path
	maxControlBytes = 64 << 10 // of a pg_control
	maxLabelBytes   = 1 << 20  // of a backup_label
	maxSpans        = 1 << 18  // of one history
	maxAllSpans     = 1 << 20  // of the histories of all sessions
	maxFacts        = 16 << 20 // bytes of the record of facts: its parts have limits of their own
	maxNames        = 1 << 16  // of one session's patterns of paths
	maxSession      = 8 << 20  // bytes of a session record
	maxMark         = 256      // bytes of a mark

	// MaxLogBytes is how far the journal may grow behind its head. A session of a run costs some 10 to 40 bytes for each
	// file it modifies.
	MaxLogBytes = 4 << 30
)

// kind is what a record is.
type kind uint8

const (
	kindFacts kind = iota + 1
	kindMap
	kindHeadEnd
	kindSession
	kindTouched
	kindDone
	kindMark
)

func (k kind) String() string {
	switch k {
	case kindFacts:
		return "facts"
	case kindMap:
		return "map"
	case kindHeadEnd:
		return "head end"
	case kindSession:
		return "session"
	case kindTouched:
		return "touched"
	case kindDone:
		return "done"
	case kindMark:
		return "mark"
	default:
		return "unknown"
	}
}

// most is how long a record of kind k can be.
func (k kind) most() int {
	switch k {
	case kindFacts:
		return maxFacts
	case kindSession:
		return maxSession
	case kindMark:
		return maxMark
	default:
		return maxPayload
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// preamble is the first 32 bytes of the file.
type preamble struct {
	version uint32
	run     RunID
}

func (p preamble) encode() []byte {
	b := append(make([]byte, 0, preambleSize), magic...)
	b = binary.LittleEndian.AppendUint32(b, p.version)
	b = append(b, p.run[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodePreamble takes 32 bytes apart. ok is false if the CRC is wrong.
func decodePreamble(b []byte) (p preamble, ok bool) {
	p.version = binary.LittleEndian.Uint32(b[8:])
	copy(p.run[:], b[12:])
	return p, crc32.Checksum(b[:28], castagnoli) == binary.LittleEndian.Uint32(b[28:])
}

// frame is one frame as it was read.
type frame struct {
	offset  int64
	kind    kind
	goesOn  bool
	number  uint32
	tag     uint32
	synced  int64
	payload []byte // valid until the next frame is read
}

func (f *frame) end() int64 { return f.offset + frameHeader + int64(len(f.payload)) }

func tagOf(run RunID) uint32 { return binary.LittleEndian.Uint32(run[:]) }

// appendFrame appends a frame that will be at f.offset of the file.
func appendFrame(b []byte, f *frame) []byte {
	start := len(b)
	word := uint32(len(f.payload)) | uint32(f.kind)<<24
	if f.goesOn {
		word |= goesOn
	}
	b = append(b, frameMarker...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, word)
	b = binary.LittleEndian.AppendUint32(b, f.number)
	b = binary.LittleEndian.AppendUint32(b, f.tag)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.synced))
	b = append(b, f.payload...)
	binary.LittleEndian.PutUint32(b[start+4:], frameCRC(f.offset, b[start+8:]))
	return b
}

func frameCRC(offset int64, rest []byte) uint32 {
	var place [8]byte
	binary.LittleEndian.PutUint64(place[:], uint64(offset))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, rest)
}

// decodeHeader takes a frame's first 28 bytes apart; n is the length of the payload that the header announces.
func decodeHeader(b []byte, offset int64) (f frame, crc uint32, n int) {
	word := binary.LittleEndian.Uint32(b[8:])
	f = frame{
		offset: offset,
		kind:   kind(word >> 24 & 0x7f),
		goesOn: word&goesOn != 0,
		number: binary.LittleEndian.Uint32(b[12:]),
		tag:    binary.LittleEndian.Uint32(b[16:]),
		synced: int64(binary.LittleEndian.Uint64(b[20:])),
	}
	return f, binary.LittleEndian.Uint32(b[4:]), int(word & (1<<24 - 1))
}

// validPath says whether a path can stand in a journal.
func validPath(path string) bool { return len(path) <= MaxPath && fsx.Local(path) }
