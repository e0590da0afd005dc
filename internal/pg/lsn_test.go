package pg

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestLSNText(t *testing.T) {
	for _, c := range []struct {
		lsn  LSN
		text string
	}{
		{0, "0/0"}, {1, "0/1"}, {0x16B3748, "0/16B3748"}, {1 << 32, "1/0"}, {0xA_00000BCD, "A/BCD"},
		{math.MaxUint32, "0/FFFFFFFF"}, {math.MaxUint64, "FFFFFFFF/FFFFFFFF"},
	} {
		if got := c.lsn.String(); got != c.text {
			t.Errorf("%#x prints as %s, want %s", uint64(c.lsn), got, c.text)
		}
		if got, err := ParseLSN(c.text); err != nil || got != c.lsn {
			t.Errorf("%s is read as %v, %v", c.text, got, err)
		}
	}
	for text, want := range map[string]LSN{"0/000016b3": 0x16B3, "0000000A/0000000b": 0xA_0000000B, "aB/Cd": 0xAB_000000CD} {
		if got, err := ParseLSN(text); err != nil || got != want {
			t.Errorf("%s is read as %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "/", "0", "0/", "/0", "0/0/0", "0/100000000", "100000000/0", "000000000/0", "0/-1", "-1/0", "+1/0", "0x1/0", "1_0/0",
		" 0/0", "0/0 ", "0/ 0", "0\\0", "g/0", "0/g", "0/0\n", "0/0\x00", "٣/0",
	} {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestSegments(t *testing.T) {
	for _, c := range []struct {
		tli  TLI
		seg  SegNo
		size uint32
		name string
	}{
		{1, 0, 16 << 20, "000000010000000000000000"},
		{1, 1, 16 << 20, "000000010000000000000001"},
		{1, 255, 16 << 20, "0000000100000000000000FF"},
		{1, 256, 16 << 20, "000000010000000100000000"},
		{2, 4095, 1 << 20, "000000020000000000000FFF"},
		{2, 4096, 1 << 20, "000000020000000100000000"},
		{0xABCDEF, 3, 1 << 30, "00ABCDEF0000000000000003"},
		{0xABCDEF, 4, 1 << 30, "00ABCDEF0000000100000000"},
		{math.MaxUint32, 1<<34 - 1, 1 << 30, "FFFFFFFFFFFFFFFF00000003"}, // the last there can be
		{math.MaxUint32, 1<<44 - 1, 1 << 20, "FFFFFFFFFFFFFFFF00000FFF"},
	} {
		if got := SegmentName(c.tli, c.seg, c.size); got != c.name {
			t.Errorf("segment %d of %d bytes on timeline %d is %s, want %s", c.seg, c.size, c.tli, got, c.name)
		}
		if tli, seg, ok := ParseSegmentName(c.name, c.size); !ok || tli != c.tli || seg != c.seg {
			t.Errorf("%s is read as segment %d on timeline %d, %v", c.name, seg, tli, ok)
		}
	}
	for _, c := range []struct {
		name string
		size uint32
	}{
		{"", 16 << 20},
		{"00000001000000000000000", 16 << 20},   // short
		{"0000000100000000000000011", 16 << 20}, // long
		{"00000001000000000000000a", 16 << 20},  // lower case
		{"00000001000000000000000G", 16 << 20},
		{"00000001000000000000 001", 16 << 20},
		{"+0000001000000000000001", 16 << 20},
		{"000000010000000000000100", 16 << 20}, // the name before would have been ...000000FF
		{"000000010000000000001000", 1 << 20},
		{"000000010000000000000004", 1 << 30},
		{"00000002.history", 16 << 20},
		{"000000010000000000000001.partial", 16 << 20},
	} {
		if tli, seg, ok := ParseSegmentName(c.name, c.size); ok {
			t.Errorf("%q with %d bytes is read as segment %d on timeline %d", c.name, c.size, seg, tli)
		}
	}
}

func TestSegmentRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		size := uint32(MinSegSize) << rng.IntN(11)
		lsn := LSN(rng.Uint64() >> rng.IntN(64))
		tli := TLI(rng.Uint32())
		seg := lsn.Seg(size)
		if start := seg.Start(size); start > lsn || lsn-start >= LSN(size) {
			t.Fatalf("%v is not in segment %d, which starts at %v", lsn, seg, start)
		}
		if lsn > 0 && lsn.SegOfEnd(size) != (lsn-1).Seg(size) {
			t.Fatalf("the byte before %v is not in segment %d", lsn, lsn.SegOfEnd(size))
		}
		name := SegmentName(tli, seg, size)
		if !IsSegmentName(name) {
			t.Fatalf("%s is no name", name)
		}
		if gotTLI, got, ok := ParseSegmentName(name, size); !ok || gotTLI != tli || got != seg {
			t.Fatalf("%s: segment %d on timeline %d, read as %d on %d, %v", name, seg, tli, got, gotTLI, ok)
		}
		if got, err := ParseLSN(lsn.String()); err != nil || got != lsn {
			t.Fatalf("%v is read as %v, %v", lsn, got, err)
		}
	}
	if LSN(0).SegOfEnd(1<<20) != 0 {
		t.Error("there is a segment before LSN 0")
	}
}

func TestValidSegSize(t *testing.T) {
	valid := 0
	for shift := range 32 {
		size := uint32(1) << shift
		if ValidSegSize(size) != (size >= 1<<20 && size <= 1<<30) {
			t.Errorf("%d: %v", size, ValidSegSize(size))
		}
		if ValidSegSize(size) {
			valid++
		}
		if size > 1 && (ValidSegSize(size-1) || ValidSegSize(size+size/2)) {
			t.Errorf("%d or %d: not a power of two", size-1, size+size/2)
		}
	}
	if valid != 11 || ValidSegSize(0) || ValidSegSize(math.MaxUint32) {
		t.Errorf("%d valid sizes", valid)
	}
}
