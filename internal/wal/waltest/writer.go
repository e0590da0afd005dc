package waltest

import (
	"encoding/binary"
	"fmt"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

const (
	pageSize  = pg.WALBlockSize
	contFlag  = 0x0001
	longFlag  = 0x0002
	voidFlag  = 0x0008 // the record that should go on here was never finished
	shortHead = 24
	longHead  = 40
)

// Written says where a record is.
type Written struct {
	LSN  pg.LSN // of its first byte
	End  pg.LSN // of the byte after it, rounded up to 8; of a switch, the next segment
	Prev pg.LSN
	Record
}

// Writer appends records to a log.
type Writer struct {
	*Log
	Records []Written // complete ones, in order, over all timelines

	tli  pg.TLI
	pos  pg.LSN // where the next record goes; may be a page's start
	prev pg.LSN
	seg  []byte
	at   pg.LSN // of seg's first byte

	void   bool   // the next page begins with voidFlag
	voided pg.LSN // the record that was never finished
}

// New makes a log that begins with segment 1 on timeline 1. segSize is in bytes, a power of two of at least 16384.
func New(segSize uint32) *Writer {
	v, ok := pg.VersionOf(15)
	if !ok {
		panic("waltest: PostgreSQL 15 is gone")
	}
	return &Writer{
		Log: &Log{
			Format:  wal.Format{Version: v, SegSize: segSize, SystemID: 7000000000000000001},
			History: pg.History{{TLI: 1}},
			Files:   make(map[string][]byte),
		},
		tli: 1,
		pos: pg.LSN(segSize),
	}
}

// Pos is the end of the last record: where the next one goes, or the page in whose beginning it goes.
func (w *Writer) Pos() pg.LSN { return w.pos }

// Last is the record written last.
func (w *Writer) Last() Written { return w.Records[len(w.Records)-1] }

// Append writes a record.
func (w *Writer) Append(r Record) Written {
	return w.appendBytes(r, r.bytes(w.prev))
}

func (w *Writer) appendBytes(r Record, b []byte) Written {
	lsn := w.begin(len(b))
	w.put(b)
	out := Written{LSN: lsn, Prev: w.prev, Record: r}
	if r.Rmgr == wal.RmgrXLOG && r.Info&0xF0 == wal.XLOGSwitch {
		w.pos = (w.pos + pg.LSN(w.Format.SegSize) - 1) &^ (pg.LSN(w.Format.SegSize) - 1)
	}
	out.End = w.pos
	w.prev = lsn
	w.Records = append(w.Records, out)
	return out
}

// Touch writes a record that changes a block.
func (w *Writer) Touch(rel pg.RelNumber, block pg.BlockNo) Written {
	return w.Append(Touch(rel, block, 10))
}

// Checkpoint writes a checkpoint whose redo point is the record itself.
func (w *Writer) Checkpoint() Written {
	return w.Append(Checkpoint(wal.SkipPageHeader(w.pos, w.Format.SegSize), w.tli))
}

// Switch ends the segment.
func (w *Writer) Switch() Written { return w.Append(Record{Rmgr: wal.RmgrXLOG, Info: wal.XLOGSwitch}) }

// FillTo writes one record that ends exactly at to, which has to be a multiple of 8 some 40 bytes or more from here.
func (w *Writer) FillTo(to pg.LSN) Written {
	n := 0
	for at := w.pos; at < to; {
		if at%pageSize == 0 {
			at += w.headSize(at)
			continue
		}
		step := min(to-at, pageSize-at%pageSize)
		n += int(step)
		at += step
	}
	out := w.Append(Noop(n))
	if out.End != to {
		panic(fmt.Sprintf("waltest: filled to %v instead of %v", out.End, to))
	}
	return out
}

// Abandon writes a record up to the end of its pages-th page only: the server crashed there. Its successor goes on at the
// start of the next page, with a record that says so.
func (w *Writer) Abandon(r Record, pages int) (lsn pg.LSN) {
	lsn = w.AbandonAt(r, pages)
	w.Overwrite()
	return lsn
}

// AbandonAt is the crash of Abandon alone.
func (w *Writer) AbandonAt(r Record, pages int) (lsn pg.LSN) {
	b := r.bytes(w.prev)
	lsn = w.begin(len(b))
	cut := lsn&^(pageSize-1) + pg.LSN(pages)*pageSize
	for at := w.pos; at < cut; {
		if at%pageSize == 0 {
			w.header(at, contFlag, len(b))
			at += w.headSize(at)
		}
		n := copy(w.bytes(at), b[:min(len(b), int(pageSize-at%pageSize))])
		b, at = b[n:], at+pg.LSN(n)
	}
	if len(b) == 0 {
		panic("waltest: the abandoned record is complete")
	}
	w.pos, w.void, w.voided = cut, true, lsn
	return lsn
}

// Overwrite is the successor's first record, on the page that AbandonAt did not reach.
func (w *Writer) Overwrite() Written {
	main := make([]byte, 16)
	binary.LittleEndian.PutUint64(main, uint64(w.voided))
	return w.Append(Record{Rmgr: wal.RmgrXLOG, Info: 0xD0, Main: main})
}

// Promote goes on on another timeline: from here on, in files of its own, the first of which begins with a copy.
func (w *Writer) Promote(tli pg.TLI) pg.LSN {
	last := &w.History[len(w.History)-1]
	last.End = w.pos
	w.History = append(w.History, pg.TimelineSpan{TLI: tli, Begin: w.pos})
	w.tli = tli
	old := w.seg
	w.seg = nil
	if off := uint64(w.pos) % uint64(w.Format.SegSize); off != 0 {
		w.bytes(w.pos)
		copy(w.seg, old[:off])
	}
	return w.pos
}

// Rewrite goes back to an LSN, where a record ended whose link to the one before is prev, and writes another history
// from there on, into the same files.
func (w *Writer) Rewrite(at, prev pg.LSN) {
	for len(w.Records) > 0 && w.Last().LSN >= at {
		w.Records = w.Records[:len(w.Records)-1]
	}
	w.pos, w.prev = at, prev
}

func (w *Writer) headSize(at pg.LSN) pg.LSN {
	if uint64(at)%uint64(w.Format.SegSize) == 0 {
		return longHead
	}
	return shortHead
}

// begin gives the place for a record of n bytes, with the page's header written if it is the first on its page.
func (w *Writer) begin(n int) pg.LSN {
	if n < HeaderBytes {
		panic("waltest: record without header")
	}
	if w.pos%pageSize == 0 {
		flags := uint16(0)
		if w.void {
			flags, w.void = voidFlag, false
		}
		w.header(w.pos, flags, 0)
		w.pos += w.headSize(w.pos)
	}
	return w.pos
}

// put writes bytes over as many pages as they need.
func (w *Writer) put(b []byte) {
	for len(b) > 0 {
		if w.pos%pageSize == 0 {
			w.header(w.pos, contFlag, len(b))
			w.pos += w.headSize(w.pos)
		}
		n := copy(w.bytes(w.pos), b[:min(len(b), int(pageSize-w.pos%pageSize))])
		b, w.pos = b[n:], w.pos+pg.LSN(n)
	}
	w.pos = (w.pos + 7) &^ 7
}

// bytes is the current timeline's file from an LSN on.
func (w *Writer) bytes(at pg.LSN) []byte {
	size := pg.LSN(w.Format.SegSize)
	if start := at &^ (size - 1); w.seg == nil || w.at != start {
		name := pg.SegmentName(w.tli, at.Seg(w.Format.SegSize), w.Format.SegSize)
		if w.Files[name] == nil {
			w.Files[name] = make([]byte, size)
		}
		w.seg, w.at = w.Files[name], start
	}
	return w.seg[at-w.at:]
}

func (w *Writer) header(at pg.LSN, flags uint16, rest int) {
	le := binary.LittleEndian
	b := w.bytes(at)
	clear(b[:shortHead])
	le.PutUint16(b, 0xD110)
	le.PutUint32(b[4:], uint32(w.tli))
	le.PutUint64(b[8:], uint64(at))
	le.PutUint32(b[16:], uint32(rest))
	if w.headSize(at) == longHead {
		flags |= longFlag
		le.PutUint64(b[24:], w.Format.SystemID)
		le.PutUint32(b[32:], w.Format.SegSize)
		le.PutUint32(b[36:], pageSize)
	}
	le.PutUint16(b[2:], flags)
}
