package scan_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/internal/wal/waltest"
	"github.com/fastrewind/fastrewind/scan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shardings are the ways in which the small logs below are cut: by pages, by segments, across them, not at all.
var shardings = []int64{page, 3 * page, segLen / 2, segLen, 3 * segLen, 5*page + 2*segLen, 1 << 30}

// holds runs the scan with every sharding and compares with stock.
func holds(t *testing.T, l *waltest.Log, divergence, end pg.LSN) {
	t.Helper()
	checkpoint, refs, records, err := stock(l, divergence, end)
	if err != nil {
		t.Fatalf("the test's own log: %v", err)
	}
	for _, shard := range shardings {
		for _, jobs := range []int{1, 3} {
			res, err := run(l, divergence, end, shard, jobs)
			if err != nil {
				t.Errorf("shards of %d, %d jobs: %v", shard, jobs, err)
				continue
			}
			if got := refsOf(res.Blocks); res.Checkpoint != checkpoint || res.Records != records || !maps.Equal(got, refs) {
				t.Errorf("shards of %d, %d jobs: checkpoint %v, %d records; stock: %v, %d; %s", shard, jobs, res.Checkpoint, res.Records, checkpoint, records, difference(got, refs))
			}
		}
	}
}

// fails runs the scan with every sharding and wants an error with all of the texts in it.
func fails(t *testing.T, l *waltest.Log, divergence, end pg.LSN, texts ...string) {
	t.Helper()
	for _, shard := range shardings {
		_, err := run(l, divergence, end, shard, 2)
		if err == nil {
			t.Errorf("shards of %d: no error", shard)
			continue
		}
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Errorf("shards of %d: %T: %v", shard, err, err)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("shards of %d: %q, want %q in it", shard, err, text)
			}
		}
	}
}

func segment(n int) pg.LSN { return pg.LSN(n * segLen) }

