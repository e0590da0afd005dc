// Package trouble holds tests only: what a rewind does when its source has trouble, and where it decides otherwise than stock
// pg_rewind. It looks at the program from outside, as a user does.
//
//	stage_test.go      a target, its source, and the source's standby; who judges the outcome
//	link_test.go       the network between the program and a server, with its troubles
//	program_test.go    the program while it runs
//	pages_test.go      pages of a history that was lost
//	source_test.go     the source dies, stalls, is cut off
//	failover_test.go   another server takes its place, which may have had less
//	decisions_test.go  what stock gets wrong, beside what ours does
//	own_test.go        files of which the target keeps its own
//
// Decisions that are shown elsewhere, beside stock: a source that was just promoted and has had no checkpoint
// (internal/integration, "source promoted, no checkpoint yet" and "source a standby"); a source that lags behind the
// divergence (TestLaggingSource there); the consistency point under load (TestAloneConsistency there); unsafe paths
// (internal/badinput).
package trouble
