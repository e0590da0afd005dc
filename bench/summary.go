package main

import (
	"fmt"
	"strings"
)

// memoryGoal is what fastrewind's peak memory should stay below in every scenario, in bytes.
const memoryGoal = 256e6

// floorGoal is which part of its floor's speed a scan of WAL should reach.
const floorGoal = 0.8

// writeSummary is the table of README: one line for each thing that has a goal, with a mark where it was not reached.
func (r *result) writeSummary(b *strings.Builder) {
	rows := [][]string{{"", "pg_rewind", "fastrewind", "times faster", "goal", "floor", "peak memory", "reached"}}
	for i := range r.Scenarios {
		rows = append(rows, r.Scenarios[i].summary()...)
	}
	if len(rows) == 1 {
		return
	}
	table(b, rows)
}

// summary is the scenario's lines in the summary.
func (s *scenarioResult) summary() [][]string {
	switch {
	case s.Growth != nil:
		return s.growthSummary()
	case s.Cores != nil:
		c := s.Cores
		return [][]string{{
			s.Name + ", scan", "", fmt.Sprintf("1 CPU %.2f s, 2 CPUs %.2f s", c.Scan[0].Median, c.Scan[1].Median), times(c.Ratio),
			fmt.Sprintf("%.1f", s.Goal), fmt.Sprintf("read+crc: %.2f", c.FloorRatio.Median), peak(s.ours()), yes(c.Ratio.Median >= s.Goal && s.ours().lean()),
		}}
	case len(s.Plans) > 0:
		var rows [][]string
		for _, p := range s.Plans {
			rows = append(rows, []string{
				s.Name + ", " + p.Name, "", fmt.Sprintf("%.2f s", p.Wall.Median), "", fmt.Sprintf("%d s, %.0f MB", planSeconds, planBytes/1e6), "",
				megabytes(p.MaxRSS.Max), yes(p.reached()),
			})
		}
		return rows
	case s.Load != nil:
		return s.loadSummary()
	case len(s.Contenders) < 2:
		return nil
	}
	stock, ours, r, name := s.Contenders[0].Wall, s.ours().Wall, s.ours().WallRatio, s.Name
	if s.scanOnly() {
		stock, ours = s.Contenders[0].Phases[phaseScan], s.ours().Phases[phaseScan]
		r, name = s.ours().ScanRatio, s.Name+", scan"
	}
	row := []string{name, fmt.Sprintf("%.2f s", stock.Median), fmt.Sprintf("%.2f s", ours.Median), times(r), "", "", peak(s.ours()), ""}
	reached := s.ours().lean()
	if s.Goal > 0 {
		row[4] = fmt.Sprintf("%.1f", s.Goal)
		reached = reached && r.Median >= s.Goal
	}
	if floor := s.floor(); floor > 0 {
		share := quotient(floor, ours.Median)
		row[5] = fmt.Sprintf("%.2f s (%s)", floor, percent(share))
		if s.scanOnly() {
			row[4] += ", " + percent(floorGoal) + " of the floor"
			reached = reached && share >= floorGoal
		}
	}
	if s.Goal > 0 {
		row[7] = yes(reached)
	}
	return [][]string{row}
}

// ours is fastrewind as it is called without options that make it faster: the first that is not stock.
func (s *scenarioResult) ours() contenderResult { return s.Contenders[min(1, len(s.Contenders)-1)] }

// scanOnly reports whether the scan of WAL is what the scenario is about.
func (s *scenarioResult) scanOnly() bool { return s.DryRun && s.Archive == "" && len(s.Floors) > 0 }

// lean reports whether the program kept within the memory that every scenario has. What cannot be told from the memory of
// this program itself is no reason to doubt it.
func (c contenderResult) lean() bool {
	var floor int64
	for _, s := range c.Samples {
		floor = max(floor, s.RSSFloor)
	}
	return c.MaxRSS.Max <= max(memoryGoal, float64(floor)*1.1)
}

// floor is the least time in seconds for all that has to be done: floors of one name that differ in the number of goroutines
// or connections ("x2") are ways to do the same, others are different work that may be done at the same time.
func (s *scenarioResult) floor() float64 {
	least := map[string]float64{}
	for _, f := range s.Floors {
		name := f.Name
		if i := strings.LastIndex(name, " x"); i > 0 {
			name = name[:i]
		}
		took := spreadOf(f.Seconds).Median
		if known, ok := least[name]; !ok || took < known {
			least[name] = took
		}
	}
	var most float64
	for _, took := range least {
		most = max(most, took)
	}
	return most
}

func (s *scenarioResult) growthSummary() [][]string {
	words, ok := s.Growth.reached()
	goal := "flat but for listing"
	if s.Growth.Linear {
		goal = "linear"
	}
	last := s.Growth.Points[len(s.Growth.Points)-1]
	return [][]string{{
		fmt.Sprintf("%s, up to %s", s.Name, size(last.X)), fmt.Sprintf("%.2f s", s.Contenders[0].Wall.Median), fmt.Sprintf("%.2f s", s.ours().Wall.Median),
		times(s.ours().WallRatio), goal + ": " + words, "", peak(s.ours()), yes(ok && s.ours().lean()),
	}}
}

func (s *scenarioResult) loadSummary() [][]string {
	l := s.Load
	stock, ours := l.Variants[0], l.Variants[1]
	return [][]string{
		{
			s.Name + ", transactions lost on the source", fmt.Sprintf("%.0f (%s of the rate left)", stock.Lost.Median, percent(stock.Share.Median)),
			fmt.Sprintf("%.0f (%s)", ours.Lost.Median, percent(ours.Share.Median)), times(s.ours().WallRatio), "no more than pg_rewind", "", peak(s.ours()),
			yes(l.costsNoMore() && s.ours().lean()),
		},
		{
			s.Name + ", --max-rate", "", fmt.Sprintf("%.1f MB/s of %.1f", l.Achieved.Median/1e6, float64(l.Limit)/1e6), "", "within " + percent(ratePromise), "",
			peak(s.Contenders[len(s.Contenders)-1]), yes(l.rateKept()),
		},
	}
}

// peak is a program's peak memory, marked if it is too much.
func peak(c contenderResult) string {
	text := memory(c) + " MB"
	if !c.lean() {
		text = "**" + text + "**"
	}
	return text
}

func megabytes(bytes float64) string { return fmt.Sprintf("%.0f MB", bytes/1e6) }
