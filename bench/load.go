package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// loadResult is what a pgbench on the source does while it is rewound from: two clients that read and update rows of a table
// of their own as fast as they can.
//
// The source changes meanwhile, so the results of two programs differ as the source did, and are not compared: that a rewind
// under load is right is shown by the tests of internal/integration and internal/soak, by the data. Here it is
// shown that the target starts as the source's standby afterwards, and gets consistent.
type loadResult struct {
	Variants []loadVariant `json:"variants"`
	Limit    int64         `json:"limit"`    // of --max-rate, bytes per second
	Achieved spread        `json:"achieved"` // bytes copied per second of copying, under --max-rate
}

// loadVariant is one program, or one way to call it. Transactions are counted by pgbench's own log.
type loadVariant struct {
	Name   string `json:"name"`
	Before spread `json:"before_tps"` // in the seconds before the rewind
	During spread `json:"during_tps"` // from its first moment to its last
	Share  spread `json:"share"`      // of what it was before
	// Lost are the transactions that pgbench would have done in that time at the rate it had before. A rewind that is
	// shorter may take more of the source, and still cost it less.
	Lost    spread `json:"lost"`
	Started bool   `json:"started"` // the target started as the source's standby
}

const loadRows = 100_000

// maxRateShare is which part of its speed without limit --max-rate leaves to fastrewind.
const maxRateShare = 3

// ratePromise is how far the rate may be from what was asked for.
const ratePromise = 0.05

func measureLoad(tb pgtest.TB, cfg *config, _ *result, p *pair, s scenario, ours pgtest.Binaries) scenarioResult {
	p.be(s.source)
	race := contenders(p.env, ours, nil)
	race = []contender{race[0], race[len(race)-1]}
	help := p.env.MustExec(pgtest.Cmd{Path: ours.Fastrewind, Args: []string{"--help"}}).Stdout
	if !strings.Contains(help, "--max-rate") {
		tb.Fatalf("bench: scenario %s: this fastrewind has no option --max-rate", s.name)
	}
	limited := race[1]
	limited.args = slices.Clone(limited.args)
	race = append(race, limited)

	p.source.SQL("postgres", fmt.Sprintf(`
CREATE TABLE IF NOT EXISTS load (id int PRIMARY KEY, v int) WITH (fillfactor = 50);
TRUNCATE load;
INSERT INTO load SELECT g, 0 FROM generate_series(1, %d) g;
VACUUM (FREEZE, ANALYZE) load; CHECKPOINT`, loadRows))
	samples := make([][]sample, len(race))
	type numbers struct{ before, during, share, lost []float64 }
	got := make([]numbers, len(race))
	res := &loadResult{Variants: make([]loadVariant, len(race))}
	runs := min(cfg.runs, longestSeries) // each takes as long as a rewind that is held back
	for round := range runs {
		for i := range race {
			c := &race[i]
			if i == len(race)-1 && round == 0 {
				res.Limit = limitFor(samples[1][0])
				c.args = append(c.args, fmt.Sprintf("--max-rate=%dM", res.Limit>>20))
				c.name += fmt.Sprintf(" --max-rate=%dM", res.Limit>>20)
			}
			rest(tb, p)
			l := startLoad(tb, p, fmt.Sprintf("load-%d-%d", round, i))
			quiet := l.baseline(cfg.scale)
			m := runOnce(tb, p, *c, s)
			done := l.stop(tb)
			before := done.rate(quiet.from, quiet.to)
			end := m.Began.Add(time.Duration(m.Wall * float64(time.Second)))
			during := done.rate(m.Began, end)
			n := &got[i]
			n.before = append(n.before, before)
			n.during = append(n.during, during)
			n.share = append(n.share, quotient(during, before))
			n.lost = append(n.lost, (before-during)*m.Wall)
			cfg.logf("%s, round %d of %d: %s: %.2f s; %.0f transactions per second before, %.0f during the rewind",
				s.name, round+1, runs, c.name, m.Wall, before, during)
			samples[i] = append(samples[i], m)
			if round == 0 {
				p.work.Follow(p.source)
				p.work.Start()
				p.work.Stop(pgtest.Fast)
				res.Variants[i].Started = true
			}
		}
	}
	sr := scenarioResult{Name: s.name, About: s.about, Source: s.source}
	for i, c := range race {
		sr.Contenders = append(sr.Contenders, summarize(c, samples[i], samples[0]))
		v, n := &res.Variants[i], got[i]
		v.Name, v.Before, v.During, v.Share, v.Lost = c.name, spreadOf(n.before), spreadOf(n.during), spreadOf(n.share), spreadOf(n.lost)
	}
	res.Achieved = spreadBy(samples[len(race)-1], copyRate)
	sr.Load = res
	return sr
}

// copyRate is how many bytes a run copied in each second of copying.
func copyRate(m sample) float64 { return quotient(float64(m.Counts.Copied), m.Phases[phaseCopy]) }

// limitFor is a --max-rate well below what a run without one reached, in whole MB as the option knows them (1024 * 1024).
func limitFor(m sample) int64 {
	return max(1, int64(copyRate(m))/maxRateShare>>20) << 20
}

// rateKept reports whether --max-rate did what it says.
func (l *loadResult) rateKept() bool {
	return l.Achieved.Max <= float64(l.Limit)*(1+ratePromise) && l.Achieved.Median >= float64(l.Limit)*(1-ratePromise)
}

