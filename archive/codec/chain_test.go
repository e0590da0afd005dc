package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// TestFixtures decodes every object that the real tools wrote.
func TestFixtures(t *testing.T) {
	sums := originals(t)
	seen := make(map[string]int)
	for _, o := range objects(t) {
		want, ok := sums[o.orig]
		if !ok {
			t.Errorf("%s: the original %q is not known", o.path, o.orig)
			continue
		}
		seen[o.form]++
		if testing.Short() && len(o.orig) == len(someSegment) && o.orig != someSegment {
			continue // one segment of each form, and the small ones
		}
		got, err := decode(t, o.chain, o.data, segmentSize)
		if err != nil {
			t.Errorf("%s: %v", o.path, err)
		} else if sum(got) != want {
			t.Errorf("%s decodes to something else", o.path)
		}
	}
	if len(seen) != forms {
		t.Errorf("forms: %v", seen)
	}
}

// TestSlowly reads and writes single bytes, with errors and ends at inconvenient moments.
func TestSlowly(t *testing.T) {
	sums := originals(t)
	for _, o := range pick(t, someBackup) {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with the end": iotest.DataErrReader,
		} {
			var out bytes.Buffer
			if _, err := o.chain.Copy(&out, wrap(bytes.NewReader(o.data)), segmentSize); err != nil || sum(out.Bytes()) != sums[o.orig] {
				t.Errorf("%s, %s: %v", o.path, name, err)
			}
		}
	}
}

// TestConcurrent shares chains, and with them pools and keys, among goroutines.
func TestConcurrent(t *testing.T) {
	sums := originals(t)
	all := pick(t, someBackup)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2 {
				for _, o := range all {
					var out bytes.Buffer
					if _, err := o.chain.Copy(&out, bytes.NewReader(o.data), segmentSize); err != nil || sum(out.Bytes()) != sums[o.orig] {
						t.Errorf("%s: %v", o.path, err)
					}
					// A broken one in between must not leave anything behind for the next.
					_, _ = o.chain.Copy(io.Discard, bytes.NewReader(o.data[:len(o.data)-1]), segmentSize)
				}
			}
		})
	}
	wg.Wait()
}

// TestTooLarge lets an object be larger than it may.
func TestTooLarge(t *testing.T) {
	for _, o := range pick(t, someSegment) {
		limits := []int64{-1, 0, 1, 4096}
		if !testing.Short() {
			limits = append(limits, segmentSize-1)
		}
		for _, limit := range limits {
			var out bytes.Buffer
			n, err := o.chain.Copy(&out, bytes.NewReader(o.data), limit)
			if !errors.Is(err, ErrTooLarge) || n != max(limit, 0) || int64(out.Len()) != n {
				t.Errorf("%s: limit %d: %d bytes, %v", o.path, limit, n, err)
			}
		}
	}
	if _, err := (Chain{}).Copy(io.Discard, strings.NewReader(strings.Repeat("x", 10)), 9); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if n, err := (Chain{}).Copy(io.Discard, strings.NewReader("0123456789"), 1<<63-1); n != 10 || err != nil {
		t.Error("without limit:", n, err)
	}
}

// TestEndless reads objects that never end and decode to nothing.
func TestEndless(t *testing.T) {
	for ext, unit := range map[string]string{
		".zst":    "\x50\x2a\x4d\x18\x04\x00\x00\x00....",
		".snappy": snappyMagic,
		".gz":     "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		".bz2":    "BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00",
	} {
		c, _ := ByExtension(ext)
		if _, err := (Chain{Codec: c}).Copy(io.Discard, strings.NewReader(unit), 1000); err != nil {
			t.Errorf("%s, once: %v", ext, err)
		}
		n, err := Chain{Codec: c}.Copy(io.Discard, &endless{unit: unit}, 1000)
		if n != 0 || !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %d bytes, %v", ext, n, err)
		}
	}
}

// endless repeats its unit.
type endless struct {
	unit string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.unit[e.at:])
	e.at = (e.at + n) % len(e.unit)
	return n, nil
}

// silent are the forms in which damage may decode to wrong bytes: what is inside carries no checksum.
var silent = []string{"walg/brotli", "walg/lzma", "pgbackrest/zst"}

// segmentTrials is at how many places segments are damaged. To decode a whole one takes up to half a second with the race
// detector.
func segmentTrials() int {
	if testing.Short() {
		return 2
	}
	return 12
}

// TestTruncated cuts objects off: that is always noticed, unless nothing marks the end.
func TestTruncated(t *testing.T) {
	for _, o := range append(pick(t, someBackup), pick(t, someSegment)...) {
		raw := o.chain.Codec == Codec{}
		if raw && o.chain.Key == nil {
			continue // its size is all there is
		}
		step := 1
		if o.orig == someSegment {
			step = len(o.data)/segmentTrials() + 1
		} else if testing.Short() {
			step = 5
		}
		for n := 0; n < len(o.data); n += step {
			if got, err := decode(t, o.chain, o.data[:n], segmentSize); err == nil {
				t.Errorf("%s: %d of %d bytes decode to %d without error", o.path, n, len(o.data), len(got))
			}
		}
		if _, err := decode(t, o.chain, o.data[:len(o.data)-1], segmentSize); err == nil {
			t.Errorf("%s decodes without its last byte", o.path)
		}
	}
}

