package trouble

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// theatre has the servers of which each case gets copies: an old primary that was left behind on timeline 1, the server
// that was promoted to timeline 2, and a standby of that one that has all it has.
type theatre struct {
	*curtain
	env                  *pgtest.Env
	bin                  pgtest.Binaries
	old, source, standby *pgtest.Cluster // stopped
	stages               int
}

// stage is a case's copies. Source and standby run.
type stage struct {
	*theatre
	t                       *testing.T
	target, source, standby *pgtest.Cluster
	launched                int
}

// curtain is a pgtest.TB that outlives cases, and fails the one that is being played.
type curtain struct {
	whole *testing.T
	mu    sync.Mutex
	now   *testing.T
}

func (c *curtain) current() *testing.T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *curtain) Helper()                           {}
func (c *curtain) Name() string                      { return c.whole.Name() }
func (c *curtain) Context() context.Context          { return c.whole.Context() }
func (c *curtain) Cleanup(f func())                  { c.whole.Cleanup(f) }
func (c *curtain) Failed() bool                      { return c.whole.Failed() || c.current().Failed() }
func (c *curtain) Logf(format string, args ...any)   { c.current().Logf(format, args...) }
func (c *curtain) Errorf(format string, args ...any) { c.current().Errorf(format, args...) }
func (c *curtain) Fatalf(format string, args ...any) { c.current().Fatalf(format, args...) }

// run plays a case.
func (c *curtain) run(name string, f func(t *testing.T)) {
	c.whole.Run(name, func(t *testing.T) {
		c.mu.Lock()
		c.now = t
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			c.now = c.whole
			c.mu.Unlock()
		}()
		f(t)
	})
}

// inMemory is where clusters are made: these tests write a lot, and are not about disks.
func inMemory() pgtest.Options {
	var o pgtest.Options
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); os.Getenv("PGTEST_DIR") == "" && err == nil && info.IsDir() {
		o.Dir = memory
	}
	return o
}

// tables are changed on both sides. So many files are made durable, and noted in the journal, in several groups: there is a
// middle.
const tables = 360

func newTheatre(t *testing.T) *theatre {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	h := &theatre{curtain: &curtain{whole: t, now: t}}
	h.bin = pgtest.BuildFastrewind(h)
	h.env = pgtest.New(h, inMemory())
	old := h.env.Init("old", pgtest.InitOptions{SegSizeMB: 1, Checksums: true})
	old.Start()
	old.InstallAmCheck()
	old.SQL("postgres", fmt.Sprintf(`
		SELECT format('CREATE TABLE t%%s AS SELECT i AS id, i AS n, repeat(md5(i::text), 4) AS t FROM generate_series(1, 400) i', i)
		FROM generate_series(1, %d) i \gexec
		CREATE INDEX ON t1 (id);
		CREATE DATABASE other`, tables))
	source, standby := old.Standby("source"), old.Standby("standby")
	source.Start()
	standby.Start()
	old.WaitReplay(source)
	standby.Stop(pgtest.Fast)
	source.Promote()
	standby.Follow(source)
	standby.Start()
	old.SQL("postgres", fmt.Sprintf(`
		SELECT format('UPDATE t%%s SET n = -n', i) FROM generate_series(1, %d) i \gexec
		CREATE TABLE only_old AS SELECT 1`, tables))
	old.Stop(pgtest.Fast)
	source.SQL("postgres", fmt.Sprintf(`
		SELECT format('UPDATE t%%s SET n = n + 1 WHERE id %%%% 3 = 0', i) FROM generate_series(1, %d, 4) i \gexec
		CREATE TABLE only_source AS SELECT generate_series(1, 1000) i;
		CHECKPOINT`, tables))
	source.FlushWAL()
	source.WaitReplay(standby)
	standby.Checkpoint()
	source.Stop(pgtest.Fast)
	standby.Stop(pgtest.Fast)
	h.old, h.source, h.standby = old, source, standby
	return h
}

// stage makes copies for a case, and starts its servers.
func (h *theatre) stage(t *testing.T) *stage {
	t.Helper()
	h.stages++
	name := func(what string) string { return fmt.Sprintf("%s%d", what, h.stages) }
	s := &stage{theatre: h, t: t}
	s.target, s.source, s.standby = h.old.Copy(name("target")), h.source.Copy(name("source")), h.standby.Copy(name("standby"))
	s.standby.Follow(s.source)
	s.source.Start()
	s.standby.Start()
	s.source.WaitReplay(s.standby)
	s.source.Checkpoint()
	t.Cleanup(func() {
		for _, c := range []*pgtest.Cluster{s.target, s.standby, s.source} {
			if c.Running() && !t.Failed() {
				c.Kill9()
			}
			if !t.Failed() {
				_ = os.RemoveAll(c.DataDir()) // the rest goes with the theatre
			}
		}
	})
	return s
}

// judge starts the rewound target as a standby of a primary, and compares what they hold.
func (s *stage) judge(primary *pgtest.Cluster) {
	s.t.Helper()
	if _, err := os.Lstat(s.target.Path("fastrewind.journal")); err == nil {
		s.t.Error("a journal is left")
	}
	s.target.Follow(primary)
	s.target.Start()
	primary.FlushWAL()
	primary.WaitStreaming(s.target)
	primary.WaitReplay(s.target)
	pgtest.SameData(s, primary, s.target)
	s.target.Stop(pgtest.Fast)
	s.target.Checksums()
}

// mustNotStart checks that no server starts on a half-rewound target.
func (s *stage) mustNotStart() {
	s.t.Helper()
	if err := s.target.TryStart(); err == nil {
		s.t.Fatal("a server could be started on a half-rewound target")
	}
}
