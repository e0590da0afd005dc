package codec

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"io"
	"slices"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxWindow is how far back a decoder may have to look, in bytes, and so about what one may allocate. zstd --long and xz -9
// need 128 and 64 MiB.
const maxWindow = 128 << 20

// Codec is a compression. The zero Codec is none. Codecs are comparable, and may be used by several goroutines at once.
type Codec struct {
	f *format // nil: none
}

// format is one row of the table of compressions.
type format struct {
	ext   string
	name  string
	magic []string // one of them begins an object; none: the format has no magic number
	// tolerant formats know their end by themselves, and what follows is passed over, as their own tools do. For all
	// others bytes after the end are damage.
	tolerant bool
	// open begins to decode br, of which nothing was taken yet. No decoder starts goroutines: their panics would end the
	// program. The decoder reads more of br than it needs, unless the format is tolerant. limit is the most that is of
	// use, in bytes decoded. close is called if, and only if, all was decoded, and br is not used afterwards.
	open func(br *bufio.Reader, limit int64) (r io.Reader, close func(), err error)
}

// formats is in the order in which they are probed where a bucket may not be listed.
var formats = []*format{
	{ext: ".lz4", name: "lz4", magic: []string{"\x04\x22\x4d\x18"}, open: openLZ4},
	{ext: ".zst", name: "zstd", magic: zstdMagic(), open: openZstd},
	{ext: ".gz", name: "gzip", magic: []string{"\x1f\x8b"}, open: openGzip},
	{ext: ".br", name: "brotli", open: openBrotli},
	{ext: ".bz2", name: "bzip2", magic: []string{"BZh"}, open: openBzip2},
	{ext: ".xz", name: "xz", magic: []string{xzMagic}, open: openXZ},
	{ext: ".lzma", name: "lzma", tolerant: true, open: openLZMA},
	{ext: ".snappy", name: "snappy", magic: []string{snappyMagic}, open: openSnappy},
	{ext: ".sz", name: "snappy", magic: []string{snappyMagic}, open: openSnappy},
	{ext: ".lzo", name: "lzop", magic: []string{lzopMagic}, tolerant: true, open: openLzop},
}

const snappyMagic = "\xff\x06\x00\x00sNaPpY"

// zstdMagic: a frame, or one of the sixteen skippable frames, with which pzstd begins.
func zstdMagic() []string {
	all := []string{"\x28\xb5\x2f\xfd"}
	for b := byte(0x50); b < 0x60; b++ {
		all = append(all, string([]byte{b, 0x2a, 0x4d, 0x18}))
	}
	return all
}

// Known returns the extensions of all codecs, with their dots, the likeliest first; "" is among them.
func Known() []string {
	all := make([]string, 0, len(formats)+1)
	for _, f := range formats {
		all = append(all, f.ext)
	}
	return slices.Insert(all, 2, "")
}

// ByExtension returns the codec of a name that ends in ext: ".zst", or "" for objects that are not compressed. ok is false
// if there is none.
func ByExtension(ext string) (c Codec, ok bool) {
	if ext == "" {
		return Codec{}, true
	}
	for _, f := range formats {
		if f.ext == ext {
			return Codec{f}, true
		}
	}
	return Codec{}, false
}

// Extension is what ByExtension finds it by.
func (c Codec) Extension() string {
	if c.f == nil {
		return ""
	}
	return c.f.ext
}

// String is the compression's name, for messages.
func (c Codec) String() string {
	if c.f == nil {
		return "uncompressed"
	}
	return c.f.name
}

// looksLike names the format that begins as head does, or is empty.
func looksLike(head []byte) string {
	if bytes.HasPrefix(head, []byte(saltedMagic)) {
		return "an object encrypted by pgBackRest"
	}
	for _, f := range formats {
		if f.begins(head) {
			return f.name
		}
	}
	return ""
}

// begins says whether head begins with one of the format's magic numbers.
func (f *format) begins(head []byte) bool {
	return slices.ContainsFunc(f.magic, func(m string) bool { return bytes.HasPrefix(head, []byte(m)) })
}

// maxMagic is the length of the longest magic number.
const maxMagic = len(snappyMagic)

// pool keeps decoders whose windows and tables are worth keeping. Only decoders that reached the end of an object come
// back: what state the others are in is their secret.
type pool[T any] struct{ sync.Pool }

func (p *pool[T]) get() (d T, ok bool) {
	d, ok = p.Get().(T)
	return d, ok
}

var (
	zstdPool   pool[*zstd.Decoder]
	gzipPool   pool[*gzip.Reader]
	brotliPool pool[*brotli.Reader]
	snappyPool pool[*snappy.Reader]
)

func openZstd(br *bufio.Reader, _ int64) (io.Reader, func(), error) {
	d, ok := zstdPool.get()
	var err error
	if ok {
		err = d.Reset(br)
	} else {
		d, err = zstd.NewReader(br, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow))
	}
	return d, func() {
		if d.Reset(nil) == nil {
			zstdPool.Put(d)
		}
	}, err
}

func openGzip(br *bufio.Reader, _ int64) (io.Reader, func(), error) {
	d, ok := gzipPool.get()
	if !ok {
		d = new(gzip.Reader)
	}
	return d, func() { gzipPool.Put(d) }, d.Reset(br)
}

func openBrotli(br *bufio.Reader, _ int64) (io.Reader, func(), error) {
	d, ok := brotliPool.get()
	if !ok {
		d = new(brotli.Reader) // its windows are 16 MiB at most: the larger ones are an extension it has to be asked for
	}
	return d, func() { brotliPool.Put(d) }, d.Reset(br)
}

func openSnappy(br *bufio.Reader, _ int64) (io.Reader, func(), error) {
	d, ok := snappyPool.get()
	if ok {
		d.Reset(br)
	} else {
		d = snappy.NewReader(br)
	}
	return d, func() { snappyPool.Put(d) }, nil
}

// openLZ4 makes a decoder each time: it would carry its dictionary over from one object to the next, and its buffers are
// pooled by the library.
func openLZ4(br *bufio.Reader, _ int64) (io.Reader, func(), error) {
	d := lz4.NewReader(br)
	return d, func() { d.Reset(nil) }, nil
}

func openBzip2(br *bufio.Reader, _ int64) (io.Reader, func(), error) {
	return bzip2.NewReader(br), func() {}, nil
}
