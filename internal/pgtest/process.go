package pgtest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a program that runs beside the test, so that something can happen to it. Its methods may be called from any
// goroutine.
type Process struct {
	env    *Env
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has been reaped; result and err are set before
	result *Result
	err    error
}

// Begin starts a program as the servers' user and does not wait for it. Cmd.Timeout is not looked at. A program that
// still runs when the test ends is killed. It is a child of the thread that calls, and inherits what only that one has.
func (e *Env) Begin(c Cmd) *Process {
	e.tb.Helper()
	cmd := e.command(e.ctx, c)
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	closeFiles, err := c.attach(cmd)
	if err != nil {
		e.tb.Fatalf("pgtest: %v", err)
	}
	defer closeFiles()
	start := time.Now()
	if err := cmd.Start(); err != nil {
		e.tb.Fatalf("pgtest: %s: %v", strings.Join(cmd.Args, " "), err)
	}
	p := &Process{env: e, cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the program; Wait and the cleanup wait for it
		defer close(p.done)
		err := cmd.Wait()
		p.result = &Result{Cmd: strings.Join(cmd.Args, " "), Stdout: stdout.String(), Stderr: stderr.String(), Wall: time.Since(start)}
		if ps := cmd.ProcessState; ps != nil {
			p.result.ExitCode, p.result.User, p.result.System = ps.ExitCode(), ps.UserTime(), ps.SystemTime()
		}
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			p.err = err
		}
	}()
	e.tb.Cleanup(func() {
		p.Signal(syscall.SIGKILL)
		<-p.done
	})
	return p
}

// BeginRewind starts a program with pg_rewind's options on the cluster as target. stderr may be nil; if it is not,
// Result.Stderr stays empty.
func (c *Cluster) BeginRewind(program string, from Source, stderr io.Writer, args ...string) *Process {
	c.env.tb.Helper()
	all := append([]string{"--target-pgdata", c.DataDir(), from.flag, from.value}, args...)
	cmd := Cmd{Path: program, Args: all, Cluster: c}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	return c.env.Begin(cmd)
}

// Signal sends a signal to the program alone, not to its children. It is no error if the program has ended.
func (p *Process) Signal(sig syscall.Signal) {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.env.tb.Errorf("pgtest: %v to %s: %v", sig, p.cmd.Path, err)
	}
}

// Kill kills the program (SIGKILL) and waits for its end.
func (p *Process) Kill() *Result {
	p.env.tb.Helper()
	p.Signal(syscall.SIGKILL)
	return p.Wait()
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the program's end and returns what became of it. It must come from the test's own goroutine.
func (p *Process) Wait() *Result {
	p.env.tb.Helper()
	select {
	case <-p.done:
	case <-time.After(p.env.timeout):
		p.Signal(syscall.SIGKILL)
		<-p.done
		p.env.tb.Fatalf("pgtest: %s has not ended after %s\n%s", p.result.Cmd, p.env.timeout, p.result)
	}
	if p.err != nil {
		p.env.tb.Fatalf("pgtest: %s: %v\n%s", p.result.Cmd, p.err, p.result)
	}
	return p.result
}

// Remove removes the stopped cluster and all that belongs to it. Its name can be used again then.
func (c *Cluster) Remove() {
	c.env.tb.Helper()
	if c.Running() {
		c.env.tb.Fatalf("pgtest: cannot remove %s while it runs", c.Name)
	}
	if err := os.RemoveAll(filepath.Dir(c.DataDir())); err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	c.env.mu.Lock()
	defer c.env.mu.Unlock()
	for i, other := range c.env.clusters {
		if other == c {
			c.env.clusters = append(c.env.clusters[:i], c.env.clusters[i+1:]...)
			break
		}
	}
}
