// Package archivelive holds tests only: the program rewinds from archives that real archivers wrote into a real S3 server,
// and from the same archives with faults between.
//
//	world_test.go      the pair of clusters, their archives, the reference: made once
//	archivers_test.go  pgBackRest, barman-cloud and aws: named, derived from settings, and through restore_command
//	faults_test.go     what a network and a busy server do: recovered
//	damage_test.go     flipped bits and wrong segments: never taken for the right ones
//	refusals_test.go   what cannot work: one clear error each
//
// "scripts/install-archivers" installs the archivers, "scripts/install-s3server" the server.
package archivelive
