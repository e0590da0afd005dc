package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/internal/wal/waltest"
)

const (
	page    = pg.WALBlockSize
	smallWS = 64 << 10 // bytes of a segment in most tests; no server has so small ones, the reader does not mind
)

// readAll reads records from an LSN on until an error. The error is never nil.
func readAll(t testing.TB, src wal.Source, format wal.Format, from pg.LSN) ([]wal.Record, *wal.Error) {
	t.Helper()
	r := wal.NewReader(format, src)
	r.Seek(from)
	return drain(t, r)
}

func drain(t testing.TB, r *wal.Reader) ([]wal.Record, *wal.Error) {
	t.Helper()
	var out []wal.Record
	var rec wal.Record
	for {
		if err := r.Next(&rec); err != nil {
			var we *wal.Error
			if !errors.As(err, &we) {
				t.Fatalf("Next returned a %T: %v", err, err)
			}
			return out, we
		}
		keep := rec
		keep.Main = slices.Clone(rec.Main)
		keep.Blocks = slices.Clone(rec.Blocks)
		out = append(out, keep)
		if len(out) > 1<<20 {
			t.Fatal("the reader does not come to an end")
		}
	}
}

// sameRecord compares what was read with what was written.
func sameRecord(t *testing.T, got wal.Record, want waltest.Written) {
	t.Helper()
	if got.LSN != want.LSN || got.End != want.End || got.Prev != want.Prev || got.Rmgr != want.Rmgr || got.Info != want.Info || got.XID != want.XID {
		t.Fatalf("read %+v, written %+v", got, want)
	}
	if len(got.Blocks) != len(want.Blocks) {
		t.Fatalf("%v: %d block references, %d written", got.LSN, len(got.Blocks), len(want.Blocks))
	}
	for i, b := range got.Blocks {
		w := want.Blocks[i]
		if b.Rel != w.Rel || b.Fork != w.Fork || b.Block != w.Block || b.HasImage != (w.Image != nil) || b.WillInit != w.Init {
			t.Fatalf("%v: block reference %+v, written %+v", got.LSN, b, w)
		}
	}
	if want.Body != nil {
		return
	}
	if int(got.MainLen) != len(want.Main) || !bytes.HasPrefix(want.Main, got.Main) {
		t.Fatalf("%v: main data of %d bytes differs from the %d written", got.LSN, got.MainLen, len(want.Main))
	}
	if len(want.Main) < 500 && len(want.Blocks) < 8 && !hasImage(want.Blocks) && len(got.Main) != len(want.Main) {
		t.Fatalf("%v: only %d of %d bytes of main data", got.LSN, len(got.Main), len(want.Main))
	}
}

func hasImage(blocks []waltest.Block) bool {
	return slices.ContainsFunc(blocks, func(b waltest.Block) bool { return len(b.Image) > 0 || len(b.Data) > 100 })
}

func checkLog(t *testing.T, w *waltest.Writer) *wal.Error {
	t.Helper()
	got, err := readAll(t, w, w.Format, w.Records[0].LSN)
	if len(got) != len(w.Records) {
		t.Fatalf("read %d of %d records, then: %v", len(got), len(w.Records), err)
	}
	for i := range got {
		sameRecord(t, got[i], w.Records[i])
	}
	return err
}

func rel(n pg.RelNumber) pg.Rel { return pg.Rel{Tablespace: 1663, Database: 5, Number: n} }

func image(n int) []byte { return bytes.Repeat([]byte{0xA5}, n) }

