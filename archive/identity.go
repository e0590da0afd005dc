package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Identity is what makes a segment one of a certain cluster's. All of it comes from that cluster's pg_control and its
// history file.
type Identity struct {
	Version  *pg.Version
	SegSize  uint32 // WAL segment size in bytes
	SystemID uint64 // 0: not compared
	// Histories say which timelines may be found where. A segment on a timeline of one of them must begin with a page of
	// the timeline that is valid there; of other segments only what holds for all WAL is demanded.
	Histories []pg.History
}

// ErrWrongSegment is the cause in the errors of a file that has a segment's name and is not that segment: another size,
// another cluster's, another place in the log, or no WAL at all.
var ErrWrongSegment = errors.New("not the WAL segment that was asked for")

// The first page of a segment (XLogLongPageHeaderData, xlog_internal.h), little-endian; package wal knows all of it.
//
//	 0  2  magic        one value per major
//	 2  2  info         flags; 0x0002 for this long header
//	 4  4  timeline
//	 8  8  LSN of the page
//	24  8  system identifier
//	32  4  segment size
//	36  4  page size
const (
	longHeaderSize = 40
	longHeaderFlag = 0x0002 // XLP_LONG_HEADER
)

// checkSize makes an error of a file that has not the segment size, in stock's words (RestoreArchivedFile).
func (id *Identity) checkSize(what string, size int64) *fault.Error {
	if size == int64(id.SegSize) {
		return nil
	}
	return fault.Because(fmt.Errorf("%w: %w", ErrWrongSegment, fault.ErrFatal), "unexpected file size for \"%s\": %d instead of %d", what, size, id.SegSize)
}

// check compares a segment's first page with what it must be; what names the file in messages. Reasons are those of
// XLogReaderValidatePageHeader, in its order. An error is ErrWrongSegment, unless the file cannot be read.
func (id *Identity) check(r io.ReaderAt, what string, tli pg.TLI, seg pg.SegNo) error {
	var h [longHeaderSize]byte
	if n, err := r.ReadAt(h[:], 0); n < len(h) {
		return fault.Because(err, "could not read file \"%s\": %s", what, fault.M(err))
	}
	wrong := func(format string, args ...any) error {
		return fault.Because(ErrWrongSegment, "\"%s\" is not the WAL segment it is named after: "+format, append([]any{what}, args...)...)
	}
	const foreign = "WAL file is from different database system: "
	le := binary.LittleEndian
	magic, info, pageTLI, addr := le.Uint16(h[0:]), le.Uint16(h[2:]), pg.TLI(le.Uint32(h[4:])), pg.LSN(le.Uint64(h[8:]))
	start := seg.Start(id.SegSize)
	switch {
	case magic != id.Version.WALMagic:
		return wrong("invalid magic number %04X, expected %04X for version %d", magic, id.Version.WALMagic, id.Version.Major)
	case info&longHeaderFlag == 0 || info&^id.Version.WAL.PageAll != 0:
		return wrong("invalid info bits %04X", info)
	case id.SystemID != 0 && le.Uint64(h[24:]) != id.SystemID:
		return wrong(foreign+"WAL file database system identifier is %d, pg_control database system identifier is %d",
			le.Uint64(h[24:]), id.SystemID)
	case le.Uint32(h[32:]) != id.SegSize:
		return wrong(foreign+"segment size in page header is %d, expected %d", le.Uint32(h[32:]), id.SegSize)
	case le.Uint32(h[36:]) != pg.WALBlockSize:
		return wrong(foreign+"XLOG_BLCKSZ in page header is %d, expected %d", le.Uint32(h[36:]), pg.WALBlockSize)
	case addr != start:
		return wrong("unexpected pageaddr %v, expected %v", addr, start)
	case !id.allows(tli, start, pageTLI):
		return wrong("it begins on timeline %d, expected %s", pageTLI, id.expected(tli, start))
	}
	return nil
}

// allows reports whether the file of timeline tli may have a first page of timeline page. A file is begun anew on a new
// timeline with a copy of the old one's pages up to where it forked off (XLogFileCopy), so that the page's timeline may
// be an older one; never a newer.
func (id *Identity) allows(tli pg.TLI, start pg.LSN, page pg.TLI) bool {
	if page == 0 || page > tli {
		return false
	}
	known := false
	for _, h := range id.Histories {
		if !has(h, tli) {
			continue
		}
		// Where a timeline begins exactly with the segment, a page that its server found prepared may be of the one before.
		if known = true; page == h.TLIAt(start) || page == h.TLIAt(start-1) {
			return true
		}
	}
	return !known
}

// expected says in words what allows demands.
func (id *Identity) expected(tli pg.TLI, start pg.LSN) string {
	for _, h := range id.Histories {
		if has(h, tli) {
			return fault.New("%d", h.TLIAt(start)).Text
		}
	}
	return fault.New("at most %d", tli).Text
}

func has(h pg.History, tli pg.TLI) bool {
	for _, s := range h {
		if s.TLI == tli {
			return true
		}
	}
	return false
}
