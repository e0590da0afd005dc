// Package badinput holds tests only: the program is given what it must refuse, beside stock pg_rewind where that has the
// same check. Each time the error has to be clear, the exit status 1, and the target untouched.
//
//	setup_test.go      the two clusters, made once; copies of them for each case
//	directory_test.go  cases with a stopped source
//	server_test.go     cases with a running one
package badinput