// TestBitFlips damages single bits. Where a format has a checksum, no flip goes through with wrong bytes.
func TestBitFlips(t *testing.T) {
	sums := originals(t)
	for _, o := range append(pick(t, someBackup), pick(t, someSegment)...) {
		step := 3
		if o.orig == someSegment {
			step = len(o.data)*8/segmentTrials() + 1
		} else if testing.Short() {
			step = 97
		}
		raw := o.chain.Codec == Codec{}
		authentic := o.form == "walg/sodium" || o.form == "walg/pgp"
		mayBeWrong := !authentic && (raw || slices.Contains(silent, o.form))
		data := slices.Clone(o.data)
		for bit := 0; bit < len(data)*8; bit += step {
			data[bit/8] ^= 1 << (bit % 8)
			got, err := decode(t, o.chain, data, segmentSize)
			if err == nil && sum(got) != sums[o.orig] && !mayBeWrong {
				t.Errorf("%s: wrong bytes without error with bit %d of byte %d flipped", o.path, bit%8, bit/8)
			}
			data[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestTrailing puts bytes behind objects.
func TestTrailing(t *testing.T) {
	tolerant := []string{"plain/wale", "walg/lzma", "walg/pgp"}
	for _, o := range pick(t, someBackup) {
		if o.chain == (Chain{}) {
			continue // they are bytes of it
		}
		for name, c := range map[string]struct {
			tail string
			ok   bool
		}{
			"nothing":       {"", true},
			"16 zeros":      {strings.Repeat("\x00", 16), slices.Contains(tolerant, o.form) || o.form == "plain/xz"},
			"3 zeros":       {strings.Repeat("\x00", 3), slices.Contains(tolerant, o.form)},
			"text":          {"some text of 24 bytes...", slices.Contains(tolerant, o.form)},
			"100 kB":        {strings.Repeat("x", 100<<10), false},
			"100 kB, zeros": {strings.Repeat("\x00", 100<<10), o.form == "plain/xz"},
		} {
			_, err := decode(t, o.chain, append(slices.Clone(o.data), c.tail...), segmentSize)
			if (err == nil) != c.ok {
				t.Errorf("%s and %s: %v", o.path, name, err)
			}
		}
	}
}

// TestConcatenated decodes two objects in one, which the formats with magic numbers allow.
func TestConcatenated(t *testing.T) {
	sums := originals(t)
	for _, o := range pick(t, someBackup) {
		if o.chain.Key != nil || o.chain.Codec.f == nil || len(o.chain.Codec.f.magic) == 0 {
			continue
		}
		got, err := decode(t, o.chain, slices.Concat(o.data, o.data), segmentSize)
		half := len(got) / 2
		if err != nil || sum(got[:half]) != sums[o.orig] || !bytes.Equal(got[:half], got[half:]) {
			t.Errorf("%s twice: %d bytes, %v", o.path, len(got), err)
		}
	}
}

// TestOtherNames decodes each object as if its name had another extension.
func TestOtherNames(t *testing.T) {
	for _, o := range pick(t, someBackup) {
		for _, ext := range Known() {
			c, _ := ByExtension(ext)
			if c.String() == o.chain.Codec.String() || ext == "" {
				continue
			}
			_, err := decode(t, Chain{o.chain.Key, c}, o.data, segmentSize)
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s as %s: %v", o.path, c, err)
			}
		}
	}
}

// TestTexts are the messages for what is most likely to go wrong.
func TestTexts(t *testing.T) {
	codec := func(ext string) Codec {
		c, ok := ByExtension(ext)
		if !ok {
			t.Fatal(ext)
		}
		return c
	}
	history := func(dir, ext string) []byte { return fixture(t, "bucket/"+dir+"/00000002.history"+ext) }
	zst := history("plain/zst", ".zst")
	for _, c := range []struct {
		chain Chain
		data  []byte
		want  string
		cause error
	}{
		{Chain{Codec: codec(".zst")}, history("plain/gz", ".gz"), "it is not zstd: it begins as gzip does", ErrDamaged},
		{Chain{Codec: codec(".gz")}, []byte("<?xml version"), "it is not gzip: it begins with bytes 3c3f786d6c207665", ErrDamaged},
		{Chain{Codec: codec(".lz4")}, nil, "it is empty, and not lz4", ErrDamaged},
		{Chain{Codec: codec(".zst")}, zst[:20], "it does not decode as zstd: it ends too early, after 0 decoded bytes", ErrDamaged},
		{Chain{Codec: codec(".lz4")}, fixture(t, "bucket/pgbackrest/enc/archive/main/15-1/00000002.history"),
			"it is encrypted by pgBackRest, and no passphrase is known", ErrKey},
		{Chain{}, fixture(t, "bucket/pgbackrest/enc/archive/main/15-1/00000002.history"),
			"it is encrypted by pgBackRest, and no passphrase is known", ErrKey},
		{Chain{keyOf(t, "pgbackrest/enc"), Codec{}}, history("pgbackrest/lz4/archive/main/15-1", ""),
			"it is not encrypted by pgBackRest: it begins with bytes 3109302f31333030", ErrDamaged},
		{Chain{keyOf(t, "walg/pgp"), codec(".lz4")}, history("walg/pgp/wal_005", ".zst"),
			"it is not lz4 within OpenPGP: decrypted, it does not begin as lz4 does", ErrKey},
		{Chain{keyOf(t, "walg/sodium"), codec(".lz4")}, history("walg/lz4/wal_005", ".lz4"),
			"it does not authenticate: the libsodium key does not fit, or its first chunk is damaged", ErrKey},
		{Chain{keyOf(t, "walg/sodium"), codec(".lz4")}, history("walg/sodium/wal_005", ".lz4")[:20],
			"it ends too early: within the libsodium, after 0 bytes", ErrDamaged},
	} {
		_, err := decode(t, c.chain, c.data, segmentSize)
		var f *fault.Error
		if !errors.As(err, &f) || f.Error() != c.want || !errors.Is(err, c.cause) || f.Advice == "" {
			t.Errorf("%s: %v\nwant: %s", c.chain, err, c.want)
		}
	}
}

// TestSourceFails is about whose fault it is: not the object's.
func TestSourceFails(t *testing.T) {
	broken := fmt.Errorf("connection closed: %w", io.EOF) // which is not an end
	all := pick(t, someBackup)
	if !testing.Short() {
		all = append(all, pick(t, someSegment)...)
	}
	for _, o := range all {
		for _, n := range []int{0, 1, 30, len(o.data) - 1, len(o.data)} {
			if n > len(o.data) {
				continue
			}
			src := io.MultiReader(bytes.NewReader(o.data[:n]), iotest.ErrReader(broken))
			if _, err := o.chain.Copy(io.Discard, src, segmentSize); err != broken {
				t.Errorf("%s, broken after %d bytes: %v", o.path, n, err)
			}
		}
	}
}

// failing is a writer that takes some bytes.
type failing struct {
	left int
	err  error
}

func (f *failing) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return f.left, f.err
	}
	f.left -= len(p)
	return len(p), nil
}

// TestSinkFails is about a full disk.
func TestSinkFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, o := range pick(t, someSegment) {
		if n, err := o.chain.Copy(&failing{1000, full}, bytes.NewReader(o.data), segmentSize); err != full || n != 1000 {
			t.Errorf("%s: %d bytes, %v", o.path, n, err)
		}
		if _, err := o.chain.Copy(&failing{1000, nil}, bytes.NewReader(o.data), segmentSize); err != io.ErrShortWrite {
			t.Errorf("%s, short write: %v", o.path, err)
		}
	}
}

