package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// markdown is the report.
func (r *result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## fastrewind against pg_rewind\n\nMedians of %d runs in turn, on identical copies; least and most of the rounds in parentheses. "+
		"Times faster: how many times less than pg_rewind.\n\n", r.Runs)
	r.writeSummary(&b)
	r.writePrograms(&b)
	r.writeScan(&b)
	r.writeGrowth(&b)
	r.writeCores(&b)
	r.writeLoad(&b)
	r.writePlans(&b)
	r.writeArchives(&b)
	r.writeFloors(&b)
	r.writePhases(&b)
	r.writeConditions(&b)
	return b.String()
}

// table writes a Markdown table.
func table(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(b, "|%s\n", strings.Repeat(" --- |", len(row)))
		}
	}
	b.WriteString("\n")
}

// writePrograms is the table of medians and ratios of all programs.
func (r *result) writePrograms(b *strings.Builder) {
	rows := [][]string{{"scenario", "program", "wall s", "times faster", "goal", "CPU s", "times less", "source CPU s", "peak memory MB", "same result"}}
	for _, s := range r.Scenarios {
		if s.Growth != nil {
			continue // it has a table of its own
		}
		for i, c := range s.Contenders {
			row := []string{s.Name, c.Name, seconds(c.Wall), "", "", fmt.Sprintf("%.2f", c.CPU.Median), "", "", memory(c), ""}
			if s.Source.live() {
				row[7] = fmt.Sprintf("%.2f", c.SourceCPU.Median)
			}
			if i > 0 {
				row[3], row[6] = times(c.WallRatio), fmt.Sprintf("%.1f", c.CPURatio.Median)
				if s.Goal > 0 && s.Cores == nil {
					row[4] = fmt.Sprintf("%.1f", s.Goal)
				}
				if s.scanOnly() {
					row[4] += " (scan)"
				}
				switch {
				case s.Compared:
					row[9] = "yes"
				case s.DryRun:
					row[9] = "dry run"
				case s.Load != nil:
					row[9] = "source changes"
				}
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 1 {
		return
	}
	b.WriteString("### All programs\n\n")
	table(b, rows)
	for _, s := range r.Scenarios {
		if len(s.Contenders) > 0 {
			fmt.Fprintf(b, "* %s: %s.\n", s.Name, s.inNumbers())
		}
	}
	b.WriteString("\n")
}

// inNumbers says what a scenario does, in numbers.
func (s *scenarioResult) inNumbers() string {
	ours := s.Contenders[len(s.Contenders)-1].Counts
	text := fmt.Sprintf("%s; %s of WAL scanned", s.About, size(ours.Scanned))
	if !s.DryRun {
		text += fmt.Sprintf(", %s copied (pg_rewind: %d MB planned)", size(ours.Copied), s.Contenders[0].Counts.PlannedMB)
	}
	return text
}

// writeScan compares the scans of WAL alone, and with their floor.
func (r *result) writeScan(b *strings.Builder) {
	rows := [][]string{{"scan of WAL", "program", "s", "MB/s", "times faster", "of read+crc x1", "of read+crc x2"}}
	for _, s := range r.Scenarios {
		if !s.scanOnly() {
			continue
		}
		bytes := s.Contenders[len(s.Contenders)-1].Counts.Scanned
		for i, c := range s.Contenders {
			took := c.Phases[phaseScan].Median
			row := []string{s.Name, c.Name, fmt.Sprintf("%.3f", took), fmt.Sprintf("%.0f", perSecond(bytes, took)), "", "", ""}
			if i > 0 {
				row[4] = times(c.ScanRatio)
			}
			for j, f := range s.Floors[:2] {
				row[5+j] = percent(quotient(spreadOf(f.Seconds).Median, took))
			}
			rows = append(rows, row)
		}
	}
	if len(rows) > 1 {
		b.WriteString("### The scan alone\n\npg_rewind reads the WAL once backwards to the checkpoint, and once forwards.\n\n")
		table(b, rows)
	}
}

// writeFloors lists the floors.
func (r *result) writeFloors(b *strings.Builder) {
	rows := [][]string{{"scenario", "floor", "bytes", "s", "MB/s"}}
	var abouts []string
	for _, s := range r.Scenarios {
		for _, f := range s.Floors {
			took := spreadOf(f.Seconds)
			rows = append(rows, []string{s.Name, f.Name, size(f.Bytes), seconds(took), fmt.Sprintf("%.0f", perSecond(f.Bytes, took.Median))})
			if about := fmt.Sprintf("* %s: %s.", f.Name, f.About); !slices.Contains(abouts, about) {
				abouts = append(abouts, about)
			}
		}
	}
	if len(abouts) == 0 {
		return
	}
	b.WriteString("### Floors of this machine, measured between the runs\n\n")
	table(b, rows)
	b.WriteString(strings.Join(abouts, "\n") + "\n\n")
}

// writePhases lists the phases.
func (r *result) writePhases(b *strings.Builder) {
	rows := [][]string{append([]string{"scenario", "program"}, phaseOrder...)}
	for _, s := range r.Scenarios {
		if s.Growth != nil {
			continue // it has a table of its own
		}
		for _, c := range s.Contenders {
			row := []string{s.Name, c.Name}
			for _, name := range phaseOrder {
				text := ""
				if p, ok := c.Phases[name]; ok {
					text = fmt.Sprintf("%.3f", p.Median)
				}
				row = append(row, text)
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 1 {
		return
	}
	b.WriteString("### Phases, seconds\n\nOf pg_rewind, from the moments its messages came; fastrewind lists and scans at the same time, " +
		"and syncs files while it copies.\n\n")
	table(b, rows)
}

// writeConditions names machine, versions and settings.
func (r *result) writeConditions(b *strings.Builder) {
	b.WriteString("### Measured on\n\n")
	m := r.Machine
	fmt.Fprintf(b, "* %s, %d cores, %d MB of memory, %s\n* clusters on %s\n", m.CPU, m.Cores, m.MemoryMB, m.Kernel, m.FileSystem)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(b, "* %s\n", r.Versions[name])
	}
	fmt.Fprintf(b, "* fastrewind built with %s\n", m.Go)
	for _, c := range r.Clusters {
		fmt.Fprintf(b, "* clusters \"%s\": target %s in %d files, source %s, WAL included\n", c.Fixture, size(c.TargetBytes), c.TargetFiles, size(c.SourceBytes))
	}
	var settings []string
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		settings = append(settings, name+" = "+r.Settings[name])
	}
	fmt.Fprintf(b, "* %s\n", strings.Join(settings, ", "))
	var loads []float64
	for _, s := range r.Scenarios {
		for _, c := range s.Contenders {
			for _, one := range c.Samples {
				loads = append(loads, one.Load)
			}
		}
	}
	load := spreadOf(loads)
	fmt.Fprintf(b, "* scale %s, %d runs, %s, took %s; load average before the runs %.1f (%.1f to %.1f)\n",
		r.Scale.Name, r.Runs, r.Began.UTC().Format("2006-01-02 15:04 UTC"), r.Ended.Sub(r.Began).Round(1e9), load.Median, load.Min, load.Max)
}

func seconds(s spread) string { return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max) }

func times(s spread) string { return fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.Median, s.Min, s.Max) }

func percent(x float64) string { return fmt.Sprintf("%.0f%%", 100*x) }

// memory is the largest peak of all runs, with a sign that it may be less where it cannot be told from our own.
func memory(c contenderResult) string {
	var floor int64
	for _, s := range c.Samples {
		floor = max(floor, s.RSSFloor)
	}
	text := fmt.Sprintf("%.0f", c.MaxRSS.Max/(1<<20))
	if int64(c.MaxRSS.Max) <= floor+floor/10 {
		text = "≤ " + text
	}
	return text
}

// size writes bytes in decimal units, as disks and networks are measured.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	default:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
}
