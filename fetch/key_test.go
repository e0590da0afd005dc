package fetch

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testKey(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/keys", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Keys that OpenSSL has encrypted.
func TestDecryptKey(t *testing.T) {
	var first *ecdsa.PrivateKey
	for _, name := range []string{"aes256-sha256", "aes128-sha1", "aes192-sha512", "headers"} {
		plain, err := decryptKey(testKey(t, name), "secret")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, _ := pem.Decode(plain)
		parsed, err := x509.ParsePKCS8PrivateKey(b.Bytes)
		if err != nil {
			parsed, err = x509.ParseECPrivateKey(b.Bytes)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if err != nil || !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if first == nil {
			first = key
		}
		if !key.Equal(first) {
			t.Errorf("%s: another key", name)
		}
		for _, wrong := range []string{"", "Secret", "secret "} {
			_, err := decryptKey(testKey(t, name), wrong)
			if err == nil || strings.Contains(err.Error(), "ecret") {
				t.Errorf("%s with %q: %v", name, wrong, err)
			}
		}
	}
	if _, err := decryptKey(testKey(t, "pbes1"), "secret"); err != errKeyForm {
		t.Errorf("%v", err)
	}
	plain := []byte("-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n")
	if got, err := decryptKey(plain, "x"); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%q, %v", got, err)
	}
}

// A damaged key is an error, whatever the damage.
func TestDecryptDamagedKey(t *testing.T) {
	b, _ := pem.Decode(testKey(t, "aes256-sha256"))
	for i := range b.Bytes {
		if _, err := decryptPKCS8(b.Bytes[:i], "secret"); err == nil {
			t.Errorf("cut after %d bytes: accepted", i)
		}
		// Flips in the iteration count (two bytes of it) may ask for much work, none for more than maxIterations.
		damaged := bytes.Clone(b.Bytes)
		damaged[i] ^= 0x11
		if key, err := decryptPKCS8(damaged, "secret"); err == nil {
			if same, _ := decryptPKCS8(b.Bytes, "secret"); bytes.Equal(key, same) && i > 80 {
				t.Errorf("byte %d flipped: no difference", i)
			}
		}
	}
}
