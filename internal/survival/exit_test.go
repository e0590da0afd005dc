package survival

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// Exit statuses, as --help has them.
const (
	exitFailure       = 1
	exitInterrupted   = 3
	exitResumable     = 4
	exitRefused       = 5
	exitSourceLost    = 6
	exitNotRewindable = 7
)

// exits holds that every way in which a rewind can end has the exit status that --help names, and that afterwards the
// target is as it says.
func (s *stage) exits(w *way) {
	s.twoAtOnce(w)
	s.startedMeanwhile(w)
	s.stopped(w)
	s.failed(w)
	s.refusedBefore(w)
	s.journalLost(w)
	if w.live {
		s.sourceLost(w)
	}
}

// ends holds how a rewind ended.
func (s *stage) ends(res *pgtest.Result, e *ear, status int, words string) {
	s.Helper()
	said := res.Stderr
	if e != nil {
		said = e.String()
	}
	if res.ExitCode != status || !strings.Contains(said, words) {
		s.Fatalf("expected exit status %d and %q: %s\n%s", status, words, res, said)
	}
}

// twoAtOnce: the second rewind, and an undo, of the same target are refused, and change nothing.
func (s *stage) twoAtOnce(w *way) {
	target, h := s.holdAt(w, changing)
	before := target.Copy(target.Name + "-before")
	s.ends(s.rewind(w, target), nil, exitFailure, "another rewind of")
	s.ends(s.env.Exec(s.undoCommand(target, before.DataDir())), nil, exitFailure, "another rewind of")
	pgtest.SameTrees(s, target, before)
	before.Remove()
	h.release()
	if res := h.Wait(); res.ExitCode != 0 {
		s.Fatalf("%s\n%s", res, h.ear)
	}
	s.asExpected(w, target)
	target.Remove()
}

// startedMeanwhile: somebody starts the target's server while the rewind still reads.
func (s *stage) startedMeanwhile(w *way) {
	for _, stop := range []bool{false, true} {
		target, h := s.holdAt(w, journaled)
		target.Start()
		if stop {
			target.Stop(pgtest.Fast)
		}
		h.release()
		s.ends(h.Wait(), h.ear, exitFailure, "target server")
		if now, err := os.Lstat(target.Path(journalName)); err == nil {
			s.Errorf("it has left %v", now.Name())
		}
		if !stop {
			target.Stop(pgtest.Fast)
		}
		s.goOn(w, target)
		target.Remove()
	}
}

// stopped: by signals and by time, before anything was changed and half-way.
func (s *stage) stopped(w *way) {
	heard := make(chan os.Signal, 1) // under nohup the programs would inherit that SIGHUP is ignored
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		target, h := s.holdAt(w, journaled)
		h.Signal(sig)
		h.waitFor(sig)
		h.release()
		s.ends(h.Wait(), h.ear, exitInterrupted, "stopped by SIG")
		s.asBefore(target)
		target.Remove()

		target, h = s.holdAt(w, changing)
		h.Signal(sig)
		h.waitFor(sig)
		h.release()
		s.ends(h.Wait(), h.ear, exitInterrupted, "Run the same command again")
		s.refused(w, target)
		s.goOn(w, target)
		s.asExpected(w, target)
		target.Remove()
	}
	target := s.target()
	s.ends(s.rewind(w, target, "--timeout=1ms"), nil, exitInterrupted, "--timeout is over")
	s.asBefore(target)
	limit := 2*w.took + 2*time.Second // long enough to get there, in general; and then it is held until it is over
	h := s.hold(w, target, s.after(20, w, target), fmt.Sprintf("--timeout=%dms", limit.Milliseconds()))
	if h.holding() {
		time.Sleep(limit)
		h.release()
	}
	s.ends(h.Wait(), h.ear, exitInterrupted, "--timeout is over")
	s.goOn(w, target)
	s.asExpected(w, target)
	target.Remove()
}

// failed: something gets in the way half-way, and is taken away again.
func (s *stage) failed(w *way) {
	target, h := s.holdAt(w, changing)
	obstacle := filepath.Join(target.Path("global", "pg_control"+plan.TempSuffix), "in the way")
	s.env.MustExec(pgtest.Cmd{Path: "/bin/mkdir", Args: []string{"-p", obstacle}})
	h.release()
	s.ends(h.Wait(), h.ear, exitResumable, "Run the same command again")
	s.refused(w, target)
	if err := os.RemoveAll(filepath.Dir(obstacle)); err != nil {
		s.Fatalf("%v", err)
	}
	s.goOn(w, target)
	s.asExpected(w, target)
	target.Remove()
}

// refusedBefore: what would fail later is found before anything is changed.
func (s *stage) refusedBefore(w *way) {
	target := s.target()
	path := target.Path(w.changes[0])
	if err := os.Chmod(path, 0o400); err != nil {
		s.Fatalf("%v", err)
	}
	s.ends(s.rewind(w, target), nil, exitRefused, w.changes[0])
	if err := os.Chmod(path, 0o600); err != nil {
		s.Fatalf("%v", err)
	}
	s.asBefore(target)
	if err := os.Chmod(path, 0o400); err != nil {
		s.Fatalf("%v", err)
	}
	s.goOn(w, target, "--fix-permissions")
	s.asExpected(w, target)
	target.Remove()
}

// journalLost: without it nobody can go on.
func (s *stage) journalLost(w *way) {
	target, h := s.holdAt(w, changing)
	h.Kill()
	if err := os.Remove(target.Path(journalName)); err != nil {
		s.Fatalf("%v", err)
	}
	before := target.Copy(target.Name + "-before")
	s.ends(s.rewind(w, target), nil, exitNotRewindable, "the journal of that rewind is missing")
	pgtest.SameTrees(s, target, before)
	before.Remove()
	target.Remove()
}

// sourceLost: the server crashes half-way, and is started again.
func (s *stage) sourceLost(w *way) {
	target, h := s.holdAt(w, changing, "--retry-for=1s")
	w.source.Kill9()
	h.release()
	s.ends(h.Wait(), h.ear, exitSourceLost, "Run the same command again")
	s.refused(w, target)
	s.ends(s.rewind(w, target, "--retry-for=1s"), nil, exitResumable, "Connection refused")
	w.source.Start()
	w.source.Quiesce()
	s.goOn(w, target)
	s.uninterrupted(w) // the source has had a checkpoint
	target.Remove()
}