// TestShapes reads back every shape a record and a page can have.
func TestShapes(t *testing.T) {
	at := func(seg, off int) pg.LSN { return pg.LSN(seg*smallWS + off) }
	for name, write := range map[string]func(w *waltest.Writer){
		"header only": func(w *waltest.Writer) { w.Append(waltest.Noop(24)); w.Append(waltest.Noop(24)) },
		"empty main data": func(w *waltest.Writer) {
			w.Append(waltest.Record{Rmgr: 10, Body: []byte{255, 0}})
			w.Append(waltest.Record{Rmgr: 10, Body: []byte{254, 0, 0, 0, 0}})
		},
		"all block shapes": func(w *waltest.Writer) {
			w.Append(waltest.Record{Rmgr: 10, XID: 77, Main: []byte("main"), Blocks: []waltest.Block{
				{ID: 0, Rel: rel(1), Block: 5, Data: []byte("data")},
				{ID: 1, Rel: rel(1), Block: 6, Same: true, Image: image(pg.BlockSize)},
				{ID: 5, Rel: rel(2), Block: 0xFFFFFFFE, Fork: pg.VMFork, Image: image(100), Init: true},
				{ID: 32, Rel: rel(3), Fork: pg.FSMFork},
			}})
		},
		"33 block references, the most there can be": func(w *waltest.Writer) {
			r := waltest.Record{Rmgr: 20, Main: image(300)}
			for i := range 33 {
				r.Blocks = append(r.Blocks, waltest.Block{ID: uint8(i), Rel: rel(pg.RelNumber(i)), Block: pg.BlockNo(i), Image: image(10), Data: []byte{1}})
			}
			w.Append(r)
		},
		"the most there can be, its headers split over two pages": func(w *waltest.Writer) {
			w.FillTo(at(1, 3*page-400))
			r := waltest.Record{Rmgr: 20}
			for i := range 33 {
				r.Blocks = append(r.Blocks, waltest.Block{ID: uint8(i), Rel: rel(pg.RelNumber(i)), Image: image(20), Data: []byte{1}})
			}
			w.Append(r)
		},
		"compressed images": func(w *waltest.Writer) {
			le := binary.LittleEndian
			for _, method := range []byte{0x04, 0x08, 0x10} {
				body := []byte{0, 0x10, 0, 0, 9, 0, 0, 0, method} // no hole
				body = append(body, make([]byte, 12+4+9)...)
				w.Append(waltest.Record{Rmgr: 10, Body: body, Blocks: []waltest.Block{{Image: image(9)}}})
				body = []byte{0, 0x10, 0, 0, 9, 0, 40, 0, method | 0x01 | 0x02} // with a hole
				body = le.AppendUint16(body, 4000)
				body = append(body, make([]byte, 12+4+9)...)
				w.Append(waltest.Record{Rmgr: 10, Body: body, Blocks: []waltest.Block{{Image: image(9)}}})
			}
		},
		"origin and top-level transaction": func(w *waltest.Writer) {
			w.Append(waltest.Record{Rmgr: 10, Body: []byte{252, 1, 2, 3, 4, 253, 1, 0, 255, 2, 'o', 'k'}})
		},
		"custom resource managers": func(w *waltest.Writer) {
			w.Append(waltest.Record{Rmgr: 128, Main: []byte("x")})
			w.Append(waltest.Record{Rmgr: 255, Main: []byte("x")})
		},
		"record ends at a page's end": func(w *waltest.Writer) { w.FillTo(at(1, page)); w.Touch(1, 1) },
		"record ends at a segment's end": func(w *waltest.Writer) {
			w.FillTo(at(2, 0))
			w.Touch(1, 1)
			w.FillTo(at(4, 0))
			w.Touch(1, 2)
		},
		"giant record over several segments": func(w *waltest.Writer) {
			w.Touch(1, 1)
			w.Append(waltest.Touch(1, 2, 5*smallWS+77))
			w.Touch(1, 3)
		},
		"giant record that begins and ends at segments' ends": func(w *waltest.Writer) {
			w.FillTo(at(2, 0))
			w.FillTo(at(6, 0))
			w.Touch(1, 3)
		},
		"switch": func(w *waltest.Writer) {
			w.Touch(1, 1)
			w.Switch()
			w.Touch(1, 2)
			w.Switch()
			w.Switch()
			w.Touch(1, 3)
		},
		"switch that ends at the segment's end": func(w *waltest.Writer) {
			w.FillTo(at(2, -24))
			w.Switch()
			w.Touch(1, 1)
		},
		"switch split over the last two pages": func(w *waltest.Writer) {
			w.FillTo(at(2, -page-8))
			w.Switch()
			w.Touch(1, 1)
		},
		"switch split over two segments": func(w *waltest.Writer) {
			w.FillTo(at(2, -16))
			w.Switch()
			w.Touch(1, 1)
		},
		"record never finished": func(w *waltest.Writer) {
			w.Touch(1, 1)
			w.Abandon(waltest.Touch(1, 2, 3*page), 1)
			w.Touch(1, 3)
			w.Abandon(waltest.Touch(1, 2, 3*page), 3)
			w.Touch(1, 4)
		},
		"records never finished, one after the other": func(w *waltest.Writer) {
			w.Touch(1, 1)
			w.Abandon(waltest.Touch(1, 2, 3*page), 1)
			w.Abandon(waltest.Touch(1, 2, 3*page), 2)
			w.Touch(1, 3)
		},
		"record never finished, its header split": func(w *waltest.Writer) {
			w.FillTo(at(1, 2*page-16))
			w.Abandon(waltest.Touch(1, 2, 100), 1)
			w.Touch(1, 3)
		},
		"record never finished, over segments": func(w *waltest.Writer) {
			w.Touch(1, 1)
			w.Abandon(waltest.Touch(1, 2, 9*smallWS), 2*smallWS/page+3)
			w.Touch(1, 3)
			w.FillTo(at(5, 0))
			w.Abandon(waltest.Touch(1, 2, 9*smallWS), smallWS/page)
			w.Touch(1, 3)
		},
		"timelines": func(w *waltest.Writer) {
			w.Touch(1, 1)
			w.Promote(2)
			w.Touch(1, 2)
			w.Promote(5)
			w.Touch(1, 3)
			w.FillTo(at(3, 0))
			w.Promote(6)
			w.Touch(1, 4)
			w.FillTo(at(3, 2*page))
			w.Promote(9)
			w.Touch(1, 5)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := waltest.New(smallWS)
			write(w)
			err := checkLog(t, w)
			// What comes behind is zeros, or not there.
			if err.Kind != wal.EndOfWAL && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the log's end: kind %d, %v", err.Kind, err)
			}
		})
	}
}

