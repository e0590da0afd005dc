package codec

import (
	"errors"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Causes, for errors.Is. Errors of this package are *fault.Error with one or two of them; neither keys nor decoded bytes
// are ever in their texts. The texts begin in lower case and name no object: who knows its name says "could not read ...:"
// before them.
var (
	// ErrDamaged: the object's bytes do not decode or do not authenticate, or end too early.
	ErrDamaged = errors.New("damaged")
	// ErrTooLarge: the object decodes to more bytes than it may have.
	ErrTooLarge = errors.New("too large")
	// ErrKey: the key is malformed, missing, or does not fit. Where a wrong key cannot be told from damage, both are
	// causes.
	ErrKey = errors.New("wrong key")
)

// errKeyOrDamage is for what either explains.
var errKeyOrDamage = errors.Join(ErrKey, ErrDamaged)

const (
	adviseDamaged = "The object was damaged or not completely uploaded. Check it with the tool that archived it, or use restore_command."
	adviseKey     = "Check that the archive's settings name the key with which it was encrypted."
)

// damaged says how an object is not what it should be.
func damaged(format string, args ...any) error {
	return fault.Because(ErrDamaged, format, args...).Advise(adviseDamaged)
}

// badKey says what is wrong with a key by itself.
func badKey(format string, args ...any) *fault.Error {
	return fault.Because(ErrKey, format, args...)
}

// misfit says that a key does not fit an object, or the object is damaged: nobody can tell.
func misfit(format string, args ...any) error {
	return fault.Because(errKeyOrDamage, format, args...).Advise(adviseKey)
}
