package wal

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// Whatever decodePlain decodes, decodeAny decodes to the same; and it decodes what it is for.
func TestPlainRecords(t *testing.T) {
	version, ok := pg.VersionOf(15)
	if !ok {
		t.Fatal("no version 15")
	}
	f := &Format{Version: version, SegSize: 16 << 20}
	rng := rand.New(rand.NewPCG(15, 19))
	plain, refused := 0, 0
	for range 200_000 {
		data, main := rng.IntN(40)*rng.IntN(2), rng.IntN(20)
		b := make([]byte, recordHeaderSize, 128)
		flags := byte(rng.IntN(4)) | byte(rng.IntN(2))*blockWillInit
		if data > 0 {
			flags |= blockHasData
		}
		b = append(b, 0, flags)
		b = binary.LittleEndian.AppendUint16(b, uint16(data))
		for range 4 {
			b = binary.LittleEndian.AppendUint32(b, rng.Uint32())
		}
		b = append(b, idMainShort, byte(main))
		for range data + main {
			b = append(b, byte(rng.Uint32()))
		}
		whole := rng.IntN(2) == 0
		if !whole { // damaged in the headers, or of another length
			b[recordHeaderSize+rng.IntN(plainBlockBytes+2)] ^= 1 << rng.IntN(8)
			b = b[:len(b)-rng.IntN(2)*rng.IntN(len(b)-recordHeaderSize)]
		}
		// Both find what a record before has left.
		before := Record{LSN: 4096, TotalLen: uint32(len(b)), MainLen: 7}
		before.blocks[0] = BlockRef{Block: 3, HasImage: true, WillInit: true}
		got, want := before, before
		ok := decodePlain(&got, b)
		err := f.decodeAny(&want, b)
		if whole && !ok {
			t.Fatalf("not decoded: % x", b)
		}
		if !ok {
			refused++
			continue
		}
		plain++
		if err != nil || !reflect.DeepEqual(got.Blocks, want.Blocks) || string(got.Main) != string(want.Main) ||
			got.MainLen != want.MainLen {
			t.Fatalf("% x:\n%+v\n%+v, %v", b, got.Blocks, want.Blocks, err)
		}
	}
	if plain < 100_000 || refused < 10_000 {
		t.Errorf("%d decoded, %d refused: the test has lost its point", plain, refused)
	}
}
