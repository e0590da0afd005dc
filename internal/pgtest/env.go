package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// TB is what pgtest needs of a test. testing.TB has it; Run makes one for programs.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(f func())
	Name() string
	Context() context.Context
}

// Options choose where clusters live and which PostgreSQL they run. The zero value is right for most tests.
type Options struct {
	BinDir  string        // PostgreSQL's programs; default: those of Major
	Major   int           // default: see FindBinDir
	Dir     string        // parent of the clusters' directory; default $PGTEST_DIR, else /tmp. At most 40 bytes: sockets live below it.
	Timeout time.Duration // for each start, stop, wait and administrative program; default 3 minutes
}

// Env is a directory in which clusters live, and the PostgreSQL they run. Everything in it ends with its TB.
type Env struct {
	tb      TB
	ctx     context.Context
	Root    string // owned by the user the servers run as
	BinDir  string // PostgreSQL's programs, or at least the server's: see Bin
	Major   int    // of the programs in BinDir
	timeout time.Duration
	user    *account // nil: servers run as the user of this process
	keep    bool     // $PGTEST_KEEP is set: leave Root behind

	mu       sync.Mutex
	clusters []*Cluster
	shared   []sharedMemory // of servers that were killed
}

// maxDir keeps <dir>/pgt<10 digits>/.s/.s.PGSQL.<5 digits> below the 107 bytes a Unix socket's path may have.
const maxDir = 40

// New makes an empty environment below /tmp. It fails the test if there is no PostgreSQL, or, as root, no user
// postgres to run it. With $PGTEST_KEEP set, directories are left behind for inspection.
func New(tb TB, opts ...Options) *Env {
	tb.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	e := &Env{tb: tb, ctx: tb.Context(), timeout: o.Timeout, keep: os.Getenv("PGTEST_KEEP") != ""}
	if e.timeout == 0 {
		e.timeout = 3 * time.Minute
	}
	var err error
	if e.BinDir, e.Major, err = findPostgres(o.BinDir, o.Major); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	if e.user, err = serverAccount(); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	parent := o.Dir
	if parent == "" {
		parent = parentDir()
	}
	if parent, err = filepath.EvalSymlinks(parent); err != nil { // the watchdog compares paths with the kernel's
		tb.Fatalf("pgtest: %v", err)
	}
	if len(parent) > maxDir {
		tb.Fatalf("pgtest: directory %q is too long for Unix sockets below it: %d bytes, at most %d", parent, len(parent), maxDir)
	}
	if e.Root, err = os.MkdirTemp(parent, "pgt"); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	if err := e.own(e.Root); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	dog, err := startWatchdog(e.Root, e.keep)
	if err != nil {
		_ = os.RemoveAll(e.Root)
		tb.Fatalf("pgtest: starting the watchdog: %v", err)
	}
	tb.Cleanup(func() { e.close(dog) })
	e.mkdir(e.socketDir())
	return e
}

// NewMajor is New for a given major.
func NewMajor(tb TB, major int) *Env {
	tb.Helper()
	return New(tb, Options{Major: major})
}

func parentDir() string {
	if dir := os.Getenv("PGTEST_DIR"); dir != "" {
		return dir
	}
	return "/tmp"
}

func (e *Env) socketDir() string { return filepath.Join(e.Root, ".s") } // no name of a cluster

// close ends all servers at once, shows their logs if the test failed, and removes everything.
func (e *Env) close(dog *watchdog) {
	e.mu.Lock()
	clusters := e.clusters
	e.mu.Unlock()
	for _, c := range clusters {
		c.abandon()
	}
	if e.tb.Failed() {
		for _, c := range clusters {
			e.tb.Logf("%s", c.logTail(60))
		}
	}
	for _, s := range e.shared {
		s.remove()
	}
	if e.keep {
		e.tb.Logf("pgtest: PGTEST_KEEP is set; left %s behind", e.Root)
	}
	dog.release()
}

// own gives a path to the user the servers run as.
func (e *Env) own(path string) error {
	if e.user == nil {
		return nil
	}
	return os.Lchown(path, e.user.uid, e.user.gid)
}

func (e *Env) mkdir(path string) {
	e.tb.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		e.tb.Fatalf("pgtest: %v", err)
	}
	if err := e.own(path); err != nil {
		e.tb.Fatalf("pgtest: %v", err)
	}
}

// WriteFile writes a file that belongs to the servers' user, whatever user the test is.
func (e *Env) WriteFile(path string, data []byte, mode os.FileMode) {
	e.tb.Helper()
	err := os.WriteFile(path, data, mode)
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err == nil {
		err = e.own(path)
	}
	if err != nil {
		e.tb.Fatalf("pgtest: %v", err)
	}
}

// Dir makes a directory below Root that belongs to the servers' user, mode 0700, and returns its path: an archive,
// a place for output.
func (e *Env) Dir(name string) string {
	e.tb.Helper()
	dir := filepath.Join(e.Root, ".dirs")
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		e.mkdir(dir)
	}
	dir = filepath.Join(dir, name)
	e.mkdir(dir)
	return dir
}

// poll calls f until it is true, and fails the test if it is not within the environment's timeout.
func (e *Env) poll(what string, f func() bool) {
	e.tb.Helper()
	deadline := time.Now().Add(e.timeout)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if f() {
			return
		}
		if err := e.ctx.Err(); err != nil {
			e.tb.Fatalf("pgtest: while waiting for %s: %v", what, err)
		}
		if time.Now().After(deadline) {
			e.tb.Fatalf("pgtest: waited %s in vain for %s", e.timeout, what)
		}
		time.Sleep(wait)
	}
}

// Run calls f with a TB of its own, so that programs can use this package: messages go to w, Fatalf ends f, cleanups
// run when f ends in whatever way, and a failure comes back as an error. When ctx is cancelled, the program that f is
// waiting for is killed and f ends as by Fatalf.
func Run(ctx context.Context, name string, w io.Writer, f func(TB)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &runner{ctx: ctx, name: name, w: w}
	done := make(chan struct{})
	go func() { // of its own, because Fatalf ends it by Goexit
		defer close(done)
		defer func() {
			cancel()
			r.cleanup()
		}()
		defer func() {
			if p := recover(); p != nil {
				buf := make([]byte, 16<<10)
				r.Errorf("panic: %v\n%s", p, buf[:runtime.Stack(buf, false)])
			}
		}()
		f(r)
	}()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failures) > 0 {
		return fmt.Errorf("%s: %s", name, strings.Join(r.failures, "\n"))
	}
	return nil
}

// runner is the TB of Run.
type runner struct {
	ctx  context.Context
	name string

	mu       sync.Mutex
	w        io.Writer
	failures []string
	cleanups []func()
}

func (r *runner) Helper()                  {}
func (r *runner) Name() string             { return r.name }
func (r *runner) Context() context.Context { return r.ctx }

func (r *runner) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Where messages cannot be written there is nobody to tell.
	_, _ = fmt.Fprintf(r.w, format+"\n", args...)
}

func (r *runner) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *runner) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *runner) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

func (r *runner) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// cleanup runs the cleanups, last registered first, even if one of them ends by Goexit.
func (r *runner) cleanup() {
	r.mu.Lock()
	n := len(r.cleanups)
	if n == 0 {
		r.mu.Unlock()
		return
	}
	f := r.cleanups[n-1]
	r.cleanups = r.cleanups[:n-1]
	r.mu.Unlock()
	defer r.cleanup()
	f()
}
