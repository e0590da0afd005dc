package trouble

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// removedWAL lets the source's checkpoints remove WAL that was listed, and that the rewound server needs. It comes from the
// archive, if there is one, and is named if not.
func removedWAL(s *stage, archived bool) {
	var args []string
	archive := s.env.Dir(s.target.Name + ".archive")
	keep := func() {
		if res := s.env.Exec(pgtest.Cmd{Path: "/bin/cp", Args: []string{"-a", s.source.Path("pg_wal") + "/.", archive}}); res.ExitCode != 0 {
			s.t.Fatal(res)
		}
	}
	keep()
	if archived {
		args = []string{"--wal-archive", archive}
	}
	k := newLink(s.t, s.source, trouble{})
	p := s.launchBraked(k, conninfo(k), args...)
	p.advance(k, "the point of no return", func() bool {
		_, err := os.Lstat(s.target.Path("fastrewind.journal"))
		return err == nil
	})
	segments := func() (names []string) {
		return strings.Fields(s.source.Query("postgres", "SELECT name FROM pg_ls_waldir() WHERE name ~ '^00000002.{16}$' ORDER BY name"))
	}
	before := segments()
	s.source.SQL("postgres", "ALTER SYSTEM SET wal_keep_size = 0")
	s.source.Reload()
	for range 2 { // what the last checkpoint but one needs goes
		s.source.SQL("postgres", "SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()")
		keep()
		s.source.Checkpoint()
	}
	after := segments()
	gone := slices.DeleteFunc(before, func(name string) bool { return slices.Contains(after, name) })
	if len(gone) < 2 {
		s.t.Fatalf("the source has removed %v", gone)
	}
	last := gone[len(gone)-1]
	if _, err := os.Lstat(s.target.Path("pg_wal", last)); err == nil {
		s.t.Fatalf("%s was copied already", last)
	}
	k.release()
	res := p.wait(exitDone)
	if !archived {
		if !strings.Contains(res.Stderr, "has removed WAL since it was listed") || !strings.Contains(res.Stderr, last) {
			s.t.Errorf("%s is not named: %s", last, res.Stderr)
		}
		return
	}
	for _, name := range gone {
		if _, err := os.Lstat(s.target.Path("pg_wal", name)); err != nil {
			s.t.Fatalf("%v: %s", err, res.Stderr)
		}
	}
	if strings.Contains(res.Stderr, "warning:") {
		s.t.Fatalf("there is nothing to warn of: %s", res.Stderr)
	}
	s.judge(s.source)
}

// TestSource lets the source die, stall, or be cut off while it is copied.
func TestSource(t *testing.T) {
	h := newTheatre(t)
	h.run("killed and started again", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{})
		p := s.launchBraked(k, conninfo(k))
		p.untilCopying(k)
		s.source.Kill9()
		s.source.Start()
		k.release()
		p.wait(exitDone)
		s.judge(s.source)
	})
	h.run("stopped for good", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{})
		p := s.launchBraked(k, conninfo(k), "--retry-for", "1s")
		p.untilCopying(k)
		s.source.Stop(pgtest.Immediate)
		res := p.wait(exitSourceLost)
		if !strings.Contains(res.Stderr, "Run the same command again") {
			t.Errorf("it does not say what to do: %s", res.Stderr)
		}
		s.mustNotStart()
		first := k.passed.Load()
		s.launch(conninfo(k), "--retry-for", "0s").wait(exitResumable) // still nobody there
		s.source.Start()
		k.release()
		s.launch(conninfo(k)).wait(exitDone)
		t.Logf("%d kB until the source was lost, %d kB afterwards", first>>10, (k.passed.Load()-first)>>10)
		s.judge(s.source)
	})
	h.run("connection cut in the middle of a row, once", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "cut", after: 3_000_001, times: 2})
		s.launch(conninfo(k)).wait(exitDone)
		s.judge(s.source)
	})
	h.run("each connection cut in the middle of a row", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "cut", after: 2_200_001, times: 1 << 40})
		s.launch(conninfo(k)).wait(exitDone)
		s.judge(s.source)
	})
	h.run("stalled", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "stall", after: 3_000_001, times: 2})
		s.launch(conninfo(k), "--stall-timeout", "1s").wait(exitDone)
		s.judge(s.source)
	})
	h.run("stalled for good", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "stall", after: 200_000, times: 1 << 40})
		whole := newLink(t, s.source, trouble{})
		p := s.launchBraked(whole, conninfo(whole))
		p.untilCopying(whole)
		p.kill()
		s.launch(conninfo(k), "--stall-timeout", "500ms", "--retry-for", "1s").wait(exitSourceLost)
		s.mustNotStart()
		whole.release()
		s.launch(conninfo(whole)).wait(exitDone)
		s.judge(s.source)
	})
	h.run("spared by --max-rate", func(t *testing.T) { limitedRate(t, h.stage(t)) })
	h.run("WAL is removed before it is copied", func(t *testing.T) { removedWAL(h.stage(t), false) })
	h.run("WAL is removed before it is copied, and archived", func(t *testing.T) { removedWAL(h.stage(t), true) })
	h.run("a file that it cannot read", func(t *testing.T) {
		s := h.stage(t)
		s.env.WriteFile(s.source.Path("somebody's.key"), []byte("secret"), 0)
		s.env.WriteFile(s.source.Path(".s.PGSQL.1"), nil, 0) // a socket looks like that, from afar
		before := s.target.Copy(s.target.Name + "before")
		k := newLink(t, s.source, trouble{})
		res := s.launch(conninfo(k)).wait(exitRefused)
		if !strings.Contains(res.Stderr, "somebody's.key") || !strings.Contains(res.Stderr, "--exclude") {
			t.Errorf("it does not say which, and what to do: %s", res.Stderr)
		}
		pgtest.SameTrees(t, before, s.target)
		s.launch(conninfo(k), "--exclude", "*.key").wait(exitDone)
		s.judge(s.source)
	})
	h.run("tables and a database vanish", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{})
		p := s.launchBraked(k, conninfo(k))
		p.untilCopying(k)
		s.source.SQL("postgres", "DROP TABLE t2, t5, t10; VACUUM FULL t6; TRUNCATE t7; DELETE FROM t8 WHERE id > 10; VACUUM t8; DROP DATABASE other; CHECKPOINT")
		k.release()
		p.wait(exitDone)
		s.judge(s.source)
	})
}