// TestSeams: records and gaps of every kind across the borders of shards.
func TestSeams(t *testing.T) {
	for name, write := range map[string]func(w *waltest.Writer){
		"record ends at a border": func(w *waltest.Writer) { w.FillTo(segment(3)); w.Touch(9, 9) },
		"record ends before a border, the next begins behind it": func(w *waltest.Writer) {
			w.FillTo(segment(3) - 24)
			w.Append(waltest.Noop(24))
			w.Touch(9, 9)
		},
		"header split over a border":       func(w *waltest.Writer) { w.FillTo(segment(3) - 8); w.Touch(9, 9); w.Touch(9, 10) },
		"record over a border":             func(w *waltest.Writer) { w.FillTo(segment(3) - 40); w.Touch(9, 9); w.Touch(9, 10) },
		"record over many segments":        func(w *waltest.Writer) { w.Append(waltest.Touch(9, 9, 7*segLen+300)); w.Touch(9, 10) },
		"record from a border to a border": func(w *waltest.Writer) { w.FillTo(segment(3)); w.FillTo(segment(8)); w.Touch(9, 9) },
		"records over many segments, one after the other": func(w *waltest.Writer) {
			for i := range pg.BlockNo(4) {
				w.Append(waltest.Touch(9, i, 2*segLen))
			}
		},
		"switch":                     func(w *waltest.Writer) { w.Switch(); w.Touch(9, 9) },
		"switches one after another": func(w *waltest.Writer) { w.Switch(); w.Switch(); w.Switch(); w.Touch(9, 9) },
		"switch at a border":         func(w *waltest.Writer) { w.FillTo(segment(3)); w.Switch(); w.Touch(9, 9) },
		"switch split over a border": func(w *waltest.Writer) { w.FillTo(segment(3) - 8); w.Switch(); w.Touch(9, 9) },
		"switch that ends at a border": func(w *waltest.Writer) {
			w.FillTo(segment(3) - 24)
			w.Switch()
			w.Touch(9, 9)
		},
		"never finished, in one shard": func(w *waltest.Writer) { w.Abandon(waltest.Touch(9, 9, 3*page), 1); w.Touch(9, 10) },
		"never finished, over a border": func(w *waltest.Writer) {
			w.FillTo(segment(3) - 400)
			w.Abandon(waltest.Touch(9, 9, 3*page), 1)
			w.Touch(9, 10)
		},
		"never finished, over many segments": func(w *waltest.Writer) {
			w.Abandon(waltest.Touch(9, 9, 9*segLen), 4*segLen/page+3)
			w.Touch(9, 10)
		},
		// Then nothing else begins in that shard.
		"never finished, the first and only one of its segment": func(w *waltest.Writer) {
			w.FillTo(segment(3))
			w.Abandon(waltest.Touch(9, 9, 9*segLen), segLen/page+2)
			w.Touch(9, 10)
		},
		"never finished, up to a border": func(w *waltest.Writer) {
			w.FillTo(segment(3))
			w.Abandon(waltest.Touch(9, 9, 9*segLen), 2*segLen/page)
			w.Touch(9, 10)
		},
		"never finished, behind a switch": func(w *waltest.Writer) {
			w.Switch()
			w.Abandon(waltest.Touch(9, 9, 9*segLen), segLen/page+2)
			w.Touch(9, 10)
		},
		"never finished, twice": func(w *waltest.Writer) {
			w.FillTo(segment(3))
			w.Abandon(waltest.Touch(9, 9, 9*segLen), segLen/page)
			w.Abandon(waltest.Touch(9, 9, 9*segLen), segLen/page)
			w.Touch(9, 10)
		},
		"promotion within a page": func(w *waltest.Writer) { w.Promote(2); w.Touch(9, 9); w.FillTo(segment(4)); w.Touch(9, 10) },
		"promotion at a border":   func(w *waltest.Writer) { w.FillTo(segment(3)); w.Promote(2); w.Touch(9, 9) },
		"promotion where a record was never finished": func(w *waltest.Writer) {
			w.FillTo(segment(3) - 400)
			w.AbandonAt(waltest.Touch(9, 9, 3*page), 1)
			w.Promote(2)
			w.Overwrite()
			w.Touch(9, 9)
		},
		"promotions one after another": func(w *waltest.Writer) {
			for tli := range pg.TLI(5) {
				w.Promote(2 + 2*tli)
				w.Touch(9, pg.BlockNo(tli))
			}
			w.FillTo(segment(4))
			w.Promote(50)
			w.Touch(9, 99)
		},
		"promotion behind a switch": func(w *waltest.Writer) { w.Switch(); w.Promote(2); w.Touch(9, 9) },
	} {
		t.Run(name, func(t *testing.T) {
			w := waltest.New(segLen)
			w.Touch(1, 1)
			w.Checkpoint()
			w.FillTo(segment(2) + 100*8)
			before := w.Touch(2, 2)
			write(w)
			after := w.Touch(3, 3)
			// The servers parted before it, and behind it; and the target ends with it.
			holds(t, w.Log, before.End, after.End)
			holds(t, w.Log, w.Records[len(w.Records)-2].End, after.End)
			if at := w.Records[len(w.Records)-2]; at.LSN > before.LSN {
				holds(t, w.Log, before.End, at.End)
			}
			w.Checkpoint()
			divergence := w.Pos()
			end := w.Touch(4, 4).End
			holds(t, w.Log, divergence, end)
		})
	}
}

// history is a log on two timelines: a checkpoint in segment 1 and in segment 4, the divergence in segment 6.
func history() (w *waltest.Writer, divergence, end pg.LSN) {
	w = waltest.New(segLen)
	w.Checkpoint()
	fill := func(to pg.LSN) {
		for i := pg.BlockNo(0); w.Pos() < to; i++ {
			w.Append(waltest.Touch(1, i, 300))
		}
	}
	fill(segment(4) + 20*page/10)
	w.Checkpoint()
	fill(segment(6) + 1000)
	divergence = w.Pos()
	fill(segment(8) + 1000)
	w.Promote(2)
	fill(segment(9) + 1000)
	return w, divergence, w.Pos()
}