// TestSplitHeaders splits records at every 8 bytes of their header and fragment headers, over pages and over segments.
func TestSplitHeaders(t *testing.T) {
	for _, end := range []pg.LSN{smallWS + 2*page, 2 * smallWS} {
		for before := pg.LSN(8); before <= 400; before += 8 {
			w := waltest.New(smallWS)
			w.FillTo(end - before)
			w.Append(waltest.Record{Rmgr: 10, Info: 0x30, XID: 9, Main: image(500), Blocks: []waltest.Block{
				{Rel: rel(1), Block: 5, Image: image(200), Data: []byte("data")}, {ID: 1, Rel: rel(2), Block: 7, Init: true, Data: []byte{1}},
			}})
			w.Touch(1, 1)
			checkLog(t, w)
		}
	}
}

// TestRandomLogs reads back random logs, in segments smaller and larger than what is read at once, and starts at
// random pages.
func TestRandomLogs(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 9
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := waltest.New([]uint32{16 << 10, smallWS, 1 << 20}[seed%3])
		waltest.Random(w, rng, 400)
		checkLog(t, w)

		for range 30 {
			first, end := w.Records[0].LSN&^(page-1), w.Pos()
			at := first + pg.LSN(rng.Uint64N(uint64(end-first)))&^(page-1)
			r := wal.NewReader(w.Format, w)
			_, err := r.SeekFirst(at, end&^(page-1)+page)
			if err != nil {
				// The place may lie behind a switch.
				i, _ := slices.BinarySearchFunc(w.Records, at, func(r waltest.Written, at pg.LSN) int { return int(int64(r.LSN - at)) })
				if i == 0 || w.Records[i-1].Rmgr != wal.RmgrXLOG || w.Records[i-1].Info != wal.XLOGSwitch || w.Records[i-1].End <= at {
					t.Fatalf("seed %d: SeekFirst(%v): %v", seed, at, err)
				}
				continue
			}
			i, _ := slices.BinarySearchFunc(w.Records, r.Pos(), func(r waltest.Written, at pg.LSN) int { return int(int64(r.LSN - at)) })
			got, _ := drain(t, r)
			if len(got) != len(w.Records)-i {
				t.Fatalf("seed %d: from %v on read %d records, not %d", seed, at, len(got), len(w.Records)-i)
			}
		}
	}
}

