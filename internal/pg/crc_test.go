package pg

import (
	"fmt"
	"testing"
)

// BenchmarkCRC32C is the checksum of a small record, of a page, and of what the WAL reader has in its window.
func BenchmarkCRC32C(b *testing.B) {
	for _, size := range []int{64, BlockSize, 256 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_ = CRC32C(data)
			}
		})
	}
}

func TestCRC32CAllocatesNothing(t *testing.T) {
	data := make([]byte, BlockSize)
	if n := testing.AllocsPerRun(100, func() { _ = CRC32C(data) }); n != 0 {
		t.Errorf("%v allocations for a checksum", n)
	}
}
