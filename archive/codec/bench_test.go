package codec

import (
	"bytes"
	"compress/bzip2"
	"crypto/aes"
	"crypto/cipher"
	"io"
	"slices"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/crypto/chacha20poly1305"
)

// BenchmarkDecode decodes a segment of 16 MiB, half of which repeats; bzip2, which nothing here writes, one of the fixtures
// of 1 MiB. "bare" is the floor: what the library takes by itself, or the cipher's primitive.
func BenchmarkDecode(b *testing.B) {
	plain := walLike(16 << 20)
	copyAll := func(r io.Reader, err error) error {
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return err
	}
	bare := map[string]func(r io.Reader) error{
		"":    func(r io.Reader) error { return copyAll(struct{ io.Reader }{r}, nil) },
		".gz": func(r io.Reader) error { z, err := gzip.NewReader(r); return copyAll(z, err) },
		".zst": func(r io.Reader) error {
			z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
			return copyAll(z, err)
		},
		".lz4":    func(r io.Reader) error { return copyAll(lz4.NewReader(r), nil) },
		".br":     func(r io.Reader) error { return copyAll(brotli.NewReader(r), nil) },
		".bz2":    func(r io.Reader) error { return copyAll(bzip2.NewReader(r), nil) },
		".snappy": func(r io.Reader) error { return copyAll(snappy.NewReader(r), nil) },
		".xz":     func(r io.Reader) error { z, err := xz.NewReader(r); return copyAll(z, err) },
		".lzma":   func(r io.Reader) error { z, err := lzma.NewReader(r); return copyAll(z, err) },
	}
	run := func(name string, size int, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	decodes := func(c Chain, data []byte, size int) func() error {
		return func() error {
			_, err := c.Copy(io.Discard, bytes.NewReader(data), int64(size))
			return err
		}
	}
	for _, ext := range Known() {
		if ext == ".sz" {
			continue
		}
		c, _ := ByExtension(ext)
		data, size := plain, len(plain)
		if ext == ".bz2" {
			data, size = fixture(b, "bucket/plain/bz2/"+someSegment+".bz2"), segmentSize
		}
		if ext == ".lzo" {
			blocks := make([]*lzoWriter, 64)
			size = 0
			for i := range blocks {
				blocks[i] = writeLZO(uint64(i), 256<<10)
				size += len(blocks[i].dst)
			}
			data = writeLzop(1, blocks...)
		}
		if i := slices.IndexFunc(encoders, func(e encoder) bool { return e.ext == ext }); i >= 0 {
			data = encode(b, encoders[i].open, plain)
		}
		name := c.String()
		run(name, size, decodes(Chain{Codec: c}, data, size))
		if f := bare[ext]; f != nil {
			run(name+"/bare", size, func() error { return f(bytes.NewReader(data)) })
		}
	}

	sodium := Chain{Key: &testSodiumKey}
	run("libsodium", len(plain), decodes(sodium, writeSodium(b, &testSodiumKey, plain), len(plain)))
	aead, err := chacha20poly1305.New(testSodiumKey[:])
	if err != nil {
		b.Fatal(err)
	}
	nonce := make([]byte, aead.NonceSize())
	sealed := aead.Seal(nil, nonce, make([]byte, sodiumChunk), nil)
	buf := make([]byte, 0, len(sealed))
	run("libsodium/bare", len(plain), func() error {
		for range len(plain) / sodiumChunk {
			if _, err := aead.Open(buf, nonce, sealed, nil); err != nil {
				return err
			}
		}
		return nil
	})

	pass := &passphrase{"some passphrase"}
	cbc := writeCBC(b, pass, plain)
	run("pgbackrest", len(plain), decodes(Chain{Key: pass}, cbc, len(plain)))
	block, err := aes.NewCipher(make([]byte, aesKeySize))
	if err != nil {
		b.Fatal(err)
	}
	out := make([]byte, len(plain))
	run("pgbackrest/bare", len(plain), func() error {
		cipher.NewCBCDecrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(out, plain)
		return nil
	})

	e := newPGPEntity(b)
	ring := openpgp.EntityList{e}
	message := writePGP(b, e, nil, nil, plain)
	run("openpgp", len(plain), decodes(Chain{Key: &pgpKey{ring}}, message, len(plain)))
	run("openpgp/bare", len(plain), func() error {
		md, err := openpgp.ReadMessage(bytes.NewReader(message), ring, nil, nil)
		if err != nil {
			return err
		}
		return copyAll(md.UnverifiedBody, nil)
	})
}