func TestSeekFirst(t *testing.T) {
	w := waltest.New(smallWS)
	w.Touch(1, 1)
	a := w.Append(waltest.Touch(1, 2, 3*page)) // ends on the fourth page
	b := w.Touch(1, 3)
	w.FillTo(smallWS + 5*page)
	c := w.Touch(1, 4)
	limit := pg.LSN(smallWS + 6*page)
	for _, c := range []struct {
		name        string
		from, limit pg.LSN
		want        pg.LSN
	}{
		{"the first page", smallWS, limit, smallWS + 40},
		{"the middle of a record", smallWS + page, limit, b.LSN},
		{"the page on which it ends", a.End &^ (page - 1), limit, b.LSN},
		{"the middle, and no record before the limit", smallWS + page, smallWS + 3*page, smallWS + 3*page + 24},
		{"a page at whose start a record begins", smallWS + 5*page, limit, c.LSN},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := wal.NewReader(w.Format, w)
			tli, err := r.SeekFirst(c.from, c.limit)
			if err != nil || tli != 1 || r.Pos() != c.want {
				t.Errorf("at %v on timeline %d, want %v on 1; %v", r.Pos(), tli, c.want, err)
			}
		})
	}
}

// TestReset uses one reader for two logs.
func TestReset(t *testing.T) {
	a, b := waltest.New(smallWS), waltest.New(smallWS)
	a.Touch(1, 1)
	a.FillTo(smallWS + 3*page)
	b.FillTo(smallWS + 2*page)
	b.Promote(2)
	b.Touch(2, 2)
	r := wal.NewReader(a.Format, a)
	for range 2 {
		for _, w := range []*waltest.Writer{b, a} {
			r.Reset(w)
			r.Seek(w.Records[0].LSN)
			if got, err := drain(t, r); len(got) != len(w.Records) {
				t.Fatalf("read %d of %d records: %v", len(got), len(w.Records), err)
			}
		}
	}
}

