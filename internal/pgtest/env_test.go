package pgtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	var order []string
	err := Run(t.Context(), "name", &out, func(tb TB) {
		tb.Cleanup(func() { order = append(order, "first") })
		tb.Cleanup(func() {
			order = append(order, "second")
			tb.Fatalf("in a cleanup")
		})
		tb.Logf("hello %d", 1)
		tb.Fatalf("failed: %s", "why")
		t.Error("Fatalf returned")
	})
	if err == nil || err.Error() != "name: failed: why\nin a cleanup" {
		t.Errorf("got error %v", err)
	}
	if out.String() != "hello 1\n" || strings.Join(order, " ") != "second first" {
		t.Errorf("output %q, cleanups %q", out.String(), order)
	}
	if err := Run(t.Context(), "name", io.Discard, func(TB) { panic("oops") }); err == nil || !strings.Contains(err.Error(), "panic: oops") {
		t.Errorf("after a panic: %v", err)
	}
	if err := Run(t.Context(), "name", io.Discard, func(tb TB) {
		if tb.Name() != "name" || tb.Failed() {
			t.Errorf("name %q, failed %t", tb.Name(), tb.Failed())
		}
	}); err != nil {
		t.Errorf("a function that does nothing fails: %v", err)
	}
}

// TestRunCancelled: what a function is waiting for ends with the context.
func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	err := Run(ctx, "name", io.Discard, func(tb TB) {
		env := New(tb)
		time.AfterFunc(100*time.Millisecond, cancel)
		env.Exec(Cmd{Path: "/bin/sleep", Args: []string{"60"}})
	})
	if err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) || time.Since(start) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

// failing runs f with a TB of its own and returns what it failed with; it fails the test if f does not fail.
func failing(t *testing.T, f func(TB)) string {
	t.Helper()
	err := Run(t.Context(), "inner", io.Discard, f)
	if err == nil {
		t.Fatal("expected a failure")
	}
	return err.Error()
}

func TestNewRefuses(t *testing.T) {
	if got := failing(t, func(tb TB) { New(tb, Options{BinDir: t.TempDir()}) }); !strings.Contains(got, "no such file") {
		t.Errorf("a directory without PostgreSQL: %s", got)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", maxDir))
	if err := os.Mkdir(long, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := failing(t, func(tb TB) { New(tb, Options{Dir: long}) }); !strings.Contains(got, "too long for Unix sockets") {
		t.Errorf("a long directory: %s", got)
	}
}

func TestExec(t *testing.T) {
	env := New(t)
	r := env.Exec(Cmd{Path: "/bin/sh", Args: []string{"-c", `echo "$PGHOST.$X.$LC_ALL"; id -u; pwd; cat >&2; exit 3`},
		Env: []string{"X=y"}, Stdin: strings.NewReader("from stdin")})
	uid := os.Getuid()
	if env.user != nil {
		uid = env.user.uid
	}
	if want := fmt.Sprintf(".y.C\n%d\n%s\n", uid, env.Root); r.Stdout != want || r.Stderr != "from stdin" || r.ExitCode != 3 {
		t.Errorf("%s\nexpected stdout %q", r, want)
	}
	if r.Wall <= 0 || r.MaxRSS < 1<<16 {
		t.Errorf("measured %s wall, %d bytes", r.Wall, r.MaxRSS)
	}
	got := failing(t, func(tb TB) { New(tb).MustExec(Cmd{Path: "/bin/false"}) })
	if !strings.Contains(got, "/bin/false\nexit status 1") {
		t.Errorf("MustExec of false: %s", got)
	}
	got = failing(t, func(tb TB) {
		New(tb).Exec(Cmd{Path: "/bin/sleep", Args: []string{"60"}, Timeout: 50 * time.Millisecond})
	})
	if !strings.Contains(got, context.DeadlineExceeded.Error()) {
		t.Errorf("timeout: %s", got)
	}
}

// TestBuildFastrewind: the servers' user can run the program, under both names.
func TestBuildFastrewind(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	t.Parallel()
	env := New(t)
	b := BuildFastrewind(t)
	if again := BuildFastrewind(t); again != b {
		t.Errorf("built twice: %v and %v", b, again)
	}
	for path, name := range map[string]string{b.Fastrewind: "fastrewind", b.PgRewind: "pg_rewind"} {
		r := env.MustExec(Cmd{Path: path, Args: []string{"--help"}})
		if filepath.Base(path) != name || !strings.Contains(r.Stdout, name+" ") {
			t.Errorf("%s", r)
		}
	}
}

func TestFreePortsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 100 {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < minPort || port >= maxPort {
			t.Errorf("port %d", port)
		}
		seen[port] = true
	}
}

// helper makes TestHelperProcess do its work; its value is not used.
const helper = "PGTEST_HELPER_PROCESS"

// TestHelperProcess is the process that TestKilled kills.
func TestHelperProcess(t *testing.T) {
	if os.Getenv(helper) == "" {
		return
	}
	env := New(t)
	c := env.Init("c", InitOptions{})
	c.Start()
	fmt.Printf("helper: %d %d %s\n", os.Getuid(), c.Pid(), env.Root)
	time.Sleep(10 * time.Minute)
}

// TestKilled: when the test process is killed, its servers end and its directory goes. The process is an ordinary
// user's, so this is also the test that pgtest works for one.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := New(t)
	dir := env.Dir("bin")
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "pgtest.test")
	env.WriteFile(copied, data, 0o700)
	cmd := exec.CommandContext(t.Context(), copied, "-test.run=^TestHelperProcess$")
	cmd.Dir = dir
	cmd.Env = append(env.environ(), helper+"=1", "PG_BINDIR="+env.BinDir)
	cmd.SysProcAttr = env.sysProcAttr()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the helper ended by itself: %v, %q", err, line)
	}
	fields := strings.Fields(line)
	if readErr != nil || len(fields) != 4 {
		t.Fatalf("helper said %q: %v", line, readErr)
	}
	if fields[1] == "0" {
		t.Error("the helper ran as root")
	}
	pid, err := strconv.Atoi(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	if err := waitGone(pid, 30*time.Second); err != nil {
		t.Error(err)
	}
	env.poll("the directory to go", func() bool {
		_, err := os.Stat(fields[3])
		return errors.Is(err, fs.ErrNotExist)
	})
}
