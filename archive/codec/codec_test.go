package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

func TestKnown(t *testing.T) {
	all := Known()
	for _, ext := range []string{"", ".gz", ".zst", ".lz4", ".br", ".bz2", ".xz", ".lzma", ".snappy", ".sz", ".lzo"} {
		if !slices.Contains(all, ext) {
			t.Errorf("%q is not known", ext)
		}
		if c, ok := ByExtension(ext); !ok || c.Extension() != ext {
			t.Errorf("%q: %v %v", ext, c, ok)
		}
	}
	if len(all) != 11 {
		t.Errorf("known: %q", all)
	}
	for _, ext := range []string{".Z", ".json", ".partial", "gz", ".GZ", "."} {
		if c, ok := ByExtension(ext); ok {
			t.Errorf("%q is %v", ext, c)
		}
	}
	for _, f := range formats {
		for _, m := range f.magic {
			if len(m) > maxMagic {
				t.Errorf("magic number of %s: longer than %d", f.name, maxMagic)
			}
		}
	}
}

// encoder is a codec's other direction.
type encoder struct {
	name, ext string
	open      func(w io.Writer) (io.WriteCloser, error)
}

// encoders are those that a library has.
var encoders = []encoder{
	{"gzip", ".gz", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }},
	{"zstd", ".zst", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) }},
	{"lz4", ".lz4", func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil }},
	{"lz4, all checksums", ".lz4", func(w io.Writer) (io.WriteCloser, error) {
		z := lz4.NewWriter(w)
		return z, z.Apply(lz4.BlockChecksumOption(true), lz4.ChecksumOption(true), lz4.BlockSizeOption(lz4.Block64Kb))
	}},
	{"brotli", ".br", func(w io.Writer) (io.WriteCloser, error) { return brotli.NewWriterLevel(w, 3), nil }},
	{"snappy", ".snappy", func(w io.Writer) (io.WriteCloser, error) { return snappy.NewBufferedWriter(w), nil }},
	{"snappy", ".sz", func(w io.Writer) (io.WriteCloser, error) { return snappy.NewBufferedWriter(w), nil }},
	{"lzma", ".lzma", func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) }},
	{"xz", ".xz", func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }},
	{"xz, small blocks, CRC-32", ".xz", func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{BlockSize: 10000, CheckSum: xz.CRC32}.NewWriter(w)
	}},
	{"xz, SHA-256", ".xz", func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{CheckSum: xz.SHA256}.NewWriter(w)
	}},
	{"xz, no check", ".xz", func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{NoCheckSum: true}.NewWriter(w)
	}},
}

// encode compresses data with a library.
func encode(t testing.TB, open func(w io.Writer) (io.WriteCloser, error), data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// walLike is n bytes that compress about as WAL does: half of it repeats.
func walLike(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	data := make([]byte, 0, n+64)
	for len(data) < n {
		if at := len(data); at > 1000 && r.IntN(2) == 0 {
			from := r.IntN(at - 64)
			data = append(data, data[from:from+r.IntN(64)]...)
			continue
		}
		for range 1 + r.IntN(16) {
			data = append(data, byte(r.Uint32()))
		}
	}
	return data[:n]
}

// TestRoundTrip decodes what libraries write, with a limit that fits exactly, and one that is a byte less.
func TestRoundTrip(t *testing.T) {
	for _, e := range encoders {
		c, ok := ByExtension(e.ext)
		if !ok {
			t.Fatal(e.ext)
		}
		sizes := []int{0, 1, 100, 65536, 100001}
		if testing.Short() {
			sizes = []int{0, 100, 20001}
		}
		for _, size := range sizes {
			data := walLike(size)
			stored := encode(t, e.open, data)
			if size == 0 && len(stored) == 0 {
				continue // some libraries write nothing for nothing, and nothing is no object
			}
			if got, err := decode(t, Chain{Codec: c}, stored, int64(size)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, %d bytes: %d bytes, %v", e.name, size, len(got), err)
			}
			if size == 0 {
				continue
			}
			if _, err := decode(t, Chain{Codec: c}, stored, int64(size)-1); err == nil {
				t.Errorf("%s, %d bytes with a limit of one less: no error", e.name, size)
			}
		}
	}
}

// TestLargeWindows decodes what asks for the largest windows that programs write: zstd --long, xz -9.
func TestLargeWindows(t *testing.T) {
	data := walLike(10000)
	zstdFrame := []byte("\x28\xb5\x2f\xfd\x00\x88") // a window of 128 MiB, and then one raw block
	zstdFrame = append(append(zstdFrame, byte(len(data)<<3|1), byte(len(data)>>5), byte(len(data)>>13)), data...)
	lzmaStream := encode(t, func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) }, data)
	binary.LittleEndian.PutUint32(lzmaStream[1:], 64<<20)
	xzStream := encode(t, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }, data)
	header := xzStream[xzHeaderSize:][:(int(xzStream[xzHeaderSize])+1)*4]
	if header[2] != xzLZMA2 || header[3] != 1 {
		t.Fatalf("the block header is not what it was: % x", header)
	}
	header[4] = 28 // 64 MiB
	binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
	for ext, b := range map[string][]byte{".zst": zstdFrame, ".lzma": lzmaStream, ".xz": xzStream} {
		c, _ := ByExtension(ext)
		if got, err := decode(t, Chain{Codec: c}, b, segmentSize); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", ext, len(got), err)
		}
	}
}