// TestCheckpoints: which checkpoint is the last before the divergence.
func TestCheckpoints(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(w *waltest.Writer) (checkpoint, divergence pg.LSN)
	}{
		{"the record before", func(w *waltest.Writer) (pg.LSN, pg.LSN) { c := w.Checkpoint(); return c.LSN, c.End }},
		{"the divergence itself is one: not that", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			c := w.Checkpoint()
			w.Touch(1, 1)
			d := w.Pos()
			w.Checkpoint()
			return c.LSN, d
		}},
		{"the divergence itself is one, at a border: not that", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			c := w.Checkpoint()
			w.FillTo(segment(3))
			d := w.Pos()
			w.Checkpoint()
			return c.LSN, d
		}},
		{"at a shard's start", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			w.Checkpoint()
			w.FillTo(segment(3))
			c := w.Checkpoint()
			w.Touch(1, 1)
			return c.LSN, w.Pos()
		}},
		{"over a border", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			w.Checkpoint()
			w.FillTo(segment(3) - 16)
			c := w.Checkpoint()
			w.Touch(1, 1)
			return c.LSN, w.Pos()
		}},
		{"several in one shard", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			for range 3 {
				w.Checkpoint()
				w.Touch(7, 7)
			}
			c := w.Checkpoint()
			return c.LSN, w.Touch(1, 1).End
		}},
		{"a shutdown's", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			w.Checkpoint()
			r := waltest.Checkpoint(wal.SkipPageHeader(w.Pos(), segLen), 1)
			r.Info = wal.XLOGCheckpointShutdown
			c := w.Append(r)
			return c.LSN, w.Touch(1, 1).End
		}},
		{"many segments back", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			c := w.Checkpoint()
			for w.Pos() < segment(30) {
				w.Append(waltest.Touch(1, pg.BlockNo(w.Pos()/100), 2000))
			}
			return c.LSN, w.Pos()
		}},
		{"one on either side", func(w *waltest.Writer) (pg.LSN, pg.LSN) {
			c := w.Checkpoint()
			w.FillTo(segment(3))
			d := w.Pos()
			w.FillTo(segment(5))
			w.Checkpoint()
			return c.LSN, d
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := waltest.New(segLen)
			w.Checkpoint()
			w.Touch(1, 100)
			want, divergence := c.write(w)
			end := w.Touch(5, 5).End
			holds(t, w.Log, divergence, end)
			res, err := run(w.Log, divergence, end, 0, 2)
			if err != nil || res.Checkpoint != want || res.Redo != want || res.CheckpointTLI != 1 {
				t.Errorf("%+v, %v; want the checkpoint at %v", res, err, want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		w := waltest.New(segLen)
		w.Touch(1, 1)
		w.FillTo(segment(3))
		d := w.Touch(1, 1).End
		fails(t, w.Log, d, w.Touch(1, 2).End, "could not find previous WAL record at ")
	})
	t.Run("of the wrong size", func(t *testing.T) {
		w := waltest.New(segLen)
		r := waltest.Checkpoint(0, 1)
		r.Main = r.Main[:80]
		w.Append(r)
		d := w.Touch(1, 1).End
		fails(t, w.Log, d, w.Touch(1, 2).End, "checkpoint record of 80 bytes, expected 88")
	})
}

// TestBroken: logs whose segments or records do not fit together.
func TestBroken(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name  string
		spoil func(w *waltest.Writer)
		texts []string
	}{
		{"a segment is missing", func(w *waltest.Writer) { delete(w.Files, w.Name(7)) },
			[]string{"could not read WAL record at "}},
		{"the first segment is missing", func(w *waltest.Writer) { delete(w.Files, w.Name(4)) },
			[]string{"could not find previous WAL record at "}},
		{"the last segment is missing", func(w *waltest.Writer) { delete(w.Files, w.Name(9)) },
			[]string{"could not read WAL record at "}},
		{"a segment is on the wrong timeline", func(w *waltest.Writer) {
			w.Files["000000010000000000000009"] = w.File(9)
			delete(w.Files, w.Name(9))
		}, []string{"could not read WAL record at "}},
		{"a segment is there twice", func(w *waltest.Writer) { w.Files[w.Name(7)] = w.File(6) }, []string{"unexpected pageaddr 0/60000"}},
		{"two segments are swapped", func(w *waltest.Writer) {
			w.Files[w.Name(7)], w.Files[w.Name(6)] = w.File(6), w.File(7)
		}, []string{"unexpected pageaddr 0/"}},
		{"a segment is of zeros", func(w *waltest.Writer) { clear(w.File(7)) }, []string{"invalid magic number 0000 in log segment 000000010000000000000007, offset 0"}},
		{"a segment is empty", func(w *waltest.Writer) { w.Files[w.Name(7)] = []byte{} }, []string{"WAL segment 000000010000000000000007 ends before 0/70000"}},
		{"a segment is cut", func(w *waltest.Writer) { w.Files[w.Name(7)] = w.File(7)[:5*page+10] },
			[]string{"WAL segment 000000010000000000000007 ends before 0/7A000"}},
		{"a segment is of another system", func(w *waltest.Writer) { le.PutUint64(w.File(7)[24:], 1) }, []string{"WAL file is from different database system"}},
		{"a bit of a record", func(w *waltest.Writer) { w.At(segment(7) + 3*page + 200)[0] ^= 4 }, []string{"could not read WAL record at "}},
		{"a page of zeros", func(w *waltest.Writer) { clear(w.At(segment(7) + 3*page)[:page]) }, []string{"invalid magic number 0000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, divergence, end := history()
			holds(t, w.Log, divergence, end)
			c.spoil(w)
			fails(t, w.Log, divergence, end, c.texts...)
		})
	}
}

