// Package integration holds the tests that need several servers at once and the built program.
//
//	golden_test.go     the scenarios, and what is done with each: equality with stock pg_rewind
//	words_test.go      what is said under the name pg_rewind, on every major
//	majors_test.go     one scenario on every major of PostgreSQL
//	loads_test.go      what servers do before and after they part
//	part_test.go       how servers part
//	rehearsal_test.go  a scenario being played, step by step
//	allowed_test.go    how the trees of the two programs may differ, and why
package integration

import (
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// scenarios are the divergences after which fastrewind must leave what stock pg_rewind leaves. Each takes servers, so
// each has as many properties as go together.
var scenarios = []scenario{
	{
		name:  "seg 1 MB, checksums, lz4, group access, target crashed",
		init:  pgtest.InitOptions{SegSizeMB: 1, Checksums: true, GroupAccess: true, Conf: []string{"wal_compression = lz4"}},
		loads: everything,
		part:  crashedFailover,
	},
	{
		name:  "seg 16 MB, hints, no compression, role with four grants",
		init:  pgtest.InitOptions{SegSizeMB: 16, Conf: []string{"wal_compression = off", "track_commit_timestamp = on"}},
		loads: everything,
		part:  failover,
		role:  "rewinder",
	},
	{
		name:            "seg 64 MB, checksums, zstd, tablespaces",
		init:            pgtest.InitOptions{SegSizeMB: 64, Checksums: true, Conf: []string{"wal_compression = zstd"}},
		loads:           append([]load{tablespaces}, everything...),
		part:            failover,
		beforeDirectory: dropNewTablespaces,
	},
	{
		name:  "relations over 1 GiB",
		init:  pgtest.InitOptions{Checksums: true},
		loads: []load{largeRelations},
		part:  sparseFailover,
		args:  []string{"--no-sync"},
	},
	{
		name:       "recovery settings",
		init:       pgtest.InitOptions{Checksums: true, Conf: []string{"wal_compression = pglz"}},
		loads:      []load{pgbench},
		part:       failover,
		serverArgs: []string{writeRecoveryConf},
		dryRun:     true,
	},
	{
		name:      "missing WAL from restore_command",
		init:      pgtest.InitOptions{SegSizeMB: 1, Checksums: true},
		loads:     []load{pgbench, indexTypes},
		part:      archived,
		lose:      loseWAL,
		loserArgs: []string{"--restore-target-wal"},
		dryRun:    true,
		differs:   []pgtest.Allow{keptFromRedo, neededFromArchive},
	},
	{
		name:  "target a standby that was ahead",
		init:  pgtest.InitOptions{Checksums: true},
		loads: []load{pgbench, indexTypes, createAndDrop, twoPhase},
		part:  standbyAhead,
	},
	{
		name:  "source a standby",
		init:  pgtest.InitOptions{Checksums: true},
		loads: []load{pgbench, growAndShrink, createAndDrop},
		part:  sourceStandby,
		first: early,
	},
	{
		name:  "source promoted, no checkpoint yet",
		init:  pgtest.InitOptions{Checksums: true},
		loads: []load{pgbench, growAndShrink},
		part:  promotedWithoutCheckpoint,
		first: early,
	},
	{
		name:  "timelines 1-2-3 against 1-2-4",
		init:  pgtest.InitOptions{SegSizeMB: 1, Checksums: true, Conf: []string{"wal_compression = pglz"}},
		loads: []load{pgbench, createAndDrop, growAndShrink},
		part:  timelines,
	},
}

// scenario is one way in which two servers come apart, and how the rewind is to be done.
type scenario struct {
	name  string
	major int // 0: the one that is preferred
	init  pgtest.InitOptions
	loads []load
	part  func(r *rehearsal) sides

	first           func(r *rehearsal, s sides)                // looks at the sides before the two programs are compared
	beforeDirectory func(source *pgtest.Cluster)               // is done to the source between the server's turn and the directory's
	role            string                                     // who connects, with no more than the four grants; empty for the superuser
	args            []string                                   // more arguments for both programs
	serverArgs      []string                                   // more arguments for both programs, with a server as source
	dryRun          bool                                       // ours first rehearses, and must leave every byte as it is
	lose            func(r *rehearsal, target *pgtest.Cluster) // what ours does not have, but stock has
	loserArgs       []string                                   // arguments that are to make up for it
	differs         []pgtest.Allow                             // differences that must be seen here, and nowhere else
	may             []pgtest.Allow                             // differences that may be seen
}

// TestGolden lets two servers come apart and rewinds the target from the running source, then from the same source as a
// directory, each time with stock pg_rewind and with fastrewind: the trees must be the same, and ours must start,
// stream, hold the same data and pass pg_amcheck and pg_checksums.
func TestGolden(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t, s)
			sides := s.part(r)
			if s.first != nil {
				s.first(r, sides)
			}
			r.fromServer(sides)
			r.fromDirectory(sides)
		})
	}
}
