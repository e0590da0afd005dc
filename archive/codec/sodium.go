package codec

import (
	"bufio"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/poly1305" //nolint:staticcheck // the format is not the RFC's construction, for which alone there is an interface

	"github.com/fastrewind/fastrewind/archive/location"
)

// WAL-G's libsodium writes crypto_secretstream_xchacha20poly1305 (libsodium's secretstream_xchacha20poly1305.c):
//
//	header   24 bytes: 16 for HChaCha20, which makes the stream's key; 8 for the nonce
//	chunk    tag byte, encrypted | 8192 bytes of data, encrypted | MAC, 16 bytes
//	...
//	chunk    the last one: its tag is FINAL, its data 0 to 8192 bytes
//
// Chunk i is encrypted with ChaCha20 under the nonce counter (4 bytes, little-endian, from 1) || 8 bytes, which are xored
// with the first half of each chunk's MAC. Block 0 of the key stream is the Poly1305 key, block 1 encrypts the tag byte and
// 63 zeros, and from block 2 on comes the data. The MAC covers the encrypted block of the tag, the data, padding, and two
// lengths. WAL-G uses neither additional data nor other tags.
const (
	sodiumKeySize    = 32
	sodiumHeaderSize = 24
	sodiumChunk      = 8192 // WAL-G's choice, not libsodium's
	sodiumMACSize    = 16
	sodiumOverhead   = 1 + sodiumMACSize
	sodiumBlock      = 64 // of ChaCha20

	sodiumTagRekey = 0x02
	sodiumTagFinal = 0x03
)

// sodiumKey is the 32 bytes.
type sodiumKey [sodiumKeySize]byte

// newSodiumKey makes the key of what WALG_LIBSODIUM_KEY holds, as WAL-G does.
func newSodiumKey(text location.Secret, transform string) (Key, error) {
	const shortest = 25 // WAL-G's own limit
	var raw []byte
	var err error
	s := text.Reveal()
	// What the decoders say about a wrong character shows the character: it stays here.
	switch transform {
	case "", "none":
		if len(s) < shortest {
			return nil, badKey("the libsodium key has %d bytes, and must have at least %d", len(s), shortest).Advise(adviseKey)
		}
		raw = make([]byte, sodiumKeySize)
		copy(raw, s)
	case "hex":
		raw, err = hex.DecodeString(s)
	case "base64":
		raw, err = base64.StdEncoding.DecodeString(s)
	default:
		return nil, badKey("unknown transform \"%s\" of the libsodium key", transform).
			Advise("WALG_LIBSODIUM_KEY_TRANSFORM is none, hex or base64.")
	}
	if err != nil {
		return nil, badKey("the libsodium key is not %s", transform).Advise(
			"Check WALG_LIBSODIUM_KEY or the file WALG_LIBSODIUM_KEY_PATH, and WALG_LIBSODIUM_KEY_TRANSFORM.")
	}
	if len(raw) != sodiumKeySize {
		return nil, badKey("the libsodium key has %d bytes after decoding it from %s, and must have %d",
			len(raw), transform, sodiumKeySize).Advise(adviseKey)
	}
	k := sodiumKey(raw)
	return &k, nil
}

func (k *sodiumKey) String() string             { return "libsodium" }
func (k *sodiumKey) Format(f fmt.State, _ rune) { hidden(k.String(), f) }

func (k *sodiumKey) open(br *bufio.Reader) (io.Reader, error) {
	var header [sodiumHeaderSize]byte
	if _, err := io.ReadFull(br, header[:]); err != nil {
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, endsEarly(k, 0)
		}
		return nil, err
	}
	s := &sodiumReader{key: k, br: br}
	var err error
	s.k, err = chacha20.HChaCha20(k[:], header[:16])
	if err != nil {
		return nil, badKey("libsodium key: %v", err)
	}
	binary.LittleEndian.PutUint32(s.nonce[:4], 1)
	copy(s.nonce[4:], header[16:])
	s.aead, err = chacha20poly1305.New(s.k)
	if err != nil {
		return nil, badKey("libsodium key: %v", err)
	}
	return s, nil
}

// sodiumReader decrypts chunk by chunk.
type sodiumReader struct {
	key   *sodiumKey
	br    *bufio.Reader
	k     []byte // of the stream, until the next rekeying
	nonce [chacha20.NonceSize]byte
	aead  cipher.AEAD // of k

	n    int64  // bytes decrypted
	data []byte // of them, those not yet read; within buf
	err  error  // sticky; io.EOF after the final chunk
	// buf holds one chunk as it comes, so placed that the data lies one block behind the start.
	buf [sodiumBlock + sodiumChunk + sodiumMACSize]byte
}