// TestReasons damages a log in every way that PostgreSQL's reader has words for (xlogreader.c, 15). %P is the place of
// the record that is damaged.
func TestReasons(t *testing.T) {
	le := binary.LittleEndian
	const seg = "000000010000000000000001"
	// The log: a record; the one that is damaged; and a third, which is why a wrong length of the second is noticed.
	write := func(r waltest.Record) func(w *waltest.Writer) pg.LSN {
		return func(w *waltest.Writer) pg.LSN {
			w.Touch(1, 1)
			out := w.Append(r)
			w.Touch(1, 2)
			return out.LSN
		}
	}
	edit := func(f func(b []byte)) func(w *waltest.Writer) pg.LSN {
		r := waltest.Touch(1, 1, 50)
		r.Edit = f
		return write(r)
	}
	body := func(b ...byte) func(w *waltest.Writer) pg.LSN { return write(waltest.Record{Rmgr: 10, Body: b}) }
	// A record over the border of the first two pages, whose second page is damaged.
	onPage := func(f func(h []byte)) func(w *waltest.Writer) pg.LSN {
		return func(w *waltest.Writer) pg.LSN {
			w.FillTo(smallWS + page - 104)
			out := w.Append(waltest.Touch(1, 1, 3*page))
			w.Touch(1, 2)
			f(w.At(smallWS + page))
			return out.LSN
		}
	}
	blockRef := []byte{0xEE, 6, 0, 0, 5, 0, 0, 0, 0xEE, 0x40, 0, 0, 9, 0, 0, 0}
	imageRef := func(length, hole uint16, info byte, holeLength ...byte) []byte {
		b := []byte{0, 0x10, 0, 0}
		b = le.AppendUint16(b, length)
		b = le.AppendUint16(b, hole)
		b = append(append(append(b, info), holeLength...), blockRef...)
		return append(b, make([]byte, length)...)
	}
	for _, c := range []struct {
		name   string
		damage func(w *waltest.Writer) pg.LSN
		from   func(at pg.LSN) pg.LSN // where to begin reading, if not with the record before
		kind   wal.Kind
		want   string
	}{
		{"page: another magic", onPage(func(h []byte) { le.PutUint16(h, 0xD10D) }), nil, wal.Corrupt,
			"invalid magic number D10D in log segment " + seg + ", offset 8192"},
		{"page: zeros", onPage(func(h []byte) { clear(h[:page]) }), nil, wal.EndOfWAL,
			"invalid magic number 0000 in log segment " + seg + ", offset 8192"},
		{"page: unknown flag", onPage(func(h []byte) { h[2] |= 0x10 }), nil, wal.Corrupt,
			"invalid info bits 0011 in log segment " + seg + ", offset 8192"},
		{"page: long header where there is none", onPage(func(h []byte) { h[2] |= 2 }), nil, wal.Corrupt,
			"WAL file is from different database system: WAL file database system identifier is 0, pg_control database system identifier is 7000000000000000001"},
		{"page: short header at a segment's start", func(w *waltest.Writer) pg.LSN {
			out := w.Touch(1, 1)
			w.At(smallWS)[2] = 0
			return out.LSN
		}, func(at pg.LSN) pg.LSN { return at }, wal.Corrupt, "invalid info bits 0000 in log segment " + seg + ", offset 0"},
		{"page: another system", func(w *waltest.Writer) pg.LSN {
			w.Touch(1, 1)
			w.FillTo(smallWS + page)
			out := w.Touch(1, 2)
			le.PutUint64(w.At(smallWS)[24:], 1234)
			return out.LSN
		}, func(at pg.LSN) pg.LSN { return at }, wal.Corrupt, // although only the segment's second page is wanted
			"WAL file is from different database system: WAL file database system identifier is 1234, pg_control database system identifier is 7000000000000000001"},
		{"page: another segment size", func(w *waltest.Writer) pg.LSN {
			out := w.Touch(1, 1)
			le.PutUint32(w.At(smallWS)[32:], 1<<20)
			return out.LSN
		}, nil, wal.Corrupt, "WAL file is from different database system: incorrect segment size in page header"},
		{"page: another page size", func(w *waltest.Writer) pg.LSN {
			out := w.Touch(1, 1)
			le.PutUint32(w.At(smallWS)[36:], 16384)
			return out.LSN
		}, nil, wal.Corrupt, "WAL file is from different database system: incorrect XLOG_BLCKSZ in page header"},
		{"page: leftover of a recycled segment", onPage(func(h []byte) { le.PutUint64(h[8:], 0x7000) }), nil, wal.EndOfWAL,
			"unexpected pageaddr 0/7000 in log segment " + seg + ", offset 8192"},
		{"page: from the future", onPage(func(h []byte) { le.PutUint64(h[8:], 0x100000000) }), nil, wal.Corrupt,
			"unexpected pageaddr 1/0 in log segment " + seg + ", offset 8192"},
		{"page: an older timeline", func(w *waltest.Writer) pg.LSN {
			w.Touch(1, 1)
			w.Promote(3)
			w.FillTo(smallWS + 2*page)
			out := w.Touch(1, 1)
			le.PutUint32(w.At(smallWS + 2*page)[4:], 2)
			return out.LSN
		}, nil, wal.Corrupt, "out-of-sequence timeline ID 2 (after 3) in log segment 000000030000000000000001, offset 16384"},
		{"place: within a page's header", edit(nil), func(pg.LSN) pg.LSN { return smallWS + 16 }, wal.Corrupt,
			"invalid record offset at 0/10010"},
		{"place: not a multiple of 8", edit(nil), func(pg.LSN) pg.LSN { return smallWS + page - 3 }, wal.Corrupt,
			"invalid record offset at 0/11FFD"},
		{"place: the rest of another record", onPage(func([]byte) {}), func(pg.LSN) pg.LSN { return smallWS + page }, wal.Corrupt,
			"contrecord is requested by 0/12018"},
		{"length: zero", edit(func(b []byte) { clear(b[:4]) }), nil, wal.EndOfWAL, "invalid record length at %P: wanted 24, got 0"},
		{"length: shorter than a header", edit(func(b []byte) { le.PutUint32(b, 23) }), nil, wal.Corrupt,
			"invalid record length at %P: wanted 24, got 23"},
		{"length: shorter than a header, the header split", func(w *waltest.Writer) pg.LSN {
			w.FillTo(smallWS + page - 16)
			r := waltest.Touch(1, 1, 50)
			r.Edit = func(b []byte) { le.PutUint32(b, 20) }
			return w.Append(r).LSN
		}, nil, wal.Corrupt, "invalid record length at %P: wanted 24, got 20"},
		{"length: four gigabytes", edit(func(b []byte) { le.PutUint32(b, 0xFFFFFFFF) }), nil, wal.EndOfWAL,
			"invalid magic number 0000 in log segment " + seg + ", offset 8192"},
		{"continuation: no flag", onPage(func(h []byte) { h[2] &^= 1 }), nil, wal.Corrupt, "there is no contrecord flag at %P"},
		{"continuation: wrong length", onPage(func(h []byte) { le.PutUint32(h[16:], 24000) }), nil, wal.Corrupt,
			"invalid contrecord length 24000 (expected 24524) at %P"},
		{"continuation: no length", onPage(func(h []byte) { le.PutUint32(h[16:], 0) }), nil, wal.Corrupt,
			"invalid contrecord length 0 (expected 24524) at %P"},
		{"resource manager: unknown", edit(func(b []byte) { b[17] = 22 }), nil, wal.Corrupt, "invalid resource manager ID 22 at %P"},
		{"resource manager: last unknown", edit(func(b []byte) { b[17] = 127 }), nil, wal.Corrupt, "invalid resource manager ID 127 at %P"},
		{"resource manager: unknown, the header split", func(w *waltest.Writer) pg.LSN {
			w.FillTo(smallWS + page - 8)
			r := waltest.Touch(1, 1, 50)
			r.Edit = func(b []byte) { b[17] = 22 }
			return w.Append(r).LSN
		}, nil, wal.Corrupt, "invalid resource manager ID 22 at %P"},
		{"link: not the record before", edit(func(b []byte) { b[8] ^= 8 }), nil, wal.Corrupt,
			"record with incorrect prev-link 0/10020 at %P"},
		{"link: forward, after a jump", edit(func(b []byte) { le.PutUint64(b[8:], 1<<40) }), func(at pg.LSN) pg.LSN { return at }, wal.Corrupt,
			"record with incorrect prev-link 100/0 at %P"},
		{"link: to itself, after a jump", edit(func(b []byte) { le.PutUint64(b[8:], 0x10068) }), func(at pg.LSN) pg.LSN { return at }, wal.Corrupt,
			"record with incorrect prev-link 0/10068 at %P"},
		{"checksum: one bit of the data", func(w *waltest.Writer) pg.LSN {
			r := waltest.Touch(1, 1, 50)
			r.Spoil = func(b []byte) { b[len(b)-1] ^= 1 }
			return write(r)(w)
		}, nil, wal.Corrupt, "incorrect resource manager data checksum in record at %P"},
		{"checksum: one bit of itself", func(w *waltest.Writer) pg.LSN {
			r := waltest.Touch(1, 1, 50)
			r.Spoil = func(b []byte) { b[20] ^= 1 }
			return write(r)(w)
		}, nil, wal.Corrupt, "incorrect resource manager data checksum in record at %P"},
		{"checksum: on the last page of a long record", onPage(func(h []byte) { h[2*page+50] ^= 1 }), nil, wal.Corrupt,
			"incorrect resource manager data checksum in record at %P"},
		{"blocks: too few bytes for the id alone", body(255), nil, wal.Corrupt, "record with invalid length at %P"},
		{"blocks: less data than said", body(255, 9, 1, 2), nil, wal.Corrupt, "record with invalid length at %P"},
		{"blocks: more data than said", body(255, 1, 1, 2), nil, wal.Corrupt, "record with invalid length at %P"},
		{"blocks: four gigabytes of main data", body(254, 0xFF, 0xFF, 0xFF, 0xFF, 1), nil, wal.Corrupt, "record with invalid length at %P"},
		{"blocks: out of order", body(append(append([]byte{1, 0, 0, 0}, blockRef...), append([]byte{0, 0, 0, 0}, blockRef...)...)...), nil, wal.Corrupt,
			"out-of-order block_id 0 at %P"},
		{"blocks: the same twice", body(append(append([]byte{1, 0, 0, 0}, blockRef...), append([]byte{1, 0, 0, 0}, blockRef...)...)...), nil, wal.Corrupt,
			"out-of-order block_id 1 at %P"},
		{"blocks: unknown id", body(33, 0, 0, 0), nil, wal.Corrupt, "invalid block_id 33 at %P"},
		{"blocks: unknown id, the last", body(251, 0, 0, 0), nil, wal.Corrupt, "invalid block_id 251 at %P"},
		{"blocks: data without bytes", body(append([]byte{0, 0x20, 0, 0}, blockRef...)...), nil, wal.Corrupt,
			"BKPBLOCK_HAS_DATA set, but no data included at %P"},
		{"blocks: bytes without data", body(append([]byte{0, 0, 7, 0}, blockRef...)...), nil, wal.Corrupt,
			"BKPBLOCK_HAS_DATA not set, but data length is 7 at %P"},
		{"blocks: same relation as none", body(0, 0x80, 0, 0, 1, 0, 0, 0), nil, wal.Corrupt,
			"BKPBLOCK_SAME_REL set but no previous rel at %P"},
		{"image: hole at the very start", body(imageRef(100, 0, 0x01)...), nil, wal.Corrupt,
			"BKPIMAGE_HAS_HOLE set, but hole offset 0 length 8092 block image length 100 at %P"},
		{"image: hole without length", body(imageRef(100, 24, 0x05, 0, 0)...), nil, wal.Corrupt,
			"BKPIMAGE_HAS_HOLE set, but hole offset 24 length 0 block image length 100 at %P"},
		{"image: hole in a whole page", body(imageRef(8192, 24, 0x01)...), nil, wal.Corrupt,
			"BKPIMAGE_HAS_HOLE set, but hole offset 24 length 0 block image length 8192 at %P"},
		{"image: no hole at a place", body(imageRef(8192, 24, 0)...), nil, wal.Corrupt,
			"BKPIMAGE_HAS_HOLE not set, but hole offset 24 length 0 at %P"},
		{"image: compressed to a page", body(imageRef(8192, 0, 0x04)...), nil, wal.Corrupt,
			"BKPIMAGE_COMPRESSED set, but block image length 8192 at %P"},
		{"image: short for no reason", body(imageRef(100, 0, 0)...), nil, wal.Corrupt,
			"BKPIMAGE_HAS_HOLE not set, but hole offset 0 length 8092 at %P"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := waltest.New(smallWS)
			at := c.damage(w)
			from := w.Records[0].LSN
			if c.from != nil {
				from = c.from(at)
			}
			_, err := readAll(t, w, w.Format, from)
			want := strings.ReplaceAll(c.want, "%P", at.String())
			if err.Reason != want || err.Kind != c.kind {
				t.Errorf("got kind %d: %s\nwant kind %d: %s", err.Kind, err.Reason, c.kind, want)
			}
		})
	}
}

