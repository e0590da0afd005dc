package main

// Exit statuses, documented in --help. Callers of pg_rewind test for 0 and not 0.
const (
	exitSuccess = 0 // rewound, or no rewind required
	exitFailure = 1 // any error
)

// exitStatus is the one way from errors to exit statuses.
func exitStatus(err error) int {
	if err == nil {
		return exitSuccess
	}
	return exitFailure
}
