package managers

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

// TestPatroni kills the primary under load, three times in a row; each time the old one must come back by itself, rewound
// by fastrewind under the name of pg_rewind. The first time the leader's key expires as it does in life; then it is
// removed, which is the same without the wait. The third time the WAL that the rewind needs is only in S3, and how to get
// there is in the environment.
func TestPatroni(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	archive := w.env.Dir("archive")
	p := w.startPatroni(patroniOptions{
		load: []string{"-s", "5"},
		conf: []string{"archive_mode = on", fmt.Sprintf("archive_command = 'cp %%p %s/%%f'", archive)},
	})
	s3 := s3test.Start(t, s3test.Options{TLS: true})
	s3.NewBucket("wal")
	proxy := s3test.NewProxy(t, s3)

	for round, r := range []struct {
		name string
		env  []string
		s3   bool
		want []string // in what fastrewind writes, which Patroni logs
	}{
		{name: "as it is", want: []string{"pg_rewind: servers diverged at WAL location", "pg_rewind: Done!"}},
		{name: "settings in the environment", env: []string{"FASTREWIND_LOG_FORMAT=json", "FASTREWIND_JOBS=3"},
			want: []string{`"msg":"Done!"`}},
		{name: "WAL in S3", s3: true, env: append(s3.Env(),
			"FASTREWIND_WAL_ARCHIVE=s3://wal/fr", "FASTREWIND_S3_ENDPOINT="+proxy.URL, "FASTREWIND_S3_REGION="+s3.Region,
			"FASTREWIND_S3_CA_FILE="+s3.CAFile, "FASTREWIND_S3_PATH_STYLE=on"),
			want: []string{"pg_rewind: Done!"}},
	} {
		old := p.waitLeader()
		heir := p.other(old)
		p.part(old, heir, r.name, round > 0)
		if r.s3 {
			old.loseWAL(archive)
			s3.CopyTree("wal", "fr", archive)
		}

		before := len(old.d.output())
		old.env = r.env
		old.start()
		p.waitStreaming(heir, old)
		log := old.d.output()[before:]
		logLines(t, fmt.Sprintf("--- round %d, %s: the log of %s", round+1, r.name, old.c.Name), log,
			"running pg_rewind", "exit code", "pg_rewind: ", `"msg"`, "no action. I am", "Local timeline", "primary_timeline")
		for _, want := range append(r.want, "running pg_rewind from "+heir.c.Name, "pg_rewind exit code=0") {
			if !strings.Contains(log, want) {
				t.Errorf("round %d: %q is not in the log of %s\n%s", round+1, want, old.c.Name, log)
			}
		}
		isRead := func(r s3test.Request) bool { return r.Method == http.MethodGet && r.Key != "" }
		if reads := slices.ContainsFunc(proxy.Requests(), isRead); reads != r.s3 {
			t.Errorf("round %d: segments were read from S3: %t, want %t", round+1, reads, r.s3)
		}
		p.same(t)
		if got := heir.c.Query("postgres", "SELECT count(*) FROM told WHERE node = 'lost'"); got != "0" {
			t.Errorf("round %d: %s rows of the lost history are on the new primary", round+1, got)
		}
		if got, want := old.c.Query("postgres", "SELECT count(*) FROM told"), strconv.Itoa(round+1); got != want {
			t.Errorf("round %d: %s rows of the new history on %s, want %s", round+1, got, old.c.Name, want)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	for _, n := range p.nodes {
		for _, secret := range []string{replicatorPassword, rewinderPassword, s3.SecretKey} {
			if strings.Contains(n.d.output(), secret) {
				t.Errorf("a secret is in the log of %s", n.c.Name)
			}
		}
	}
	leader := p.waitLeader()
	leader.c.InstallAmCheck()
	p.waitStreaming(leader, p.other(leader))
	p.other(leader).c.AmCheck()
}

// part kills a primary under load after its standby has received nothing more for a while: postmaster, backends and
// Patroni, all at once. It returns when the standby has become the primary and has written a history of its own.
func (p *patroni) part(old, heir *node, name string, expire bool) {
	t := p.w.t
	t.Helper()
	// -M prepared of several clients, beside what follows; it ends when the server does, with errors.
	bench := p.w.env.Begin(pgtest.Cmd{Path: "pgbench", Args: []string{
		"-h", old.c.SocketDir(), "-p", strconv.Itoa(old.c.Port), "-U", pgtest.Superuser, "-n", "-c", "4", "-T", "600", "postgres",
	}})
	thaw := freezeReceiver(t, heir.c)
	// More than the sockets between the two hold, so that the end of it never arrives; and a checkpoint after the histories
	// have parted, so that the rewind has to look for one before.
	old.c.SQL("postgres", "INSERT INTO told SELECT i, 'lost' FROM generate_series(1001, 120000) i")
	old.c.SQL("postgres", "UPDATE pgbench_accounts SET filler = 'lost' WHERE aid % 10 = 0")
	old.c.SQL("postgres", "SELECT pg_switch_wal()")
	old.c.Checkpoint()
	old.c.SQL("postgres", "SELECT pg_switch_wal()")
	old.c.Checkpoint()
	old.kill()
	thaw()
	bench.Wait()
	if expire {
		p.etcd.remove(p.key("leader"))
	}
	p.w.wait(heir.c.Name+" to become the leader", func() bool { return p.leader() == heir }, p.tails)
	if got := p.waitLeader(); got != heir {
		t.Fatalf("%s is the leader, not %s", got.c.Name, heir.c.Name)
	}
	heir.c.Pgbench("-n", "-c", "4", "-t", "200")
	heir.c.SQL("postgres", fmt.Sprintf(`INSERT INTO told SELECT max(i) + 1, '%s'
		FROM (SELECT 0 AS i UNION SELECT i FROM told WHERE i < 1000) x`, name))
}

// freezeReceiver stops a standby's WAL receiver until the function returned is called.
func freezeReceiver(t *testing.T, standby *pgtest.Cluster) (thaw func()) {
	t.Helper()
	pid, err := strconv.Atoi(standby.Query("postgres", "SELECT pid FROM pg_stat_wal_receiver"))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGSTOP)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = syscall.Kill(pid, syscall.SIGCONT) } // ESRCH: it ended
}

