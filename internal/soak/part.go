package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// part promotes the standby while the primary goes on. It returns the old primary, which is not running any more.
func (r *round) part() (old *pgtest.Cluster) {
	old = r.primary
	r.loads(old, r.rng.IntN(3))
	if r.spare != nil {
		// It must not get what only the old primary has.
		r.spare.Stop(pgtest.Fast)
	}
	old.FlushWAL()
	old.WaitReplay(r.standby)
	// Without a checkpoint nothing can be done that waits for one.
	quick := r.oneIn(6)
	if quick {
		r.standby.PromoteWithoutCheckpoint()
		r.frozen = r.standby
		r.say("no checkpoint after promotion")
	} else {
		r.standby.Promote()
	}
	r.primary, r.standby = r.standby, nil
	if r.spare != nil {
		r.spare.Follow(r.primary)
		r.spare.Start()
		// Or it might take, from the archive, what the old primary goes on with on the old timeline.
		r.primary.FlushWAL()
		r.primary.WaitReplay(r.spare)
	}
	if quick {
		r.primary.Pgbench("-n", "-t", "50")
	} else {
		r.loads(r.primary, r.rng.IntN(4))
	}
	r.loads(old, 1+r.rng.IntN(4))
	if !quick {
		r.loads(r.primary, r.rng.IntN(3))
	}
	r.end(old)
	return old
}

// thaw lets the server that was promoted without a checkpoint have it.
func (r *round) thaw() {
	if r.frozen != nil {
		r.frozen.Thaw()
		r.frozen = nil
	}
}

// end ends a server in one of the ways servers end.
func (r *round) end(c *pgtest.Cluster) {
	switch r.rng.IntN(5) {
	case 0:
		c.Stop(pgtest.Immediate)
		r.say("immediate stop")
	case 1:
		c.Kill9()
		r.say("crash")
	case 2:
		loaded := meanwhile(c, fmt.Sprintf(
			"INSERT INTO t1 (word, n) SELECT repeat(md5(j::text), 20), j FROM generate_series(1, %d) j; UPDATE t2 SET n = n + 1; DROP TABLE t8; CHECKPOINT; VACUUM FULL t7",
			10_000+r.rng.IntN(50_000)))
		time.Sleep(time.Duration(r.rng.IntN(400)) * time.Millisecond)
		c.Kill9()
		<-loaded
		r.say("crash under load")
	default:
		c.Stop(pgtest.Fast)
		if r.archive != "" && r.oneIn(2) {
			r.lose(c)
		}
	}
}

// lose removes segments of WAL that the archive has, all but the newest.
func (r *round) lose(c *pgtest.Cluster) {
	marks, err := filepath.Glob(c.Path("pg_wal", "archive_status", "*.done"))
	if err != nil {
		r.Fatalf("%v", err)
	}
	lost := 0
	for _, mark := range marks {
		name := strings.TrimSuffix(filepath.Base(mark), ".done")
		if len(name) != 24 || r.oneIn(3) {
			continue
		}
		if os.Remove(c.Path("pg_wal", name)) == nil {
			lost++
		}
	}
	r.say("%d segments lost", lost)
}

// source is where a target is rewound from.
type source struct {
	arg     []string        // what says so on the command line
	server  *pgtest.Cluster // that runs as source; nil for a directory
	primary *pgtest.Cluster // whom the target is to follow afterwards
	dir     bool
	// change, if not nil, puts another source in this one's place between two sessions.
	change func() source
}

func fromServer(c, primary *pgtest.Cluster) source {
	return source{arg: []string{"--source-server", c.ConnString()}, server: c, primary: primary}
}

// chooseSource chooses where the old primary is rewound from.
func (r *round) chooseSource(*pgtest.Cluster) source {
	switch kind := r.rng.IntN(8); {
	case kind < 2:
		if r.spare != nil {
			r.spare.Stop(pgtest.Fast)
		}
		r.thaw()
		r.primary.Stop(pgtest.Fast)
		r.say("from a directory")
		return source{arg: []string{"--source-pgdata", r.primary.DataDir()}, primary: r.primary, dir: true}
	case kind < 4 && r.spare != nil:
		r.thaw()
		r.primary.FlushWAL()
		r.primary.WaitReplay(r.spare)
		r.say("from a standby")
		return fromServer(r.spare, r.primary)
	case kind < 6 && r.spare != nil:
		return r.failover()
	case kind < 7 && r.spare != nil:
		return r.lagging()
	}
	r.say("from a server")
	return fromServer(r.primary, r.primary)
}

// failover: the source is killed between two sessions, and its standby takes over. It may lack what was copied before.
func (r *round) failover() source {
	r.thaw()
	r.primary.FlushWAL()
	r.primary.WaitReplay(r.spare)
	behind := r.oneIn(2)
	r.say("from a server that fails over (standby behind: %v)", behind)
	s := fromServer(r.primary, r.primary)
	early := r.oneIn(2)
	fall := func() {
		r.spare.Stop(oneOf(r, pgtest.Fast, pgtest.Immediate))
		r.loads(r.primary, 2+r.rng.IntN(3))
		r.primary.Checkpoint()
	}
	if behind && early {
		fall()
	}
	s.change = func() source {
		lost := r.primary
		if behind && !early {
			fall()
		}
		if !behind {
			r.loads(r.primary, r.rng.IntN(3))
		}
		lost.Kill9()
		if !r.spare.Running() {
			r.spare.Start()
		}
		r.promote(r.spare)
		r.primary, r.spare = r.spare, nil
		r.loads(r.primary, r.rng.IntN(3))
		return fromServer(r.primary, r.primary)
	}
	return s
}

// promote promotes a standby that may be replaying: the query that asks for it may be cancelled by a conflict with what is
// replayed.
func (r *round) promote(c *pgtest.Cluster) {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, _ = c.TrySQL("postgres", "SELECT pg_promote(false)") // asked once more, it does no harm
		if still, err := c.TrySQL("postgres", "SELECT pg_is_in_recovery()"); err == nil && still == "f" {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s cannot be promoted", c.Name)
		}
	}
}

// lagging: after a session from the primary, a standby is the source that has less than the primary had then.
func (r *round) lagging() source {
	r.thaw()
	r.primary.FlushWAL()
	r.primary.WaitReplay(r.spare)
	r.say("from a server, then from its lagging standby")
	r.spare.SQL("postgres", "SELECT pg_wal_replay_pause()")
	r.loads(r.primary, 1+r.rng.IntN(3))
	r.primary.Checkpoint()
	s := fromServer(r.primary, r.primary)
	s.change = func() source {
		then := fromServer(r.spare, r.primary)
		if r.oneIn(2) {
			then.change = func() source { return fromServer(r.primary, r.primary) }
		}
		return then
	}
	return s
}
