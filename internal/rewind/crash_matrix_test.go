package rewind

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/internal/crashtest"
	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
)

// The crash matrix: whatever operation of a rewind fails, and wherever it is stopped, by a signal or with the power, the
// same command run again ends as if nothing had happened, and no server starts in between.

// moments are the operations after which something happens: all of them from 0 to n, or about so many if -short.
func moments(n, short int) []int {
	step := 1
	if testing.Short() {
		step = max(n/short, 1)
	}
	var out []int
	for i := 0; i <= n; i += step {
		out = append(out, i)
	}
	if out[len(out)-1] != n {
		out = append(out, n)
	}
	return out
}

// after names a moment.
func (b *bench) after(log crashfs.Log, n int) string {
	if n == 0 {
		return "before operation 1"
	}
	return fmt.Sprintf("after operation %d of %d (%v)", n, log.Len(), log.Ops[n-1])
}

func TestUndisturbed(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		for _, config := range []Config{{Jobs: 1}, {Jobs: 4, SyncMethod: SyncSyncfs}} {
			b := newBench(t, seed, config)
			if err := b.durable(past{b.pair.Target, b.log}, whole); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	}
}

func TestPowerFailure(t *testing.T) {
	for seed, config := range []Config{{Jobs: 2}, {Jobs: 2, SyncMethod: SyncSyncfs}} {
		b := newBench(t, uint64(seed), config)
		var trials []trial
		add := func(n int, what string, keep crashfs.Keep) {
			trials = append(trials, trial{fmt.Sprintf("power failure %s, %s", b.after(b.log, n), what), func() error {
				left, err := b.log.Crash(b.pair.Target, crashtest.DataDir, n, keep)
				if err != nil {
					return &brokenError{err}
				}
				return b.goOn(left, nil)
			}})
		}
		for _, n := range moments(b.log.Len(), 5) {
			add(n, "only what was synced is left", crashfs.Synced())
			for dice := range uint64(2) {
				s := uint64(n)*100 + dice
				add(n, fmt.Sprintf("a part is left (seed %d)", s), crashfs.Random(s))
			}
		}
		try(t, trials)
	}
}

// The machine goes on: what was not synced is there for the next run, which has to make it durable all the same.
func TestKilled(t *testing.T) {
	for seed, config := range []Config{{Jobs: 2}, {Jobs: 2, SyncMethod: SyncSyncfs}, {Jobs: 2, NoSync: true}} {
		b := newBench(t, uint64(seed), config)
		var trials []trial
		for _, n := range moments(b.log.Len(), 5) {
			trials = append(trials, trial{"killed " + b.after(b.log, n), func() error {
				left, err := b.log.Crash(b.pair.Target, crashtest.DataDir, n, crashfs.All())
				if err != nil {
					return &brokenError{err}
				}
				return b.goOn(left, &past{b.pair.Target, b.log.First(n)})
			}})
		}
		try(t, trials)
	}
}

// One operation fails, or all from one on: the run ends with an error that has the errno in it, or does without; the next
// one goes on.
func TestFailure(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	b := newBench(t, 0, Config{Jobs: 2})
	faults := []struct {
		what  string
		fault crashfs.Fault
	}{
		{"fails", crashfs.Fault{Err: syscall.EIO}},
		{"succeeds and says EIO", crashfs.Fault{Err: syscall.EIO, Applied: true}},
		{"is the first of which none succeeds any more", crashfs.Fault{Err: syscall.EROFS, Forever: true}},
		{"is where the world stops", crashfs.Fault{Err: crashfs.ErrCrashed, Crash: true}},
		{"meets a full disk", crashfs.Fault{Err: syscall.ENOSPC, Short: true, Forever: true, Only: allocates}},
	}
	var trials []trial
	for _, n := range moments(b.log.Len()-1, 4) {
		for _, f := range faults {
			f.fault.At = n + 1
			trials = append(trials, trial{fmt.Sprintf("operation %d (%v) %s", n+1, b.log.Ops[n], f.what), func() error {
				rep := new(heard)
				left, log, err := b.runHeard(context.Background(), b.pair.Target, f.fault, rep)
				if errors.As(err, new(*brokenError)) {
					return err
				}
				hit := log.Len() >= f.fault.At && log.Ops[n].Err != nil || f.fault.Crash && log.Len() == n
				switch {
				case err != nil && !errors.Is(err, f.fault.Err):
					return complain("the error does not say "+f.fault.Err.Error(), err.Error())
				case err != nil && !hit:
					return complain("nothing failed, and yet", err.Error())
				case err != nil && !f.fault.Crash && untouched(err):
					counts := left
					if f.fault.Forever || f.fault.Applied { // then its own files could not be removed, or were not known of
						counts = crashtest.WithoutOwn(left)
					}
					if d := counts.Diff(b.pair.Target); d != nil {
						return complain("the outcome says that the target is as it was", fmt.Sprintf("%v; %s", err, first(d)))
					}
				case err == nil:
					// Only the journal may be left, with a warning.
					counts := left
					if rep.warned.Load() {
						counts = crashtest.WithoutOwn(left)
					}
					if d := b.differs(counts); d != nil {
						return complain("success after a failure leaves another tree", first(d))
					}
				}
				return b.goOn(left, &past{b.pair.Target, log})
			}})
		}
	}
	try(t, trials)
}

