package undo

import (
	"crypto/sha256"
	"encoding/hex"
)

// digest names a control file's content.
func digest(control []byte) string {
	sum := sha256.Sum256(control)
	return hex.EncodeToString(sum[:])
}
