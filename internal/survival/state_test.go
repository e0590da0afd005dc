package survival

import (
	"bytes"
	"os"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// state is how far a rewind has come, as far as it can be seen in the target.
type state int

const (
	untouched  state = iota // no journal, and the control file it had
	journaled               // a journal, but no lock on the target yet
	labelled                // the first lock: backup_label
	guarded                 // the second lock: pg_control
	changing                // a relation is not what it was
	unlabelled              // the real backup_label is there: the first lock is off
	complete                // so is the real pg_control, but the journal is still there
	finished                // and that is gone
)

var stateNames = [...]string{"untouched", "journaled", "labelled", "guarded", "changing", "unlabelled", "complete", "finished"}

func (s state) String() string { return stateNames[s] }

// halfRewound reports whether it is a state between the first modification and the last.
func (s state) halfRewound() bool { return s >= labelled && s <= unlabelled }

const (
	journalName = "fastrewind.journal"
	labelName   = "backup_label"
)

// look finds out the state of a target while a rewind works on it, or does no more.
func (s *stage) look(w *way, target *pgtest.Cluster) state {
	control, err := os.ReadFile(target.Path("global", "pg_control"))
	if err != nil {
		s.Fatalf("%v", err)
	}
	label, _ := os.ReadFile(target.Path(labelName)) // nil if there is none
	_, err = os.Lstat(target.Path(journalName))
	journal := err == nil
	real := strings.HasPrefix(string(label), "START WAL LOCATION")
	switch {
	case pg.IsGuarded(control) && real:
		return unlabelled
	case pg.IsGuarded(control) && s.changed(w, target):
		return changing
	case pg.IsGuarded(control):
		return guarded
	case real && journal:
		return complete
	case real:
		return finished
	case label != nil:
		return labelled
	case journal:
		return journaled
	default:
		original, err := os.ReadFile(s.template.Path("global", "pg_control"))
		if err != nil || !bytes.Equal(control, original) {
			s.Fatalf("a control file from nowhere (%v)", err)
		}
		return untouched
	}
}

// changed reports whether a relation that a rewind changes is not what it was in the template. Copies keep times.
func (s *stage) changed(w *way, target *pgtest.Cluster) bool {
	for _, path := range w.changes {
		now, err := os.Stat(target.Path(path))
		if err != nil {
			return true
		}
		before, err := os.Stat(s.template.Path(path))
		if err != nil {
			s.Fatalf("%v", err)
		}
		if now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime()) {
			return true
		}
	}
	return false
}

// borders are the states at which rewinds are held, in their order.
var borders = []state{journaled, labelled, guarded, changing, unlabelled, complete}

// holdAt begins a rewind of a fresh target and holds it as soon as it has reached a state.
func (s *stage) holdAt(w *way, wanted state, args ...string) (*pgtest.Cluster, *held) {
	s.Helper()
	target := s.target()
	h := s.hold(w, target, func() bool { return s.look(w, target) >= wanted }, args...)
	if !h.holding() {
		s.Fatalf("it has ended before it was %v: %s\n%s", wanted, h.Wait(), h.ear)
	}
	if now := s.look(w, target); now != wanted {
		s.Fatalf("it is %v, and has not been %v", now, wanted)
	}
	return target, h
}