// smallLog is a few pages in which everything occurs: pages without records, split headers, images, a switch, a record
// never finished, two timelines.
func smallLog() *waltest.Writer {
	w := waltest.New(16 << 10) // two pages
	w.Touch(1, 1)
	w.FillTo(w.Pos()&^(page-1) + page - 16)
	w.Append(waltest.Touch(2, 2, page))
	w.Append(waltest.Record{Rmgr: 11, Main: []byte("m"), Blocks: []waltest.Block{{Rel: rel(7), Block: 3, Image: image(900)}}})
	w.Abandon(waltest.Touch(3, 3, 3*page), 1)
	w.Checkpoint()
	w.Promote(2)
	w.Touch(4, 4)
	w.Switch()
	w.Touch(5, 5)
	w.Append(waltest.Touch(6, 6, 2*page))
	return w
}

// prefix reads the log again and checks that it reads as want, or as the beginning of want and an error: never as
// anything else. Timelines are not compared: they come from page headers, which have no checksum, and the decoder does
// not rely on them.
func prefix(t *testing.T, what func() string, r *wal.Reader, rec *wal.Record, want []wal.Record) (int, *wal.Error) {
	for i := 0; ; i++ {
		if err := r.Next(rec); err != nil {
			var we *wal.Error
			if !errors.As(err, &we) {
				t.Fatalf("%s: Next returned a %T: %v", what(), err, err)
			}
			return i, we
		}
		if i >= len(want) {
			t.Fatalf("%s: one more record, %+v", what(), rec)
		}
		if a, b := rec, &want[i]; a.LSN != b.LSN || a.End != b.End || a.Prev != b.Prev || a.TotalLen != b.TotalLen || a.XID != b.XID ||
			a.Rmgr != b.Rmgr || a.Info != b.Info || a.MainLen != b.MainLen || !bytes.Equal(a.Main, b.Main) || !slices.Equal(a.Blocks, b.Blocks) {
			t.Fatalf("%s: record %d is %+v", what(), i, rec)
		}
	}
}