// untouched reports whether Run says of an error that the target is as it was.
func untouched(err error) bool {
	outcome := OutcomeOf(err)
	return outcome == Failed || outcome == Refused
}

// The context ends: a signal, or --timeout.
func TestCancelled(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	b := newBench(t, 0, Config{Jobs: 2})
	var trials []trial
	for _, n := range moments(b.log.Len()-1, 4) {
		trials = append(trials, trial{fmt.Sprintf("cancelled before operation %d (%v)", n+1, b.log.Ops[n]), func() error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			left, log, err := b.run(ctx, b.pair.Target, crashfs.Fault{At: n + 1, Before: cancel})
			if errors.As(err, new(*brokenError)) {
				return err
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				return complain("the error does not say that it was cancelled", err.Error())
			}
			if d := left.Diff(b.pair.Target); err != nil && untouched(err) && d != nil {
				return complain("the outcome says that the target is as it was", fmt.Sprintf("%v; %s", err, first(d)))
			}
			if d := b.differs(left); err == nil && d != nil {
				return complain("success after the end leaves another tree", first(d))
			}
			return b.goOn(left, &past{b.pair.Target, log})
		}})
	}
	try(t, trials)
}

// allocates are the operations that need space.
func allocates(k crashfs.Kind) bool {
	return k == crashfs.OpWrite || k == crashfs.OpMkdir || k == crashfs.OpSymlink || k == crashfs.OpOpen
}

// Trouble comes again, and again, while going on: power failures and kills in any order.
func TestTroubleAgainAndAgain(t *testing.T) {
	b := newBench(t, 1, Config{Jobs: 2})
	n := 150
	if testing.Short() {
		n = 4
	}
	var trials []trial
	for seed := range uint64(n) {
		trials = append(trials, trial{fmt.Sprintf("seed %d", seed), func() error {
			rng := rand.New(rand.NewPCG(seed, 5))
			now := past{tree: b.pair.Target}
			log, story := b.log, ""
			for range 2 + rng.IntN(4) {
				// log is what a whole run from here would do; it is cut short.
				at := rng.IntN(log.Len() + 1)
				all := now.log.Then(log.First(at))
				keep, what := crashfs.Synced(), "power failure "
				switch rng.IntN(3) {
				case 0:
					keep = crashfs.Random(rng.Uint64())
				case 1:
					keep, what = crashfs.All(), "killed "
				}
				story += what + b.after(log, at) + "; "
				left, err := all.Crash(now.tree, crashtest.DataDir, all.Len(), keep)
				if err != nil {
					return &brokenError{err}
				}
				if what == "killed " {
					now.log = all
				} else {
					now = past{tree: left}
				}
				if err := b.guarded(left); err != nil {
					return fmt.Errorf("%s%w", story, err)
				}
				if b.differs(left) == nil {
					break
				}
				if _, log, err = b.run(context.Background(), left, crashfs.Fault{}); err != nil {
					return fmt.Errorf("%s%w", story, complain("the same command again fails", err.Error()))
				}
			}
			left, err := now.log.Crash(now.tree, crashtest.DataDir, now.log.Len(), crashfs.All())
			if err != nil {
				return &brokenError{err}
			}
			if err := b.goOn(left, &now); err != nil {
				return fmt.Errorf("%s%w", story, err)
			}
			return nil
		}})
	}
	try(t, trials)
}

// Pairs of all kinds, each with a little of everything.
func TestPairs(t *testing.T) {
	seeds := 10
	if testing.Short() {
		t.Skip("the other tests have two pairs")
	}
	for seed := range seeds {
		b := newBench(t, uint64(100+seed), Config{Jobs: 1 + seed%4})
		rng := rand.New(rand.NewPCG(uint64(seed), 6))
		var trials []trial
		for range 12 {
			n, dice := rng.IntN(b.log.Len()+1), rng.Uint64()
			trials = append(trials, trial{fmt.Sprintf("pair %d, power failure %s", 100+seed, b.after(b.log, n)), func() error {
				left, err := b.log.Crash(b.pair.Target, crashtest.DataDir, n, crashfs.Random(dice))
				if err != nil {
					return &brokenError{err}
				}
				return b.goOn(left, nil)
			}}, trial{fmt.Sprintf("pair %d, killed %s", 100+seed, b.after(b.log, n)), func() error {
				left, err := b.log.Crash(b.pair.Target, crashtest.DataDir, n, crashfs.All())
				if err != nil {
					return &brokenError{err}
				}
				return b.goOn(left, &past{b.pair.Target, b.log.First(n)})
			}})
		}
		try(t, trials)
	}
}
