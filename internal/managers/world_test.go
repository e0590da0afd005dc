// Package managers holds the tests that run fastrewind as the programs that manage clusters run it.
//
//	world_test.go       PostgreSQL's programs with fastrewind in place of pg_rewind; daemons that end with the test
//	certs_test.go       certificates and a revocation list, of the test's own authority
//	etcd_test.go        etcd, in which Patroni keeps its leader
//	patroni_test.go     a Patroni cluster: its nodes, its configuration, its log
//	failover_test.go    the primary is killed under load, over and over; it must come back by itself
//	interrupted_test.go fastrewind is killed in the middle of Patroni's rewind
//	repmgr_test.go      repmgr node rejoin
//	callers_test.go     the command lines of CloudNativePG, stolon and pg_auto_failover, replayed
//	caller_test.go      what they do before and after
//
// Patroni, etcd and repmgr are those of scripts/install-managers, PostgreSQL is what the other tests use, too.
package managers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// world is an environment in which managers can live.
type world struct {
	t    *testing.T
	env  *pgtest.Env
	ours pgtest.Binaries
	bin  string // a directory with PostgreSQL's programs, pg_rewind being fastrewind
	logs string // a directory for what daemons write
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("runs servers and their managers")
	}
	w := &world{t: t, env: pgtest.New(t), ours: pgtest.BuildFastrewind(t)}
	w.bin, w.logs = w.binDir("bin", w.ours.PgRewind), w.env.Dir("logs")
	return w
}

// needs skips the test if a manager's program is not installed: there may be none for this PostgreSQL. Where majors are demanded,
// nothing may be left out on the one whose packages have all of them.
func (w *world) needs(program string) {
	w.t.Helper()
	if _, err := os.Stat(program); err == nil {
		return
	}
	if w.env.Major == 15 && os.Getenv("FASTREWIND_TEST_MAJORS") != "" {
		w.t.Fatalf("%s is needed: run scripts/install-managers", program)
	}
	w.t.Skipf("%s is not installed: see scripts/install-managers", program)
}

// binDir makes a directory with links to all of PostgreSQL's programs but pg_rewind, which is another.
func (w *world) binDir(name, pgRewind string) string {
	w.t.Helper()
	dir := w.env.Dir(name)
	programs, err := os.ReadDir(w.env.BinDir)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, program := range programs {
		to := filepath.Join(w.env.BinDir, program.Name())
		if program.Name() == "pg_rewind" {
			to = pgRewind
		}
		if err := os.Symlink(to, filepath.Join(dir, program.Name())); err != nil {
			w.t.Fatal(err)
		}
	}
	return dir
}

// script makes an executable file of shell commands.
func (w *world) script(path, text string) string {
	w.t.Helper()
	w.env.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755)
	return path
}

// deadline is how long anything may take that takes seconds on an idle machine.
const deadline = 3 * time.Minute

// wait polls until a condition holds. why is asked when it does not in time.
func (w *world) wait(what string, condition func() bool, why func() string) {
	w.t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(100 * time.Millisecond) {
		if err := w.t.Context().Err(); err != nil || time.Now().After(end) {
			w.t.Fatalf("waited %s for %s\n%s", deadline, what, why())
		}
	}
}

// daemon is a program that runs until it is killed, with all that it started in its process group.
type daemon struct {
	w       *world
	process *pgtest.Process
	group   int
	log     string
	pipe    *os.File // the daemon is killed when its last writer is gone
}

// daemonScript runs a program whose process group dies when the standard input ends: when the test process does, in
// whatever way. $1 is where the group's number goes.
const daemonScript = `
echo $$ >"$1.new" && mv "$1.new" "$1" || exit
shift
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
(cat <&3 >/dev/null; kill -9 0) &
wait $child
`

// startDaemon starts a program. Its output is appended to a log.
func (w *world) startDaemon(name string, env []string, program string, args ...string) *daemon {
	w.t.Helper()
	d := &daemon{w: w, log: filepath.Join(w.logs, name+".log")}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	read, write, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	d.pipe = write
	pid := filepath.Join(w.logs, name+".pid")
	_ = os.Remove(pid) // of an earlier run
	d.process = w.env.Begin(pgtest.Cmd{
		Path: "/bin/sh", Args: append([]string{"-c", daemonScript, "daemon", pid, program}, args...),
		Env: env, Stdin: read, Stdout: log, Stderr: log, Dir: "/",
	})
	w.t.Cleanup(d.kill)
	w.wait(name+" to start", func() bool {
		data, err := os.ReadFile(pid)
		if err != nil {
			return false
		}
		d.group, err = strconv.Atoi(strings.TrimSpace(string(data)))
		return err == nil
	}, d.tail)
	return d
}

// kill kills the daemon and its process group, and waits. What left the group (a postmaster does) stays.
func (d *daemon) kill() {
	if d.group > 1 {
		_ = syscall.Kill(-d.group, syscall.SIGKILL) // ESRCH: gone
	}
	d.process.Signal(syscall.SIGKILL)
	<-d.process.Done()
	_ = d.pipe.Close()
	d.group = 0
}

// output is all that the daemon has written, in all its runs of this name.
func (d *daemon) output() string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		d.w.t.Fatal(err)
	}
	return string(data)
}

func (d *daemon) tail() string { return "--- " + d.log + "\n" + lastLines(d.output(), 60) }

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// freePort is a TCP port on 127.0.0.1 where nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(22000) // below the ports of outgoing connections
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// logLines logs the lines of a text that contain one of the words: evidence for whoever reads the test's output.
func logLines(t *testing.T, title, text string, words ...string) {
	t.Helper()
	var found []string
	for line := range strings.Lines(text) {
		for _, word := range words {
			if strings.Contains(line, word) {
				found = append(found, strings.TrimRight(line, "\n"))
				break
			}
		}
	}
	t.Logf("%s\n%s", title, strings.Join(found, "\n"))
}
