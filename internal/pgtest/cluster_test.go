package pgtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestInitOptions(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	env := New(t)
	for _, c := range []struct {
		name    string
		options InitOptions
		want    string // wal_segment_size, data_checksums, wal_log_hints, data_directory_mode, fsync, work_mem
	}{
		{"plain", InitOptions{}, "16MB off on 0700 off 4MB"},
		{"sums", InitOptions{Checksums: true, SegSizeMB: 1, Fsync: true}, "1MB on off 0700 on 4MB"},
		{"group", InitOptions{NoHints: true, GroupAccess: true, SegSizeMB: 64, Conf: []string{"work_mem = 5MB"}}, "64MB off off 0750 off 5MB"},
	} {
		cluster := env.Init(c.name, c.options)
		cluster.Start()
		var got []string
		for _, name := range []string{"wal_segment_size", "data_checksums", "wal_log_hints", "data_directory_mode", "fsync", "work_mem"} {
			got = append(got, cluster.Setting(name))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, expected %s", c.name, got, c.want)
		}
		cluster.Stop(Fast)
	}
	if a, b := env.clusters[0].Control(), env.clusters[1].Control(); a.SystemID == b.SystemID || a.State != 1 || a.SegSize != 16<<20 {
		t.Errorf("pg_control: %+v and %+v", a, b)
	}
}

// TestServerFailures: what goes wrong is said, and what is corrupt is found.
func TestServerFailures(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	var cluster *Cluster
	fails := func(name, want string, f func()) {
		t.Helper()
		cluster.env.tb = &runner{ctx: t.Context(), name: name, w: os.Stderr}
		defer func() { cluster.env.tb = t }()
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		<-done
		if got := strings.Join(cluster.env.tb.(*runner).failures, "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: failures %q, expected %q", name, got, want)
		}
	}
	env := New(t)
	cluster = env.Init("c", InitOptions{Checksums: true})
	cluster.Start()
	fails("start twice", "is running already", func() { _ = cluster.TryStart() })
	fails("wrong SQL", `syntax error at or near "SELEKT"`, func() { cluster.SQL("postgres", "SELEKT 1") })
	if _, err := cluster.TrySQL("postgres", "SELECT 1/0"); err == nil || !strings.Contains(err.Error(), "division by zero") {
		t.Errorf("TrySQL: %v", err)
	}
	fails("copy of a running cluster", "while it runs", func() { cluster.Copy("other") })
	cluster.InstallAmCheck()
	cluster.SQL("postgres", "CREATE TABLE t AS SELECT g AS i FROM generate_series(1, 5000) g; CREATE INDEX t_i ON t (i)")
	cluster.AmCheck()
	index := cluster.Path(cluster.Query("postgres", "SELECT pg_relation_filepath('t_i')"))
	cluster.Stop(Fast)
	cluster.Checksums()
	fails("not running", "is not running", func() { cluster.Stop(Fast) })

	data, err := os.ReadFile(index)
	must(t, err)
	data[3*8192-100] ^= 1 // near the end of a leaf page: a key or a heap tuple's address
	must(t, os.WriteFile(index, data, 0o600))
	fails("checksums of a corrupt cluster", "Bad checksums:  1", func() { cluster.Checksums() })
	env.run("pg_checksums", "--disable", "--no-sync", "-D", cluster.DataDir())
	cluster.Start()
	fails("amcheck of a corrupt index", "t_i", func() { cluster.AmCheck() })
	cluster.Stop(Immediate)

	must(t, os.Rename(cluster.Path("global/pg_control"), cluster.Path("global/away")))
	if err := cluster.TryStart(); err == nil || !strings.Contains(err.Error(), "the server ended: exit status") {
		t.Errorf("start without pg_control: %v", err)
	}
	fails("start that fails shows the log", "global/pg_control", func() { cluster.Start() })
	if cluster.Running() {
		t.Error("a server that ended is said to run")
	}
}

// TestKill9 leaves nothing running, and a cluster that recovers; what it shared is there until the environment ends.
func TestKill9(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	t.Parallel()
	env := New(t)
	c := env.Init("c", InitOptions{})
	c.Start()
	c.SQL("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
	pid := c.Pid()
	family := append([]int{pid}, children(pid)...)
	if len(family) < 5 {
		t.Errorf("a server has the processes %v only", family)
	}
	c.Freeze("checkpointer")
	c.Kill9()
	for _, p := range family {
		if running(p) {
			t.Errorf("process %d of %v still runs", p, family)
		}
	}
	if _, err := os.Stat(c.Path("postmaster.pid")); err != nil {
		t.Errorf("a crash leaves postmaster.pid behind: %v", err)
	}
	c.Start()
	if got := c.Query("postgres", "SELECT i FROM t"); got != "1" {
		t.Errorf("after recovery: %q", got)
	}

	c.Kill9()
	segments := func() int {
		table, err := os.ReadFile("/proc/sysvipc/shm")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(table)) { // key, shmid, ...
			for _, s := range env.shared {
				if fields := strings.Fields(line); s.path == "" && fields[1] == strconv.Itoa(s.id) {
					n++
				}
			}
		}
		return n
	}
	if n := segments(); n != 1 { // the first server's went with its recovery
		t.Errorf("%d segments are left after a crash: %+v", n, env.shared)
	}
	for _, s := range env.shared {
		s.remove()
		if _, err := os.Lstat(s.path); err == nil {
			t.Errorf("%s is left", s.path)
		}
	}
	if n := segments(); n != 0 {
		t.Errorf("%d segments are left of %+v", n, env.shared)
	}
}

