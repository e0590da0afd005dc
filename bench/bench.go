package main

import (
	"fmt"
	"os"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// startTimeout bounds each start and stop of a server, and each base backup.
const startTimeout = 30 * time.Minute

// measure runs all scenarios.
func measure(tb pgtest.TB, cfg config) *result {
	res := newResult(&cfg)
	ours := pgtest.BuildFastrewind(tb)
	var current *fixture
	var p *pair
	var dir string // of p
	for _, s := range cfg.scenarios {
		if s.codecs {
			cfg.logf("running the benchmarks of codecs")
			res.Codecs = measureCodecs(tb, &cfg)
			if len(cfg.scenarios) == 1 {
				res.Machine = describeMachine(os.TempDir())
			}
			continue
		}
		if s.special != nil && s.fixture == nil {
			if p != nil {
				p.drop(tb)
				current, p = nil, nil
			}
			res.Scenarios = append(res.Scenarios, s.special(tb, &cfg, res, nil, s, ours))
			continue
		}
		if wanted := cfg.dirOf(s); s.fixture != current || wanted != dir {
			if p != nil {
				p.drop(tb)
			}
			cfg.logf("making clusters: %s, scale %s", s.fixture.name, cfg.scale.Name)
			there := cfg
			there.dir = wanted
			current, dir, p = s.fixture, wanted, s.fixture.make(tb, &there)
			machine := res.Machine
			res.describe(tb, p, ours)
			if wanted != cfg.dir && machine.CPU != "" {
				res.Machine = machine // the one that most scenarios were measured on
			}
		}
		if s.special != nil {
			res.Scenarios = append(res.Scenarios, s.special(tb, &cfg, res, p, s, ours))
			continue
		}
		res.Scenarios = append(res.Scenarios, measureScenario(tb, &cfg, p, s, contenders(p.env, ours, cfg.jobs)))
	}
	res.Ended = time.Now()
	return res
}

// measureScenario runs the contenders in turn, then the floors, and that as often as asked for: what slows the machine
// down for a while slows all of them.
func measureScenario(tb pgtest.TB, cfg *config, p *pair, s scenario, list []contender) scenarioResult {
	p.be(s.source)
	defer s.open(tb, p)()
	if s.access = s.openArchive(tb, cfg, p); s.access != nil {
		list = withMoreJobs(list)
	}
	sr := scenarioResult{Name: s.name, About: s.about, Source: s.source, DryRun: s.dryRun, Goal: s.goal}
	if s.before > 0 && p.env.Major >= s.before {
		sr.Goal = 1
	}
	if a := s.access; a != nil {
		sr.Archive, sr.Missing = a.about, len(a.missing)
		sr.Allowed, sr.Compared = compareArchived(tb, p, s, list), true
	}
	samples := make([][]sample, len(list))
	floors := make([]floorResult, len(s.floors))
	for i, f := range s.floors {
		floors[i] = floorResult{Name: f.name, About: f.about}
	}
	for round := range cfg.runs {
		var stock saved
		for i, c := range list {
			cold := s.rest(tb, p)
			if s.proxy != nil {
				s.proxy.roundTrips() // those of the floors
			}
			m := runOnce(tb, p, c, s)
			m.Cold = cold
			if s.proxy != nil {
				m.RoundTrips = s.proxy.roundTrips()
			}
			cfg.logf("%s, round %d of %d: %s: %.2f s, CPU %.2f s, %d MB%s",
				s.name, round+1, cfg.runs, c.name, m.Wall, m.cpu(), m.MaxRSS>>20, m.Phases)
			samples[i] = append(samples[i], m)
			switch {
			case s.dryRun || round > 0:
			case i == 0:
				stock = saveResult(tb, p)
			default:
				sr.Allowed = stock.compare(tb, p, s)
				sr.Compared = true
			}
		}
		if stock.root != "" {
			stock.remove(tb)
		}
		last := samples[len(list)-1][round]
		for i, f := range s.floors {
			s.rest(tb, p)
			n := f.bytes(last.Counts)
			took := f.run(tb, p, s, n)
			floors[i].Bytes = n
			floors[i].Seconds = append(floors[i].Seconds, took)
			cfg.logf("%s, round %d of %d: floor, %s: %.2f s (%.0f MB/s)", s.name, round+1, cfg.runs, f.name, took, perSecond(n, took))
		}
	}
	for i, c := range list {
		sr.Contenders = append(sr.Contenders, summarize(c, samples[i], samples[0]))
	}
	sr.Floors = floors
	sr.About = withRoundTrips(sr.About, list, samples)
	sr.About = withColdness(sr.About, fileSystem(p.env.Root), samples)
	return sr
}

// rest makes the working copy pristine again, everything warm, and the machine quiet.
func rest(tb pgtest.TB, p *pair) {
	err := p.mirror.restore()
	if err == nil {
		err = warm(p.source.DataDir(), p.work.DataDir())
	}
	if err == nil {
		err = settle(p.env.Root)
	}
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
}

// drop stops the source and gives the disk back.
func (p *pair) drop(tb pgtest.TB) {
	p.be(directory)
	for _, c := range []*pgtest.Cluster{p.old, p.source, p.work} {
		if err := os.RemoveAll(c.DataDir()); err != nil {
			tb.Fatalf("bench: %v", err)
		}
	}
}

func perSecond(bytes int64, seconds float64) float64 { return quotient(float64(bytes)/1e6, seconds) }

// String is for the lines of what is going on.
func (p phases) String() string {
	text := ""
	for _, name := range phaseOrder {
		if p[name] > 0 {
			text += fmt.Sprintf(", %s %.2f", name, p[name])
		}
	}
	return text
}
