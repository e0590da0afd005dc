package survival

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// roundsVariable is how many rewinds are killed at random from each source.
const (
	roundsVariable = "FASTREWIND_SURVIVAL_ROUNDS"
	defaultRounds  = 4
)

func (s *stage) rounds() int {
	text := os.Getenv(roundsVariable)
	if text == "" {
		return defaultRounds
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		s.Fatalf("%s is %q", roundsVariable, text)
	}
	return n
}

// killedAtRandom kills rewinds at random moments, some again while they go on, and then lets them go on: half of them
// without the target's diverged WAL. What they leave must be what an uninterrupted one leaves; of some it is tried, too,
// whether it can be started half rewound, and what it holds once it is rewound.
func (s *stage) killedAtRandom(w *way) {
	const seed = 15
	rnd := rand.New(rand.NewPCG(seed, uint64(len(w.name))))
	rounds := s.rounds()
	calls := s.countCalls(w)
	found := map[state]int{}
	killed, resumed, less, lost := 0, 0, 0, 0
	var copied int64
	for i := range rounds {
		target := s.target()
		withoutWAL := i/2%2 == 1
		for range 1 + min(2, int(rnd.ExpFloat64())) { // again with a probability of 0.37, and again of 0.14
			// Evenly spread over the time a rewind takes, or over what it does to files.
			kill := func() bool { return s.killAfter(w, target, time.Duration(rnd.Float64()*1.1*float64(w.took))) }
			if i%2 == 1 {
				kill = func() bool { return s.killAtCall(w, target, 1+rnd.IntN(calls)) }
			}
			if !kill() {
				break
			}
			killed++
			now := s.look(w, target)
			found[now]++
			if withoutWAL && now.halfRewound() {
				lost += s.loseDivergedWAL(target)
			}
		}
		now := s.look(w, target)
		if now.halfRewound() && i%5 == 0 {
			s.refused(w, target)
		}
		moved := i%20 == 19 && w.live
		if moved { // the source goes on meanwhile
			w.primary.Pgbench("-t", "50", "-N")
		}
		res := s.goOn(w, target)
		if now.halfRewound() {
			resumed++
			if !strings.Contains(res.Stderr, "going on with it") {
				s.Errorf("does not go on: %s", res)
			}
			mb := s.copiedMB(res)
			copied += mb
			if mb < w.copies {
				less++
			}
		} else if now < labelled {
			w.took = (3*w.took + res.Wall) / 4
		}
		if !moved {
			s.asExpected(w, target)
		}
		if i%20 == 19 {
			s.sound(w, target)
			if w.live {
				s.uninterrupted(w)
			}
		}
		target.Remove()
		if s.Failed() {
			s.Fatalf("round %d, killed when it was %v", i, now)
		}
	}
	s.Logf("%d rounds, killed %d times and found %v; %d went on, %d of them with less to copy, on average %d of %d MB; %d segments lost",
		rounds, killed, found, resumed, less, copied/max(1, int64(resumed)), w.copies, lost)
	if resumed == 0 {
		s.Errorf("no round was killed half-way")
	}
}

// killAfter begins a rewind and kills it after some time. It reports false if that was too late.
func (s *stage) killAfter(w *way, target *pgtest.Cluster, d time.Duration) bool {
	s.Helper()
	proc, e := s.begin(w, target)
	select {
	case <-proc.Done():
	case <-time.After(d):
	}
	return s.wasKilled(proc, e)
}

// killAtCall begins a rewind and kills it before its n-th call that changes files.
func (s *stage) killAtCall(w *way, target *pgtest.Cluster, n int) bool {
	s.Helper()
	calls := 0
	h := s.hold(w, target, func() bool { calls++; return calls == n })
	return s.wasKilled(h.Process, h.ear)
}

func (s *stage) wasKilled(proc *pgtest.Process, e *ear) bool {
	s.Helper()
	switch res := proc.Kill(); res.ExitCode {
	case 0:
		return false
	case -1:
		return true
	default:
		s.Fatalf("%s\n%s", res, e)
		return false
	}
}

// countCalls finds out how many calls change files in a rewind.
func (s *stage) countCalls(w *way) int {
	target := s.target()
	calls := 0
	h := s.hold(w, target, func() bool { calls++; return false })
	if res := h.Wait(); res.ExitCode != 0 {
		s.Fatalf("%s\n%s", res, h.ear)
	}
	s.asExpected(w, target)
	target.Remove()
	return calls
}

// loseDivergedWAL removes from a target what it wrote after the divergence, and returns how many segments that were.
func (s *stage) loseDivergedWAL(target *pgtest.Cluster) int {
	s.Helper()
	entries, err := os.ReadDir(target.Path("pg_wal"))
	if err != nil {
		s.Fatalf("%v", err)
	}
	lost := 0
	for _, entry := range entries {
		tli, seg, ok := pg.ParseSegmentName(entry.Name(), s.segSize)
		if !ok || tli != 1 || seg <= s.diverged.Seg(s.segSize) {
			continue
		}
		if err := os.Remove(target.Path("pg_wal", entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.Fatalf("%v", err)
		}
		lost++
	}
	return lost
}

// copiedMB is how much a rewind had to copy, by what it says.
func (s *stage) copiedMB(res *pgtest.Result) int64 {
	s.Helper()
	_, after, ok := strings.Cut(res.Stderr, "need to copy ")
	var mb int64
	if ok {
		_, err := fmt.Sscanf(after, "%d MB", &mb)
		ok = err == nil
	}
	if !ok {
		s.Fatalf("it does not say how much it copies: %s", res)
	}
	return mb
}

// killedAtBorders kills rewinds at each border that can be seen from outside.
func (s *stage) killedAtBorders(w *way) {
	for _, b := range borders {
		target, h := s.holdAt(w, b)
		h.Kill()
		if now := s.look(w, target); now != b {
			s.Fatalf("killed when it was %v, it is %v", b, now)
		}
		if b.halfRewound() {
			s.loseDivergedWAL(target)
		}
		s.goOn(w, target)
		s.asExpected(w, target)
		// Once more: it is rewound, and must not be recovered.
		if res := s.goOn(w, target); !strings.Contains(res.Stderr, "no rewind required") {
			s.Errorf("%s", res)
		}
		s.asExpected(w, target)
		target.Remove()
	}
}

// killedInPhases kills rewinds as soon as they report progress of each of their phases.
func (s *stage) killedInPhases(w *way) {
	for _, phase := range []string{"listing files", "scanning WAL", "copying", "syncing"} {
		target := s.target()
		proc, e := s.begin(w, target, "--log-format=json")
		for name := fmt.Sprintf("%q:%q", "phase", phase); !e.heard(name); {
			select {
			case <-proc.Done():
				if !e.heard(name) {
					s.Fatalf("no word of phase %q: %s", phase, e)
				}
			case <-time.After(100 * time.Microsecond):
			}
		}
		proc.Kill()
		s.goOn(w, target)
		s.asExpected(w, target)
		target.Remove()
	}
}
