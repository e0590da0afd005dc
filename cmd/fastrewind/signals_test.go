package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// started starts the program with a play and waits until its run says that it is ready.
func started(t *testing.T, name, play string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := &exec.Cmd{
		Path: binary, Args: []string{name, "-D", "t", "--source-pgdata=s"},
		Env:         []string{playVariable + "=" + play},
		SysProcAttr: ordinaryUser(t),
	}
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { watchdog.Stop() })
	lines := bufio.NewReader(pipe)
	if line, err := lines.ReadString('\n'); err != nil || line != name+": ready\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	return cmd, lines
}

func TestSignalStops(t *testing.T) {
	heard := make(chan os.Signal, 1) // under nohup the programs would inherit that SIGHUP is ignored
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		want string
	}{
		{"fastrewind", syscall.SIGINT, "fastrewind: SIGINT received, stopping; send it again to quit at once\nfastrewind: error: stopped by SIGINT\n"},
		{"fastrewind", syscall.SIGTERM, "fastrewind: SIGTERM received, stopping; send it again to quit at once\nfastrewind: error: stopped by SIGTERM\n"},
		{"pg_rewind", syscall.SIGTERM, "pg_rewind: error: stopped by SIGTERM\n"},
		{"pg_rewind", syscall.SIGHUP, "pg_rewind: error: stopped by SIGHUP\n"},
	} {
		cmd, stderr := started(t, c.name, "polite")
		if err := cmd.Process.Signal(c.sig); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(stderr)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its status is looked at below
		if string(rest) != c.want || cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%s, %s: status %d, stderr %q, want %q", c.name, c.sig, cmd.ProcessState.ExitCode(), rest, c.want)
		}
	}
}

func TestSecondSignalKills(t *testing.T) {
	cmd, stderr := started(t, "fastrewind", "deaf")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if line, err := stderr.ReadString('\n'); err != nil || !strings.Contains(line, "SIGTERM received") {
		t.Fatalf("got %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(stderr)
	_ = cmd.Wait() // its status is looked at below
	if got := cmd.ProcessState.Sys().(syscall.WaitStatus); !got.Signaled() || got.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
}

// TestIgnoredSignalStaysIgnored: under nohup the end of the session must not stop a rewind.
func TestIgnoredSignalStaysIgnored(t *testing.T) {
	signal.Ignore(syscall.SIGHUP) // inherited
	defer signal.Reset(syscall.SIGHUP)
	cmd, stderr := started(t, "fastrewind", "polite")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(stderr)
	_ = cmd.Wait() // the message tells which signal it was
	if err != nil || !strings.HasSuffix(string(rest), "error: stopped by SIGINT\n") {
		t.Errorf("got %q, %v", rest, err)
	}
}

// TestClosedPipes: the reader of all messages goes away, and the rewind goes on to its end.
func TestClosedPipes(t *testing.T) {
	for _, name := range []string{"fastrewind", "pg_rewind"} {
		target, err := os.MkdirTemp(filepath.Dir(binary), "target")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(target, 0o777); err != nil {
			t.Fatal(err)
		}
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := &exec.Cmd{
			Path: binary, Args: []string{name, "-P", "-D", target, "--source-pgdata=s"},
			Env:         []string{playVariable + "=talkative"},
			Stdout:      writer,
			Stderr:      writer,
			SysProcAttr: ordinaryUser(t),
		}
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(target, "finished")); err != nil {
			t.Errorf("%s: the rewind did not finish: %v", name, err)
		}
	}
}

func TestInterruption(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	failed := fault.New("disk full").Advise("make room")
	if got := interruption(ctx, failed); !errors.Is(got, failed) || got.Error() != "disk full" {
		t.Errorf("without a signal: %v", got)
	}
	cancel(stopSignal{"SIGINT"})
	if got := interruption(ctx, nil); got != nil {
		t.Errorf("a run that finished all the same: %v", got)
	}
	var said *fault.Error
	if got := interruption(ctx, failed); !errors.As(got, &said) || said.Text != "stopped by SIGINT" ||
		said.Detail != "disk full" || said.Advice != "make room" || !errors.Is(got, failed) {
		t.Errorf("failed for its own reason: %+v", got)
	}
	wrapped := fault.Because(ctx.Err(), "could not read: context canceled").Advise("run it again")
	if got := interruption(ctx, wrapped); !errors.As(got, &said) || said.Detail != "" || said.Advice != "run it again" {
		t.Errorf("failed because of the signal: %+v", got)
	}
}