// TestPromoteWithoutCheckpoint: pg_control stays on the old timeline until the checkpointer may go on.
func TestPromoteWithoutCheckpoint(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	env := New(t)
	primary := env.Init("primary", InitOptions{})
	primary.Start()
	standby := primary.Standby("standby")
	standby.Start()
	primary.WaitReplay(standby)
	standby.PromoteWithoutCheckpoint()
	if standby.InRecovery() || standby.Timeline() != 1 {
		t.Errorf("in recovery: %t, timeline in pg_control: %d", standby.InRecovery(), standby.Timeline())
	}
	if got := standby.Query("postgres", "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"); got != "00000002" {
		t.Errorf("writes on timeline %s", got)
	}
	standby.Thaw()
	standby.Checkpoint()
	if standby.Timeline() != 2 {
		t.Errorf("timeline after a checkpoint: %d", standby.Timeline())
	}
	standby.Stop(Fast)
}

// TestQuiesce: no WAL for longer than the background writer's 15 seconds.
func TestQuiesce(t *testing.T) {
	if testing.Short() {
		t.Skip("waits")
	}
	t.Parallel()
	c := New(t).Init("c", InitOptions{})
	c.Start()
	c.SQL("postgres", "CREATE TABLE t (i int)")
	c.Quiesce()
	before := c.LSN()
	time.Sleep(17 * time.Second)
	if after := c.LSN(); after != before {
		t.Errorf("a quiet server went from %s to %s", before, after)
	}
	c.Stop(Fast)
}

// TestCompareDataDetects each kind of difference between two servers that were one.
func TestCompareDataDetects(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	env := New(t)
	a := env.Init("a", InitOptions{})
	a.Start()
	a.SQL("postgres", `CREATE TABLE t (i int, s text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g;
		CREATE SEQUENCE q; CREATE UNLOGGED TABLE u AS SELECT 1 AS i; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;
		SELECT lo_from_bytea(4711, 'large'); CREATE TABLE parent (i int) PARTITION BY RANGE (i);
		CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (10); INSERT INTO parent VALUES (1)`)
	a.SQL("postgres", "CREATE DATABASE other")
	a.SQL("other", `CREATE TABLE "odd |' name" (pgtest_row int)`)
	a.Stop(Fast)
	b := a.Copy("b")
	a.Start()
	b.Start()
	SameData(t, a, b)
	for _, c := range []struct{ name, db, do, undo, want string }{
		{"one value", "postgres", "UPDATE t SET s = 'y' WHERE i = 5", "UPDATE t SET s = 'x' WHERE i = 5", "database postgres: table public.t: "},
		{"a row twice, another not", "postgres", "UPDATE t SET i = 6 WHERE i = 5", "", "database postgres: table public.t: "},
		{"a row more", "other", `INSERT INTO "odd |' name" VALUES (1)`, `TRUNCATE "odd |' name"`, "database other: table public.odd |' name: "},
		{"sequence", "postgres", "SELECT nextval('q')", "", "database postgres: table public.q: "},
		{"large object", "postgres", "SELECT lo_put(4711, 0, 'L')", "SELECT lo_put(4711, 0, 'l')", "database postgres: table pg_catalog.pg_largeobject: "},
		{"partition", "postgres", "INSERT INTO parent VALUES (2)", "DELETE FROM parent WHERE i = 2", "database postgres: table public.child: "},
		{"unlogged table", "postgres", "INSERT INTO u VALUES (2)", "DELETE FROM u WHERE i = 2", "database postgres: table public.u: "},
		{"materialised view", "postgres", "CREATE TABLE IF NOT EXISTS t2 (i int); REFRESH MATERIALIZED VIEW m", "", "database postgres: table public.m: "},
		{"table more", "other", "CREATE TABLE more (i int)", "DROP TABLE more", "database other: b has table public.more, a has not"},
		{"role", "postgres", "CREATE ROLE somebody", "DROP ROLE somebody", "table pg_catalog.pg_authid: "},
		{"database", "postgres", "CREATE DATABASE more", "DROP DATABASE more", "databases: a has [other postgres template1], b has [more other postgres template1]"},
	} {
		b.SQL(c.db, c.do)
		if got := strings.Join(CompareData(a, b), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, expected %q", c.name, got, c.want)
		}
		if c.undo != "" {
			b.SQL(c.db, c.undo)
		}
	}
}

// TestCopyRelocatesTablespaces: no two clusters share one.
func TestCopyRelocatesTablespaces(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	env := New(t)
	a := env.Init("a", InitOptions{})
	a.Start()
	a.Tablespace("one")
	a.PrivateTablespace("two")
	a.SQL("postgres", "CREATE TABLE t1 TABLESPACE one AS SELECT 1 AS i; CREATE TABLE t2 TABLESPACE two AS SELECT 2 AS i")
	s := a.Standby("s")
	s.Start()
	a.WaitReplay(s)
	SameData(t, a, s)
	s.Stop(Fast)
	a.Stop(Fast)
	b := a.Copy("b")
	SameTrees(t, a, b)
	var places []string
	for _, c := range []*Cluster{a, s, b} {
		for _, target := range c.tablespaceLinks() {
			place, err := filepath.EvalSymlinks(follow(c.DataDir(), "", target))
			must(t, err)
			if !strings.HasPrefix(place, filepath.Dir(c.DataDir())+"/") {
				t.Errorf("%s has a tablespace at %s", c.Name, place)
			}
			places = append(places, place)
		}
	}
	if len(places) != 6 {
		t.Errorf("tablespaces: %v", places)
	}
	a.Start()
	a.SQL("postgres", "UPDATE t1 SET i = 10; UPDATE t2 SET i = 20")
	a.Stop(Fast)
	b.Start()
	if got := b.Query("postgres", "SELECT t1.i, t2.i FROM t1, t2"); got != "1|2" {
		t.Errorf("the copy sees the original's changes: %s", got)
	}
}
