package pgbin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a real one, run as the user postgres if the test is root: PostgreSQL refuses root. The postgres handed to the
// code under test is a script that changes the user and then becomes the server.
type cluster struct {
	t    *testing.T
	bin  string // PostgreSQL's programs
	top  string // what is there is the server's user's
	data string
	pg   *Postgres
}

// newCluster makes one of the major that tests use unless they ask for another.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	skipShort(t)
	bin, err := pgtest.FindBinDir()
	if err != nil {
		t.Fatal(err)
	}
	return newClusterOf(t, bin)
}

func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("real servers are left out of short tests")
	}
}

// newClusterOf makes one with the programs in a directory.
func newClusterOf(t *testing.T, bin string) *cluster {
	t.Helper()
	installed, ok := In(t.Context(), bin)
	if !ok {
		t.Fatalf("%s/postgres does not say its version", bin)
	}
	top, err := os.MkdirTemp("/tmp", "pgbin")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, bin: bin, top: top, data: filepath.Join(top, "it's data")}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	become := "exec"
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(top, uid, gid); err != nil {
			t.Fatal(err)
		}
		become = "exec setpriv --reuid=postgres --regid=postgres --init-groups"
	}
	script := fmt.Sprintf("#!/bin/sh\nprogram=$1; shift\ncd /\n%s \"%s/$program\" \"$@\"\n", become, bin)
	c.write("as", script, 0o755)
	c.write("bin/postgres", fmt.Sprintf("#!/bin/sh\nexec %s/as postgres \"$@\"\n", top), 0o755)
	c.run("initdb", "-D", c.data, "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C")
	if c.pg, err = Find(t.Context(), Options{DataDir: c.data, Major: installed.Major, BinDir: filepath.Join(top, "bin")}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) write(name, text string, mode os.FileMode) {
	c.t.Helper()
	path := filepath.Join(c.top, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) cmd(program string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(c.top, "as"), append([]string{program}, args...)...)
}

func (c *cluster) run(program string, args ...string) string {
	c.t.Helper()
	var out bytes.Buffer
	cmd := c.cmd(program, args...)
	// Not a pipe: the server pg_ctl leaves behind would hold it open.
	log, err := os.CreateTemp(c.t.TempDir(), "out")
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	if _, e := log.Seek(0, 0); e == nil {
		_, _ = out.ReadFrom(log)
	}
	if err != nil {
		c.t.Fatalf("%s %v: %v\n%s", program, args, err, out.String())
	}
	return out.String()
}

// start starts the server, with nothing but a socket in our directory.
func (c *cluster) start() (pid int) {
	c.t.Helper()
	c.run("pg_ctl", "-D", c.data, "-w", "-l", filepath.Join(c.top, "log"), "-o", "-k "+c.top+" -c listen_addresses='' -c fsync=off", "start")
	lock, err := readLock(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = syscall.Kill(lock.pid, syscall.SIGQUIT) // immediate shutdown, if it is still there
		c.waitForEnd(lock.pid)
	})
	return lock.pid
}

func (c *cluster) waitForEnd(pid int) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	c.t.Errorf("process %d is still running", pid)
}

// state is the cluster's state as pg_controldata prints it.
func (c *cluster) state() string {
	c.t.Helper()
	for line := range strings.Lines(c.run("pg_controldata", "-D", c.data)) {
		if rest, ok := strings.CutPrefix(line, "Database cluster state:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	c.t.Fatal("no state")
	return ""
}

func (c *cluster) sql(command string) {
	c.t.Helper()
	c.run("psql", "-h", c.top, "-X", "-U", "postgres", "-d", "postgres", "-c", command)
}

// crash leaves a cluster that a server must recover.
func (c *cluster) crash() {
	c.t.Helper()
	pid := c.start()
	c.sql("CREATE TABLE t AS SELECT generate_series(1, 10000)")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	// Until the postmaster is collected by its parent, and its children are gone, a single-user server refuses to start.
	for deadline := time.Now().Add(30 * time.Second); CheckStopped(c.data) != nil || syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("the killed server (pid %d) is still there: %v", pid, CheckStopped(c.data))
		}
	}
}

