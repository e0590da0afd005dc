package wal_test

import (
	"math/rand/v2"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/internal/wal/waltest"
)

// imageLog is some 16 MiB of WAL as just after a checkpoint: nearly every record carries a page.
func imageLog() *waltest.Writer {
	w := waltest.New(16 << 20)
	for i := pg.BlockNo(0); w.Pos() < 2*16<<20-100<<10; i++ {
		r := waltest.Touch(1, i, 60)
		r.Blocks[0].Image = image(7000 + int(i%1192))
		w.Append(r)
		w.Touch(1, i)
	}
	return w
}

// recordLog is some 16 MiB of WAL as long after a checkpoint: small records only.
func recordLog() *waltest.Writer {
	w := waltest.New(16 << 20)
	for i := pg.BlockNo(0); w.Pos() < 2*16<<20-100<<10; i++ {
		r := waltest.Touch(1, i%1000, 20)
		r.Blocks = append(r.Blocks, waltest.Block{ID: 1, Rel: r.Blocks[0].Rel, Block: i, Data: make([]byte, 20)})
		w.Append(r)
	}
	return w
}

func readThrough(tb testing.TB, r *wal.Reader, rec *wal.Record, w *waltest.Writer) {
	r.Reset(w)
	r.Seek(w.Records[0].LSN)
	for range w.Records {
		if err := r.Next(rec); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestNoAllocation reads logs of every shape with a reader and a record that exist already: nothing is allocated.
func TestNoAllocation(t *testing.T) {
	random := waltest.New(1 << 20)
	waltest.Random(random, rand.New(rand.NewPCG(3, 3)), 1000)
	for name, w := range map[string]*waltest.Writer{"images": imageLog(), "small records": recordLog(), "random": random} {
		r := wal.NewReader(w.Format, w)
		var rec wal.Record
		// A segment's name is made when it is opened, by the source: here, by waltest.
		perSegment := testing.AllocsPerRun(3, func() {
			var b [page]byte
			for at := w.Records[0].LSN &^ (page - 1); at < w.Pos(); at += 256 << 10 {
				_, _ = w.ReadAt(b[:], at)
			}
		})
		if n := testing.AllocsPerRun(3, func() { readThrough(t, r, &rec, w) }); n > 4*perSegment+10 {
			t.Errorf("%s: %.0f allocations for %d records; the source makes about %.0f", name, n, len(w.Records), perSegment)
		}
	}
}

func benchmarkReader(b *testing.B, w *waltest.Writer) {
	r := wal.NewReader(w.Format, w)
	var rec wal.Record
	b.SetBytes(int64(w.Pos() - w.Records[0].LSN))
	b.ReportAllocs()
	for b.Loop() {
		readThrough(b, r, &rec, w)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(w.Records)), "ns/record")
}

func BenchmarkImages(b *testing.B)       { benchmarkReader(b, imageLog()) }
func BenchmarkSmallRecords(b *testing.B) { benchmarkReader(b, recordLog()) }

// BenchmarkFloor is what no decoder can beat: the same copy into a window, and the checksum of it all.
func BenchmarkFloor(b *testing.B) {
	w := imageLog()
	window := make([]byte, 256<<10)
	b.SetBytes(int64(w.Pos() - w.Records[0].LSN))
	for b.Loop() {
		for at := pg.LSN(w.Format.SegSize); at < w.Pos(); at += pg.LSN(len(window)) {
			n, err := w.ReadAt(window, at)
			if err != nil {
				b.Fatal(err)
			}
			_ = pg.CRC32C(window[:n])
		}
	}
}
