package survival

import (
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// undo rewinds with --keep-undo, to the end and not, and takes it back: every byte, name, mode and link must be what it
// was, and the server must have its own data again.
func (s *stage) undo(w *way) {
	const seed = 4
	rnd := rand.New(rand.NewPCG(seed, uint64(len(w.name))))
	dir := func(target *pgtest.Cluster) string { return filepath.Join(filepath.Dir(target.DataDir()), "undo") }
	keep := func(target *pgtest.Cluster) string { return "--keep-undo=" + dir(target) }
	back := func(target *pgtest.Cluster) *pgtest.Result {
		return s.env.Exec(s.undoCommand(target, dir(target)))
	}
	for _, tt := range []struct {
		what string
		do   func(target *pgtest.Cluster) // up to before the undo
	}{
		{"finished", func(target *pgtest.Cluster) {
			s.goOn(w, target, keep(target))
			s.asExpected(w, target)
			s.Logf("the undo takes %d kB, the rewind copied %d MB", s.size(dir(target))>>10, w.copies)
		}},
		{"interrupted", func(target *pgtest.Cluster) {
			h := s.hold(w, target, s.after(1+rnd.IntN(500), w, target), keep(target))
			h.Kill()
			s.refused(w, target)
		}},
		{"interrupted before its last step", func(target *pgtest.Cluster) {
			h := s.hold(w, target, func() bool { return s.look(w, target) == unlabelled }, keep(target))
			h.Kill()
		}},
		{"interrupted, gone on with", func(target *pgtest.Cluster) {
			h := s.hold(w, target, s.after(1+rnd.IntN(500), w, target), keep(target))
			h.Kill()
			s.goOn(w, target, keep(target))
			s.asExpected(w, target)
		}},
	} {
		target := s.target()
		tt.do(target)
		if s.Failed() {
			s.Fatalf("%s", tt.what)
		}
		if rnd.IntN(2) == 0 { // the undo is killed, too
			took := time.Duration(rnd.Float64() * float64(w.took))
			proc := s.env.Begin(s.undoCommand(target, dir(target)))
			select {
			case <-proc.Done():
			case <-time.After(took):
			}
			proc.Kill()
		}
		if res := back(target); res.ExitCode != 0 {
			s.Fatalf("%s: %s", tt.what, res)
		}
		s.asBefore(target)
		if res := back(target); res.ExitCode != 0 {
			s.Errorf("%s, and once more: %s", tt.what, res)
		}
		s.asBefore(target)
		if s.Failed() {
			s.Fatalf("%s", tt.what)
		}
		if tt.what == "interrupted, gone on with" {
			s.ownData(target)
		}
		target.Remove()
	}
}

// undoCommand is the call of "fastrewind undo".
func (s *stage) undoCommand(target *pgtest.Cluster, dir string) pgtest.Cmd {
	return pgtest.Cmd{Path: s.bin.Fastrewind, Args: []string{"undo", "-D", target.DataDir(), "--from", dir}, Cluster: target}
}

// after counts the calls that a half-rewound target sees, and is true at the n-th.
func (s *stage) after(n int, w *way, target *pgtest.Cluster) func() bool {
	guardOn, calls := false, 0
	return func() bool {
		if !guardOn {
			guardOn = s.look(w, target).halfRewound()
		}
		if guardOn {
			calls++
		}
		return calls >= n
	}
}

// ownData starts a target whose rewind was taken back, and a copy of the template, and holds that they have the same.
func (s *stage) ownData(target *pgtest.Cluster) {
	own := s.target()
	own.Start()
	target.Start()
	pgtest.SameData(s, target, own)
	if said := target.Query("postgres", "SELECT count(*) FROM made_by_old"); said != "20000" {
		s.Errorf("made_by_old has %s rows", said)
	}
	target.AmCheck()
	target.Stop(pgtest.Fast)
	own.Stop(pgtest.Fast)
	target.Checksums()
	own.Remove()
}

// size is how much the files below a directory hold, in bytes.
func (s *stage) size(dir string) (n int64) {
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		s.Fatalf("%v", err)
	}
	return n
}