// TestForeignSegment puts a segment into a log that is good in itself, and even of the same cluster, but of another
// history: only the links across its borders tell.
func TestForeignSegment(t *testing.T) {
	write := func(main int) *waltest.Writer {
		w := waltest.New(segLen)
		w.Checkpoint()
		w.Touch(1, 1)
		w.FillTo(segment(2)) // with another length, the link of the record behind it differs
		if main > 0 {
			w.Rewrite(w.Last().LSN, w.Last().Prev)
			w.Append(waltest.Noop(main))
			w.FillTo(segment(2))
		}
		for range 3 {
			w.FillTo(w.Pos() + segLen/2)
			w.FillTo(w.Pos()&^(segLen-1) + segLen)
		}
		w.Touch(1, 2)
		return w
	}
	a, b := write(0), write(200)
	for _, w := range []*waltest.Writer{a, b} {
		holds(t, w.Log, w.Records[3].End, w.Pos())
	}
	a.Files[a.Name(2)] = b.File(2)
	fails(t, a.Log, segment(3), a.Pos(), "record with incorrect prev-link 0/101A8 at 0/20028")
}

// TestEnd: the end of the target's WAL is where its control file says, or it is wrong.
func TestEnd(t *testing.T) {
	w, divergence, end := history()
	for _, wrong := range []pg.LSN{end - 8, end - 24, end + 8, end + 3*segLen, divergence + 8} {
		for _, shard := range shardings {
			_, err := run(w.Log, divergence, wrong, shard, 2)
			if err == nil {
				t.Errorf("end %v instead of %v, shards of %d: no error", wrong, end, shard)
			} else if wrong < end && !strings.HasPrefix(err.Error(), fmt.Sprintf("end pointer %v is not a valid end point; expected ", wrong)) {
				t.Errorf("end %v instead of %v, shards of %d: %v", wrong, end, shard, err)
			}
		}
	}
	// Every record's end is one.
	for _, r := range w.Records {
		if r.LSN >= divergence && r.LSN < divergence+2*page {
			if _, err := run(w.Log, divergence, r.End, 0, 2); err != nil {
				t.Errorf("end %v: %v", r.End, err)
			}
		}
	}
}

// TestDivergenceWithinRecord: if no record of the target ends where the source's history forks, it is not the target's
// history.
func TestDivergenceWithinRecord(t *testing.T) {
	w, divergence, end := history()
	fails(t, w.Log, divergence+8, end, fmt.Sprintf("could not find previous WAL record at %v", divergence+8))
}

