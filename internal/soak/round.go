package main

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// round is one round: servers made anew, which come apart and are brought together again once or twice.
type round struct {
	pgtest.TB
	rng     *rand.Rand
	env     *pgtest.Env
	program string

	checksums bool
	archive   string // where both servers archive to; empty: nowhere
	names     int    // given so far, to tables, files and clusters
	said      []string
	done      tally

	primary *pgtest.Cluster // runs
	standby *pgtest.Cluster // of primary; runs
	spare   *pgtest.Cluster // another one; or nil
	frozen  *pgtest.Cluster // has a checkpointer that does not work; or nil
}

// oneIn is true once in n times.
func (r *round) oneIn(n int) bool { return r.rng.IntN(n) == 0 }

// oneOf is one of several.
func oneOf[T any](r *round, of ...T) T { return of[r.rng.IntN(len(of))] }

// say puts down what was chosen.
func (r *round) say(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *round) story() string { return strings.Join(r.said, ", ") }

func (r *round) root() string {
	if r.env == nil {
		return ""
	}
	return r.env.Root
}

// name makes a name that no other thing of the round has.
func (r *round) name(kind string) string {
	r.names++
	return fmt.Sprintf("%s%d", kind, r.names)
}

func (r *round) play() {
	r.begin()
	for turn := range 1 + r.rng.IntN(2) {
		if turn > 0 {
			r.say("| turn %d", turn+1)
		}
		r.turn()
	}
}

// begin makes a primary, its load, and one or two standbys.
func (r *round) begin() {
	o := pgtest.InitOptions{
		SegSizeMB: oneOf(r, 1, 1, 2, 16),
		Checksums: r.oneIn(2),
		Conf:      []string{"wal_compression = " + oneOf(r, "off", "pglz", "lz4"), "shared_buffers = " + oneOf(r, "2MB", "128MB")},
	}
	r.checksums = o.Checksums
	r.say("segments of %d MB, checksums %v", o.SegSizeMB, o.Checksums)
	if r.oneIn(3) {
		r.archive = r.env.Dir("archive")
		o.Conf = append(o.Conf, "archive_mode = on",
			fmt.Sprintf("archive_command = 'test ! -f %s/%%f && cp %%p %[1]s/%%f'", r.archive),
			fmt.Sprintf("restore_command = 'cp %s/%%f %%p'", r.archive))
		r.say("archive")
	}
	r.primary = r.env.Init("one", o)
	r.primary.Start()
	r.primary.InstallAmCheck()
	if r.oneIn(2) {
		r.primary.Tablespace("elsewhere")
		r.say("tablespace")
	}
	r.common(r.primary)
	r.loads(r.primary, r.rng.IntN(3))
	r.standby = r.primary.Standby("two")
	if r.oneIn(2) {
		r.spare = r.primary.Standby("three")
		r.spare.Start()
	}
	r.standby.Start()
	r.primary.WaitReplay(r.standby)
}

// turn separates the primary from its standby, which takes over, and makes it that one's standby by a rewind.
func (r *round) turn() {
	old := r.part()
	source := r.chooseSource(old)
	r.rewind(old, source)
}
