package rewind

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fastrewind/fastrewind/internal/crashtest"
	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// withConfig is a bench for the same pair with other options. rewound is still what b leaves.
func (b *bench) withConfig(t *testing.T, config Config) *bench {
	config.Jobs = b.config.Jobs
	return &bench{pair: b.pair, config: config, dir: scratch(t), source: b.source, log: b.log, rewound: b.rewound}
}

// refusedToLeave says what is wrong with a refusal to leave alone what the interrupted run has not: the target must be as it
// was, and the same command as the first must be said to go on.
func refusedToLeave(before, after crashfs.Tree, err error) error {
	switch {
	case err == nil || !strings.Contains(err.Error(), "any more: the interrupted rewind was begun without that"):
		return complain("it does not say that it is too late", fmt.Sprint(err))
	case OutcomeOf(err) != Resumable:
		return complain("the outcome is not that it can be gone on with", fmt.Sprint(OutcomeOf(err)))
	}
	if d := after.Diff(before); d != nil {
		return complain("a refusal changes something", first(d))
	}
	return nil
}

// withOwn is what a rewind of b leaves, but for files and directories of which all is as in another tree, or not there.
func (b *bench) withOwn(tree crashfs.Tree, names ...string) crashfs.Tree {
	want := maps.Clone(b.rewound)
	for _, name := range names {
		name = crashtest.DataDir + "/" + name
		below := func(path string) bool { return path == name || strings.HasPrefix(path, name+"/") }
		maps.DeleteFunc(want, func(path string, _ crashfs.Node) bool { return below(path) })
		for path, node := range tree {
			if below(path) {
				want[path] = node
			}
		}
	}
	return want
}

// Options that keep files are given only after a run without them was interrupted. Up to its point of no return that is as
// good as from the beginning. Later it is refused if there is such a file, for it may be the source's, or half of it.
func TestKeepTooLate(t *testing.T) {
	b := newBench(t, 0, Config{Jobs: 2})
	for _, tt := range []struct {
		config Config
		own    []string
	}{
		{Config{Keep: plan.Patterns{"conf.d/site/*"}}, []string{"conf.d/site/one.conf", "conf.d/site/south"}},
		{Config{Keep: plan.Patterns{"conf.d/site/south"}}, []string{"conf.d/site/south"}}, // which only the target has
		{Config{KeepConfig: true}, []string{"postgresql.conf", "postgresql.auto.conf", "conf.d"}},
		{Config{Exclude: plan.Patterns{"conf.d/site/north"}}, []string{"conf.d/site/north"}}, // which only the source has
	} {
		keeping := b.withConfig(t, tt.config)
		var taken, refused atomic.Int64
		var trials []trial
		for _, n := range moments(b.log.Len(), 8) {
			trials = append(trials, trial{fmt.Sprintf("%v, killed %s", tt.own, b.after(b.log, n)), func() error {
				left, err := b.log.Crash(b.pair.Target, crashtest.DataDir, n, crashfs.All())
				if err != nil {
					return &brokenError{err}
				}
				after, _, err := keeping.run(context.Background(), left, crashfs.Fault{})
				switch {
				case errors.As(err, new(*brokenError)):
					return err
				case b.differs(crashtest.WithoutOwn(left)) == nil: // it was rewound already
					if d := b.differs(after); err != nil || d != nil {
						return complain("nothing was left to be done", fmt.Sprintf("%v; %v", err, d))
					}
					return nil
				case err != nil:
					refused.Add(1)
					if crashtest.Startable(left) == nil {
						return complain("refused before anything was changed", err.Error())
					}
					return refusedToLeave(left, after, err) // and what b makes of left, other tests show
				}
				taken.Add(1)
				if d := crashtest.Timeless(after).Diff(crashtest.Timeless(b.withOwn(left, tt.own...))); d != nil {
					return complain("something else is kept", first(d))
				}
				return nil
			}})
		}
		try(t, trials)
		if taken.Load() == 0 || refused.Load() == 0 {
			t.Errorf("%v: taken %d times, refused %d times", tt.own, taken.Load(), refused.Load())
		}
	}
}

// killedHalfway is what a run has left that is killed at the last moment at which no server starts on it.
func killedHalfway(t *testing.T, tree crashfs.Tree, log crashfs.Log) crashfs.Tree {
	t.Helper()
	for n := log.Len(); n > 0; n-- {
		left, err := log.Crash(tree, crashtest.DataDir, n, crashfs.All())
		if err != nil {
			t.Fatal(err)
		}
		if crashtest.Startable(left) != nil {
			return left
		}
	}
	t.Fatal("it never was half rewound")
	return nil
}

// Runs of one target, each with options of its own, all but the last killed just before the last step.
func TestKeepFromRunToRun(t *testing.T) {
	const conf, auto, north = "postgresql.conf", "postgresql.auto.conf", "conf.d/site/north" // which only the source has
	keep := func(patterns ...string) Config { return Config{Keep: patterns} }
	exclude := func(patterns ...string) Config { return Config{Exclude: patterns} }
	b := newBench(t, 0, Config{Jobs: 2})
	for _, tt := range []struct {
		name    string
		configs []Config
		refused int      // which of these runs is, from 1; 0: none
		own     []string // what is the target's own in the end, or not there if that has none
	}{
		{"kept again", []Config{keep(conf), keep(conf)}, 0, []string{conf}},
		{"kept thrice", []Config{keep(conf, auto), keep(auto, conf), keep(conf, auto)}, 0, []string{conf, auto}},
		{"left out again", []Config{exclude(north), exclude(north)}, 0, []string{north}},
		{"less is kept", []Config{keep(conf, auto), keep(auto)}, 0, []string{auto}},
		{"nothing is kept any more", []Config{keep(conf), {}}, 0, nil},
		{"nothing is left out any more", []Config{exclude(north), {}}, 0, nil},
		{"a part of the configuration", []Config{{KeepConfig: true}, keep(conf)}, 0, []string{conf}},
		{"there is nothing of that name", []Config{{}, {Keep: plan.Patterns{"nowhere/*"}, Exclude: plan.Patterns{"log"}}}, 0, nil},
		{"left out, then kept", []Config{exclude(conf, north), keep(conf)}, 0, []string{conf}},
		{"configuration", []Config{{}, {KeepConfig: true}, {}}, 2, nil},
		{"kept, then left out", []Config{keep(conf), exclude(conf), keep(conf)}, 2, []string{conf}},
		{"one more", []Config{keep(conf), keep(conf, auto), keep(conf)}, 2, []string{conf}},
		{"not in between", []Config{keep(conf), {}, keep(conf), {}}, 3, nil},
		{"it would copy everything again", []Config{{}, {Keep: plan.Patterns{conf}, Restart: true}, {}}, 2, nil},
		{"it would only look", []Config{{}, {Keep: plan.Patterns{conf}, DryRun: true}, {}}, 2, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			left := b.pair.Target
			for i, config := range tt.configs {
				after, log, err := b.withConfig(t, config).run(t.Context(), left, crashfs.Fault{})
				if i+1 == tt.refused {
					if err := refusedToLeave(left, after, err); err != nil {
						t.Fatalf("run %d: %v", i+1, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("run %d: %v", i+1, err)
				}
				if i == len(tt.configs)-1 {
					left = after
					break
				}
				left = killedHalfway(t, left, log)
			}
			if d := crashtest.Timeless(left).Diff(crashtest.Timeless(b.withOwn(b.pair.Target, tt.own...))); d != nil {
				t.Errorf("in the end: %s", first(d))
			}
		})
	}
}
