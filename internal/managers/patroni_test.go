package managers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// Passwords that must not be seen on any command line or in any log.
const (
	replicatorPassword = "Repl icator's\\1"
	rewinderPassword   = "Re winder's\\2"
)

// scope is the name of the Patroni cluster.
const scope = "fr"

// patroni is a cluster of two nodes. Their data directories were made before: Patroni takes them over, as it does those of
// clusters that were there before it.
type patroni struct {
	w     *world
	etcd  *etcd
	nodes []*node
}

// patroniVariable names another Patroni than the package's. It is new enough to be told where pg_rewind is, by
// postgresql.bin_name, and is told so.
const patroniVariable = "FASTREWIND_TEST_PATRONI"

func patroniProgram() (path string, binName bool) {
	if path := os.Getenv(patroniVariable); path != "" {
		return path, true
	}
	return "/usr/bin/patroni", false
}

// node is one server with its Patroni.
type node struct {
	p      *patroni
	c      *pgtest.Cluster // its server is Patroni's, not pgtest's
	config string
	env    []string // of Patroni, and so of fastrewind
	d      *daemon
}

// patroniOptions is what differs between tests.
type patroniOptions struct {
	binDir  string         // default: the world's
	dynamic map[string]any // added to postgresql in the configuration that all nodes share
	conf    []string       // lines of postgresql.conf
	load    []string       // arguments of pgbench -i
}

// startPatroni makes a primary and a standby, and starts a Patroni for each.
func (w *world) startPatroni(o patroniOptions) *patroni {
	w.t.Helper()
	if o.binDir == "" {
		o.binDir = w.bin
	}
	w.needs("/usr/bin/etcd")
	program, _ := patroniProgram()
	w.needs(program)
	p := &patroni{w: w, etcd: w.startEtcd()}
	first := w.env.Init("n1", pgtest.InitOptions{SegSizeMB: 1, Auth: "scram-sha-256", Conf: o.conf})
	first.Start()
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	first.SQL("postgres", fmt.Sprintf(`
		CREATE ROLE replicator LOGIN REPLICATION PASSWORD %s;
		CREATE ROLE rewinder LOGIN PASSWORD %s;
		GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO rewinder;
		GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO rewinder;
		GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO rewinder;
		GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO rewinder;
		CREATE TABLE told (i int PRIMARY KEY, node text);`, quote(replicatorPassword), quote(rewinderPassword)))
	first.Pgbench(append([]string{"-i", "-q"}, o.load...)...)
	second := first.Standby("n2")
	first.Stop(pgtest.Fast)

	postgresql := map[string]any{"use_pg_rewind": true, "use_slots": true, "parameters": map[string]any{"wal_keep_size": "1GB"}}
	for key, value := range o.dynamic {
		postgresql[key] = value
	}
	shared, err := json.Marshal(map[string]any{
		"ttl": 20, "loop_wait": 1, "retry_timeout": 5, "maximum_lag_on_failover": 1 << 30, "postgresql": postgresql,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.etcd.put(p.key("config"), string(shared))

	for _, c := range []*pgtest.Cluster{first, second} {
		n := &node{p: p, c: c, config: filepath.Join(w.env.Root, c.Name, "patroni.yml")}
		w.env.WriteFile(n.config, n.configuration(o.binDir), 0o600)
		p.nodes = append(p.nodes, n)
		n.start()
		p.waitLeader() // first the primary, which the other one follows
	}
	p.waitStreaming(p.nodes[0], p.nodes[1])
	return p
}

func (p *patroni) key(name string) string { return "/service/" + scope + "/" + name }

// configuration is JSON, which is YAML, too.
func (n *node) configuration(binDir string) []byte {
	api := fmt.Sprintf("127.0.0.1:%d", freePort(n.p.w.t))
	server := fmt.Sprintf("127.0.0.1:%d", n.c.Port)
	names := map[string]any{}
	if _, ok := patroniProgram(); ok {
		names["pg_rewind"], binDir = filepath.Join(binDir, "pg_rewind"), n.p.w.env.BinDir
	}
	data, err := json.MarshalIndent(map[string]any{
		"scope": scope, "name": n.c.Name,
		"log":     map[string]any{"level": "INFO"},
		"restapi": map[string]any{"listen": api, "connect_address": api},
		"etcd3":   map[string]any{"host": fmt.Sprintf("127.0.0.1:%d", n.p.etcd.port)},
		"postgresql": map[string]any{
			"listen": server, "connect_address": server,
			"data_dir": n.c.DataDir(), "bin_dir": binDir, "bin_name": names, "pgpass": filepath.Join(n.p.w.env.Root, n.c.Name, "pgpass"),
			"authentication": map[string]any{
				"superuser":   map[string]any{"username": pgtest.Superuser},
				"replication": map[string]any{"username": "replicator", "password": replicatorPassword},
				"rewind":      map[string]any{"username": "rewinder", "password": rewinderPassword},
			},
			"parameters": map[string]any{"unix_socket_directories": n.c.SocketDir()},
		},
	}, "", "  ")
	if err != nil {
		n.p.w.t.Fatal(err)
	}
	return data
}

// start starts the node's Patroni, with the environment n.env.
func (n *node) start() {
	n.p.w.t.Helper()
	program, _ := patroniProgram()
	n.d = n.p.w.startDaemon("patroni-"+n.c.Name, n.env, program, n.config)
}

// leader is the node that holds the key; nil if nobody does.
func (p *patroni) leader() *node {
	name := p.etcd.get(p.key("leader"))
	for _, n := range p.nodes {
		if n.c.Name == name {
			return n
		}
	}
	return nil
}

// other is the other one of the two nodes.
func (p *patroni) other(n *node) *node {
	if p.nodes[0] == n {
		return p.nodes[1]
	}
	return p.nodes[0]
}

// waitLeader waits until a node holds the key and its server can be written to.
func (p *patroni) waitLeader() *node {
	p.w.t.Helper()
	var leader *node
	p.w.wait("a leader", func() bool {
		leader = p.leader()
		if leader == nil {
			return false
		}
		answer, err := leader.c.TrySQL("postgres", "SELECT pg_is_in_recovery()")
		return err == nil && answer == "f"
	}, p.tails)
	return leader
}

// waitStreaming waits until to streams from from and has replayed what from has written.
func (p *patroni) waitStreaming(from, to *node) {
	p.w.t.Helper()
	lsn := ""
	p.w.wait(to.c.Name+" to stream from "+from.c.Name, func() bool {
		if lsn == "" {
			var err error
			if lsn, err = from.c.TrySQL("postgres", "SELECT pg_current_wal_flush_lsn()"); err != nil {
				return false
			}
		}
		answer, err := from.c.TrySQL("postgres", fmt.Sprintf(`SELECT count(*) > 0 FROM pg_stat_replication
			WHERE application_name = '%s' AND state = 'streaming' AND replay_lsn >= '%s'`, to.c.Name, lsn))
		return err == nil && answer == "t"
	}, p.tails)
}

func (p *patroni) tails() string {
	var all []string
	for _, n := range p.nodes {
		if n.d != nil {
			all = append(all, n.d.tail())
		}
	}
	return strings.Join(all, "\n")
}
