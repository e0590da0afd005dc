package wal

import (
	"encoding/binary"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// A WAL record (xlogrecord.h). It begins at a multiple of 8 bytes and is a stack of pieces, without gaps:
//
//	header, 24 bytes        0 4 tot_len   whole record, this header included
//	                        4 4 xid
//	                        8 8 prev      LSN of the record before
//	                       16 1 info
//	                       17 1 rmid
//	                       18 2 padding
//	                       20 4 crc       CRC-32C over the record from byte 24, then over bytes 0–19
//	fragment headers, each begun by one byte that says what it is:
//	     0–32  block reference: flags 1, data length 2, [image header 5, [hole length 2]], [relation 12], block 4
//	      252  top-level transaction id, 4 bytes (14 and later)
//	      253  replication origin, 2 bytes
//	      254  main data, length 4 bytes; the last fragment header
//	      255  main data, length 1 byte;  the last fragment header
//	the data, in the same order: for each block its image, then its data; the main data last
const (
	recordHeaderSize = 24
	recordCRCOffset  = 20

	maxBlockID        = 32
	idTopLevelXID     = 252
	idOrigin          = 253
	idMainLong        = 254
	idMainShort       = 255
	forkMask          = 0x0F
	blockHasImage     = 0x10
	blockHasData      = 0x20
	blockWillInit     = 0x40
	blockSameRelation = 0x80

	// headBytes bounds what precedes the data of a record: the header, 33 block references of at most 28 bytes, one of
	// each other fragment header. It lies on at most two pages.
	headBytes = 1024
)

// BlockRef is one block a record changes.
type BlockRef struct {
	Rel      pg.Rel
	Block    pg.BlockNo // within the fork
	Fork     pg.Fork
	HasImage bool // the record carries the whole page
	WillInit bool // replay makes the page anew without reading it
}

// Record is one decoded record. A Record is filled by Reader.Next and owned by the caller, who reuses it; Blocks and
// Main alias memory of the Record and the Reader and are valid until the next call.
type Record struct {
	LSN      pg.LSN // of its first byte
	End      pg.LSN // of the byte after it, rounded up to 8; after a switch record the start of the next segment
	Prev     pg.LSN // of the record before
	TLI      pg.TLI // of the page on which it begins
	TotalLen uint32 // bytes, without page headers and padding
	XID      uint32
	Rmgr     uint8
	Info     uint8

	Blocks  []BlockRef
	Main    []byte // main data; of a long record only what lies within its first kilobyte
	MainLen uint32 // bytes of main data

	blocks [maxBlockID + 1]BlockRef
}

// IsCheckpoint reports whether the record is a checkpoint's.
func (r *Record) IsCheckpoint() bool {
	info := r.Info & InfoRmgrMask
	return r.Rmgr == RmgrXLOG && (info == XLOGCheckpointShutdown || info == XLOGCheckpointOnline)
}

// IsSwitch reports whether the record ends its segment, whatever room is left in it.
func (r *Record) IsSwitch() bool {
	return r.Rmgr == RmgrXLOG && r.Info&InfoRmgrMask == XLOGSwitch
}

// Checkpoint reads redo point and timeline from a checkpoint's main data (struct CheckPoint, pg_control.h). ok is false
// if the record is not a checkpoint or does not have the size of one.
func (r *Record) Checkpoint(v *pg.Version) (redo pg.LSN, tli pg.TLI, ok bool) {
	if !r.IsCheckpoint() || int(r.MainLen) != v.CheckpointBytes || len(r.Main) != v.CheckpointBytes {
		return 0, 0, false
	}
	return pg.LSN(binary.LittleEndian.Uint64(r.Main)), pg.TLI(binary.LittleEndian.Uint32(r.Main[8:])), true
}

// checkHeader makes the checks of ValidXLogRecordHeader. prev is the record read before, or 0 after a jump: then any
// record before this one will do.
func (f *Format) checkHeader(h []byte, at, prev pg.LSN) *Error {
	_ = h[recordHeaderSize-1]
	le := binary.LittleEndian
	if tot := le.Uint32(h); tot < recordHeaderSize {
		return badLength(at, tot)
	}
	rmid := h[17]
	if rmid > maxBuiltinRmgr && (rmid < minCustomRmgr || !f.Version.WAL.CustomRmgrs) {
		return corrupt(at, "invalid resource manager ID %d at %v", rmid, at)
	}
	link := pg.LSN(le.Uint64(h[8:]))
	if prev == 0 && link >= at || prev != 0 && link != prev {
		return corrupt(at, "record with incorrect prev-link %v at %v", link, at)
	}
	return nil
}

func badLength(at pg.LSN, got uint32) *Error {
	const format = "invalid record length at %v: wanted %d, got %d"
	if got == 0 {
		return endOfWAL(at, format, at, recordHeaderSize, got)
	}
	return corrupt(at, format, at, recordHeaderSize, got)
}

// cursor is the checked way through a record's fragment headers: need says whether n more bytes belong to the record,
// have not been claimed as data, and are at hand.
type cursor struct {
	b    []byte // the record from its start, as far as it is at hand
	off  int
	left int64 // bytes of the whole record from off on
}

func (c *cursor) need(n int) bool { return c.left >= int64(n) && len(c.b)-c.off >= n }

func (c *cursor) u8() uint8 {
	v := c.b[c.off]
	c.off, c.left = c.off+1, c.left-1
	return v
}

func (c *cursor) u16() uint16 {
	v := binary.LittleEndian.Uint16(c.b[c.off:])
	c.off, c.left = c.off+2, c.left-2
	return v
}

func (c *cursor) u32() uint32 {
	v := binary.LittleEndian.Uint32(c.b[c.off:])
	c.off, c.left = c.off+4, c.left-4
	return v
}

// The one block reference of a plain record, without image, in bytes, and the main data's short header behind it.
const (
	plainBlockBytes = 1 + 1 + 2 + 12 + 4
	plainHeadBytes  = recordHeaderSize + plainBlockBytes + 2
)

// decodePlain decodes what most records are that are not images: a reference to block 0 with its relation and without an
// image, and short main data. It reports whether the record is one and has nothing wrong; whatever it refuses is for
// decodeAny to decode, or to name what is wrong. In WAL of small records that is a fifth of the scan's time.
func decodePlain(r *Record, head []byte) bool {
	if len(head) < plainHeadBytes || len(head) != int(r.TotalLen) {
		return false
	}
	h := head[recordHeaderSize:plainHeadBytes:plainHeadBytes]
	le := binary.LittleEndian
	forkFlags, dataLen, mainLen := h[1], int(le.Uint16(h[2:])), int(h[plainBlockBytes+1])
	hasData := forkFlags&blockHasData != 0
	if h[0] != 0 || forkFlags&(blockHasImage|blockSameRelation) != 0 || h[plainBlockBytes] != idMainShort ||
		hasData != (dataLen != 0) || plainHeadBytes+dataLen+mainLen != len(head) {
		return false
	}
	ref := &r.blocks[0]
	ref.Rel.Tablespace, ref.Rel.Database = pg.Oid(le.Uint32(h[4:])), pg.Oid(le.Uint32(h[8:]))
	ref.Rel.Number, ref.Block = pg.RelNumber(le.Uint32(h[12:])), pg.BlockNo(le.Uint32(h[16:]))
	ref.Fork, ref.HasImage, ref.WillInit = pg.Fork(forkFlags&forkMask), false, forkFlags&blockWillInit != 0
	r.Blocks = r.blocks[:1]
	r.MainLen, r.Main = uint32(mainLen), head[len(head)-mainLen:]
	return true
}

// decode fills everything of r that comes after the header, from head: the whole record, or at least its first
// headBytes bytes. The checks are those of DecodeXLogRecord, in its order.
func (f *Format) decode(r *Record, head []byte) *Error {
	if decodePlain(r, head) {
		return nil
	}
	return f.decodeAny(r, head)
}

func (f *Format) decodeAny(r *Record, head []byte) *Error {
	at := r.LSN
	var c cursor
	c.b, c.off, c.left = head, recordHeaderSize, int64(r.TotalLen)-recordHeaderSize
	flags := &f.Version.WAL
	n := 0           // block references so far
	lastID := -1     // of the last block reference
	var data int64   // bytes of data that the fragment headers so far have claimed
	var rel pg.Rel   // of the last block reference
	var haveRel bool // there was one
	r.MainLen, r.Main = 0, nil

fragments:
	for c.left > data {
		if !c.need(1) {
			return badRecordLength(at)
		}
		switch id := c.u8(); {
		case id == idMainShort:
			if !c.need(1) {
				return badRecordLength(at)
			}
			r.MainLen = uint32(c.u8())
			data += int64(r.MainLen)
			break fragments
		case id == idMainLong:
			if !c.need(4) {
				return badRecordLength(at)
			}
			r.MainLen = c.u32()
			data += int64(r.MainLen)
			break fragments
		case id == idOrigin:
			if !c.need(2) {
				return badRecordLength(at)
			}
			c.u16()
		case id == idTopLevelXID && flags.TopLevelXID:
			if !c.need(4) {
				return badRecordLength(at)
			}
			c.u32()
		case id <= maxBlockID:
			if int(id) <= lastID {
				return corrupt(at, "out-of-order block_id %d at %v", id, at)
			}
			lastID = int(id)
			if !c.need(3) {
				return badRecordLength(at)
			}
			forkFlags := c.u8()
			dataLen := c.u16()
			if forkFlags&blockHasData != 0 && dataLen == 0 {
				return corrupt(at, "BKPBLOCK_HAS_DATA set, but no data included at %v", at)
			}
			if forkFlags&blockHasData == 0 && dataLen != 0 {
				return corrupt(at, "BKPBLOCK_HAS_DATA not set, but data length is %d at %v", dataLen, at)
			}
			data += int64(dataLen)
			if forkFlags&blockHasImage != 0 {
				imageLen, err := f.decodeImage(&c, at)
				if err != nil {
					return err
				}
				data += imageLen
			}
			if forkFlags&blockSameRelation == 0 {
				if !c.need(12) {
					return badRecordLength(at)
				}
				rel = pg.Rel{Tablespace: pg.Oid(c.u32()), Database: pg.Oid(c.u32()), Number: pg.RelNumber(c.u32())}
				haveRel = true
			} else if !haveRel {
				return corrupt(at, "BKPBLOCK_SAME_REL set but no previous rel at %v", at)
			}
			if !c.need(4) {
				return badRecordLength(at)
			}
			ref := &r.blocks[n]
			ref.Rel.Tablespace, ref.Rel.Database, ref.Rel.Number = rel.Tablespace, rel.Database, rel.Number
			ref.Block = pg.BlockNo(c.u32())
			ref.Fork = pg.Fork(forkFlags & forkMask)
			ref.HasImage = forkFlags&blockHasImage != 0
			ref.WillInit = forkFlags&blockWillInit != 0
			n++
		default:
			return corrupt(at, "invalid block_id %d at %v", id, at)
		}
	}
	if c.left != data {
		return badRecordLength(at)
	}
	r.Blocks = r.blocks[:n]
	if start := int64(r.TotalLen) - int64(r.MainLen); start < int64(len(head)) {
		r.Main = head[start:min(int64(len(head)), int64(r.TotalLen))]
	}
	return nil
}

// decodeImage reads a block image's header and gives the image's length in bytes.
func (f *Format) decodeImage(c *cursor, at pg.LSN) (int64, *Error) {
	if !c.need(5) {
		return 0, badRecordLength(at)
	}
	length, holeOffset, info := c.u16(), c.u16(), c.u8()
	hasHole := info&f.Version.WAL.ImageHasHole != 0
	compressed := info&f.Version.WAL.ImageCompressed != 0
	// An uncompressed image with a hole does not say how long the hole is: what the image lacks to a page.
	holeLength := uint16(pg.BlockSize) - length
	if compressed {
		holeLength = 0
		if hasHole {
			if !c.need(2) {
				return 0, badRecordLength(at)
			}
			holeLength = c.u16()
		}
	}
	switch {
	case hasHole && (holeOffset == 0 || holeLength == 0 || length == pg.BlockSize):
		return 0, corrupt(at, "BKPIMAGE_HAS_HOLE set, but hole offset %d length %d block image length %d at %v",
			holeOffset, holeLength, length, at)
	case !hasHole && (holeOffset != 0 || holeLength != 0):
		return 0, corrupt(at, "BKPIMAGE_HAS_HOLE not set, but hole offset %d length %d at %v", holeOffset, holeLength, at)
	case compressed && length == pg.BlockSize:
		return 0, corrupt(at, "BKPIMAGE_COMPRESSED set, but block image length %d at %v", length, at)
	case !hasHole && !compressed && length != pg.BlockSize:
		return 0, corrupt(at,
			"neither BKPIMAGE_HAS_HOLE nor BKPIMAGE_COMPRESSED set, but block image length is %d at %v", length, at)
	}
	return int64(length), nil
}

func badRecordLength(at pg.LSN) *Error { return corrupt(at, "record with invalid length at %v", at) }
