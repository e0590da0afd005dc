package wal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// Source gives the bytes of the log. A Reader calls it from one goroutine.
type Source interface {
	// ReadAt fills p with the log from at on. p never crosses the end of at's segment. Less than len(p) bytes without an
	// error means that the segment's file ends there.
	ReadAt(p []byte, at pg.LSN) (int, error)
	// SegmentName is the file name under which the source has a segment, for messages.
	SegmentName(seg pg.SegNo) string
}

// windowBytes is how much of the log is read at once: small enough to stay in a core's second-level cache between the
// read and the checksum, large enough that the system call does not show.
const windowBytes = 256 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Reader reads records one after the other. It is not safe for concurrent use; use one per goroutine. Memory: one
// window of 256 KiB, whatever the length of the records.
type Reader struct {
	format Format
	src    Source

	window      []byte // what was read last
	windowStart pg.LSN
	checked     [windowBytes / pageSize]bool // by page of the window: its header has been checked

	pos     pg.LSN // where the next record is looked for; may be a page's start
	prev    pg.LSN // the record before, or 0 after a jump
	tli     pg.TLI // of the last page read in sequence
	tliPage pg.LSN // that page
	seg     pg.SegNo
	segSeen bool // seg's first page has been checked

	head [headBytes]byte // of a record that does not lie in the window in one piece
}

// NewReader makes a Reader. Call Seek or SeekFirst before Next.
func NewReader(format Format, src Source) *Reader {
	return &Reader{format: format, src: src, window: make([]byte, 0, windowBytes)}
}

// Reset makes the Reader forget what it has read and take its bytes from src. The window's memory is kept.
func (r *Reader) Reset(src Source) {
	r.src = src
	r.window = r.window[:0]
	r.pos, r.prev, r.tli, r.tliPage, r.segSeen = 0, 0, 0, 0, false
}

// Pos is where Next will look for a record: the end of the one before, past a page header if that is at a page's start.
func (r *Reader) Pos() pg.LSN { return SkipPageHeader(r.pos, r.format.SegSize) }

// PageTLI is the timeline in the header of the last page read.
func (r *Reader) PageTLI() pg.TLI { return r.tli }

// Seek jumps to at, where a record begins. The link of the next record to the one before it is then only required to
// point backwards.
func (r *Reader) Seek(at pg.LSN) {
	r.pos, r.prev, r.tli, r.tliPage = at, 0, 0, 0
}

// SeekFirst jumps to the first record that begins at or after the page that starts at page, passing over the rest of a
// record that began before it (XLogFindNextRecord, xlogreader.c). It returns the timeline in that page's header. Where
// no record begins before limit, a page's start, it gives up there: Pos is then not below limit.
func (r *Reader) SeekFirst(page, limit pg.LSN) (pg.TLI, error) {
	r.Seek(page)
	var tli pg.TLI
	for at := page; at < limit; at += pageSize {
		h, err := r.page(at, page)
		if err != nil {
			return 0, err
		}
		if at == page {
			tli = h.tli()
		}
		first := at + HeaderSize(at, r.format.SegSize)
		if h.info()&pageContrecord != 0 {
			first += align8(pg.LSN(h.remLen()))
		}
		// A rest that fills the page to its end leaves nothing to begin on it.
		if first < at+pageSize {
			r.pos = first
			return tli, nil
		}
	}
	r.pos = limit
	return tli, nil
}

func align8(n pg.LSN) pg.LSN { return (n + 7) &^ 7 }