// TestEveryBit flips every bit of a log, one at a time: what is read afterwards is what was written, or less and an
// error, never anything else.
func TestEveryBit(t *testing.T) {
	w := smallLog()
	start := w.Records[0].LSN
	want, _ := readAll(t, w, w.Format, start)
	if len(want) != len(w.Records) {
		t.Fatalf("read %d of %d records", len(want), len(w.Records))
	}
	flips, harmless := 0, 0
	step := 1
	if testing.Short() {
		step = 61
	}
	r := wal.NewReader(w.Format, w)
	var rec wal.Record
	for seg := start.Seg(w.Format.SegSize); w.File(seg) != nil; seg++ {
		file := w.File(seg)
		file = file[:min(len(bytes.TrimRight(file, "\x00"))+64, len(file))] // zeros at the end are all alike
		for bit := 0; bit < 8*len(file); bit += step {
			what := func() string { return fmt.Sprintf("segment %d, byte %d, bit %d", seg, bit/8, bit%8) }
			file[bit/8] ^= 1 << (bit % 8)
			r.Reset(w)
			r.Seek(start)
			n, err := prefix(t, what, r, &rec, want)
			if n == len(want) {
				harmless++
			} else if err.Kind == wal.Unreadable {
				t.Fatalf("%s: %v", what(), err)
			}
			flips++
			file[bit/8] ^= 1 << (bit % 8)
		}
	}
	t.Logf("%d of %d flips did no harm", harmless, flips)
	if harmless == 0 || harmless == flips {
		t.Error("the test did not flip what it was meant to")
	}
}

