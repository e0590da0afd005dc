package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestResults(t *testing.T) {
	tests := []struct {
		script, words string
		hard          bool
	}{
		{"exit 1", "child process exited with exit code 1", false},
		{"exit 125", "child process exited with exit code 125", false},
		{"exit 126", "command not executable", true},
		{"exit 127", "command not found", true},
		{"exit 130", "child process exited with exit code 130", true},
		{"kill -KILL $$", "child process was terminated by signal 9: Killed", true},
		{"kill -USR1 $$", "child process was terminated by signal 10: User defined signal 1", true}, // HUP is ignored under nohup
	}
	for _, tt := range tests {
		err := Run(t.Context(), exec.Command("/bin/sh", "-c", tt.script), time.Second)
		if err == nil || Failure(err) != tt.words || Hard(err) != tt.hard {
			t.Errorf("%s: %v, %q, hard %v", tt.script, err, Failure(err), Hard(err))
		}
	}
	if err := Run(t.Context(), exec.Command("/bin/sh", "-c", "true"), time.Second); err != nil || Hard(err) {
		t.Errorf("success: %v", err)
	}
	err := Run(t.Context(), exec.Command("/no/such/program"), time.Second)
	if !errors.Is(err, os.ErrNotExist) || !Hard(err) || Failure(err) == "" {
		t.Errorf("no program: %v", err)
	}
}

func TestCancel(t *testing.T) {
	tests := []struct{ what, script string }{
		{"all follow SIGTERM", "sleep 600 & echo $! > PID; wait"},
		{"the shell ignores SIGTERM", "trap '' TERM; sleep 600 & echo $! > PID; while :; do wait; done"},
		{"its child ignores SIGTERM", "(trap '' TERM; echo > READY; while :; do sleep 600; done) & echo $! > PID; while test ! -f READY; do sleep 0.01; done; wait"},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			dir := t.TempDir()
			script := strings.NewReplacer("PID", filepath.Join(dir, "pid"), "READY", filepath.Join(dir, "ready")).Replace(tt.script)
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error)
			var out bytes.Buffer
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.Stdout = &out // a pipe, which the child holds open as well
			go func() { done <- Run(ctx, cmd, 200*time.Millisecond) }()
			pid := waitForPID(t, filepath.Join(dir, "pid"))
			why := errors.New("enough")
			cancel(why)
			select {
			case err := <-done:
				if !errors.Is(err, why) {
					t.Errorf("got %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("does not return")
			}
			waitForEnd(t, pid)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, exec.Command("/no/such/program"), time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before the start: %v", err)
	}
}

// A program that ended well is not waited for any longer because something it left behind holds its output open.
func TestBackgroundChild(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	var out bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", "sleep 600 & echo $! > "+pidFile+"; echo done")
	cmd.Stdout = &out
	start := time.Now()
	if err := Run(t.Context(), cmd, time.Second); err != nil || out.String() != "done\n" {
		t.Errorf("%v, output %q", err, out.String())
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("took %v", d)
	}
	if p, err := os.FindProcess(waitForPID(t, pidFile)); err == nil {
		_ = p.Kill()
	}
}

func waitForPID(t *testing.T, path string) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var pid int
		if data, err := os.ReadFile(path); err == nil {
			if _, err := fmt.Sscanf(string(data), "%d\n", &pid); err == nil {
				return pid
			}
		}
	}
	t.Fatalf("%s was not written", path)
	return 0
}

// waitForEnd waits until a process that is no child of ours is gone, or dead and not yet collected by its new parent.
func waitForEnd(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is still running", pid)
}
