package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StopMode is how a server is asked to stop, named as by pg_ctl.
type StopMode syscall.Signal

// The three ways PostgreSQL knows.
const (
	Smart     = StopMode(syscall.SIGTERM) // waits for clients to leave
	Fast      = StopMode(syscall.SIGINT)  // disconnects clients, writes a shutdown checkpoint
	Immediate = StopMode(syscall.SIGQUIT) // leaves crash recovery to the next start
)

// server is a running postmaster. It is this process's own child and not pg_ctl's, so that its end is noticed at once
// and its exit status collected: a zombie that nobody reaps looks like a running server to the next one.
type server struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has been reaped; err is set before
	err  error
}

func (s *server) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Start starts the server and waits until it accepts connections.
func (c *Cluster) Start() {
	c.env.tb.Helper()
	if err := c.TryStart(); err != nil {
		c.env.tb.Fatalf("pgtest: starting %s: %v\n%s", c.Name, err, c.logTail(40))
	}
}

// TryStart is Start for a server that may refuse: the error says that it ended, or did not accept connections in time
// (it is stopped then). The reason is in the log.
func (c *Cluster) TryStart() error {
	c.env.tb.Helper()
	if c.Running() {
		c.env.tb.Fatalf("pgtest: %s is running already", c.Name)
	}
	log, err := os.OpenFile(c.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	spec := Cmd{Path: "postgres", Cluster: c, Stdout: log, Stderr: log, Args: []string{
		"-D", c.DataDir(), "-p", strconv.Itoa(c.Port), "-k", c.SocketDir(),
		"-c", "listen_addresses=127.0.0.1", "-c", "cluster_name=" + c.Name,
	}}
	cmd := c.env.command(context.WithoutCancel(c.env.ctx), spec) // Env.close ends it, in order
	closeFiles, err := spec.attach(cmd)
	if err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	defer closeFiles()
	if err := cmd.Start(); err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	s := &server{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process; Stop, Kill9 and Env.close wait for it
		s.err = cmd.Wait()
		close(s.done)
	}()
	c.server = s
	deadline := time.Now().Add(c.env.timeout)
	for !c.ready(cmd.Process.Pid) {
		if !s.alive() {
			c.server = nil
			return fmt.Errorf("the server ended: %w", errOr(s.err, "exit status 0"))
		}
		if err := c.env.ctx.Err(); err != nil || time.Now().After(deadline) {
			c.abandon()
			return fmt.Errorf("not ready to accept connections after %s: %w", c.env.timeout, errOr(err, "timeout"))
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

// ready reads postmaster.pid as pg_ctl does: first line the process, eighth line what it is ready for (miscadmin.h).
func (c *Cluster) ready(pid int) bool {
	data, err := os.ReadFile(c.Path("postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(data), "\n")
	return len(lines) >= 8 && strings.TrimSpace(lines[0]) == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// Running reports whether the server runs. A server that ended by itself does not.
func (c *Cluster) Running() bool { return c.server != nil && c.server.alive() }

// Pid is the postmaster's process id; the server must be running.
func (c *Cluster) Pid() int {
	c.env.tb.Helper()
	if !c.Running() {
		c.env.tb.Fatalf("pgtest: %s is not running", c.Name)
	}
	return c.server.cmd.Process.Pid
}

// Stop stops the server and waits for its end.
func (c *Cluster) Stop(mode StopMode) {
	c.env.tb.Helper()
	pid := c.Pid()
	c.Thaw()
	if err := syscall.Kill(pid, syscall.Signal(mode)); err != nil {
		c.env.tb.Fatalf("pgtest: stopping %s: %v", c.Name, err)
	}
	s := c.server
	select {
	case <-s.done:
	case <-time.After(c.env.timeout):
		c.env.tb.Fatalf("pgtest: %s has not stopped after %s\n%s", c.Name, c.env.timeout, c.logTail(40))
	}
	c.server = nil
	if mode != Immediate && s.err != nil {
		c.env.tb.Fatalf("pgtest: stopping %s: %v\n%s", c.Name, s.err, c.logTail(40))
	}
}

// Restart is Stop(Fast) and Start.
func (c *Cluster) Restart() {
	c.env.tb.Helper()
	c.Stop(Fast)
	c.Start()
}

// Reload makes the server read its configuration again.
func (c *Cluster) Reload() {
	c.env.tb.Helper()
	if err := syscall.Kill(c.Pid(), syscall.SIGHUP); err != nil {
		c.env.tb.Fatalf("pgtest: reloading %s: %v", c.Name, err)
	}
}

// Kill9 kills the postmaster and every one of its processes as a crash of the machine would end them, except that what
// they wrote stays in the kernel's cache. postmaster.pid stays behind, as it does then.
func (c *Cluster) Kill9() {
	c.env.tb.Helper()
	if err := c.kill(); err != nil {
		c.env.tb.Fatalf("pgtest: killing %s: %v", c.Name, err)
	}
}

func (c *Cluster) kill() error {
	pid := c.server.cmd.Process.Pid
	// Stopped first, so that it starts nothing new while its children are counted.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	family := append([]int{pid}, children(pid)...)
	c.env.mu.Lock()
	c.env.shared = append(c.env.shared, sharedMemoryOf(pid)...)
	c.env.mu.Unlock()
	for _, p := range family {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	<-c.server.done
	c.server, c.frozen = nil, nil
	for _, p := range family {
		if err := waitGone(p, 30*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// abandon ends the server at the end of a test, in whatever state it is.
func (c *Cluster) abandon() {
	if !c.Running() {
		return
	}
	if err := c.kill(); err != nil {
		c.env.tb.Logf("pgtest: ending %s: %v", c.Name, err)
	}
}

// children are the processes whose parent is pid.
func children(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	var found []int
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		// "pid (name) state ppid ...", and a name may hold anything
		i := strings.LastIndex(string(data), ") ")
		if i < 0 {
			continue
		}
		fields := strings.Fields(string(data)[i+2:])
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if p, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			found = append(found, p)
		}
	}
	return found
}

// Freeze stops (SIGSTOP) the server's processes of the given kinds, as named in pg_stat_activity.backend_type, until
// Thaw, Stop or Kill9. With the "checkpointer" frozen a promotion makes no checkpoint; with the "background writer"
// frozen an idle server writes no WAL at all.
func (c *Cluster) Freeze(backendTypes ...string) {
	c.env.tb.Helper()
	for _, kind := range backendTypes {
		out := c.Query("postgres", fmt.Sprintf("SELECT pid FROM pg_stat_activity WHERE backend_type = '%s'", kind))
		if out == "" {
			c.env.tb.Fatalf("pgtest: %s has no process of type %q", c.Name, kind)
		}
		for line := range strings.Lines(out) {
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGSTOP)
			}
			if err != nil {
				c.env.tb.Fatalf("pgtest: freezing the %s of %s: %v", kind, c.Name, err)
			}
			c.frozen = append(c.frozen, pid)
		}
	}
}

// Thaw lets frozen processes go on.
func (c *Cluster) Thaw() {
	for _, pid := range c.frozen {
		// ESRCH: it ended meanwhile, as by kill -9
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	c.frozen = nil
}

// Quiesce writes a checkpoint and then keeps the server from writing anything of its own accord, so that two rewinds
// one after the other see the same source: autovacuum and timed checkpoints are off in pgtest's configuration, and the
// background writer, which logs running transactions every 15 seconds, is frozen.
func (c *Cluster) Quiesce() {
	c.env.tb.Helper()
	c.Checkpoint()
	c.Freeze("background writer")
}
