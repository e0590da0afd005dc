package main

import "github.com/fastrewind/fastrewind/internal/rewind"

// Exit statuses, documented in --help. Callers of pg_rewind test for 0 and not 0. 2 is left out: shells use it for
// themselves.
const (
	exitSuccess       = 0 // rewound, or no rewind required
	exitFailure       = 1 // the target is as it was
	exitInterrupted   = 3 // to be run again
	exitResumable     = 4 // to be run again once the cause is gone
	exitRefused       = 5 // the target is as it was
	exitSourceLost    = 6 // to be run again once the source is back
	exitNotRewindable = 7 // a new base backup is needed
)

var exits = map[rewind.Outcome]int{
	rewind.Failed:        exitFailure,
	rewind.Interrupted:   exitInterrupted,
	rewind.Resumable:     exitResumable,
	rewind.Refused:       exitRefused,
	rewind.SourceLost:    exitSourceLost,
	rewind.NotRewindable: exitNotRewindable,
}

// exitStatus is the one way from errors to exit statuses. pg_rewind knows no other failure than 1.
func exitStatus(self program, err error) int {
	switch {
	case err == nil:
		return exitSuccess
	case self.stock:
		return exitFailure
	default:
		return exits[rewind.OutcomeOf(err)]
	}
}
