// Package survival interrupts rewinds of real clusters in every way a rewind can be interrupted from outside, and looks at
// what is left: that no server starts on it, that the same command goes on, that everything can be taken back.
//
//	stage_test.go       servers that came apart once, for all tests; one test after the other
//	divergence_test.go  what they did
//	state_test.go       how far a rewind has come, seen from outside
//	hold_test.go        a rewind that waits for the test before it changes anything
//	killed_test.go      kill -9 at random moments and at every border
//	guard_test.go       attempts to start a server meanwhile
//	majors_test.go      the same with every major
//	undo_test.go        --keep-undo
//	own_test.go         --keep, --keep-config and --exclude, given again, too late, or no more
//	exit_test.go        signals, time limits, two at once, and the exit status of each
package survival

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// stage is where the tests play, one after the other. It is the pgtest.TB of its servers, for the test that is played now.
type stage struct {
	*testing.T
	env      *pgtest.Env
	bin      pgtest.Binaries
	template *pgtest.Cluster // the target, stopped; only copies of it are rewound
	server   *way
	dir      *way
	segSize  uint32 // bytes
	diverged pg.LSN // where they parted
	copies   int    // made of the template
}

// way is a source, and how to rewind from it.
type way struct {
	name     string
	from     pgtest.Source
	source   *pgtest.Cluster // writes nothing of its own accord
	primary  *pgtest.Cluster // runs; who is rewound from source can follow it
	live     bool
	expected *pgtest.Cluster // what an uninterrupted run leaves
	changes  []string        // relations that it changes and that were there before
	took     time.Duration   // it took
	copies   int64           // MB it copies
}

// TestSurvival lets two servers come apart once. Everything else happens to copies of the old primary.
func TestSurvival(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	s := newStage(t, 0)
	s.separate()
	s.uninterrupted(s.server)
	s.uninterrupted(s.dir)
	for _, w := range []*way{s.server, s.dir} {
		s.play("killed, "+w.name, func() { s.killedAtRandom(w) })
		s.play("killed at borders, "+w.name, func() { s.killedAtBorders(w) })
		s.play("killed in phases, "+w.name, func() { s.killedInPhases(w) })
		s.play("start guard, "+w.name, func() { s.guarded(w) })
		s.play("undo, "+w.name, func() { s.undo(w) })
		s.play("exit status, "+w.name, func() { s.exits(w) })
	}
	s.play("own files", func() { s.keepsOwn(s.server) })
}

// newStage makes an empty one, in memory if there is enough of it.
func newStage(t *testing.T, major int) *stage {
	s := &stage{T: t}
	s.bin = pgtest.BuildFastrewind(s)
	s.env = pgtest.New(s, pgtest.Options{Major: major, Dir: memory()})
	return s
}

// memory is a file system in memory with room for a dozen clusters, or empty for the usual place.
func memory() string {
	const dir, enough = "/dev/shm", 4 << 30
	var st unix.Statfs_t
	if os.Getenv("PGTEST_DIR") != "" || unix.Statfs(dir, &st) != nil || st.Bavail*uint64(st.Bsize) < enough {
		return ""
	}
	return dir
}

// play makes f a test of its own.
func (s *stage) play(name string, f func()) {
	outer := s.T
	defer func() { s.T = outer }()
	outer.Run(name, func(t *testing.T) {
		start := time.Now()
		s.T = t
		f()
		t.Logf("%.1f s", time.Since(start).Seconds())
	})
}

// target is a fresh copy of the template, removed at the end of the test.
func (s *stage) target() *pgtest.Cluster {
	s.copies++
	return s.template.Copy(fmt.Sprintf("t%d", s.copies))
}

// uninterrupted finds out what a run leaves that nothing happens to, from the source as it is now.
func (s *stage) uninterrupted(w *way) {
	if w.expected != nil {
		w.expected.Remove()
		w.expected = nil
	}
	w.expected = s.template.Copy("expected-" + w.name)
	res := w.expected.MustRewind(s.bin.Fastrewind, w.from, arguments...)
	if !strings.Contains(res.Stderr, "rewinding from last common checkpoint") {
		s.Fatalf("nothing was rewound: %s", res)
	}
	w.took, w.copies = res.Wall, s.copiedMB(res)
	s.segSize = s.template.Control().SegSize
	s.diverged = s.divergence(res)
	differences, _, err := pgtest.CompareTrees(s.template.DataDir(), w.expected.DataDir())
	if err != nil {
		s.Fatalf("%v", err)
	}
	w.changes = nil
	for _, d := range differences {
		if strings.HasPrefix(d.Path, "base/") && (d.Kind == pgtest.ContentDiff || d.Kind == pgtest.SizeDiff) {
			w.changes = append(w.changes, d.Path)
		}
	}
}

// divergence is where the servers parted, by what a rewind says.
func (s *stage) divergence(res *pgtest.Result) pg.LSN {
	_, after, _ := strings.Cut(res.Stderr, "servers diverged at WAL location ")
	text, _, _ := strings.Cut(after, " ")
	lsn, err := pg.ParseLSN(text)
	if err != nil {
		s.Fatalf("%v in %s", err, res)
	}
	return lsn
}

// arguments are those of every rewind here. Without --no-sync: what was not synced is not believed afterwards.
var arguments = []string{"--jobs", "2", "--progress"}

func (s *stage) rewind(w *way, target *pgtest.Cluster, args ...string) *pgtest.Result {
	return target.Rewind(s.bin.Fastrewind, w.from, slices.Concat(arguments, args)...)
}

// begin begins a rewind that something will happen to.
func (s *stage) begin(w *way, target *pgtest.Cluster, args ...string) (*pgtest.Process, *ear) {
	e := &ear{}
	return target.BeginRewind(s.bin.Fastrewind, w.from, e, slices.Concat(arguments, args)...), e
}

// goOn runs the same command again, which must finish.
func (s *stage) goOn(w *way, target *pgtest.Cluster, args ...string) *pgtest.Result {
	s.Helper()
	res := s.rewind(w, target, args...)
	if res.ExitCode != 0 {
		s.Fatalf("the same command again: %s", res)
	}
	return res
}

// asExpected holds that a target is what an uninterrupted run would have left.
func (s *stage) asExpected(w *way, target *pgtest.Cluster) {
	s.Helper()
	pgtest.SameTrees(s, target, w.expected, pgtest.RewindDifferences(w.live)...)
}

// asBefore holds that not a byte of a target is different from what it was.
func (s *stage) asBefore(target *pgtest.Cluster) {
	s.Helper()
	pgtest.SameTrees(s, target, s.template)
}

// sound starts a rewound server as a standby, and looks whether it has what its primary has. It has written when it
// returns, and so has the primary.
func (s *stage) sound(w *way, target *pgtest.Cluster) {
	s.Helper()
	target.Follow(w.primary)
	target.Start()
	w.primary.SQL("postgres", "INSERT INTO after_rewind VALUES (1)")
	w.primary.WaitStreaming(target)
	w.primary.WaitReplay(target)
	pgtest.SameData(s, target, w.primary)
	target.AmCheck()
	target.Stop(pgtest.Fast)
	target.Checksums()
}

// ear hears what a program says.
type ear struct {
	mu   sync.Mutex
	said bytes.Buffer
}

// Write implements io.Writer.
func (e *ear) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.said.Write(p)
}

// heard reports whether the program has said something.
func (e *ear) heard(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return bytes.Contains(e.said.Bytes(), []byte(text))
}

func (e *ear) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.said.String()
}