func TestRecoverSingleUser(t *testing.T) {
	c := newCluster(t)
	c.crash()
	if s := c.state(); s != "in production" {
		t.Fatalf("crashed, yet %s", s)
	}
	var out bytes.Buffer
	if err := c.pg.RecoverSingleUser(t.Context(), c.data, "", &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if s := c.state(); s != "shut down" {
		t.Errorf("recovered, yet %s\n%s", s, out.String())
	}
	if !strings.Contains(out.String(), "redo done") {
		t.Errorf("the server's messages do not arrive: %s", out.String())
	}
	c.start()
	c.sql("DO $$ BEGIN ASSERT (SELECT count(*) FROM t) = 10000; END $$")
}

func TestRecoverFails(t *testing.T) {
	c := newCluster(t)
	c.crash()
	var out bytes.Buffer
	err := c.pg.RecoverSingleUser(t.Context(), c.data, "/no such/file.conf", &out)
	var f *fault.Error
	if !errors.As(err, &f) || f.Text != "postgres single-user mode in target cluster failed" {
		t.Fatalf("got %v", err)
	}
	want := fmt.Sprintf("Command was: %s/bin/postgres --single -F -D '%s/it'\"'\"'s data' -c config_file='/no such/file.conf' template1 < /dev/null", c.top, c.top)
	if f.Detail != want {
		t.Errorf("detail %s\nwant   %s", f.Detail, want)
	}
	if !strings.Contains(out.String(), "/no such/file.conf") {
		t.Errorf("the server's messages do not arrive: %s", out.String())
	}
}

// TestRecoverCancelled stops a real server in the middle of recovery: it waits for a restore_command that never ends.
func TestRecoverCancelled(t *testing.T) {
	c := newCluster(t)
	c.crash()
	pidFile := filepath.Join(c.top, "pid")
	c.write("restore", "#!/bin/sh\necho $$ > "+pidFile+"\nexec sleep 600\n", 0o755)
	c.appendConf("restore_command = '" + c.top + "/restore'")
	if err := os.WriteFile(filepath.Join(c.data, "recovery.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	var out bytes.Buffer
	go func() { done <- c.pg.RecoverSingleUser(ctx, c.data, "", &out) }()
	var sleeper int
	for deadline := time.Now().Add(30 * time.Second); sleeper == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(pidFile); err == nil {
			_, _ = fmt.Sscanf(string(text), "%d\n", &sleeper)
		}
	}
	lock, err := readLock(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckStopped(c.data); !lock.standalone || err == nil || err.Error() != fmt.Sprintf("target server is running (pid %d)", lock.pid) {
		t.Errorf("single-user server at work (pid %d): %v", lock.pid, err)
	}
	start := time.Now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || err.Error() != "postgres single-user mode in target cluster failed" {
		t.Errorf("got %v\n%s", err, out.String())
	}
	if d := time.Since(start); d > stopGrace+5*time.Second {
		t.Errorf("took %v", d)
	}
	c.waitForEnd(lock.pid)
	c.waitForEnd(sleeper)
	if s := c.state(); s == "shut down" {
		t.Errorf("stopped in recovery, yet %s", s)
	}
	if err := CheckStopped(c.data); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

func (c *cluster) appendConf(line string) {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(c.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := fmt.Fprintln(f, line); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		c.t.Fatal(err)
	}
}

func TestRestoreCommand(t *testing.T) {
	c := newCluster(t)
	get := func(data, config string) (string, string, error) {
		var out bytes.Buffer
		command, err := c.pg.RestoreCommand(t.Context(), data, config, &out)
		return command, out.String(), err
	}
	if _, _, err := get(c.data, ""); err == nil || err.Error() != "restore_command is not set in the target cluster" {
		t.Errorf("not set: %v", err)
	}
	const command = `cp "/a b/%f" '%p' # it is`
	c.appendConf("restore_command = '" + strings.ReplaceAll(command, "'", "''") + "'")
	if got, out, err := get(c.data, ""); err != nil || got != command {
		t.Errorf("got %q, %v\n%s", got, err, out)
	}
	// A configuration elsewhere; the data directory's own is not read.
	c.write("other.conf", "restore_command = 'other %p'\n", 0o644)
	if got, out, err := get(c.data, filepath.Join(c.top, "other.conf")); err != nil || got != "other %p" {
		t.Errorf("got %q, %v\n%s", got, err, out)
	}
	var f *fault.Error
	_, out, err := get(filepath.Join(c.top, "no data"), "")
	want := fmt.Sprintf("no data was returned by command \"%s/bin/postgres -D '%s/no data' -C restore_command\"", c.top, c.top)
	if !errors.As(err, &f) || f.Text != want || !strings.Contains(out, "no data") {
		t.Errorf("no such directory: %v\n%s", err, out)
	}
	gone := &Postgres{Path: filepath.Join(c.top, "gone")}
	if _, err := gone.RestoreCommand(t.Context(), c.data, "", &bytes.Buffer{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.pg.RestoreCommand(ctx, c.data, "", &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCheckStopped(t *testing.T) {
	c := newCluster(t)
	if err := CheckStopped(c.data); err != nil {
		t.Errorf("never started: %v", err)
	}
	pid := c.start()
	if err := CheckStopped(c.data); err == nil || err.Error() != fmt.Sprintf("target server is running (pid %d)", pid) {
		t.Errorf("running: %v", err)
	}
	c.run("pg_ctl", "-D", c.data, "-w", "-m", "fast", "stop")
	if err := CheckStopped(c.data); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

// TestCheckStoppedOrphan: the postmaster is dead, one of its processes is not. What it leaves in shared memory is not the same on
// all majors.
func TestCheckStoppedOrphan(t *testing.T) {
	skipShort(t)
	for _, major := range pgtest.Majors(t) {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			bin, err := pgtest.FindMajor(major)
			if err != nil {
				t.Fatal(err)
			}
			checkOrphan(t, newClusterOf(t, bin))
		})
	}
}

func checkOrphan(t *testing.T, c *cluster) {
	pid := c.start()
	backend := childOf(t, pid)
	// Stopped, it cannot notice that its postmaster is gone.
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(backend, syscall.SIGKILL) }()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.waitForEnd(pid)
	time.Sleep(time.Second) // the other processes follow
	if err := CheckStopped(c.data); err == nil || !strings.HasPrefix(err.Error(), "pre-existing shared memory block (key ") {
		t.Errorf("a backend is left: %v", err)
	}
	if err := syscall.Kill(backend, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.waitForEnd(backend)
	for deadline := time.Now().Add(10 * time.Second); CheckStopped(c.data) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("all gone: %v", CheckStopped(c.data))
		}
	}
}

// childOf is one of the processes that a postmaster has started. All of them are attached to its shared memory, but for the one
// that writes the log, which is not started here.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Sscan(string(list), &child); err != nil {
		t.Fatalf("the postmaster has no children: %v", err)
	}
	return child
}

func TestLockFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "postmaster.pid")
	sleeper := exec.Command("sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Wait() }()
	defer func() { _ = sleeper.Process.Kill() }()
	served := exec.Command("sleep", "600")
	served.Dir = dir
	if err := served.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = served.Wait() }()
	defer func() { _ = served.Process.Kill() }()

	tests := []struct{ what, text, want string }{
		{"empty", "", `lock file "` + path + `" is empty`},
		{"not a number", "x\x00y\n", `bogus data in lock file "` + path + `": "x\x00y"`},
		{"zero", "0\n", `bogus data in lock file "` + path + `": "0"`},
		{"too large", "99999999999\n", `bogus data in lock file "` + path + `": "99999999999"`},
		{"long", strings.Repeat("9", 100000), `bogus data in lock file "` + path + `": "` + strings.Repeat("9", 40) + `..."`},
		{"a process that is gone", "4194304\n" + dir + "\n1\n5432\n/tmp\n\n 1 2\nready\n", ""},
		{"ourselves", fmt.Sprintf("%d\n", os.Getpid()), ""},
		{"our parent", fmt.Sprintf("%d\n", os.Getppid()), ""},
		{"a process that works elsewhere", fmt.Sprintf("%d\n", sleeper.Process.Pid), ""},
		{"a process in the directory", fmt.Sprintf("%d\n", served.Process.Pid), fmt.Sprintf("target server is running (pid %d)", served.Process.Pid)},
		{"a single-user server", fmt.Sprintf("-%d\n", served.Process.Pid), fmt.Sprintf("target server is running (pid %d)", served.Process.Pid)},
		{"shared memory that is no number", "4194304\n\n\n\n\n\nx y\n", ""},
		{"shared memory that is not there", "4194304\n\n\n\n\n\n 4294967295 4294967295\n", ""},
	}
	for _, tt := range tests {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CheckStopped(dir)
		if got := fmt.Sprint(err); err == nil && tt.want != "" || err != nil && got != tt.want {
			t.Errorf("%s: %v, want %s", tt.what, err, tt.want)
		}
	}
}