func (s *sodiumReader) Read(p []byte) (int, error) {
	for len(s.data) == 0 && s.err == nil {
		s.data, s.err = s.next()
	}
	if len(s.data) == 0 {
		return 0, s.err
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

// next decrypts a chunk. With the final one comes io.EOF.
func (s *sodiumReader) next() ([]byte, error) {
	got, err := io.ReadFull(s.br, s.buf[sodiumBlock-1:])
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if got < sodiumOverhead {
		return nil, endsEarly(s.key, s.n)
	}
	size := got - sodiumOverhead
	mac := [sodiumMACSize]byte(s.buf[sodiumBlock+size:])
	tag, ok := s.decrypt(size)
	if !ok {
		if s.n == 0 {
			return nil, misfit("it does not authenticate: the libsodium key does not fit, or its first chunk is damaged")
		}
		return nil, damaged("it does not authenticate: the libsodium chunk after %d bytes is damaged or cut short", s.n)
	}
	data := s.buf[sodiumBlock : sodiumBlock+size]
	s.n += int64(size)
	if tag == sodiumTagFinal {
		if _, err := s.br.Peek(1); err != io.EOF {
			return nil, first(err, damaged("bytes follow the end of the libsodium stream, after %d bytes", s.n))
		}
		return data, io.EOF
	}
	if size < sodiumChunk {
		return nil, endsEarly(s.key, s.n)
	}
	return data, s.advance(mac, tag)
}

// decrypt decrypts the chunk in buf, with size bytes of data, in place.
func (s *sodiumReader) decrypt(size int) (tag byte, ok bool) {
	stream, err := chacha20.NewUnauthenticatedCipher(s.k, s.nonce[:])
	if err != nil {
		return 0, false
	}
	// The tag's block as it was encrypted: its first byte came with the chunk, the zeros in it did not.
	block := s.buf[:sodiumBlock]
	tag = block[sodiumBlock-1]
	clear(block)
	var polyKey [sodiumBlock]byte
	stream.XORKeyStream(polyKey[:], polyKey[:])
	stream.XORKeyStream(block, block)
	tag, block[0] = tag^block[0], tag

	// libsodium pads the data with its size modulo 16 zeros, where the RFC pads to a multiple of 16. For whole chunks both
	// mean none, and then the chunk with its block is the RFC's construction, which exists in assembler.
	if size%16 == 0 {
		whole := s.buf[:sodiumBlock+size+sodiumMACSize]
		_, err := s.aead.Open(whole[:0], s.nonce[:], whole, nil)
		return tag, err == nil
	}
	var tail [16 + 16]byte
	pad := size % 16
	binary.LittleEndian.PutUint64(tail[pad+8:], uint64(sodiumBlock+size))
	mac := poly1305.New((*[32]byte)(polyKey[:32]))
	_, _ = mac.Write(s.buf[:sodiumBlock+size]) // it cannot fail
	_, _ = mac.Write(tail[:pad+16])
	if !mac.Verify(s.buf[sodiumBlock+size : sodiumBlock+size+sodiumMACSize]) {
		return 0, false
	}
	data := s.buf[sodiumBlock : sodiumBlock+size]
	stream.XORKeyStream(data, data)
	return tag, true
}

// advance goes on to the next chunk.
func (s *sodiumReader) advance(mac [sodiumMACSize]byte, tag byte) error {
	for i := range s.nonce[4:] {
		s.nonce[4+i] ^= mac[i]
	}
	count := binary.LittleEndian.Uint32(s.nonce[:4]) + 1
	binary.LittleEndian.PutUint32(s.nonce[:4], count)
	if tag&sodiumTagRekey == 0 && count != 0 {
		return nil
	}
	// The key stream makes the next key and the next nonce of the present ones.
	stream, err := chacha20.NewUnauthenticatedCipher(s.k, s.nonce[:])
	if err != nil {
		return badKey("libsodium key: %v", err)
	}
	next := make([]byte, sodiumKeySize+8)
	copy(next, s.k)
	copy(next[sodiumKeySize:], s.nonce[4:])
	stream.XORKeyStream(next, next)
	s.k = next[:sodiumKeySize]
	binary.LittleEndian.PutUint32(s.nonce[:4], 1)
	copy(s.nonce[4:], next[sodiumKeySize:])
	if s.aead, err = chacha20poly1305.New(s.k); err != nil {
		return badKey("libsodium key: %v", err)
	}
	return nil
}