// Next reads the record at the current position into rec. An error is always an *Error. After an error the Reader must
// be sought anew.
//
// The order of checks is that of XLogDecodeNextRecord (xlogreader.c, 15): page, record header, continuation pages, CRC,
// block references.
func (r *Reader) Next(rec *Record) error {
	f := &r.format
	at := r.pos
restart:
	off := at & (pageSize - 1)
	h, err := r.page(at-off, at)
	if err != nil {
		return err
	}
	size := HeaderSize(at-off, f.SegSize)
	if off == 0 {
		at += size
		off = size
	} else if off < size || off%8 != 0 {
		// PostgreSQL only asserts that records are aligned (XRecOffIsValid); to us, any number may be handed.
		return corrupt(at, "invalid record offset at %v", at)
	}
	if h.info()&pageContrecord != 0 && off == size {
		return corrupt(at, "contrecord is requested by %v", at)
	}
	pageTLI := h.tli()
	piece := h[off:] // from the record's start to the page's end; at least 8 bytes
	tot := binary.LittleEndian.Uint32(piece)
	if len(piece) >= recordHeaderSize {
		if err := f.checkHeader(piece, at, r.prev); err != nil {
			return err
		}
	} else if tot < recordHeaderSize {
		return badLength(at, tot)
	}

	if uint64(tot) <= uint64(len(piece)) {
		body := piece[:tot]
		crc := crc32.Update(crc32.Update(0, castagnoli, body[recordHeaderSize:]), castagnoli, body[:recordCRCOffset])
		if err := checkCRC(body, crc, at); err != nil {
			return err
		}
		r.fill(rec, body, at, pageTLI)
		r.pos = at + align8(pg.LSN(tot))
		return r.finish(rec, body)
	}

	// The record goes on over the next pages. Its fragment headers are kept in head, the rest only passes through the
	// checksum: no record is ever held in memory as a whole.
	var (
		crc     uint32
		got     = uint64(len(piece))
		page    = at - off
		rest    pg.LSN // bytes of the record on the last page
		lastHdr pg.LSN
	)
	n := copy(r.head[:], piece)
	if got > recordHeaderSize {
		crc = crc32.Update(0, castagnoli, piece[recordHeaderSize:])
	}
	for got < uint64(tot) {
		page += pageSize
		h, err := r.page(page, at)
		if err != nil {
			return err
		}
		if h.info()&f.Version.WAL.PageOverwriteContrecord != 0 {
			// The server crashed before it had written the rest, and its successor went on here: the part that there
			// is counts for nothing.
			at = page
			goto restart
		}
		if h.info()&pageContrecord == 0 {
			return corrupt(at, "there is no contrecord flag at %v", at)
		}
		want := uint64(tot) - got
		if have := uint64(h.remLen()); have == 0 || have != want {
			return corrupt(at, "invalid contrecord length %d (expected %d) at %v", have, want, at)
		}
		lastHdr = HeaderSize(page, f.SegSize)
		piece = h[lastHdr:]
		if uint64(len(piece)) > want {
			piece = piece[:want]
		}
		rest = pg.LSN(len(piece))
		if n < len(r.head) {
			n += copy(r.head[n:], piece)
		}
		body := piece
		if got < recordHeaderSize {
			// The header itself was split: now it is complete, which is when PostgreSQL checks it.
			if err := f.checkHeader(r.head[:], at, r.prev); err != nil {
				return err
			}
			body = piece[min(recordHeaderSize-got, uint64(len(piece))):]
		}
		crc = crc32.Update(crc, castagnoli, body)
		got += uint64(len(piece))
	}
	head := r.head[:n]
	crc = crc32.Update(crc, castagnoli, head[:recordCRCOffset])
	if err := checkCRC(head, crc, at); err != nil {
		return err
	}
	r.fill(rec, head, at, pageTLI)
	r.pos = page + lastHdr + align8(rest)
	return r.finish(rec, head)
}

func checkCRC(head []byte, crc uint32, at pg.LSN) error {
	if binary.LittleEndian.Uint32(head[recordCRCOffset:]) != crc {
		return corrupt(at, "incorrect resource manager data checksum in record at %v", at)
	}
	return nil
}

