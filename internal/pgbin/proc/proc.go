// Package proc runs one program in a process group of its own, so that on cancellation the program goes together with
// whatever it started: a shell's commands, a single-user server's restore_command.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
	"unicode"
)

// outputDelay is how long output is still collected after the program itself has ended: programs left behind in the
// background (WAL-G's prefetch, for one) may hold the pipe open for as long as they run.
const outputDelay = time.Second

// Run starts cmd and waits for its end. cmd must come from exec.Command, without a context of its own; a nil Stdin reads
// as empty.
//
// If ctx is done first, the group is sent SIGTERM and, if the program has not ended after grace, SIGKILL; whatever the
// program leaves behind in the group is killed too. The error then is context.Cause(ctx). Run returns only after the
// program has ended. Otherwise errors are those of exec.Cmd.
func Run(ctx context.Context, cmd *exec.Cmd, grace time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.WaitDelay = outputDelay
	if err := cmd.Start(); err != nil {
		return err
	}
	group := -cmd.Process.Pid

	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		// Failure means that the group is gone already.
		_ = syscall.Kill(group, syscall.SIGTERM)
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
		}
		// Here too after the program's own end: its children may have ignored SIGTERM.
		_ = syscall.Kill(group, syscall.SIGKILL)
	}()
	err := cmd.Wait()
	close(ended)
	<-stopped

	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; only somebody else still holds its output
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Failure puts an error of Run into the words of wait_result_to_str (src/common/wait_error.c).
func Failure(err error) string {
	status, ok := waitStatus(err)
	switch {
	case !ok:
		return err.Error()
	case status.Signaled():
		name := []rune(status.Signal().String())
		name[0] = unicode.ToUpper(name[0])
		return fmt.Sprintf("child process was terminated by signal %d: %s", int(status.Signal()), string(name))
	case status.ExitStatus() == 126:
		return "command not executable"
	case status.ExitStatus() == 127:
		return "command not found"
	default:
		return fmt.Sprintf("child process exited with exit code %d", status.ExitStatus())
	}
}

// Hard reports whether an error of Run says more than that a shell's command did not succeed: it was killed by a signal,
// directly or below the shell, could not be executed, or could not even be started (wait_result_is_any_signal with
// include_command_not_found).
func Hard(err error) bool {
	status, ok := waitStatus(err)
	return err != nil && (!ok || status.Signaled() || status.ExitStatus() > 125)
}

func waitStatus(err error) (syscall.WaitStatus, bool) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return status, ok
}
