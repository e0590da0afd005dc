package codec

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/poly1305" //nolint:staticcheck // as in sodium.go

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// writeSodium encrypts as libsodium does, by its description and without the shortcut of the reader. tags are those of
// the chunks before the last; tags beyond their end are 0.
func writeSodium(t testing.TB, key *sodiumKey, data []byte, tags ...byte) []byte {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	header := []byte("the header has 24 bytes.")
	k, err := chacha20.HChaCha20(key[:], header[:16])
	must(err)
	counter, inonce := uint32(1), slices.Clone(header[16:])
	nonce := func() []byte { return append(binary.LittleEndian.AppendUint32(nil, counter), inonce...) }
	out := slices.Clone(header)
	for i := 0; ; i++ {
		m := data[:min(len(data), sodiumChunk)]
		data = data[len(m):]
		last := len(m) < sodiumChunk
		var tag byte
		if i < len(tags) {
			tag = tags[i]
		}
		if last {
			tag = sodiumTagFinal
		}
		stream, err := chacha20.NewUnauthenticatedCipher(k, nonce())
		must(err)
		var polyKey, block [64]byte
		stream.XORKeyStream(polyKey[:], polyKey[:])
		block[0] = tag
		stream.XORKeyStream(block[:], block[:])
		c := make([]byte, len(m))
		stream.XORKeyStream(c, m)
		mac := poly1305.New((*[32]byte)(polyKey[:32]))
		_, _ = mac.Write(block[:])
		_, _ = mac.Write(c)
		_, _ = mac.Write(make([]byte, len(m)%16))
		_, _ = mac.Write(make([]byte, 8))
		_, _ = mac.Write(binary.LittleEndian.AppendUint64(nil, uint64(64+len(m))))
		sum := mac.Sum(nil)
		out = append(append(append(out, block[0]), c...), sum...)
		if last {
			return out
		}
		for j := range inonce {
			inonce[j] ^= sum[j]
		}
		counter++
		if tag&sodiumTagRekey != 0 {
			stream, err := chacha20.NewUnauthenticatedCipher(k, nonce())
			must(err)
			next := append(slices.Clone(k), inonce...)
			stream.XORKeyStream(next, next)
			k, inonce, counter = next[:32], next[32:], 1
		}
	}
}

var testSodiumKey = sodiumKey([]byte("0123456789abcdef0123456789ABCDEF"))

// TestSodium decrypts all sorts of sizes: only those modulo 16 that are 0 take the short way.
func TestSodium(t *testing.T) {
	c := Chain{Key: &testSodiumKey}
	sizes := []int{8191, 8192, 8193, 16383, 16384, 16385, 100000}
	for n := range 70 {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		data := walLike(n)
		if got, err := decode(t, c, writeSodium(t, &testSodiumKey, data), int64(n)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d bytes, %v", n, len(got), err)
		}
	}
	data := walLike(50000)
	if got, err := decode(t, c, writeSodium(t, &testSodiumKey, data, 0, 2, 1, 2), 50000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("with new keys underway: %d bytes, %v", len(got), err)
	}
}

