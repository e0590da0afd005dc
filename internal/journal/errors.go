package journal

import (
	"errors"
	"fmt"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// ErrNotJournal is in the chain of the error for a file that does not begin as a journal does.
var ErrNotJournal = errors.New("not a journal")

// VersionError is in the chain of the error for a journal that a newer program wrote.
type VersionError struct{ Version uint32 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("journal of format version %d, expected at most %d", e.Version, Version)
}

// DamagedError is in the chain of the error for a journal in which something is wrong that no crash explains.
type DamagedError struct {
	Offset int64  // of the first frame that is not right, in bytes
	Reason string // what is wrong with it
	Head   bool   // the head is intact, block map included: Load has returned a State with all that lies before Offset
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("damaged journal: at byte %d: %s", e.Offset, e.Reason)
}

func notJournal(size int64) error {
	return fault.Because(ErrNotJournal, "file \"%s\" is not a journal of this program", Name).
		Advise("It is %d bytes long and does not begin with %q. Something else has put it there: move it away and run again.", size, magic).Ours()
}

func newerVersion(version uint32) error {
	return fault.Because(&VersionError{version}, "journal \"%s\" is of format version %d, expected at most %d", Name, version, Version).
		Advise("A newer release of this program began to rewind this target: go on with that one.").Ours()
}

func damagedHead(offset int64, reason string) error {
	return fault.Because(&DamagedError{Offset: offset, Reason: reason},
		"journal \"%s\" is damaged in its head, at byte %d: %s", Name, offset, reason).
		Advise("The head is complete before a journal gets its name, so the file was damaged later. " +
			"It cannot be known any more what was to be rewound: take a new base backup.").Ours()
}

func damaged(offset int64, reason string) error {
	return fault.Because(&DamagedError{Offset: offset, Reason: reason, Head: true},
		"journal \"%s\" is damaged at byte %d: %s", Name, offset, reason).
		Advise("It had been fsynced, so this is not a crash's doing but the disk's, or somebody's. What it said of " +
			"files that were touched is lost: take a new base backup.").Ours()
}

func unreadable(err error, offset int64) error {
	return fault.Because(err, "could not read file \"%s\" at byte %d: %s", Name, offset, fault.M(err))
}
