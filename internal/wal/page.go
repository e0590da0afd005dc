package wal

import (
	"encoding/binary"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// A WAL page (xlog_internal.h, XLogPageHeaderData and XLogLongPageHeaderData), 8192 bytes, little-endian:
//
//	 0  2  magic        one value per major
//	 2  2  info         flags, below
//	 4  4  tli          timeline of the records that begin on the page
//	 8  8  pageaddr     LSN of the page's first byte; a leftover of a recycled segment has another one
//	16  4  rem_len      bytes still to come of a record that began on an earlier page
//	20  4  padding
//	-- the first page of each segment only:
//	24  8  system identifier
//	32  4  segment size
//	36  4  page size
const (
	pageSize        = pg.WALBlockSize
	shortHeaderSize = 24
	longHeaderSize  = 40

	pageContrecord = 0x0001 // XLP_FIRST_IS_CONTRECORD
	pageLongHeader = 0x0002 // XLP_LONG_HEADER
)

// HeaderSize is the size in bytes of the header of the page that starts at page.
func HeaderSize(page pg.LSN, segSize uint32) pg.LSN {
	if uint64(page)&uint64(segSize-1) == 0 {
		return longHeaderSize
	}
	return shortHeaderSize
}

// SkipPageHeader turns the end of one record into the place where the next begins: at a page's start, behind the
// page's header.
func SkipPageHeader(at pg.LSN, segSize uint32) pg.LSN {
	if at&(pageSize-1) == 0 {
		return at + HeaderSize(at, segSize)
	}
	return at
}

type pageHeader []byte

func (h pageHeader) magic() uint16    { return binary.LittleEndian.Uint16(h) }
func (h pageHeader) info() uint16     { return binary.LittleEndian.Uint16(h[2:]) }
func (h pageHeader) tli() pg.TLI      { return pg.TLI(binary.LittleEndian.Uint32(h[4:])) }
func (h pageHeader) pageAddr() pg.LSN { return pg.LSN(binary.LittleEndian.Uint64(h[8:])) }
func (h pageHeader) remLen() uint32   { return binary.LittleEndian.Uint32(h[16:]) }
func (h pageHeader) sysID() uint64    { return binary.LittleEndian.Uint64(h[24:]) }
func (h pageHeader) segSize() uint32  { return binary.LittleEndian.Uint32(h[32:]) }
func (h pageHeader) pageSize() uint32 { return binary.LittleEndian.Uint32(h[36:]) }

// Format says what a cluster's WAL looks like; all of it comes from pg_control.
type Format struct {
	Version  *pg.Version
	SegSize  uint32 // bytes, a power of two
	SystemID uint64 // 0: not compared
}

// check makes the checks of XLogReaderValidatePageHeader, in its order, on the page that is supposed to start at page.
// name is the segment's file name, for messages. rec is the record on whose behalf the page is read. The timeline's
// sequence is checked by the caller, who knows what was read before. Only from 16 on the page's position is in the messages.
func (f *Format) check(h pageHeader, page, rec pg.LSN, name func(pg.SegNo) string) *Error {
	offset := uint32(uint64(page) & uint64(f.SegSize-1))
	segment := func() string { return name(page.Seg(f.SegSize)) }
	if h.magic() != f.Version.WALMagic {
		e := corrupt(rec, "invalid magic number %04[1]X in log segment %[2]s, offset %[4]d", h.magic(), segment(), page, offset)
		if h.magic() == 0 {
			e.Kind = EndOfWAL
		}
		return e
	}
	if h.info()&^f.Version.WAL.PageAll != 0 {
		return corrupt(rec, "invalid info bits %04[1]X in log segment %[2]s, offset %[4]d", h.info(), segment(), page, offset)
	}
	switch {
	case h.info()&pageLongHeader != 0:
		if f.SystemID != 0 && h.sysID() != f.SystemID {
			return corrupt(rec, "WAL file is from different database system: WAL file database system identifier is %d, "+
				"pg_control database system identifier is %d", h.sysID(), f.SystemID)
		}
		if h.segSize() != f.SegSize {
			return corrupt(rec, "WAL file is from different database system: incorrect segment size in page header")
		}
		if h.pageSize() != pageSize {
			return corrupt(rec, "WAL file is from different database system: incorrect XLOG_BLCKSZ in page header")
		}
	case offset == 0:
		// A segment's first page without the long header: hardly a WAL file at all.
		return corrupt(rec, "invalid info bits %04[1]X in log segment %[2]s, offset %[4]d", h.info(), segment(), page, offset)
	}
	if h.pageAddr() != page {
		e := corrupt(rec, "unexpected pageaddr %[1]v in log segment %[2]s, offset %[4]d", h.pageAddr(), segment(), page, offset)
		if h.pageAddr() < page {
			e.Kind = EndOfWAL // what a recycled segment still holds
		}
		return e
	}
	return nil
}
