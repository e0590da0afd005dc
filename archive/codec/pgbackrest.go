package codec

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" //nolint:gosec // it is the format's
	"errors"
	"fmt"
	"io"

	"github.com/fastrewind/fastrewind/archive/location"
)

// pgBackRest writes what "openssl enc -aes-256-cbc -md sha1" does: "Salted__", 8 bytes of salt, AES-256-CBC with PKCS #7
// padding. Key and IV are EVP_BytesToKey of passphrase and salt, SHA-1, one round (its common/crypto/cipherBlock.c).
// Nothing is authenticated: damage is noticed by the codec inside, or by the SHA-1 in the object's name.
const (
	saltedMagic = "Salted__"
	saltSize    = 8
	aesKeySize  = 32
)

// passphrase is the text of the settings, or of archive.info, as it stands there.
type passphrase struct {
	text string
}

// PgBackRestKey makes a key of a passphrase: repoN-cipher-pass for archive.info, and the cipher-pass in there for
// everything else of a stanza's archive. An empty passphrase is ErrKey.
func PgBackRestKey(pass location.Secret) (Key, error) {
	if pass == "" {
		return nil, badKey("the pgBackRest passphrase is empty").Advise("Check repo-cipher-pass.")
	}
	return &passphrase{pass.Reveal()}, nil
}

func (k *passphrase) String() string             { return "pgBackRest encryption" }
func (k *passphrase) Format(f fmt.State, _ rune) { hidden(k.String(), f) }

// derive makes key and IV.
func (k *passphrase) derive(salt []byte) (key, iv []byte) {
	var all, last []byte
	for len(all) < aesKeySize+aes.BlockSize {
		h := sha1.New()      //nolint:gosec // it is the format's
		_, _ = h.Write(last) // hashes do not fail
		_, _ = io.WriteString(h, k.text)
		_, _ = h.Write(salt)
		last = h.Sum(nil)
		all = append(all, last...)
	}
	return all[:aesKeySize], all[aesKeySize : aesKeySize+aes.BlockSize]
}

func (k *passphrase) open(br *bufio.Reader) (io.Reader, error) {
	var header [len(saltedMagic) + saltSize]byte
	n, err := io.ReadFull(br, header[:])
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case !bytes.HasPrefix(header[:n], []byte(saltedMagic)[:min(n, len(saltedMagic))]):
		return nil, damaged("it is not encrypted by pgBackRest: it begins with bytes %x", header[:min(n, len(saltedMagic))])
	case err != nil:
		return nil, endsEarly(k, 0)
	}
	key, iv := k.derive(header[len(saltedMagic):])
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, badKey("pgBackRest passphrase: %v", err)
	}
	return &cbcReader{key: k, br: br, cbc: cipher.NewCBCDecrypter(block, iv)}, nil
}

// cbcReader decrypts and takes the padding off.
type cbcReader struct {
	key  *passphrase
	br   *bufio.Reader
	cbc  cipher.BlockMode
	n    int64
	data []byte // decrypted and not yet read; within buf
	err  error  // sticky
	buf  [32 << 10]byte
}

func (r *cbcReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 && r.err == nil {
		r.data, r.err = r.next()
		r.n += int64(len(r.data))
	}
	if len(r.data) == 0 {
		return 0, r.err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// next decrypts as much as fits into buf. With the last of it comes io.EOF.
func (r *cbcReader) next() ([]byte, error) {
	n, err := io.ReadFull(r.br, r.buf[:])
	if err == nil {
		if _, err = r.br.Peek(1); err == nil {
			r.cbc.CryptBlocks(r.buf[:], r.buf[:])
			return r.buf[:], nil
		}
	}
	if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if n == 0 || n%aes.BlockSize != 0 {
		return nil, endsEarly(r.key, r.n+int64(n))
	}
	data := r.buf[:n]
	r.cbc.CryptBlocks(data, data)
	pad := int(data[n-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.Equal(data[n-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, misfit("the pgBackRest passphrase does not fit, or the end of the object is damaged")
	}
	return data[:n-pad], io.EOF
}

// maxInfo bounds archive.info, which grows by a line with each major version of the cluster.
const maxInfo = 1 << 20

// ReadInfo reads pgBackRest's archive.info (or archive.info.copy) and returns its text. repo is the key of the repository's
// passphrase; nil if the repository is not encrypted. The cipher-pass in the text is a secret. Errors are those of
// Chain.Copy; text that is not archive.info's is ErrKey if it was decrypted, since CBC does not notice a wrong key.
func ReadInfo(src io.Reader, repo Key) ([]byte, error) {
	var text bytes.Buffer
	if _, err := (Chain{Key: repo}).Copy(&text, src, maxInfo); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text.Bytes(), []byte("[")) {
		return text.Bytes(), nil
	}
	if repo != nil {
		return nil, misfit("the passphrase does not fit: decrypted, it is no archive.info")
	}
	return nil, damaged("it is no archive.info: it does not begin with a section")
}
