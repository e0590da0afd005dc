package wal_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/internal/wal/waltest"
)

// FuzzRecord decodes arbitrary bytes behind a record's header. The record says to be as long as its bytes are, and
// then to be longer: then only its beginning is at hand, as of a record over many pages.
func FuzzRecord(f *testing.F) {
	f.Add([]byte{255, 2, 'o', 'k'}, uint32(0))
	f.Add([]byte{252, 1, 2, 3, 4, 253, 1, 0, 254, 2, 0, 0, 0, 'o', 'k'}, uint32(0))
	f.Add([]byte{0, 0x30, 1, 0, 2, 0, 9, 0, 5, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 9, 9, 9}, uint32(0))
	f.Add([]byte{254, 0, 0, 16, 0}, uint32(1<<20))
	version, _ := pg.VersionOf(15)
	format := wal.Format{Version: version, SegSize: smallWS}
	f.Fuzz(func(t *testing.T, body []byte, beyond uint32) {
		head := append(make([]byte, waltest.HeaderBytes), body...)
		total := uint64(len(head)) + uint64(beyond)
		if total > 1<<32-1 {
			return
		}
		rec := wal.Record{LSN: 0x1000028, TotalLen: uint32(total)}
		err := format.Decode(&rec, head)
		if err != nil {
			return
		}
		if len(rec.Blocks) > 33 || uint64(rec.MainLen) > total || len(rec.Main) > int(rec.MainLen) {
			t.Fatalf("%d blocks, main data of %d bytes, %d of them at hand", len(rec.Blocks), rec.MainLen, len(rec.Main))
		}
		if beyond == 0 && len(rec.Main) != int(rec.MainLen) {
			t.Fatalf("main data of %d bytes, %d of them at hand", rec.MainLen, len(rec.Main))
		}
		if _, _, ok := rec.Checkpoint(version); ok && len(rec.Main) != version.CheckpointBytes {
			t.Fatal("a checkpoint without its data")
		}
		// From the first kilobyte alone the same is read.
		if short := head[:min(len(head), 1024)]; len(short) < len(head) {
			clipped := wal.Record{LSN: rec.LSN, TotalLen: rec.TotalLen}
			if err := format.Decode(&clipped, short); err != nil {
				if claimed(head) > 1024 {
					return // an origin for every three bytes: no server writes that, and it is refused
				}
				t.Fatalf("the whole record is good, its first kilobyte is not: %v", err)
			}
			if !slices.Equal(clipped.Blocks, rec.Blocks) || clipped.MainLen != rec.MainLen {
				t.Fatalf("first kilobyte: %+v, whole record: %+v", clipped, rec)
			}
		}
	})
}

// claimed is how far a record's fragment headers reach, by the crudest reading.
func claimed(head []byte) int {
	off := waltest.HeaderBytes
	for off < len(head) {
		switch id := head[off]; id {
		case 253:
			off += 3
		case 252:
			off += 5
		case 254:
			return off + 5
		case 255:
			return off + 2
		default:
			if off+4 > len(head) {
				return off
			}
			flags := head[off+1]
			off += 4 + 4
			if flags&0x10 != 0 {
				if off+1 <= len(head) && off-4+5 <= len(head) {
					if info := head[off]; info&0x1C != 0 && info&1 != 0 {
						off += 2
					}
				}
				off += 5
			}
			if flags&0x80 == 0 {
				off += 12
			}
		}
	}
	return off
}

// FuzzPages reads a log in which bytes were changed: edits is pairs of a place (3 bytes) and a value (1 byte). If seal
// is set, every record gets the right checksum again, so that what lies behind the checksum is reached as well. The
// reader comes to an end, having read no more records than there is room for.
func FuzzPages(f *testing.F) {
	f.Add(uint64(1), false, []byte{})
	f.Add(uint64(2), true, []byte{0, 0, 40, 1, 0, 32, 2, 1})
	f.Add(uint64(3), false, []byte{0, 32, 16, 255, 0, 32, 17, 255, 0, 32, 18, 255, 0, 32, 19, 255})
	f.Add(uint64(5), true, []byte{0, 0, 43, 255, 0, 64, 2, 9})
	f.Fuzz(func(t *testing.T, seed uint64, seal bool, edits []byte) {
		w := waltest.New(16 << 10)
		waltest.Random(w, rand.New(rand.NewPCG(seed, seed)), 20)
		first := w.Records[0].LSN.Seg(w.Format.SegSize)
		segs := uint64(w.Pos().Seg(w.Format.SegSize)-first) + 1
		for ; len(edits) >= 4; edits = edits[4:] {
			at := uint64(binary.BigEndian.Uint32(append([]byte{0}, edits[:3]...))) % (segs * uint64(w.Format.SegSize))
			if file := w.File(first + pg.SegNo(at/uint64(w.Format.SegSize))); file != nil {
				file[at%uint64(w.Format.SegSize)] = edits[3]
			}
		}
		if seal {
			for _, r := range w.Records {
				// Only records on one page: the others' bytes are not in one piece.
				b := w.At(r.LSN)
				if n := binary.LittleEndian.Uint32(b); n >= waltest.HeaderBytes && uint64(n) <= uint64(page-r.LSN%page) {
					waltest.Seal(b[:n])
				}
			}
		}
		r := wal.NewReader(w.Format, w)
		var rec wal.Record
		start := w.Records[0].LSN &^ (page - 1)
		for at := start; at < w.Pos(); at += (w.Pos()-start)/4&^(page-1) + page {
			if _, err := r.SeekFirst(at, w.Pos()); err != nil {
				continue
			}
			n, last := uint64(0), pg.LSN(0)
			for r.Next(&rec) == nil {
				if rec.LSN <= last || rec.End <= rec.LSN || n > segs*uint64(w.Format.SegSize)/waltest.HeaderBytes {
					t.Fatalf("record %d at %v, ends at %v, after %v", n, rec.LSN, rec.End, last)
				}
				last = rec.LSN
				n++
			}
		}
	})
}
