package codec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/fastrewind/fastrewind/archive/location"
)

// pgpKey is a key ring with at least one private key, all of them unlocked as far as the passphrase fits.
type pgpKey struct {
	ring openpgp.EntityList
}

// newPGPKey reads an armoured private key as WAL-G does: in the environment, "\n" may stand for the ends of its lines.
func newPGPKey(armoured, pass location.Secret) (Key, error) {
	const where = "Check WALG_PGP_KEY, or the file WALG_PGP_KEY_PATH, and WALG_PGP_KEY_PASSPHRASE."
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(strings.ReplaceAll(armoured.Reveal(), `\n`, "\n")))
	if err != nil {
		return nil, badKey("the OpenPGP key is not an armoured key").Advise(where) // the cause may quote it
	}
	var private, locked int
	for _, e := range ring {
		if pass != "" {
			// One that does not open may be another's; whether any does is counted below.
			_ = e.DecryptPrivateKeys([]byte(pass.Reveal()))
		}
		all := []*packet.PrivateKey{e.PrivateKey}
		for _, sub := range e.Subkeys {
			all = append(all, sub.PrivateKey)
		}
		for _, k := range all {
			if k == nil || k.Dummy() {
				continue
			}
			private++
			if k.Encrypted {
				locked++
			}
		}
	}
	switch {
	case private == 0:
		return nil, badKey("the OpenPGP key is a public key: to read the archive takes the private one").Advise(where)
	case private == locked && pass == "":
		return nil, badKey("the OpenPGP key is protected by a passphrase, and none is set").Advise(where)
	case private == locked:
		return nil, badKey("the passphrase does not unlock the OpenPGP key").Advise(where)
	}
	return &pgpKey{ring}, nil
}

func (k *pgpKey) String() string             { return "OpenPGP" }
func (k *pgpKey) Format(f fmt.State, _ rune) { hidden(k.String(), f) }

func (k *pgpKey) open(br *bufio.Reader) (io.Reader, error) {
	// Messages without integrity protection are refused, which is the library's default.
	md, err := openpgp.ReadMessage(br, k.ring, nil, nil)
	switch {
	case errors.Is(err, pgperrors.ErrKeyIncorrect):
		return nil, badKey("the OpenPGP key does not fit: it is encrypted for another one").Advise(adviseKey)
	case err != nil:
		return nil, k.explain(err, 0)
	case !md.IsEncrypted:
		return nil, damaged("it is not encrypted, though the settings name an OpenPGP key")
	}
	return &pgpReader{key: k, body: md.UnverifiedBody}, nil
}

// pgpReader says the body's errors in our words. The body checks the message's integrity before it says io.EOF.
type pgpReader struct {
	key  *pgpKey
	body io.Reader
	n    int64
	err  error // sticky: the body of a signed message checks again, and fails, when it is read after its end
}

func (r *pgpReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.body.Read(p)
	r.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.key.explain(err, r.n)
	}
	r.err = err
	return n, err
}

// explain makes an error of ours from the library's.
func (k *pgpKey) explain(err error, n int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return endsEarly(k, n)
	}
	return damaged("it does not decrypt as OpenPGP: after %d bytes, %v", n, err)
}
