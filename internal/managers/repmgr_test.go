package managers

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestRepmgr: a primary is killed, repmgr promotes its standby, and then makes the old one rejoin, once with fastrewind under
// its own name in --force-rewind, once with a pg_bindir where it is pg_rewind.
func TestRepmgr(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.needs(filepath.Join(w.env.BinDir, "repmgr"))
	r := &repmgr{w: w, conf: map[*pgtest.Cluster]string{}}
	one := w.env.Init("r1", pgtest.InitOptions{Checksums: true})
	one.Start()
	one.SQL("postgres", "CREATE DATABASE repmgr; CREATE TABLE told (i int)")
	one.Pgbench("-i", "-q", "-s", "2")
	r.configure(1, one, w.env.BinDir)
	r.must(one, "primary", "register")
	two := one.Standby("r2")
	two.Start()
	r.configure(2, two, w.bin)
	r.must(two, "standby", "register", "--upstream-node-id=1")
	one.WaitReplay(two)

	rejoin := func(old, heir *pgtest.Cluster, forceRewind string) {
		t.Helper()
		thaw := freezeReceiver(t, heir)
		old.SQL("postgres", "INSERT INTO told SELECT generate_series(1, 200000)")
		old.Checkpoint()
		r.crash(old)
		thaw()
		r.must(heir, "standby", "promote")
		heir.SQL("postgres", "UPDATE pgbench_accounts SET filler = 'new' WHERE aid % 3 = 0; DELETE FROM told")
		res := r.must(old, "node", "rejoin", "-d", r.conninfo(heir), forceRewind,
			"--config-files=postgresql.conf,postgresql.auto.conf", "--config-archive-dir="+w.logs, "--verbose")
		logLines(t, "--- "+res.Cmd, res.Stderr+res.Stdout, "rewind", "NOTICE", "INFO")
		if text := "pg_rewind execution"; strings.Contains(res.Stdout+res.Stderr, text+" failed") {
			t.Errorf("repmgr complains of pg_rewind: %s", res)
		}
		w.wait(old.Name+" to stream", func() bool {
			answer, err := heir.TrySQL("postgres", fmt.Sprintf(`SELECT count(*) > 0 FROM pg_stat_replication
				WHERE application_name = '%s' AND state = 'streaming' AND replay_lsn >= pg_current_wal_flush_lsn()`, old.Name))
			return err == nil && answer == "t"
		}, func() string { return res.String() })
		pgtest.SameData(t, heir, old)
	}
	rejoin(one, two, "--force-rewind="+w.ours.Fastrewind)
	// The primary is two now; one was started by repmgr.
	rejoin(two, one, "--force-rewind")
	out := r.must(one, "cluster", "show").Stdout
	t.Logf("%s", out)
	if n := strings.Count(out, "running"); n < 2 {
		t.Errorf("repmgr cluster show says %d nodes are running:\n%s", n, out)
	}
}

// repmgr is two nodes with their configuration files.
type repmgr struct {
	w    *world
	conf map[*pgtest.Cluster]string
}

// configure writes a node's repmgr.conf. Its port is not in postgresql.conf, which a rewind copies, but in what repmgr
// gives to pg_ctl.
func (r *repmgr) configure(id int, c *pgtest.Cluster, binDir string) {
	r.conf[c] = filepath.Join(r.w.env.Root, c.Name, "repmgr.conf")
	text := fmt.Sprintf(`node_id=%d
node_name='%s'
conninfo='%s'
data_directory='%s'
pg_bindir='%s'
pg_ctl_options='-s -o "-p %d -k %s -c listen_addresses=127.0.0.1"'
log_level=INFO
`, id, c.Name, r.conninfo(c), c.DataDir(), binDir, c.Port, c.SocketDir())
	r.w.env.WriteFile(r.conf[c], []byte(text), 0o600)
}

// conninfo is a node's connection string, which repmgr hands on to pg_rewind as it is.
func (r *repmgr) conninfo(c *pgtest.Cluster) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=repmgr connect_timeout=2", c.Port, pgtest.Superuser)
}

// must runs repmgr on a node.
func (r *repmgr) must(c *pgtest.Cluster, args ...string) *pgtest.Result {
	r.w.t.Helper()
	return r.w.env.MustExec(pgtest.Cmd{
		Path: filepath.Join(r.w.env.BinDir, "repmgr"), Args: append([]string{"-f", r.conf[c]}, args...), Timeout: deadline,
	})
}

// crash ends a server at once, whoever started it: what repmgr starts is no child of ours. (pgtest's watchdog ends that, too.)
func (r *repmgr) crash(c *pgtest.Cluster) {
	if c.Running() {
		c.Kill9()
		return
	}
	r.w.env.MustExec(pgtest.Cmd{Path: "pg_ctl", Args: []string{"stop", "-D", c.DataDir(), "-m", "immediate"}, Timeout: deadline})
}