// TestEveryLength cuts every segment of a log at every length.
func TestEveryLength(t *testing.T) {
	w := smallLog()
	start := w.Records[0].LSN
	want, _ := readAll(t, w, w.Format, start)
	step := 1
	if testing.Short() {
		step = 127
	}
	r := wal.NewReader(w.Format, w)
	var rec wal.Record
	for seg := start.Seg(w.Format.SegSize); w.File(seg) != nil; seg++ {
		whole := w.File(seg)
		for n := 0; n < len(whole); n += step {
			what := func() string { return fmt.Sprintf("segment %d, %d bytes", seg, n) }
			w.Files[w.Name(seg)] = whole[:n:n]
			r.Reset(w)
			r.Seek(start)
			got, err := prefix(t, what, r, &rec, want)
			if got == len(want) && n < 100 {
				t.Fatalf("%s: nothing is missing", what())
			}
			if got < len(want) && err.Kind != wal.EndOfWAL {
				t.Fatalf("%s: kind %d, %v", what(), err.Kind, err)
			}
		}
		w.Files[w.Name(seg)] = whole
	}
}

// TestRecycledSegment reads to the end of a log whose last segment still holds what it was in its former life.
func TestRecycledSegment(t *testing.T) {
	w := waltest.New(smallWS)
	w.FillTo(4 * smallWS)
	old := slices.Clone(w.File(2))
	w = waltest.New(smallWS)
	w.FillTo(2*smallWS - 1000)
	w.Files["000000010000000000000002"] = old // recycled from segment 2 of the other log: the addresses fit
	binary.LittleEndian.PutUint64(old[8:], 0x4000)
	w.Append(waltest.Touch(1, 1, 100))
	w.FillTo(2 * smallWS)
	if _, err := readAll(t, w, w.Format, w.Records[0].LSN); err.Kind != wal.EndOfWAL {
		t.Errorf("kind %d: %v", err.Kind, err)
	}
}

type failing struct {
	*waltest.Log
	at  pg.LSN // the first byte that cannot be read
	err error
}

func (f *failing) ReadAt(p []byte, at pg.LSN) (int, error) {
	n, err := f.Log.ReadAt(p, at)
	if err == nil && at+pg.LSN(n) > f.at {
		return int(max(f.at, at) - at), f.err
	}
	return n, err
}

// TestUnreadable lets reading fail at every page: records before it are read, then the cause is handed on.
func TestUnreadable(t *testing.T) {
	w := waltest.New(1 << 20)
	waltest.Random(w, rand.New(rand.NewPCG(7, 7)), 600)
	cause := errors.New("the disk said no")
	for at := w.Records[0].LSN &^ (page - 1); at < w.Pos(); at += 37*page + 100 {
		got, err := readAll(t, &failing{w.Log, at, cause}, w.Format, w.Records[0].LSN)
		want := 0
		for _, r := range w.Records {
			if r.End > at&^(page-1) {
				break
			}
			want++
		}
		if err.Kind == wal.EndOfWAL {
			continue // the place lies behind a switch's end, or in the log's last page
		}
		if err.Kind != wal.Unreadable || !errors.Is(err, cause) {
			t.Fatalf("at %v: kind %d, %v", at, err.Kind, err)
		}
		if len(got) < want {
			t.Fatalf("at %v: read %d records, %d lie before it", at, len(got), want)
		}
	}
}
