package trouble

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// patience is how long anything may take: a run that has not ended by then hangs.
const patience = 90 * time.Second

// Exit statuses of the program.
const (
	exitDone       = 0
	exitFailed     = 1
	exitResumable  = 4
	exitRefused    = 5
	exitSourceLost = 6
)

// program is a run that is under way.
type program struct {
	s      *stage
	target *pgtest.Cluster
	proc   *os.Process
	ended  chan struct{}
	res    *pgtest.Result // once it has ended
}

// launchBraked is launch with a link that lets no more through than a trickle, until the program is told to advance.
func (s *stage) launchBraked(k *link, conninfo string, args ...string) *program {
	s.t.Helper()
	k.brake.Store(0)
	return s.launch(conninfo, args...)
}

// launch starts a rewind of the stage's target.
func (s *stage) launch(conninfo string, args ...string) *program {
	s.t.Helper()
	s.launched++
	file := filepath.Join(s.env.Root, s.target.Name+"."+strconv.Itoa(s.launched)+".pid")
	s.env.WriteFile(file, nil, 0o600)
	p := &program{s: s, target: s.target, ended: make(chan struct{})}
	all := slices.Concat([]string{"-c", `echo $$ >"$0" && exec "$@"`, file, s.bin.Fastrewind,
		"--target-pgdata", s.target.DataDir(), "--source-server", conninfo, "--jobs", "2"}, args)
	go func() {
		defer close(p.ended)
		p.res = s.env.Exec(pgtest.Cmd{Path: "/bin/sh", Args: all, Cluster: s.target})
	}()
	s.until("the program to start", func() bool {
		data, err := os.ReadFile(file)
		text, whole := strings.CutSuffix(string(data), "\n")
		if err != nil || !whole {
			return false
		}
		pid, err := strconv.Atoi(text)
		if err == nil {
			p.proc, err = os.FindProcess(pid) // holds on to this very process
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return true
	})
	s.t.Cleanup(func() { // whatever became of the test
		_ = p.proc.Kill()
		<-p.ended
	})
	return p
}

// kill kills the program, which must be under way.
func (p *program) kill() {
	p.s.t.Helper()
	p.mustRun()
	if err := p.proc.Signal(syscall.SIGKILL); err != nil {
		p.s.t.Fatal(err)
	}
	<-p.ended
}

func (p *program) mustRun() {
	p.s.t.Helper()
	select {
	case <-p.ended:
		p.s.t.Fatalf("the program has ended too early: %s", p.res)
	default:
	}
}

// wait waits for the end, which must be of a certain status.
func (p *program) wait(status int) *pgtest.Result {
	p.s.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.proc.Signal(syscall.SIGQUIT) // it says where it hangs
		time.Sleep(time.Second)
		_ = p.proc.Kill()
		<-p.ended
		p.s.t.Fatalf("the program hangs: %s", p.res)
	}
	if p.res.ExitCode != status {
		p.s.t.Fatalf("exit status %d expected: %s", status, p.res)
	}
	return p.res
}

// relationFile is a line of the journal about a file of blocks.
var relationFile = regexp.MustCompile(`\bbase/[0-9]+/[0-9]+(\.[0-9]+)?\b[^_]`)

// done is how many files of blocks the target's journal says are complete.
func (p *program) done() int {
	res := p.s.env.Exec(pgtest.Cmd{Path: p.s.bin.Fastrewind, Args: []string{"journal", "--target-pgdata", p.target.DataDir()}})
	n, isDone := 0, false
	for line := range strings.Lines(res.Stdout) {
		switch {
		case strings.HasPrefix(line, "byte "):
			isDone = false
		case strings.Contains(line, "no page newer than"):
			isDone = true
		case isDone && relationFile.MatchString(line):
			n++
		}
	}
	return n
}

// step is how much a run is let go on with before it is looked at again. It is a small part of what is copied.
const step = 1 << 20

// advance lets the program go on until something is so, and no further: then only a trickle comes through its link.
func (p *program) advance(k *link, what string, f func() bool) {
	p.s.t.Helper()
	for !f() {
		k.brake.Store(k.passed.Load() + step)
		p.s.until(what, func() bool {
			p.mustRun()
			return k.passed.Load() >= k.brake.Load()
		})
	}
}

// untilCopying lets the program go on until it is in the middle of copying.
func (p *program) untilCopying(k *link) {
	p.s.t.Helper()
	p.advance(k, "the copying", func() bool { return k.passed.Load() > 10*step })
}

// untilDone lets the program go on until its journal has at least n files more.
func (p *program) untilDone(n int, k *link) {
	p.s.t.Helper()
	n += p.done()
	p.advance(k, "files to be complete", func() bool { return p.done() >= n })
}

// untilNewer lets the program go on until it has copied pages that are newer than an LSN.
func (p *program) untilNewer(lsn uint64, k *link) {
	p.s.t.Helper()
	p.advance(k, "newer pages to be copied", func() bool { return p.s.countNewer(lsn) > 0 })
}

// until waits for something.
func (s *stage) until(what string, f func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}
