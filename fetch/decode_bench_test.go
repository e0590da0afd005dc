package fetch

import (
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// chunkRow is a row as the server sends it for a range of 64 kB.
func chunkRow() ([][]byte, pg.FileRange) {
	r := pg.FileRange{Path: "base/16384/16385.1", Offset: 1 << 20, Length: 64 << 10}
	return [][]byte{[]byte(r.Path), int8Col(r.Offset), make([]byte, r.Length)}, r
}

func BenchmarkDecodeChunk(b *testing.B) {
	row, r := chunkRow()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeChunk(row, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDecodeChunkAllocatesNothing(t *testing.T) {
	row, r := chunkRow()
	n := testing.AllocsPerRun(100, func() {
		if c, err := decodeChunk(row, &r); err != nil || len(c.Data) != int(r.Length) {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a chunk", n)
	}
}