// costsNoMore reports whether fastrewind at full speed takes no more transactions from the source than stock does.
func (l *loadResult) costsNoMore() bool {
	return l.Variants[1].Lost.Median <= l.Variants[0].Lost.Median
}

// load is a running pgbench.
type load struct {
	p       *pair
	process *pgtest.Process
	prefix  string // of its logs' names
}

func startLoad(tb pgtest.TB, p *pair, name string) *load {
	dir := p.env.Dir(name)
	script := filepath.Join(dir, "script")
	p.env.WriteFile(script, fmt.Appendf(nil, `\set id random(1, %d)
BEGIN;
SELECT v FROM load WHERE id = :id;
UPDATE load SET v = v + 1 WHERE id = :id;
END;
`, loadRows), 0o600)
	l := &load{p: p, prefix: filepath.Join(dir, "log")}
	_, conninfo := tcp.from(p.source)
	l.process = p.env.Begin(pgtest.Cmd{Path: "pgbench", Args: []string{
		"-n", "-c", "2", "-j", "2", "-T", "86400", "-f", script, "-l", "--log-prefix", l.prefix, conninfo,
	}})
	return l
}

// window is a stretch of time.
type window struct{ from, to time.Time }

// baseline lets pgbench run undisturbed for a while, the first of which does not count.
func (l *load) baseline(s scale) window {
	calm := 3 * time.Second
	if s.Name == scales[0].Name {
		calm = 300 * time.Millisecond
	}
	time.Sleep(calm / 2)
	from := time.Now()
	time.Sleep(calm)
	return window{from, time.Now()}
}

// stop ends pgbench by ending its sessions, so that it finishes its logs, and reads them.
func (l *load) stop(tb pgtest.TB) transactions {
	// Its clients may just be between two connections at first.
	for ended := false; !ended; {
		l.p.source.SQL("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
		select {
		case <-l.process.Done():
			ended = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	out := l.process.Wait()
	logs, err := filepath.Glob(l.prefix + ".*")
	var all transactions
	for _, path := range logs {
		if err == nil {
			err = all.read(path)
		}
	}
	if err != nil || len(all) == 0 {
		tb.Fatalf("bench: pgbench's log: %d transactions, %v\n%s", len(all), err, out)
	}
	slices.Sort(all)
	if err := os.RemoveAll(filepath.Dir(l.prefix)); err != nil {
		tb.Fatalf("bench: %v", err)
	}
	return all
}

// transactions are the moments, in microseconds since 1970, at which transactions ended, ascending.
type transactions []int64

// read adds what is in one of pgbench's logs: client, transaction, time, script, seconds, microseconds.
func (t *transactions) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			return fmt.Errorf("%s: unexpected line %q", path, lines.Text())
		}
		sec, err1 := strconv.ParseInt(fields[4], 10, 64)
		usec, err2 := strconv.ParseInt(fields[5], 10, 64)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("%s: unexpected line %q", path, lines.Text())
		}
		*t = append(*t, sec*1e6+usec)
	}
	return lines.Err()
}

// rate is how many transactions ended in each second between two moments.
func (t transactions) rate(from, to time.Time) float64 {
	first, _ := slices.BinarySearch(t, from.UnixMicro())
	end, _ := slices.BinarySearch(t, to.UnixMicro())
	return quotient(float64(end-first), to.Sub(from).Seconds())
}

// writeLoad tells of the source's transactions.
func (r *result) writeLoad(b *strings.Builder) {
	for _, s := range r.Scenarios {
		l := s.Load
		if l == nil {
			continue
		}
		b.WriteString("### Transactions on the source during a rewind from it\n\npgbench, 2 clients over TCP, each transaction reads and updates a row of a " +
			"table of its own, as fast as it can; counted by its log from the first to the last moment of the rewind. Lost: what it would have done in " +
			"that time at the rate of the seconds before. The source changes, so the two results are not compared with one another (the tests of " +
			"rewinds under load do that by the data); each target was started as the source's standby and got consistent.\n\n")
		rows := [][]string{{"program", "rewind s", "transactions/s before", "during", "that is", "lost in all", "MB/s copied", "target started"}}
		for i, v := range l.Variants {
			c := s.Contenders[i]
			started := "no"
			if v.Started {
				started = "yes"
			}
			copied := ""
			if i > 0 {
				copied = fmt.Sprintf("%.0f", spreadBy(c.Samples, copyRate).Median/1e6)
			}
			rows = append(rows, []string{
				v.Name, seconds(c.Wall), fmt.Sprintf("%.0f", v.Before.Median), fmt.Sprintf("%.0f (%.0f–%.0f)", v.During.Median, v.During.Min, v.During.Max),
				percent(v.Share.Median), fmt.Sprintf("%.0f", v.Lost.Median), copied, started,
			})
		}
		table(b, rows)
		fmt.Fprintf(b, "--max-rate: %.1f MB/s (%.1f–%.1f) of %.1f MB/s asked for, %s off; goal: within %s.\n\n", l.Achieved.Median/1e6, l.Achieved.Min/1e6, l.Achieved.Max/1e6,
			float64(l.Limit)/1e6, fmt.Sprintf("%+.1f%%", 100*(quotient(l.Achieved.Median, float64(l.Limit))-1)), percent(ratePromise))
	}
}
