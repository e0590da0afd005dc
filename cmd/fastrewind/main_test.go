package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

// playVariable makes the test binary play the program: with real arguments, real signals and pipes, but with one of
// the runs below in place of the rewind.
const playVariable = "TEST_PLAY_RUN"

var plays = map[string]runFunc{
	"nothing": func(context.Context, rewind.Config, rewind.Reporter) error { return nil },
	"polite": func(ctx context.Context, _ rewind.Config, rep rewind.Reporter) error {
		rep.Info("ready")
		<-ctx.Done()
		return ctx.Err()
	},
	"deaf": func(_ context.Context, _ rewind.Config, rep rewind.Reporter) error {
		rep.Info("ready")
		time.Sleep(time.Minute)
		return nil
	},
	"talkative": func(_ context.Context, cfg rewind.Config, rep rewind.Reporter) error {
		m := rep.Start(rewind.PhaseCopy, 10, rewind.Bytes)
		for range 1000 {
			rep.Info("a line")
			m.Add(1)
		}
		m.Done()
		return os.WriteFile(filepath.Join(cfg.TargetDir, "finished"), nil, 0o600)
	},
}

// binary is a copy of the test binary that every user may run.
var binary string

func TestMain(m *testing.M) {
	if play := os.Getenv(playVariable); play != "" {
		surviveClosedPipes()
		os.Exit(theProcess(plays[play]).start())
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fastrewind-cmd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "program")
	if err := errors.Join(os.Chmod(dir, 0o755), copyProgram(binary)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := m.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

func copyProgram(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	return errors.Join(err, out.Close(), os.Chmod(to, 0o755))
}

// result is what a call of a program left.
type result struct {
	stdout, stderr string
	status         int
}

// call runs a program from a file, under any argv[0] (stock wants that to lead to a program), as the user postgres if the tests run as root.
func call(t *testing.T, file string, argv []string, env ...string) result {
	t.Helper()
	return callAs(t, ordinaryUser(t), file, argv, env...)
}

func callAs(t *testing.T, as *syscall.SysProcAttr, file string, argv []string, env ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	path := "/usr/bin:/bin"
	if stock, err := findStock(); err == nil {
		path = filepath.Dir(stock) + ":" + path
	}
	cmd := &exec.Cmd{
		Path: file, Args: argv, Dir: "/",
		Env:         append([]string{playVariable + "=nothing", "LC_ALL=C", "PATH=" + path}, env...),
		Stdout:      &stdout,
		Stderr:      &stderr,
		SysProcAttr: as,
	}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", file, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ordinaryUser is how a child runs without being root.
func ordinaryUser(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("the tests run as root and need a user postgres: %v", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// inProcess runs the program inside the test and returns what it would have rewound.
func inProcess(t *testing.T, env map[string]string, argv ...string) (cfg *rewind.Config, got result) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &process{
		args:   argv,
		env:    func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		names:  func() []string { return slices.Collect(maps.Keys(env)) },
		euid:   1000,
		stdout: &stdout,
		stderr: &stderr,
		width:  func() int { return 0 },
		now:    time.Now,
		run: func(_ context.Context, c rewind.Config, rep rewind.Reporter) error {
			cfg = &c
			rep.Progress("progress on")
			rep.Debug("debug on")
			return nil
		},
	}
	status := p.start()
	return cfg, result{stdout.String(), stderr.String(), status}
}