// TestSodiumDamaged is what WAL-G itself does not notice, and more.
func TestSodiumDamaged(t *testing.T) {
	c := Chain{Key: &testSodiumKey}
	const chunk = sodiumChunk + sodiumOverhead
	good := writeSodium(t, &testSodiumKey, walLike(5*sodiumChunk+100))
	at := func(i int) int { return sodiumHeaderSize + i*chunk }
	for name, b := range map[string][]byte{
		"cut at a chunk":        good[:at(3)],
		"cut after the header":  good[:at(0)],
		"without its last":      good[:at(5)],
		"a chunk twice":         slices.Concat(good[:at(2)], good[at(1):]),
		"a chunk missing":       slices.Concat(good[:at(2)], good[at(3):]),
		"chunks swapped":        slices.Concat(good[:at(1)], good[at(2):at(3)], good[at(1):at(2)], good[at(3):]),
		"the final one earlier": slices.Concat(good[:at(1)], good[at(5):]),
		"a byte more":           append(slices.Clone(good), 0),
		"chunks after the end":  slices.Concat(writeSodium(t, &testSodiumKey, walLike(100)), good[at(0):]),
	} {
		if _, err := decode(t, c, b, 1<<20); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, flip := range map[string]int{
		"tag": at(2), "data": at(2) + 1, "end of data": at(2) + sodiumChunk, "MAC": at(3) - 1, "last MAC": len(good) - 1,
	} {
		b := slices.Clone(good)
		b[flip] ^= 0x40
		if _, err := decode(t, c, b, 1<<20); !errors.Is(err, ErrDamaged) || errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := testSodiumKey
	other[31]++
	if _, err := decode(t, Chain{Key: &other}, good, 1<<20); !errors.Is(err, ErrKey) || !errors.Is(err, ErrDamaged) {
		t.Error("wrong key:", err)
	}
}

// TestSodiumTransforms reads keys as WAL-G does.
func TestSodiumTransforms(t *testing.T) {
	raw := testSodiumKey[:]
	for _, c := range []struct {
		text, transform string
		want            string // the key's bytes, or empty: an error
	}{
		{string(raw), "none", string(raw)},
		{string(raw), "", string(raw)},
		{string(raw) + "and more", "none", string(raw)},
		{string(raw[:25]), "none", string(raw[:25]) + "\x00\x00\x00\x00\x00\x00\x00"},
		{string(raw[:24]), "none", ""},
		{hex.EncodeToString(raw), "hex", string(raw)},
		{strings.ToUpper(hex.EncodeToString(raw)), "hex", string(raw)},
		{hex.EncodeToString(raw)[2:], "hex", ""},
		{hex.EncodeToString(raw)[1:], "hex", ""},
		{hex.EncodeToString(raw) + "00", "hex", ""},
		{"secret" + hex.EncodeToString(raw), "hex", ""},
		{base64.StdEncoding.EncodeToString(raw), "base64", string(raw)},
		{base64.RawStdEncoding.EncodeToString(raw), "base64", ""},
		{base64.StdEncoding.EncodeToString(raw[:31]), "base64", ""},
		{"hunter2hunter2hunter2hunter2!", "base64", ""},
		{string(raw), "HEX", ""},
		{string(raw), "rot13", ""},
	} {
		key, err := KeyFor(location.Keys{Sodium: location.Secret(c.text), SodiumTransform: c.transform}, location.WALG)
		if c.want == "" {
			checkKeyError(t, err, c.text)
			continue
		}
		if k, ok := key.(*sodiumKey); err != nil || !ok || string(k[:]) != c.want {
			t.Errorf("%q as %s: %v", c.text, c.transform, err)
		}
	}
}

// checkKeyError wants an error about a key, with advice, and without the key in it.
func checkKeyError(t *testing.T, err error, secrets ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || !errors.Is(err, ErrKey) || f.Advice == "" {
		t.Errorf("not an error about a key: %v", err)
		return
	}
	for _, s := range secrets {
		for i := 0; i+6 <= len(s); i++ {
			if strings.Contains(fmt.Sprintf("%v %+v %s", err, f, f.Advice), s[i:i+6]) {
				t.Errorf("part of the key is in the error: %v", err)
				return
			}
		}
	}
}

// pgpEntity is a key made for the tests.
var pgpEntity = sync.OnceValues(func() (*openpgp.Entity, error) {
	return openpgp.NewEntity("test", "", "test@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
})

func newPGPEntity(t testing.TB) *openpgp.Entity {
	t.Helper()
	e, err := pgpEntity()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// armoured writes a key as gpg --armor --export[-secret-keys] does.
func armoured(t testing.TB, kind string, write func(io.Writer) error) location.Secret {
	t.Helper()
	var out strings.Builder
	w, err := armor.Encode(&out, kind, nil)
	if err == nil {
		err = write(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return location.Secret(out.String())
}

// writePGP encrypts data for e.
func writePGP(t testing.TB, e *openpgp.Entity, signed *openpgp.Entity, config *packet.Config, data []byte) []byte {
	t.Helper()
	return encode(t, func(w io.Writer) (io.WriteCloser, error) {
		return openpgp.Encrypt(w, []*openpgp.Entity{e}, signed, nil, config)
	}, data)
}

// TestPGP decrypts messages of several kinds.
func TestPGP(t *testing.T) {
	e := newPGPEntity(t)
	c := Chain{Key: &pgpKey{openpgp.EntityList{e}}}
	data := walLike(40000)
	compressed := &packet.Config{DefaultCompressionAlgo: packet.CompressionZLIB}
	for name, b := range map[string][]byte{
		"plain":      writePGP(t, e, nil, nil, data),
		"signed":     writePGP(t, e, e, nil, data),
		"compressed": writePGP(t, e, nil, compressed, data),
		"AEAD":       writePGP(t, e, nil, &packet.Config{AEADConfig: &packet.AEADConfig{}}, data),
	} {
		if got, err := decode(t, c, b, int64(len(data))); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if _, err := decode(t, c, b, int64(len(data))-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s, too large: %v", name, err)
		}
		// The last bytes of data, and what authenticates them.
		for _, back := range []int{1, 10, 21, 23, 30, 200} {
			bad := slices.Clone(b)
			bad[len(bad)-back] ^= 1
			if got, err := decode(t, c, bad, int64(len(data))); err == nil {
				t.Errorf("%s: bit flipped %d bytes before the end: %d bytes and no error", name, back, len(got))
			}
			if got, err := decode(t, c, b[:len(b)-back], int64(len(data))); err == nil {
				t.Errorf("%s: %d bytes cut off: %d bytes and no error", name, back, len(got))
			}
		}
	}
	bomb := writePGP(t, e, nil, compressed, make([]byte, 3<<20))
	if n, err := c.Copy(io.Discard, bytes.NewReader(bomb), segmentSize); n != segmentSize || !errors.Is(err, ErrTooLarge) {
		t.Errorf("a bomb of %d bytes: %d bytes, %v", len(bomb), n, err)
	}
}

// TestPGPRefused is what decrypts nothing, or nothing that is protected.
func TestPGPRefused(t *testing.T) {
	e := newPGPEntity(t)
	c := Chain{Key: &pgpKey{openpgp.EntityList{e}}}
	data := walLike(1000)
	literal := encode(t, func(w io.Writer) (io.WriteCloser, error) {
		return packet.SerializeLiteral(nopCloser{w}, true, "", 0)
	}, data)
	if _, err := decode(t, c, literal, 2000); !errors.Is(err, ErrDamaged) {
		t.Error("not encrypted:", err)
	}
	// Tag 9: encrypted, and not protected.
	message := writePGP(t, e, nil, nil, data)
	next := 2 + int(message[1]) // the packet after that of the session key
	if message[0] != 0xc1 || message[next] != 0xd2 {
		t.Fatalf("the message is not what it was: % x", message[:next+1])
	}
	unprotected := slices.Clone(message)
	unprotected[next] = 0xc9
	if _, err := decode(t, c, unprotected, 2000); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "integrity") {
		t.Error("without integrity protection:", err)
	}
	_, err := decode(t, Chain{Key: keyOf(t, "walg/pgp")}, message, 2000)
	if !errors.Is(err, ErrKey) || errors.Is(err, ErrDamaged) {
		t.Error("for another key:", err)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// TestPGPKeys reads keys as the settings may have them.
func TestPGPKeys(t *testing.T) {
	const pass = "correct horse battery staple"
	plain := location.Secret(fixture(t, "pgp.sec.asc"))
	locked := func() location.Secret {
		ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(plain.Reveal()))
		if err != nil {
			t.Fatal(err)
		}
		if err := ring[0].EncryptPrivateKeys([]byte(pass), nil); err != nil {
			t.Fatal(err)
		}
		return armoured(t, openpgp.PrivateKeyType, func(w io.Writer) error { return ring[0].SerializePrivateWithoutSigning(w, nil) })
	}()
	o := pick(t, someBackup)[slices.IndexFunc(pick(t, someBackup), func(o object) bool { return o.form == "walg/pgp" })]
	want := originals(t)[o.orig]
	for name, keys := range map[string]location.Keys{
		"plain":                        {PGP: plain},
		"in one line":                  {PGP: location.Secret(strings.ReplaceAll(plain.Reveal(), "\n", `\n`))},
		"a passphrase not needed":      {PGP: plain, PGPPassphrase: pass},
		"locked":                       {PGP: locked, PGPPassphrase: pass},
		"libsodium is set, too":        {PGP: plain, Sodium: "0123456789abcdef0123456789ABCDEF"},
		"pgBackRest's passphrase, too": {PGP: plain, PgBackRestPass: "x"},
	} {
		for _, layout := range []location.Layout{location.WALG, location.WALE, location.Unknown} {
			key, err := KeyFor(keys, layout)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got, err := decode(t, Chain{key, o.chain.Codec}, o.data, segmentSize); err != nil || sum(got) != want {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, keys := range map[string]location.Keys{
		"locked, no passphrase":    {PGP: locked},
		"locked, wrong passphrase": {PGP: locked, PGPPassphrase: "wrong horse"},
		"public":                   {PGP: location.Secret(fixture(t, "pgp.pub.asc"))},
		"no key":                   {PGP: "hidden"},
		"cut off":                  {PGP: plain[:300]},
	} {
		_, err := KeyFor(keys, location.WALG)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		checkKeyError(t, err, pass, "wrong horse", "hidden")
	}
}

// TestKeyFor chooses by layout.
func TestKeyFor(t *testing.T) {
	all := fixtureKeys(t)
	sodium := location.Keys{Sodium: all.Sodium, SodiumTransform: "hex", PgBackRestPass: all.PgBackRestPass}
	for _, c := range []struct {
		keys   location.Keys
		layout location.Layout
		want   string
	}{
		{location.Keys{}, location.WALG, "<nil>"},
		{location.Keys{}, location.Unknown, "<nil>"},
		{location.Keys{PGPPassphrase: "x", SodiumTransform: "hex"}, location.WALG, "<nil>"},
		{all, location.WALG, "OpenPGP"},
		{sodium, location.WALG, "libsodium"},
		{sodium, location.Unknown, "libsodium"},
		{all, location.PgBackRest, "pgBackRest encryption"},
		{location.Keys{PgBackRestPass: "x"}, location.Unknown, "pgBackRest encryption"},
		{location.Keys{PgBackRestPass: "x"}, location.WALG, "<nil>"},
		{location.Keys{PGP: all.PGP}, location.PgBackRest, "<nil>"},
		{all, location.Barman, "<nil>"},
		{all, location.Plain, "<nil>"},
	} {
		key, err := KeyFor(c.keys, c.layout)
		if err != nil || fmt.Sprint(key) != c.want || (key == nil) != (c.want == "<nil>") {
			t.Errorf("%s: %v, %v; want %s", c.layout, key, err, c.want)
		}
	}
	_, err := KeyFor(location.Keys{Unsupported: "AWS KMS", Sodium: all.Sodium}, location.WALG)
	checkKeyError(t, err)
	if !strings.Contains(err.Error(), "AWS KMS") {
		t.Error(err)
	}
	_, err = PgBackRestKey("")
	checkKeyError(t, err)
}

// TestKeysHide prints keys in all ways.
func TestKeysHide(t *testing.T) {
	for _, form := range []string{"walg/sodium", "walg/pgp", "pgbackrest/enc"} {
		key := keyOf(t, form)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, key); text != key.String() {
				t.Errorf("%s of the key of %s: %s", verb, form, text)
			}
			for _, around := range []any{Chain{Key: key}, []Key{key}, struct{ K Key }{key}} {
				text := fmt.Sprintf(verb, around)
				if plain, err := hex.DecodeString(text); err == nil {
					text = string(plain)
				}
				if !strings.Contains(text, key.String()) || len(text) > 120 {
					t.Errorf("%s of the key of %s: %s", verb, form, text)
				}
			}
		}
	}
}

// writeCBC encrypts as pgBackRest does.
func writeCBC(t testing.TB, k *passphrase, data []byte) []byte {
	t.Helper()
	salt := []byte("8 bytes.")
	key, iv := k.derive(salt)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	pad := aes.BlockSize - len(data)%aes.BlockSize
	data = append(slices.Clone(data), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	return slices.Concat([]byte(saltedMagic), salt, data)
}

// TestPgBackRestSizes decrypts sizes around those of blocks and of the buffer.
func TestPgBackRestSizes(t *testing.T) {
	k := &passphrase{"some passphrase"}
	for _, n := range []int{0, 1, 15, 16, 17, 32<<10 - 17, 32<<10 - 16, 32<<10 - 1, 32 << 10, 32<<10 + 1, 64 << 10, 100000} {
		data := walLike(n)
		b := writeCBC(t, k, data)
		if got, err := decode(t, Chain{Key: k}, b, int64(n)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d bytes, %v", n, len(got), err)
		}
		for cut := 1; cut < min(len(b), 40); cut++ {
			if got, err := decode(t, Chain{Key: k}, b[:len(b)-cut], int64(n)); err == nil && cut%16 != 0 {
				t.Errorf("%d bytes, %d cut off: %d bytes without error", n, cut, len(got))
			}
		}
	}
}

// TestReadInfo opens archive.info with the right, the wrong, and no passphrase.
func TestReadInfo(t *testing.T) {
	secret := fixture(t, "bucket/pgbackrest/enc/archive/main/archive.info")
	open := fixture(t, "bucket/pgbackrest/lz4/archive/main/archive.info")
	right, err := PgBackRestKey(location.Secret(fixture(t, "pgbr.pass")))
	if err != nil {
		t.Fatal(err)
	}
	text, err := ReadInfo(bytes.NewReader(secret), right)
	if err != nil || !bytes.Contains(text, []byte("\n[db:history]\n")) || !bytes.Contains(text, []byte("cipher-pass=")) {
		t.Error("with its passphrase:", err)
	}
	if text, err := ReadInfo(bytes.NewReader(open), nil); err != nil || !bytes.Equal(text, open) {
		t.Error("not encrypted:", err)
	}
	if _, err := ReadInfo(bytes.NewReader(secret), nil); !errors.Is(err, ErrKey) {
		t.Error("without passphrase:", err)
	}
	if _, err := ReadInfo(bytes.NewReader(open), right); !errors.Is(err, ErrDamaged) {
		t.Error("not encrypted, with passphrase:", err)
	}
	if _, err := ReadInfo(strings.NewReader("<html>"), nil); !errors.Is(err, ErrDamaged) {
		t.Error("something else:", err)
	}
	// One wrong passphrase of 256 finds padding that looks right.
	for i := range 1000 {
		if _, err := ReadInfo(bytes.NewReader(secret), &passphrase{fmt.Sprint("wrong", i)}); !errors.Is(err, ErrKey) {
			t.Fatal("wrong passphrase:", err)
		}
	}
}
