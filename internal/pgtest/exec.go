package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account is the user that servers run as when the test is root.
type account struct {
	name     string
	uid, gid int
	home     string
}

// serverAccount is nil for an ordinary user, and the user postgres (or $PGTEST_USER) for root, whom PostgreSQL refuses.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	name := os.Getenv("PGTEST_USER")
	if name == "" {
		name = "postgres"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("running as root, and PostgreSQL needs another user: %w (run scripts/install-deps)", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	return &account{name: name, uid: uid, gid: gid, home: u.HomeDir}, nil
}

// Cmd is a program to run as the servers' user.
type Cmd struct {
	Path    string // a name without slash is one of PostgreSQL's programs
	Args    []string
	Env     []string // NAME=value, added to a small clean environment (no PG… variable is inherited)
	Stdin   io.Reader
	Stdout  io.Writer     // if set, Result.Stdout stays empty
	Stderr  io.Writer     // if set, Result.Stderr stays empty
	Dir     string        // working directory; default Env.Root
	Cluster *Cluster      // whose private tablespaces the program is to see (see Cluster.PrivateTablespace); may be nil
	Timeout time.Duration // default: none but the test's own
}

// Result is what became of a program.
type Result struct {
	Cmd      string // path and arguments, for messages
	Stdout   string
	Stderr   string
	ExitCode int // -1 if a signal ended it
	Wall     time.Duration
	User     time.Duration // CPU time in user mode, including that of children it waited for
	System   time.Duration // CPU time in the kernel
	MaxRSS   int64         // bytes; the largest of the program and the children it waited for
}

// String is everything about the result, for failure messages.
func (r *Result) String() string {
	return fmt.Sprintf("%s\nexit status %d after %s\nstdout:\n%s\nstderr:\n%s", r.Cmd, r.ExitCode, r.Wall, r.Stdout, r.Stderr)
}

// Exec runs a program to its end as the servers' user and returns what became of it, success or not. It fails the test
// only if the program cannot be started.
func (e *Env) Exec(c Cmd) *Result {
	e.tb.Helper()
	ctx := e.ctx
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	cmd := e.command(ctx, c)
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
	err = cmd.Run()
	r := &Result{Cmd: strings.Join(cmd.Args, " "), Stdout: stdout.String(), Stderr: stderr.String(), Wall: time.Since(start)}
	if ps := cmd.ProcessState; ps != nil {
		r.ExitCode = ps.ExitCode()
		r.User, r.System = ps.UserTime(), ps.SystemTime()
		if ru, ok := ps.SysUsage().(*syscall.Rusage); ok {
			r.MaxRSS = ru.Maxrss * 1024 // Linux counts in kilobytes
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.tb.Fatalf("pgtest: %s: %v\n%s", r.Cmd, err, r.Stderr)
	}
	if ctxErr := ctx.Err(); err != nil && ctxErr != nil {
		e.tb.Fatalf("pgtest: %s: %v after %s\n%s%s", r.Cmd, ctxErr, r.Wall, r.Stdout, r.Stderr)
	}
	return r
}

// MustExec is Exec for a program that has to succeed.
func (e *Env) MustExec(c Cmd) *Result {
	e.tb.Helper()
	r := e.Exec(c)
	if r.ExitCode != 0 {
		e.tb.Fatalf("pgtest: %s", r)
	}
	return r
}

// run runs one of PostgreSQL's programs, which has to succeed.
func (e *Env) run(program string, args ...string) *Result {
	e.tb.Helper()
	return e.MustExec(Cmd{Path: program, Args: args, Timeout: e.timeout})
}

func (e *Env) command(ctx context.Context, c Cmd) *exec.Cmd {
	path := c.Path
	if !strings.Contains(path, "/") {
		path = e.Bin(path)
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = e.Root // the test's own may be closed to the servers' user
	}
	cmd.Env = append(e.environ(), c.Env...)
	cmd.SysProcAttr = e.sysProcAttr()
	// A program that left a child behind with its output open must not keep Run waiting for ever.
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// attach gives the program the cluster's directory of private tablespaces as file descriptor privateFD.
func (c *Cmd) attach(cmd *exec.Cmd) (closeFiles func(), err error) {
	if c.Cluster == nil {
		return func() {}, nil
	}
	f, err := os.Open(c.Cluster.tsDir())
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{f} // the first of them becomes descriptor 3
	return func() { _ = f.Close() }, nil
}

// environ is small on purpose: neither the caller's PG… variables nor its language may change what a test sees.
func (e *Env) environ() []string {
	home, name := os.Getenv("HOME"), os.Getenv("USER")
	if e.user != nil {
		home, name = e.user.home, e.user.name
	}
	env := []string{"LC_ALL=C", "HOME=" + home, "USER=" + name, "LOGNAME=" + name, "PGCONNECT_TIMEOUT=60"}
	for _, inherited := range []string{"PATH", "LD_LIBRARY_PATH", "TZ"} {
		if v, ok := os.LookupEnv(inherited); ok {
			env = append(env, inherited+"="+v)
		}
	}
	return env
}

func (e *Env) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal is for the test, which ends them in order
	if e.user != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(e.user.uid), Gid: uint32(e.user.gid)}
	}
	return attr
}
