package trouble

import (
	"fmt"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// ahead is what the source does that its standby does not get. It touches pages of every kind that the rewind copies: in
// place, at the tables' ends, in files of new numbers; and its checkpoint puts all of them on its disk.
func (s *stage) ahead() {
	s.source.SQL("postgres", fmt.Sprintf(`
		SELECT format('UPDATE t%%s SET n = 4711 WHERE id %%%% 2 = 0', i) FROM generate_series(1, %d) i \gexec
		INSERT INTO t2 SELECT i, 4711, repeat(md5(i::text), 4) FROM generate_series(1, 500) i;
		VACUUM FULL t3; TRUNCATE t4; DROP TABLE only_source;
		CREATE TABLE lost AS SELECT generate_series(1, 5000) i;
		CREATE DATABASE lost;
		CHECKPOINT`, tables))
}

// takeOver: the source's machine is lost, and its standby takes its place. It is idle afterwards.
func (s *stage) takeOver() {
	s.source.Kill9()
	if !s.standby.Running() {
		s.standby.Start()
	}
	s.standby.Promote()
	s.standby.Quiesce()
}

// goOn lets the new source work.
func (s *stage) goOn() {
	s.standby.SQL("postgres", "UPDATE t1 SET n = 12 WHERE id % 5 = 0; CREATE TABLE taken_over AS SELECT generate_series(1, 1000) i; CHECKPOINT")
}

// leaveBehind stops the standby; what it has is up to the LSN.
func (s *stage) leaveBehind() (lsn uint64) {
	s.source.FlushWAL()
	s.source.WaitReplay(s.standby)
	s.standby.Stop(pgtest.Fast)
	return s.standby.Control().MinRecoveryPoint
}

// TestFailover puts another server in the source's place.
func TestFailover(t *testing.T) {
	h := newTheatre(t)
	h.run("to a standby that has everything", func(t *testing.T) {
		s := h.stage(t)
		a, b := newLink(t, s.source, trouble{}), newLink(t, s.standby, trouble{})
		p := s.launchBraked(a, conninfo(a, b)+" target_session_attrs=read-write")
		p.untilCopying(a)
		s.takeOver()
		p.wait(exitDone)
		s.judge(s.standby)
	})
	h.run("to a standby that was behind from the beginning", func(t *testing.T) {
		s := h.stage(t)
		fork := s.leaveBehind()
		s.ahead()
		a, b := newLink(t, s.source, trouble{}), newLink(t, s.standby, trouble{})
		p := s.launchBraked(a, conninfo(a, b)+" target_session_attrs=read-write")
		p.untilNewer(fork, a)
		s.takeOver()
		p.wait(exitDone)
		s.noLostPages(s.standby, fork)
		s.goOn()
		s.judge(s.standby)
		s.checkIndexes(s.standby)
	})
	h.run("to a standby that fell behind meanwhile", func(t *testing.T) {
		s := h.stage(t)
		a, b := newLink(t, s.source, trouble{}), newLink(t, s.standby, trouble{})
		p := s.launchBraked(a, conninfo(a, b)+" target_session_attrs=read-write")
		p.untilDone(1, a)
		fork := s.leaveBehind()
		s.ahead()
		p.untilNewer(fork, a)
		s.takeOver()
		p.wait(exitDone)
		s.noLostPages(s.standby, fork)
		s.goOn()
		s.judge(s.standby)
		s.checkIndexes(s.standby)
	})
	h.run("between two runs, to a standby that was behind from the beginning", func(t *testing.T) {
		s := h.stage(t)
		fork := s.leaveBehind()
		s.ahead()
		a := newLink(t, s.source, trouble{})
		p := s.launchBraked(a, conninfo(a))
		p.untilNewer(fork, a)
		p.kill()
		s.takeOver()
		s.goOn()
		s.launch(s.standby.ConnString()).wait(exitDone)
		s.noLostPages(s.standby, fork)
		// Nothing of the first run may be left, and then the result is that of one run.
		fresh := h.old.Copy(s.target.Name + "fresh")
		fresh.MustRewind(h.bin.Fastrewind, pgtest.FromServer(s.standby))
		pgtest.SameTrees(s, fresh, s.target, pgtest.RewindDifferences(true)...)
		s.judge(s.standby)
	})
	h.run("between two runs, to a standby that fell behind", func(t *testing.T) {
		s := h.stage(t)
		a := newLink(t, s.source, trouble{})
		p := s.launchBraked(a, conninfo(a))
		p.untilDone(1, a)
		fork := s.leaveBehind()
		s.ahead()
		p.untilNewer(fork, a)
		p.kill()
		s.takeOver()
		s.goOn()
		s.launch(s.standby.ConnString()).wait(exitDone)
		s.noLostPages(s.standby, fork)
		s.judge(s.standby)
		s.checkIndexes(s.standby)
	})
	h.run("to a lagging standby of the same timeline", func(t *testing.T) {
		s := h.stage(t)
		s.lagging()
		s.launch(s.standby.ConnString()).wait(exitDone)
		s.judge(s.source)
	})
	h.run("to a lagging standby of the same timeline, and back", func(t *testing.T) {
		s := h.stage(t)
		s.lagging()
		b := newLink(t, s.standby, trouble{})
		p := s.launchBraked(b, conninfo(b))
		p.untilCopying(b)
		p.kill()
		s.source.SQL("postgres", "UPDATE t9 SET n = 9; CHECKPOINT")
		s.launch(s.source.ConnString()).wait(exitDone)
		s.judge(s.source)
	})
}

// checkIndexes lets pg_amcheck look at the rewound target.
func (s *stage) checkIndexes(primary *pgtest.Cluster) {
	s.t.Helper()
	s.target.Start()
	primary.WaitReplay(s.target)
	s.target.AmCheck()
}

// lagging interrupts a run from the source after it has copied what the standby, whose replay stands still, does not have.
func (s *stage) lagging() {
	s.t.Helper()
	s.standby.SQL("postgres", "SELECT pg_wal_replay_pause()")
	s.ahead()
	a := newLink(s.t, s.source, trouble{})
	p := s.launchBraked(a, conninfo(a))
	p.untilDone(1, a)
	p.kill()
	s.mustNotStart()
}