// fill sets what the header says.
func (r *Reader) fill(rec *Record, head []byte, at pg.LSN, tli pg.TLI) {
	le := binary.LittleEndian
	rec.LSN = at
	rec.TLI = tli
	rec.TotalLen = le.Uint32(head)
	rec.XID = le.Uint32(head[4:])
	rec.Prev = pg.LSN(le.Uint64(head[8:]))
	rec.Info = head[16]
	rec.Rmgr = head[17]
}

// finish decodes what follows the header and moves on.
func (r *Reader) finish(rec *Record, head []byte) error {
	if rec.IsSwitch() {
		r.pos = (r.pos + pg.LSN(r.format.SegSize) - 1) &^ (pg.LSN(r.format.SegSize) - 1)
	}
	rec.End = r.pos
	if err := r.format.decode(rec, head); err != nil {
		return err
	}
	r.prev = rec.LSN
	return nil
}

// inWindow is the page at page if it was read, or nil.
func (r *Reader) inWindow(page pg.LSN) []byte {
	if i := page - r.windowStart; page >= r.windowStart && i+pageSize <= pg.LSN(len(r.window)) {
		return r.window[i : i+pageSize : i+pageSize]
	}
	return nil
}

// page gives the page that starts at page, checked as ReadPageInternal and XLogReaderValidatePageHeader check it, on
// behalf of the record at rec. The slice is valid until the next call.
func (r *Reader) page(page, rec pg.LSN) (pageHeader, error) {
	b := r.inWindow(page)
	if b == nil {
		if err := r.read(page, rec); err != nil {
			return nil, err
		}
		b = r.inWindow(page)
	}
	h := pageHeader(b)
	i := (page - r.windowStart) / pageSize
	if !r.checked[i] {
		if err := r.format.check(h, page, rec, r.src.SegmentName); err != nil {
			return nil, err
		}
		r.checked[i] = true
	}
	// A timeline never goes back along the log. Going back over pages already read is no news.
	if page > r.tliPage {
		if h.tli() < r.tli {
			return nil, corrupt(rec, "out-of-sequence timeline ID %[1]d (after %[2]d) in log segment %[3]s, offset %[5]d",
				h.tli(), r.tli, r.src.SegmentName(page.Seg(r.format.SegSize)), page,
				uint64(page)&uint64(r.format.SegSize-1))
		}
		r.tli, r.tliPage = h.tli(), page
	}
	return h, nil
}

// read fills the window from page on. On the way into a segment by its middle, the segment's first page is checked
// first: it alone says which cluster the file belongs to.
func (r *Reader) read(page, rec pg.LSN) error {
	segSize := pg.LSN(r.format.SegSize)
	segStart := page &^ (segSize - 1)
	if seg := page.Seg(r.format.SegSize); !r.segSeen || seg != r.seg {
		r.seg, r.segSeen = seg, false
		if page != segStart {
			if err := r.load(segStart, pageSize, rec); err != nil {
				return err
			}
			if err := r.format.check(pageHeader(r.window), segStart, rec, r.src.SegmentName); err != nil {
				return err
			}
		}
		r.segSeen = true
	}
	return r.load(page, min(windowBytes, segStart+segSize-page), rec)
}

// load reads want bytes of the log into the window, at least the first page of them.
func (r *Reader) load(start, want, rec pg.LSN) error {
	r.window = r.window[:want]
	r.windowStart = start
	clear(r.checked[:])
	n, err := r.src.ReadAt(r.window, start)
	r.window = r.window[:min(max(n, 0), int(want))]
	if len(r.window) < pageSize {
		if err == nil {
			return &Error{
				Kind: EndOfWAL, LSN: rec,
				Reason: "WAL segment " + r.src.SegmentName(start.Seg(r.format.SegSize)) + " ends before " + start.String(),
			}
		}
		return &Error{Kind: Unreadable, LSN: rec, Err: err}
	}
	// A read that failed behind the first page is met again when its page is wanted.
	return nil
}