// TestSpecialRecords: a record that changes files in a way nobody knows is fatal; stock's text.
func TestSpecialRecords(t *testing.T) {
	special := func(rmgr, info uint8) waltest.Record {
		return waltest.Record{Rmgr: rmgr, Info: info, Main: []byte("x")}
	}
	for _, c := range []struct {
		rmgr, info uint8
		text       string
	}{
		{0, 0x20 | 1, "rmid: 0, rmgr: XLOG, info: 21"},
		{1, 0x10 | 1, "rmid: 1, rmgr: Transaction, info: 11"}, // prepare
		{1, 0x50 | 1, "rmid: 1, rmgr: Transaction, info: 51"},
		{2, 0x30 | 1, "rmid: 2, rmgr: Storage, info: 31"},
		{4, 0x30 | 1, "rmid: 4, rmgr: Database, info: 31"},
		{5, 0x00 | 1, "rmid: 5, rmgr: Tablespace, info: 01"},
		{10, 0xF0 | 3, "rmid: 10, rmgr: Heap, info: F3"},
		{21, 1, "rmid: 21, rmgr: LogicalMessage, info: 01"},
		{200, 0x51, "rmid: 200, rmgr: custom, info: 51"},
	} {
		w, divergence, _ := history()
		at := w.Append(special(c.rmgr, c.info))
		fails(t, w.Log, divergence, w.Pos(), fmt.Sprintf(
			"WAL record modifies a relation, but record type is not recognized: lsn: %v, %s", at.LSN, c.text))
	}
	// Known ones are not. Two of them note a block as well.
	w, divergence, _ := history()
	for _, r := range [][2]uint8{
		{1, 0x00 | 1}, {1, 0x80 | 1}, {1, 0x20 | 1}, {1, 0xA0 | 1}, {1, 0x30 | 1}, {1, 0xB0 | 1}, {1, 0x40 | 1}, {1, 0xC0 | 1},
		{2, 0x10 | 1}, {2, 0x20 | 1}, {4, 0x00 | 1}, {4, 0x10 | 1}, {4, 0x20 | 1},
	} {
		rec := waltest.Touch(4711, pg.BlockNo(r[0])*1000+pg.BlockNo(r[1]), 10)
		rec.Rmgr, rec.Info = r[0], r[1]
		w.Append(rec)
	}
	res, err := run(w.Log, divergence, w.Pos(), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range res.Blocks.Blocks(pg.RelFile{Rel: pg.Rel{Tablespace: 1663, Database: 5, Number: 4711}}) {
		n++
	}
	if n != 13 {
		t.Errorf("%d blocks were noted of 13", n)
	}
}

// TestRemade: what the target alone made anew, be it new, is noted; not what both have made.
func TestRemade(t *testing.T) {
	oids := func(all ...uint32) (main []byte) {
		for _, oid := range append(all, 0) {
			main = binary.LittleEndian.AppendUint32(main, oid)
		}
		return main
	}
	storage := func(number uint32) waltest.Record {
		return waltest.Record{Rmgr: wal.RmgrStorage, Info: wal.StorageCreate | wal.InfoSpecialRelUpdate, Main: oids(1663, 5, number)}
	}
	database := func(database, tablespace uint32) waltest.Record {
		return waltest.Record{Rmgr: wal.RmgrDatabase, Info: wal.InfoSpecialRelUpdate, Main: oids(database, tablespace, 1, 1663)}
	}
	w := waltest.New(segLen)
	w.Checkpoint()
	w.Append(storage(1))
	w.Append(database(1, 1663))
	divergence := w.Touch(1, 1).End
	w.Append(storage(2))
	w.Append(storage(2)) // another fork
	w.Append(database(7, 1664))
	end := w.Touch(1, 2).End
	made := pg.RelFile{Rel: pg.Rel{Tablespace: 1663, Database: 5, Number: 2}}
	moved := pg.RelFile{Rel: pg.Rel{Tablespace: 1664, Database: 7, Number: 9}, Segment: 3}
	for _, shard := range shardings {
		res, err := run(w.Log, divergence, end, shard, 2)
		if err != nil {
			t.Fatal(err)
		}
		chunks, _ := encoded(t, res.Blocks)
		again, err := decoded(chunks)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*scan.BlockMap{res.Blocks, again.Map()} {
			var got []pg.RelFile
			for f := range m.Files() {
				if f.IsRemade() {
					got = append(got, f)
				}
			}
			slices.SortFunc(got, func(a, b pg.RelFile) int { return cmp.Compare(a.Tablespace, b.Tablespace) })
			if want := []pg.RelFile{made.RemadeBy()[0], moved.RemadeBy()[1]}; !slices.Equal(got, want) {
				t.Errorf("shards of %d: %+v, want %+v", shard, got, want)
			}
		}
	}
}

// TestCheckSegment: a segment is good if it is in order as far as it goes; what a crash left of it is not.
func TestCheckSegment(t *testing.T) {
	w, _, end := history()
	check := func(seg pg.SegNo, limit pg.LSN) error {
		return scan.CheckSegment(t.Context(), logSegments{Log: w.Log}, w.Format, w.History, seg, limit)
	}
	for seg := segment(2).Seg(segLen); seg <= end.Seg(segLen); seg++ {
		if err := check(seg, end); err != nil {
			t.Errorf("segment %d: %v", seg, err)
		}
	}
	seg := segment(5).Seg(segLen)
	whole := bytes.Clone(w.File(seg))
	for name, spoil := range map[string]func(b []byte){
		"zeroes from the middle of a page on": func(b []byte) { clear(b[2*page+700:]) },
		"zeroes from a page on":               func(b []byte) { clear(b[2*page:]) },
		"what the segment held before":        func(b []byte) { copy(b[2*page:], w.File(seg - 1)[2*page:]) },
		"one bit":                             func(b []byte) { b[page+100] ^= 1 },
	} {
		spoil(w.File(seg))
		if check(seg, end) == nil {
			t.Errorf("%s: taken for good", name)
		}
		copy(w.File(seg), whole)
	}
}

// TestSpecialRecordBeforeCheckpoint: what happened before the common checkpoint is common, and nobody's business.
func TestSpecialRecordBeforeCheckpoint(t *testing.T) {
	w := waltest.New(segLen)
	w.Checkpoint()
	w.Append(waltest.Record{Rmgr: 200, Info: 1, Main: []byte("x")})
	want := w.Checkpoint()
	divergence := w.Touch(1, 1).End
	end := w.Touch(1, 2).End
	for _, shard := range shardings {
		if res, err := run(w.Log, divergence, end, shard, 2); err != nil || res.Checkpoint != want.LSN {
			t.Errorf("shards of %d: %+v, %v", shard, res, err)
		}
	}
	// Between the checkpoint and the divergence it does matter.
	w.Append(waltest.Record{Rmgr: 200, Info: 1, Main: []byte("x")})
	divergence = w.Touch(1, 1).End
	fails(t, w.Log, divergence, w.Touch(1, 3).End, "record type is not recognized")
}

// TestSpeculation: what is read ahead of need may be as bad as it likes.
func TestSpeculation(t *testing.T) {
	w, divergence, end := history()
	for _, spoil := range []func(seg pg.SegNo){
		func(seg pg.SegNo) { delete(w.Files, w.Name(seg)) },
		func(seg pg.SegNo) { clear(w.File(seg)) },
		func(seg pg.SegNo) { w.Files[w.Name(seg)] = []byte("short") },
	} {
		for seg := pg.SegNo(1); seg < 4; seg++ {
			spoil(seg)
		}
		for range 5 {
			if _, err := run(w.Log, divergence, end, 0, 8); err != nil {
				t.Fatal(err)
			}
		}
		w, divergence, end = history()
	}
}

// TestReadOnce: each segment is opened once, and none is opened that could not matter.
func TestReadOnce(t *testing.T) {
	w, divergence, end := history()
	var mu sync.Mutex
	opened := make(map[pg.SegNo]int)
	segs := logSegments{Log: w.Log, opened: func(seg pg.SegNo) error {
		mu.Lock()
		defer mu.Unlock()
		opened[seg]++
		return nil
	}}
	if _, err := scan.Run(context.Background(), segs, scan.Input{Format: w.Format, History: w.History, Divergence: divergence, End: end, Jobs: 1}); err != nil {
		t.Fatal(err)
	}
	for seg, n := range opened {
		// A shard reads past its end to finish its last record.
		if n > 2 || seg < 4 || seg > 9 {
			t.Errorf("segment %d was opened %d times", seg, n)
		}
	}
}

// TestCancel ends a run from outside, while segments are being waited for.
func TestCancel(t *testing.T) {
	w, divergence, end := history()
	for after := range int64(12) {
		ctx, cancel := context.WithCancel(context.Background())
		var n atomic.Int64
		segs := logSegments{Log: w.Log, opened: func(pg.SegNo) error {
			if n.Add(1) > after {
				cancel()
				return ctx.Err()
			}
			return nil
		}}
		done := make(chan error, 1)
		go func() {
			_, err := scan.Run(ctx, segs, scan.Input{Format: w.Format, History: w.History, Divergence: divergence, End: end, Jobs: 3, ShardBytes: 2 * page})
			done <- err
		}()
		select {
		case err := <-done:
			if ctx.Err() != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled at segment %d: %v", after, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("cancelled at segment %d: it goes on", after)
		}
		cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := scan.Run(ctx, logSegments{Log: w.Log}, scan.Input{Format: w.Format, History: w.History, Divergence: divergence, End: end, Jobs: 3}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled from the beginning: %v", err)
	}
}

// TestUnreadable hands on what the provider of segments says, as a cause and in its words.
func TestUnreadable(t *testing.T) {
	w, divergence, end := history()
	cause := fault.Because(fs.ErrPermission, "could not open file \"x\": Permission denied").Advise("do this")
	for seg := pg.SegNo(4); seg <= 9; seg++ {
		segs := logSegments{Log: w.Log, opened: func(s pg.SegNo) error {
			if s == seg {
				return cause
			}
			return nil
		}}
		for _, shard := range shardings {
			_, err := scan.Run(context.Background(), segs, scan.Input{Format: w.Format, History: w.History, Divergence: divergence, End: end, Jobs: 2, ShardBytes: shard})
			var f *fault.Error
			if !errors.As(err, &f) || !errors.Is(err, fs.ErrPermission) || !errors.Is(err, cause) {
				t.Errorf("segment %d, shards of %d: %v", seg, shard, err)
			}
		}
	}
}

// TestProgress: what is reported adds up.
func TestProgress(t *testing.T) {
	w, divergence, end := history()
	for _, shard := range shardings[:4] {
		var done, total atomic.Int64
		_, err := scan.Run(context.Background(), logSegments{Log: w.Log}, scan.Input{
			Format: w.Format, History: w.History, Divergence: divergence, End: end, Jobs: 2, ShardBytes: shard,
			Progress: func(d, more int64) {
				if d < 0 {
					t.Errorf("shards of %d: %d bytes done", shard, d)
				}
				done.Add(d)
				total.Add(more)
			},
		})
		if err != nil || done.Load() != total.Load() || total.Load() < int64(end-segment(6)) {
			t.Errorf("shards of %d: %d of %d bytes, %v", shard, done.Load(), total.Load(), err)
		}
	}
}

func TestRecordEnd(t *testing.T) {
	w, _, _ := history()
	segs := logSegments{Log: w.Log}
	for _, r := range w.Records[:50] {
		if end, err := scan.RecordEnd(context.Background(), segs, w.Format, w.History, r.LSN); err != nil || end != r.End {
			t.Fatalf("%v ends at %v, %v; want %v", r.LSN, end, err, r.End)
		}
	}
	for at, text := range map[pg.LSN]string{
		w.Records[3].LSN + 8: "could not read WAL record at " + (w.Records[3].LSN + 8).String() + ": ",
		w.Pos():              "could not read WAL record at " + w.Pos().String() + ": invalid record length at " + w.Pos().String() + ": wanted 24, got 0",
		3:                    "could not read WAL record at 0/3",
		segment(77) + 40:     "could not read WAL record at 0/4D0028",
	} {
		if _, err := scan.RecordEnd(context.Background(), segs, w.Format, w.History, at); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v, want %s", at, err, text)
		}
	}
}

// TestForkAtPage: the fork is at the start of a page, in which a record of the target goes on, or would have.
func TestForkAtPage(t *testing.T) {
	start := func() *waltest.Writer {
		w := waltest.New(segLen)
		w.Touch(1, 1)
		w.Checkpoint()
		w.FillTo(segment(3) - 64)
		return w
	}
	t.Run("the target overwrote the record", func(t *testing.T) {
		for _, pages := range []int{1, 2} {
			w := start()
			w.AbandonAt(waltest.Touch(9, 9, 3*page), pages)
			fork := w.Pos()
			w.Overwrite()
			holds(t, w.Log, fork, w.Touch(7, 7).End)
		}
	})
	for name, r := range map[string]waltest.Record{
		"the target has the record": waltest.Touch(9, 9, 3*page), "it is a checkpoint": waltest.Checkpoint(0x10028, 1),
		"it is a switch": {Rmgr: wal.RmgrXLOG, Info: wal.XLOGSwitch},
	} {
		t.Run(name, func(t *testing.T) {
			w := start()
			if name == "it is a switch" {
				w.FillTo(segment(3) - 16)
			}
			w.Append(r)
			fails(t, w.Log, segment(3), w.Touch(7, 7).End, "could not find previous WAL record at 0/30000")
		})
	}
}

// TestEndAtPage: the last record begins in an earlier shard and ends with a page; no page behind it was ever written.
func TestEndAtPage(t *testing.T) {
	for _, end := range []pg.LSN{segment(5) + 2*page, segment(5) + page, segment(6)} {
		w := waltest.New(segLen)
		w.Checkpoint()
		divergence := w.Touch(1, 1).End
		w.Touch(1, 2)
		w.FillTo(end)
		for _, file := range []pg.SegNo{6, 7} {
			delete(w.Files, w.Name(file))
		}
		holds(t, w.Log, divergence, end)
		if end < segment(6) {
			w.Files[w.Name(5)] = w.File(5)[:end-segment(5)]
			holds(t, w.Log, divergence, end)
		}
	}
}
