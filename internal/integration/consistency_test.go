package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestAloneConsistency holds what a rewind from a working source promises: the target's own pg_wal has all the WAL that
// makes its pages fit together. Each target is started with nothing to stream from.
func TestAloneConsistency(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	env := pgtest.New(t)
	old := env.Init("old", pgtest.InitOptions{Checksums: true})
	old.Start()
	old.Pgbench("-i", "-s", "2")
	old.SQL("postgres", "create table a (i int, t text)")
	source := old.Standby("source")
	source.Start()
	old.WaitReplay(source)
	source.Promote()
	old.SQL("postgres", "insert into a select g, repeat('y', 100) from generate_series(1, 5000) g")
	old.Stop(pgtest.Fast)
	bin := pgtest.BuildFastrewind(t)

	t.Run("source under load", func(t *testing.T) {
		target := old.Copy("under-load")
		loaded := make(chan struct{})
		go func() {
			defer close(loaded)
			source.Pgbench("-c", "3", "-T", "5")
		}()
		time.Sleep(time.Second) // the load is under way; nothing depends on how far
		target.MustRewind(bin.Fastrewind, pgtest.FromServer(source))
		startAlone(t, target)
		<-loaded
		target.Stop(pgtest.Fast)
		target.Checksums()
	})
	t.Run("flushed up to the middle of a record", func(t *testing.T) {
		target := old.Copy("mid-record")
		source.Checkpoint()
		source.Freeze("checkpointer", "background writer")
		defer source.Thaw()
		asleep := make(chan struct{})
		go func() {
			defer close(asleep)
			_, _ = source.TrySQL("postgres",
				"begin; insert into a select g, repeat('z', 700) from generate_series(1, 30000) g; select pg_sleep(15)")
		}()
		for source.Query("postgres", "select count(*) from pg_stat_activity where query like '%pg_sleep(15)' and wait_event = 'PgSleep'") != "1" {
			time.Sleep(100 * time.Millisecond)
		}
		target.MustRewind(bin.Fastrewind, pgtest.FromServer(source))
		startAlone(t, target)
		source.SQL("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(15)' and pid <> pg_backend_pid()")
		<-asleep
	})
	t.Run("role with one connection", func(t *testing.T) {
		target := old.Copy("one-connection")
		source.SQL("postgres", `create role one login connection limit 1;
			grant execute on function pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
				pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) to one`)
		target.MustRewind(bin.PgRewind, pgtest.FromConn(source.ConnStringAs("one")), "-j", "4")
		startAlone(t, target)
	})
	t.Run("file name that is not UTF-8, in a directory", func(t *testing.T) {
		source.Stop(pgtest.Fast)
		name := "zz_caf\xe9.conf"
		if err := os.WriteFile(source.Path(name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		target := old.Copy("odd-name")
		target.MustRewind(bin.Fastrewind, pgtest.FromDir(source))
		if got, err := os.ReadFile(target.Path(name)); err != nil || string(got) != "x" {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	})
}

// startAlone starts a rewound cluster as a standby of nobody and waits until it accepts connections, which it does once
// it is consistent.
func startAlone(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	c.AppendConf("primary_conninfo = ''", "hot_standby = on")
	signal := filepath.Join(c.DataDir(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.TryStart(); err != nil {
		t.Fatalf("did not become consistent with its own WAL: %v", err)
	}
	if _, err := c.TrySQL("postgres", "select count(*) from a"); err != nil {
		t.Error(err)
	}
}

// TestLaggingSource rewinds from a standby that has not even replayed up to the divergence. The pages that were not
// copied are as new as the divergence, so the server must not be consistent before: stock's is, and shows wrong data.
func TestLaggingSource(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	env := pgtest.New(t)
	primary := env.Init("primary", pgtest.InitOptions{Checksums: true})
	primary.Start()
	primary.SQL("postgres", "create table v (i int); insert into v select generate_series(1, 100000)")
	target, lagging := primary.Standby("target"), primary.Standby("lagging")
	target.Start()
	lagging.Start()
	primary.WaitReplay(target)
	primary.Checkpoint()
	primary.WaitReplay(lagging)
	lagging.SQL("postgres", "select pg_wal_replay_pause()")
	for lagging.Query("postgres", "select pg_get_wal_replay_pause_state()") != "paused" {
		time.Sleep(100 * time.Millisecond)
	}
	primary.SQL("postgres", "delete from v where i > 10")
	primary.SQL("postgres", "vacuum v")
	primary.Checkpoint()
	primary.WaitReplay(target)
	target.Promote()
	target.SQL("postgres", "create table z (i int)")
	target.Stop(pgtest.Fast)
	stock := target.Copy("stock")

	res := target.MustRewind(pgtest.BuildFastrewind(t).Fastrewind, pgtest.FromServer(lagging))
	_, after, ok := strings.Cut(res.Stderr, "servers diverged at WAL location ")
	if !ok {
		t.Fatalf("no divergence in %q", res.Stderr)
	}
	divergence, _, _ := strings.Cut(after, " ")
	stock.StockRewind(pgtest.FromServer(lagging))
	ours, theirs := target.Control().MinRecoveryPoint, stock.Control().MinRecoveryPoint
	t.Logf("divergence %s, minRecoveryPoint %v, stock's %v", divergence, ours, theirs)
	if theirs >= ours {
		t.Errorf("the source does not lag: stock's minRecoveryPoint is %v, ours %v", theirs, ours)
	}
	target.AppendConf("recovery_target = 'immediate'", "recovery_target_action = promote", "restore_command = 'false'")
	if err := os.WriteFile(target.Path("recovery.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := target.TryStart(); err != nil {
		return // it refuses to open before the divergence: right as well
	}
	if got := target.Query("postgres", "select count(*) from v"); got != "10" {
		t.Errorf("opened with %s rows, the divergence had 10", got)
	}
}