type panicking struct{ value any }

func (p panicking) Read([]byte) (int, error)  { panic(p.value) }
func (p panicking) Write([]byte) (int, error) { panic(p.value) }

// TestPanics lets a decoder panic, which is damage, and the caller's reader and writer, which is not.
func TestPanics(t *testing.T) {
	bad := &format{ext: ".bad", name: "bad", open: func(*bufio.Reader, int64) (io.Reader, func(), error) {
		return panicking{errors.New("index out of range")}, func() {}, nil
	}}
	_, err := Chain{Codec: Codec{bad}}.Copy(io.Discard, strings.NewReader("abc"), 10)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "index out of range") {
		t.Error(err)
	}
	lz4, _ := ByExtension(".lz4")
	data := fixture(t, "bucket/walg/lz4/wal_005/00000002.history.lz4")
	for name, run := range map[string]func(){
		"reader": func() { _, _ = Chain{Codec: lz4}.Copy(io.Discard, panicking{"mine"}, 10) },
		"writer": func() { _, _ = Chain{Codec: lz4}.Copy(panicking{"mine"}, bytes.NewReader(data), 100) },
	} {
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("%s: recovered %v", name, p)
				}
			}()
			run()
		}()
	}
}

// TestString is what messages call a chain.
func TestString(t *testing.T) {
	lz4, _ := ByExtension(".lz4")
	for c, want := range map[Chain]string{
		{}:                                "uncompressed",
		{Codec: lz4}:                      "lz4",
		{keyOf(t, "pgbackrest/enc"), lz4}: "lz4 within pgBackRest encryption",
		{keyOf(t, "walg/sodium"), lz4}:    "lz4 within libsodium",
		{keyOf(t, "walg/pgp"), Codec{}}:   "uncompressed within OpenPGP",
	} {
		if got := fmt.Sprint(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
