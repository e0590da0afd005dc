package codec

import (
	"bytes"
	"testing"
)

// fuzzLimit is small, so that a run tries many inputs.
const fuzzLimit = 64 << 10

// FuzzPlain decodes anything with any codec: it must not panic, and never write more than the limit.
func FuzzPlain(f *testing.F) {
	known := Known()
	for _, o := range append(pick(f, someBackup), pick(f, "00000002.history")...) {
		if o.chain.Key != nil {
			continue
		}
		for i, ext := range known {
			if ext == o.chain.Codec.Extension() {
				f.Add(byte(i), o.data)
			}
		}
	}
	for _, e := range encoders {
		for i, ext := range known {
			if ext == e.ext && len(e.name) < 30 {
				f.Add(byte(i), encode(f, e.open, walLike(100)))
			}
		}
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		c, ok := ByExtension(known[int(which)%len(known)])
		if !ok {
			t.Fatal("a known codec is not known")
		}
		_, _ = decode(t, Chain{Codec: c}, data, fuzzLimit) // it checks what must hold
	})
}

// FuzzSodium encrypts anything, and damages it anywhere: what decrypts without error is what was encrypted.
func FuzzSodium(f *testing.F) {
	for _, o := range pick(f, "00000002.history") {
		f.Add(o.data, 0, byte(0), 0)
	}
	f.Add(walLike(8192), 24, byte(1), 0)
	f.Add(walLike(8200), 8200, byte(0), 17)
	f.Add(walLike(20000), 8300, byte(128), 8209)
	f.Fuzz(func(t *testing.T, data []byte, at int, flip byte, cut int) {
		b := writeSodium(t, &testSodiumKey, data)
		at, cut = int(uint(at)%uint(len(b))), int(uint(cut)%uint(len(b)))
		b[at] ^= flip
		b = b[:len(b)-cut]
		got, err := decode(t, Chain{Key: &testSodiumKey}, b, int64(len(data)))
		damaged := flip != 0 || cut != 0
		if damaged && err == nil || !damaged && (err != nil || !bytes.Equal(got, data)) {
			t.Errorf("%d bytes, %#x at %d, %d cut off: %d bytes, %v", len(data), flip, at, cut, len(got), err)
		}
		// The bytes themselves, too.
		if _, err := decode(t, Chain{Key: &testSodiumKey}, data, fuzzLimit); err == nil {
			t.Error("bytes that nobody encrypted decrypt")
		}
	})
}

// FuzzPGP decrypts anything: without error only what was encrypted.
func FuzzPGP(f *testing.F) {
	sums := make(map[string]bool)
	c := Chain{Key: keyOf(f, "walg/pgp")}
	for _, orig := range []string{someBackup, "00000002.history"} {
		for _, o := range pick(f, orig) {
			if o.form == "walg/pgp" {
				f.Add(o.data)
				got, err := decode(f, c, o.data, fuzzLimit)
				if err != nil {
					f.Fatal(err)
				}
				sums[sum(got)] = true
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := decode(t, c, data, fuzzLimit); err == nil && !sums[sum(got)] {
			t.Errorf("%d bytes decrypt that nobody encrypted", len(got))
		}
	})
}

// FuzzLzop decodes anything as a container, and as a block of it, which checksums do not stop.
func FuzzLzop(f *testing.F) {
	lzop, _ := ByExtension(".lzo")
	w := writeLZO(1, 2000)
	f.Add(w.src, 0)
	f.Add(writeLzop(0, w), len(w.dst))
	f.Add(writeLzop(0x1303|lzopExtra, w), len(w.dst))
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		_, _ = decode(t, Chain{Codec: lzop}, data, fuzzLimit)
		size := int(uint(n) % fuzzLimit)
		_ = decodeLZO1X(make([]byte, size), data)
		// In a container of which all is right but the block.
		block := &lzoWriter{src: data, dst: make([]byte, max(size, len(data)+1))}
		_, _ = decode(t, Chain{Codec: lzop}, writeLzop(0, block), fuzzLimit)
	})
}