// kill kills the node's Patroni, its postmaster and its backends. postmaster.pid stays behind.
func (n *node) kill() {
	t := n.p.w.t
	t.Helper()
	n.d.kill()
	pid := n.postmaster()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// A postmaster's processes are leaders of sessions of their own; their parent tells whose they are.
	for _, process := range append(childrenOf(pid), pid) {
		_ = syscall.Kill(process, syscall.SIGKILL) // ESRCH: it ended meanwhile
		n.p.w.wait(fmt.Sprintf("process %d to end", process), func() bool { return !alive(process) }, n.d.tail)
	}
}

func (n *node) postmaster() int {
	data, err := os.ReadFile(n.c.Path("postmaster.pid"))
	if err != nil {
		n.p.w.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		n.p.w.t.Fatal(err)
	}
	return pid
}

// loseWAL removes the segments that crash recovery does not need, as the server does when it has no reason to keep them.
// Those that were archived are in the archive; the rest is put there, as if the archiver had come that far.
func (n *node) loseWAL(archive string) {
	t := n.p.w.t
	t.Helper()
	redo := redoSegment(n.c)
	entries, err := os.ReadDir(n.c.Path("pg_wal"))
	if err != nil {
		t.Fatal(err)
	}
	removed := 0
	for _, entry := range entries {
		name := entry.Name()
		if len(name) != 24 || name[8:] >= redo[8:] {
			continue
		}
		data, err := os.ReadFile(n.c.Path("pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		n.p.w.env.WriteFile(archive+"/"+name, data, 0o600)
		if err := os.Remove(n.c.Path("pg_wal", name)); err != nil {
			t.Fatal(err)
		}
		removed++
	}
	if removed == 0 {
		t.Fatalf("no segment before %s in pg_wal of %s", redo, n.c.Name)
	}
}

// redoSegment is the name of the first segment that a server needs to start.
func redoSegment(c *pgtest.Cluster) string {
	control := c.Control()
	return fmt.Sprintf("%08X%08X%08X", control.TimeLineID, control.Redo>>32, uint32(control.Redo)/control.SegSize)
}

// same compares what the two nodes hold, once nothing is written any more.
func (p *patroni) same(t *testing.T) {
	t.Helper()
	leader := p.waitLeader()
	p.waitStreaming(leader, p.other(leader))
	// Settings of the server differ, nothing else: pg_settings is no table.
	pgtest.SameData(t, leader.c, p.other(leader).c)
}

// alive is false for zombies, too.
func alive(pid int) bool {
	state, _ := stat(pid)
	return state != "" && state != "Z" && state != "X"
}

// stat is a process's state and its parent.
func stat(pid int) (state string, parent int) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	fields := strings.Fields(string(data[strings.LastIndex(string(data), ")")+1:]))
	if len(fields) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(fields[1]) // the kernel wrote it
	return fields[0], parent
}

func childrenOf(pid int) []int {
	var found []int
	entries, _ := os.ReadDir("/proc") // empty: nothing is found
	for _, entry := range entries {
		if child, err := strconv.Atoi(entry.Name()); err == nil {
			if _, parent := stat(child); parent == pid {
				found = append(found, child)
			}
		}
	}
	return found
}