// allocated is how many bytes are allocated while f runs.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBombs hands over headers that ask for more memory than there is.
func TestBombs(t *testing.T) {
	xzBomb := func(bits byte) []byte {
		header := []byte{0, 1} // CRC-32
		b := append([]byte(xzMagic), header...)
		b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(header))
		block := []byte{2, 0, xzLZMA2, 1, bits, 0, 0, 0}
		b = append(b, block...)
		b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(block))
		return append(b, make([]byte, 100)...)
	}
	lzop := fixture(t, "bucket/plain/wale/wal_005/"+someBackup+".lzo")
	lzopHeader := len(lzopMagic) + 25 + int(lzop[len(lzopMagic)+24]) + 4
	lzopBomb := append(slices.Clone(lzop[:lzopHeader]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	for _, c := range []struct {
		ext  string
		data []byte
	}{
		{".xz", xzBomb(40)},
		{".xz", xzBomb(41)},
		{".lzma", append([]byte{0x5d, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, make([]byte, 100)...)},
		{".lzma", append([]byte{0x5d, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 100)...)},
		{".zst", append([]byte("\x28\xb5\x2f\xfd\x00\xa8\x02\x00\x10x"), make([]byte, 100)...)},                // window of 2 GiB
		{".zst", append([]byte("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f"), make([]byte, 100)...)}, // content of 8 EiB
		{".lzo", lzopBomb},
	} {
		codec, _ := ByExtension(c.ext)
		var err error
		n := allocated(func() { _, err = decode(t, Chain{Codec: codec}, c.data, segmentSize) })
		if err == nil || n > 32<<20 {
			t.Errorf("%s: %d bytes allocated, %v", c.ext, n, err)
		}
	}
	// Where no limit is of use, ours is.
	for _, c := range []struct {
		ext  string
		data []byte
	}{{".xz", xzBomb(40)}, {".lzma", append([]byte{0x5d, 0xff, 0xff, 0xff, 0xff}, make([]byte, 100)...)}} {
		codec, _ := ByExtension(c.ext)
		var err error
		n := allocated(func() { _, err = Chain{Codec: codec}.Copy(io.Discard, bytes.NewReader(c.data), 1<<40) })
		if err == nil || n > 32<<20 {
			t.Errorf("%s without limit: %d bytes allocated, %v", c.ext, n, err)
		}
	}
}

// TestXZLikeLibrary compares our reader of the container with the library's, which it replaces.
func TestXZLikeLibrary(t *testing.T) {
	xzCodec, _ := ByExtension(".xz")
	var all []byte
	for _, o := range objects(t) {
		if o.form == "plain/xz" && (o.orig == someSegment || len(o.orig) != len(someSegment)) {
			all = append(append(all, o.data...), 0, 0, 0, 0)
		}
	}
	r, err := xz.NewReader(bytes.NewReader(all))
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(t, Chain{Codec: xzCodec}, all, 8*segmentSize)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; the library: %d", len(got), err, len(want))
	}
}

// TestXZDamaged damages what the checksum of the data does not cover.
func TestXZDamaged(t *testing.T) {
	xzCodec, _ := ByExtension(".xz")
	data := encode(t, func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{BlockSize: 1000, NoCheckSum: true}.NewWriter(w)
	}, walLike(5000))
	index := len(data) - xzFooterSize - int(binary.LittleEndian.Uint32(data[len(data)-8:])+1)*4
	fixCRC := func(b []byte) {
		end := len(b) - xzFooterSize - 4
		binary.LittleEndian.PutUint32(b[end:], crc32.ChecksumIEEE(b[index:end]))
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"number of blocks":  func(b []byte) []byte { b[index+1]++; fixCRC(b); return b },
		"size in the index": func(b []byte) []byte { b[index+2]++; fixCRC(b); return b },
		"CRC of the index":  func(b []byte) []byte { b[len(b)-xzFooterSize-1]++; return b },
		"footer's magic":    func(b []byte) []byte { b[len(b)-1]++; return b },
		"footer's CRC":      func(b []byte) []byte { b[len(b)-12]++; return b },
		"stream's CRC":      func(b []byte) []byte { b[8]++; return b },
		"block header":      func(b []byte) []byte { b[xzHeaderSize+1]++; return b },
		"no index":          func(b []byte) []byte { return b[:index] },
		"footer of another": func(b []byte) []byte {
			f := b[len(b)-xzFooterSize:]
			f[9] = 1
			binary.LittleEndian.PutUint32(f, crc32.ChecksumIEEE(f[4:10]))
			return b
		},
	} {
		if _, err := decode(t, Chain{Codec: xzCodec}, damage(slices.Clone(data)), 5000); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := decode(t, Chain{Codec: xzCodec}, data, 5000); err != nil {
		t.Error("undamaged:", err)
	}
}

func ExampleKnown() {
	for _, ext := range Known() {
		c, _ := ByExtension(ext)
		fmt.Printf("%-8s%s\n", ext, c)
	}
	// Output:
	// .lz4    lz4
	// .zst    zstd
	//         uncompressed
	// .gz     gzip
	// .br     brotli
	// .bz2    bzip2
	// .xz     xz
	// .lzma   lzma
	// .snappy snappy
	// .sz     snappy
	// .lzo    lzop
}
