package codec

import (
	"bufio"
	"fmt"
	"io"

	"github.com/fastrewind/fastrewind/archive/location"
)

// Key opens what an archive is encrypted with. It may be used by several goroutines at once, and does not show itself in
// whatever way it is printed.
type Key interface {
	// String names the encryption, for messages.
	fmt.Stringer
	// open begins to decrypt br. The reader's errors, and open's, are *fault.Error with ErrDamaged, ErrKey or both as
	// cause, or br's own. io.EOF says that everything before it has authenticated as far as the encryption can say.
	open(br *bufio.Reader) (io.Reader, error)
}

// KeyFor returns the key of what an archive's settings say; nil if its objects are not encrypted. Errors have ErrKey as
// cause.
//
//   - WAL-G and WAL-E: the OpenPGP key, else libsodium's, in which order WAL-G looks at its settings. All objects are
//     encrypted with it.
//   - pgBackRest: the repository's passphrase. It opens archive.info alone (ReadInfo); inside is the passphrase of all the
//     rest (PgBackRestKey).
//   - Barman and plain files: nil. What they encrypt, the server decrypts.
//   - a layout not yet known: what is set, WAL-G's first.
func KeyFor(keys location.Keys, layout location.Layout) (Key, error) {
	if keys.Unsupported != "" {
		return nil, badKey("the archive is encrypted with %s, which only its own tool can read", keys.Unsupported).
			Advise("Use restore_command instead of reading the archive directly.")
	}
	walg := layout == location.WALG || layout == location.WALE || layout == location.Unknown
	switch {
	case walg && keys.PGP != "":
		return newPGPKey(keys.PGP, keys.PGPPassphrase)
	case walg && keys.Sodium != "":
		return newSodiumKey(keys.Sodium, keys.SodiumTransform)
	case (layout == location.PgBackRest || layout == location.Unknown) && keys.PgBackRestPass != "":
		return PgBackRestKey(keys.PgBackRestPass)
	}
	return nil, nil
}

// hidden makes a key print as its encryption's name with all verbs.
func hidden(name string, f fmt.State) {
	_, _ = io.WriteString(f, name) // fmt's own buffers do not fail
}

// endsEarly says that an encrypted object ends within its n-th decrypted byte or before.
func endsEarly(k Key, n int64) error {
	return damaged("it ends too early: within the %s, after %d bytes", k, n)
}

var (
	_ fmt.Formatter = (*sodiumKey)(nil)
	_ fmt.Formatter = (*pgpKey)(nil)
	_ fmt.Formatter = (*passphrase)(nil)
)
