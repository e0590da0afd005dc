package copier_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// samePage is a source that has the same page everywhere, and gives it without delay and without a copy.
type samePage []byte

func (s samePage) Fetch(_ context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	for i, r := range ranges {
		if err := emit(i, pg.FileChunk{Data: s[:r.Length]}); err != nil {
			return err
		}
	}
	return nil
}

// chunkTarget is a target with one file of so many pages, and a plan that writes one in two of them.
func chunkTarget(tb testing.TB, chunks int) (fsx.FS, *plan.Plan) {
	dir := tb.TempDir()
	size := int64(2*chunks) * pg.BlockSize
	path := filepath.Join(dir, "16384")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		tb.Fatal(err)
	}
	fs, err := fsx.OpenTarget(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { fs.Close() })
	a := plan.Action{Path: "16384", Kind: plan.None, Type: pg.RegularFile, SourceSize: size, TargetSize: size, PresentSize: size}
	for i := range int64(chunks) {
		a.Blocks = append(a.Blocks, plan.Span{Offset: 2 * i * pg.BlockSize, Length: pg.BlockSize})
	}
	return fs, &plan.Plan{Actions: []plan.Action{a}}
}

func writeChunks(tb testing.TB, fs fsx.FS, p *plan.Plan) {
	c := copier.New(fs, copier.Options{Jobs: 1, FileMode: 0o600, DirMode: 0o700, Sync: copier.SyncNone})
	if err := c.Run(tb.Context(), make(samePage, pg.BlockSize), p); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkChunkWrite is what a scattered page costs the copier when source and disk take no time: batches, bookkeeping, and
// the write itself into the page cache.
func BenchmarkChunkWrite(b *testing.B) {
	const chunks = 4096
	fs, p := chunkTarget(b, chunks)
	b.SetBytes(chunks * pg.BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		writeChunks(b, fs, p)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/chunk")
}

// TestChunkWriteAllocatesNothing compares runs of few and of many chunks: what they allocate is for the run, for the file,
// and for batches that are used again, so there is next to nothing more for thousands of chunks more.
func TestChunkWriteAllocatesNothing(t *testing.T) {
	const few, many = 4096, 3 * 4096
	allocs := func(chunks int) float64 {
		fs, p := chunkTarget(t, chunks)
		writeChunks(t, fs, p)
		return testing.AllocsPerRun(3, func() { writeChunks(t, fs, p) })
	}
	if n := allocs(many) - allocs(few); n > (many-few)/50 {
		t.Errorf("%v allocations more for %d chunks more", n, many-few)
	}
}
