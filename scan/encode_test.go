package scan_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

func encoded(t testing.TB, m *scan.BlockMap) (chunks [][]byte, size scan.MapSize) {
	t.Helper()
	size, err := m.Encode(func(chunk []byte) error {
		if len(chunk) == 0 || len(chunk) > scan.MaxMapChunk {
			t.Fatalf("a chunk of %d bytes", len(chunk))
		}
		chunks = append(chunks, bytes.Clone(chunk))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return chunks, size
}

func decoded(chunks [][]byte) (*scan.MapDecoder, error) {
	d := scan.NewMapDecoder(0)
	for _, c := range chunks {
		if err := d.Add(c); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func checkRoundTrip(t *testing.T, m *scan.BlockMap, want map[ref]bool) {
	t.Helper()
	chunks, size := encoded(t, m)
	d, err := decoded(chunks)
	if err != nil {
		t.Fatal(err)
	}
	check(t, d.Map(), want)
	files := len(slices.Collect(m.Files()))
	if got := (scan.MapSize{Files: int64(files), Blocks: int64(len(want))}); size != got || d.Size() != got {
		t.Fatalf("written %+v, read %+v, want %+v", size, d.Size(), got)
	}
	if d.Map().MemoryBytes() > m.MemoryBytes() {
		t.Fatalf("%d bytes of memory became %d", m.MemoryBytes(), d.Map().MemoryBytes())
	}
	again, _ := encoded(t, d.Map())
	if !slices.EqualFunc(chunks, again, bytes.Equal) {
		t.Fatal("the same blocks gave other bytes")
	}
}

// TestEncode writes and reads random maps, in random order of insertion.
func TestEncode(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 17))
		m := scan.NewBlockMap(0)
		in := m.NewInserter()
		want := make(map[ref]bool)
		for range rng.IntN(5000) {
			rel, block := randomRef(rng)
			for range 1 + rng.IntN(1+rng.IntN(100)) { // a run, sometimes a long one
				in.Add(rel, block)
				want[refOf(rel, block)] = true
				block++
			}
		}
		checkRoundTrip(t, m, want)
	}
}

// TestEncodePatterns are the pieces at the border between the two forms, and the fullest ones.
func TestEncodePatterns(t *testing.T) {
	rel := pg.Rel{Tablespace: 1<<32 - 1, Database: 1<<32 - 1, Number: 1<<32 - 1}
	for name, blocks := range map[string]func(yield func(uint32)){
		"nothing":    func(func(uint32)) {},
		"last block": func(yield func(uint32)) { yield(1<<32 - 1) },
		"every other": func(yield func(uint32)) {
			for b := uint32(0); b < 2*pg.RelSegBlocks; b += 2 {
				yield(b)
			}
		},
		"all": func(yield func(uint32)) {
			for b := range uint32(pg.RelSegBlocks) {
				yield(b)
			}
		},
		"word borders": func(yield func(uint32)) {
			for b := uint32(63); b < 9000; b += 64 {
				yield(b)
				yield(b + 1)
			}
		},
		"255 runs in a piece, 256 in the next": func(yield func(uint32)) {
			for i := range uint32(255) {
				yield(2 * i)
			}
			for i := range uint32(256) {
				yield(4096 + 3*i)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := scan.NewBlockMap(0)
			in := m.NewInserter()
			want := make(map[ref]bool)
			blocks(func(b uint32) {
				in.Add(rel, pg.BlockNo(b))
				want[refOf(rel, pg.BlockNo(b))] = true
			})
			checkRoundTrip(t, m, want)
			chunks, _ := encoded(t, m)
			total := 0
			for _, c := range chunks {
				total += len(c)
			}
			if most := int(m.MemoryBytes()); total > most {
				t.Errorf("%d bytes for %d of memory", total, m.MemoryBytes())
			}
		})
	}
}

// TestEncodeStops at the first error.
func TestEncodeStops(t *testing.T) {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	for b := range pg.BlockNo(1000000) {
		in.Add(pg.Rel{Number: 1}, b*7)
	}
	calls, enough := 0, errors.New("enough")
	if _, err := m.Encode(func([]byte) error { calls++; return enough }); err != enough || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// TestDecodeDamaged cuts and changes every byte: an error or another map, never a panic; and a map no larger than allowed.
func TestDecodeDamaged(t *testing.T) {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	for i := range uint32(30) {
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: pg.RelNumber(i / 3)}, pg.BlockNo(i*i*977))
	}
	for i := range uint32(2048) {
		in.Add(pg.Rel{Tablespace: 1664, Number: 1}, pg.BlockNo(2*i))
	}
	chunks, size := encoded(t, m)
	chunk := chunks[0]
	for n := range chunk {
		d := scan.NewMapDecoder(0)
		// A cut between two files is not seen here.
		if err := d.Add(chunk[:n]); err == nil && d.Size().Files >= size.Files {
			t.Errorf("cut at %d of %d bytes: no error", n, len(chunk))
		}
	}
	for i := range chunk {
		for _, x := range []byte{1, 0x20, 0x40, 0x80, 0xff} {
			c := bytes.Clone(chunk)
			c[i] ^= x
			d := scan.NewMapDecoder(4096)
			if err := d.Add(c); err == nil && d.Map().MemoryBytes() > 4096 {
				t.Errorf("byte %d: a map of %d bytes", i, d.Map().MemoryBytes())
			}
		}
	}
	for name, bad := range map[string][]byte{
		"empty":               {},
		"too long":            make([]byte, scan.MaxMapChunk+1),
		"name over 32 bits":   {0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0, 0x40, 1, 0, 0},
		"endless varint":      bytes.Repeat([]byte{0xff}, 30),
		"segment too high":    {0, 0, 0, 0x80, 0x80, 0x10, 0x40, 1, 0, 0},
		"no pieces":           {0, 0, 0, 0},
		"unknown form":        {0, 0, 0, 0, 0xc0, 1, 0, 0},
		"no runs":             {0, 0, 0, 0, 0x40, 0},
		"too many runs":       {0, 0, 0, 0, 0x40, 0x81, 0x10},
		"runs that touch":     {0, 0, 0, 0, 0x40, 2, 0, 0, 0, 0},
		"a run over the end":  {0, 0, 0, 0, 0x40, 1, 0xff, 0x1f, 1},
		"a huge run":          {0, 0, 0, 0, 0x40, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"an empty bitmap":     {0, 0, 0, 0, 0x60, 0},
		"no bitmap":           {0, 0, 0, 0, 0x60},
		"a bitmap of zeros":   append([]byte{0, 0, 0, 0, 0x60, 64}, make([]byte, 512)...),
		"a bitmap too long":   append([]byte{0, 0, 0, 0, 0x60, 65}, bytes.Repeat([]byte{1}, 520)...),
		"a cut bitmap":        {0, 0, 0, 0, 0x60, 1, 1, 2, 3},
		"pieces out of order": {0, 0, 0, 0, 1, 1, 0, 0, 0x41, 1, 0, 0},
		"files out of order":  {0, 0, 0, 1, 0x40, 1, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0},
	} {
		if err := scan.NewMapDecoder(0).Add(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestDecodeBounded: a few bytes that would make a large map.
func TestDecodeBounded(t *testing.T) {
	d := scan.NewMapDecoder(1 << 20)
	for file := range uint32(1 << 20) {
		var c []byte
		for piece := range byte(31) {
			c = append(c, piece+1, 1, 0, 0)
		}
		c[len(c)-4] |= 0x40
		c = append([]byte{0, 0, byte(file%128) | 0x80, byte(file / 128 & 0x7f), 0}, c...)
		if err := d.Add(c); err != nil {
			if got := d.Map().MemoryBytes(); got > 1<<20+20000 {
				t.Errorf("stopped only at %d bytes: %v", got, err)
			}
			return
		}
	}
	t.Error("no bound")
}

func FuzzDecodeBlockMap(f *testing.F) {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		in.Add(randomRef(rng))
	}
	chunks, _ := encoded(f, m)
	f.Add(chunks[0])
	f.Add([]byte{0, 0, 0, 0, 0x40, 1, 0, 0})
	f.Fuzz(func(t *testing.T, chunk []byte) {
		d := scan.NewMapDecoder(1 << 20)
		if d.Add(chunk) != nil {
			return
		}
		// What was believed must survive being written and read again.
		want, size := encoded(t, d.Map())
		if size != d.Size() {
			t.Fatalf("%+v became %+v", d.Size(), size)
		}
		e, err := decoded(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := encoded(t, e.Map()); e.Size() != size || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatal("read again, it is another map")
		}
	})
}

func BenchmarkEncodeBlockMap(b *testing.B) {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	rng := rand.New(rand.NewPCG(1, 1))
	for m.MemoryBytes() < 100<<20 { // 1% of the blocks of relations of 32 GiB, as in the table at BlockMap
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: pg.RelNumber(rng.IntN(20))}, pg.BlockNo(rng.IntN(32*pg.RelSegBlocks)))
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: pg.RelNumber(100 + rng.IntN(500000))}, pg.BlockNo(rng.IntN(1280)))
	}
	chunks, size := encoded(b, m)
	total := 0
	for _, c := range chunks {
		total += len(c)
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(total)/1e6, "MB")
		b.ReportMetric(float64(size.Blocks), "blocks")
		b.ReportMetric(float64(m.MemoryBytes())/1e6, "map-MB")
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Encode(func([]byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		report(b)
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decoded(chunks); err != nil {
				b.Fatal(err)
			}
		}
		report(b)
	})
}
