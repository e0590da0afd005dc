package pgtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Cluster is one data directory and, while it runs, its server.
type Cluster struct {
	env  *Env
	Name string
	Port int // on 127.0.0.1 and in the name of the Unix socket

	server *server // nil while stopped
	frozen []int   // process ids stopped by Freeze
}

// InitOptions say how a cluster is made. The zero value is what most tests want: wal_log_hints on, no checksums,
// 16 MB segments, mode 0700, no fsync.
type InitOptions struct {
	SegSizeMB   int      // size of WAL segments in MiB; 0 is the server's default, 16
	Checksums   bool     // data checksums; wal_log_hints is then left off
	NoHints     bool     // leave wal_log_hints off even without checksums: a cluster that cannot be rewound
	GroupAccess bool     // initdb -g: the group may read the data directory
	Fsync       bool     // leave fsync on: for tests of durability
	Auth        string   // what pg_hba.conf demands of TCP connections other than the superuser's; default trust
	Conf        []string // lines for postgresql.conf, after pgtest's own
	Args        []string // more arguments for initdb
}

// Superuser is the role that initdb makes and that pgtest connects as.
const Superuser = "postgres"

// Init makes a new cluster. The server is not started.
//
// The configuration keeps a test's WAL to what the test does: no autovacuum, no checkpoints by time. max_wal_size and
// wal_keep_size keep every segment.
func (e *Env) Init(name string, o InitOptions) *Cluster {
	e.tb.Helper()
	c := e.newCluster(name)
	args := []string{"-D", c.DataDir(), "-U", Superuser, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"}
	if o.SegSizeMB != 0 {
		args = append(args, fmt.Sprintf("--wal-segsize=%d", o.SegSizeMB))
	}
	switch {
	case o.Checksums:
		args = append(args, "--data-checksums")
	case e.Major >= 18: // where they are the default
		args = append(args, "--no-data-checksums")
	}
	if o.GroupAccess {
		args = append(args, "--allow-group-access")
	}
	e.run("initdb", append(args, o.Args...)...)

	conf := []string{
		"max_connections = 50", "max_wal_senders = 10", "max_replication_slots = 10", "max_prepared_transactions = 10",
		"shared_buffers = 128MB", "wal_level = replica", "hot_standby = on",
		"max_wal_size = 20GB", "wal_keep_size = 10GB", "checkpoint_timeout = 1h",
		"autovacuum = off", "restart_after_crash = off",
		"logging_collector = off", "log_line_prefix = '%m [%p] %q%a '", "log_statement = none",
		"wal_retrieve_retry_interval = 100ms",
	}
	if !o.Fsync {
		conf = append(conf, "fsync = off")
	}
	if !o.Checksums && !o.NoHints {
		conf = append(conf, "wal_log_hints = on")
	}
	c.appendFile("postgresql.conf", append(conf, o.Conf...))
	if o.Auth != "" {
		hba := fmt.Sprintf("local all all trust\nlocal replication all trust\nhost all,replication %s 127.0.0.1/32 trust\nhost all,replication all 127.0.0.1/32 %s\n",
			Superuser, o.Auth)
		e.WriteFile(filepath.Join(c.DataDir(), "pg_hba.conf"), []byte(hba), 0o600)
	}
	return c
}

// newCluster makes the directory around a data directory that does not exist yet.
func (e *Env) newCluster(name string) *Cluster {
	e.tb.Helper()
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/'\\ ") {
		e.tb.Fatalf("pgtest: %q is no name for a cluster", name)
	}
	port, err := freePort()
	if err != nil {
		e.tb.Fatalf("pgtest: %v", err)
	}
	c := &Cluster{env: e, Name: name, Port: port}
	e.mkdir(filepath.Dir(c.DataDir()))
	e.mkdir(c.tsDir())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clusters = append(e.clusters, c)
	return c
}

// Env is the environment the cluster lives in.
func (c *Cluster) Env() *Env { return c.env }

// DataDir is the cluster's data directory.
func (c *Cluster) DataDir() string { return filepath.Join(c.env.Root, c.Name, "data") }

// Path is a path inside the data directory.
func (c *Cluster) Path(elem ...string) string {
	return filepath.Join(append([]string{c.DataDir()}, elem...)...)
}

// LogFile is where the server's messages go, of all its runs.
func (c *Cluster) LogFile() string { return filepath.Join(c.env.Root, c.Name, "log") }

// SocketDir is the directory of the Unix socket.
func (c *Cluster) SocketDir() string { return c.env.socketDir() }

// ConnString is a libpq connection string over TCP, as the superuser to the database postgres, made of the keywords a
// user would give. It is what a rewind gets as --source-server.
func (c *Cluster) ConnString() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres", c.Port, Superuser)
}

// SocketConnString is ConnString over the Unix socket.
func (c *Cluster) SocketConnString() string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", c.SocketDir(), c.Port, Superuser)
}

// ConnStringAs is ConnString for another role.
func (c *Cluster) ConnStringAs(role string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres", c.Port, role)
}

// AppendConf adds lines to postgresql.conf. They take effect at the next start or reload.
func (c *Cluster) AppendConf(lines ...string) {
	c.env.tb.Helper()
	c.appendFile("postgresql.conf", lines)
}

// appendFile adds lines to a file of the data directory that exists already, leaving its owner and mode alone.
func (c *Cluster) appendFile(name string, lines []string) {
	c.env.tb.Helper()
	f, err := os.OpenFile(c.Path(name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
}

// logTail is the end of the server's log, under a heading.
func (c *Cluster) logTail(lines int) string {
	data, err := os.ReadFile(c.LogFile())
	if err != nil {
		return fmt.Sprintf("--- %s was never started", c.Name)
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return fmt.Sprintf("--- end of the log of %s\n%s", c.Name, strings.Join(all, "\n"))
}

// Log is everything the cluster's servers wrote to their log.
func (c *Cluster) Log() string {
	c.env.tb.Helper()
	data, err := os.ReadFile(c.LogFile())
	if err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	return string(data)
}

// Ports below the range from which Linux takes the local ports of outgoing connections (32768 and up).
const (
	minPort = 10000
	maxPort = 32000
)

var (
	portsMu    sync.Mutex
	portsGiven = map[int]bool{}
)

// freePort picks a port nobody listens on, at random so that test processes running at the same time do not meet, and
// never the same one twice in this process.
func freePort() (int, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	var last error
	for range 200 {
		port := minPort + rand.IntN(maxPort-minPort)
		if portsGiven[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		if last = l.Close(); last != nil {
			continue
		}
		portsGiven[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no free TCP port found between %d and %d: %w", minPort, maxPort, last)
}

// waitGone waits until a process no longer runs.
func waitGone(pid int, limit time.Duration) error {
	for deadline := time.Now().Add(limit); running(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d still runs after %s", pid, limit)
		}
	}
	return nil
}

// running is false for zombies too: they hold nothing but their number until their parent looks.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, ok := strings.Cut(string(stat), ") ")
	return ok && !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}
