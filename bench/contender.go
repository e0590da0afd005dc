package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// contender is one program in the race, with its options. The first is stock.
type contender struct {
	name    string
	stock   bool
	program string
	args    []string
	// read finds in what the program printed how long its phases took.
	read func(lines []stampedLine, wall float64) (phases, counts)
}

// phases are seconds by the names of fastrewind's phases. Phases can overlap.
type phases map[string]float64

// The phases of both programs. What is between the phases is not named.
const (
	phaseStart   = "start-up" // until the first of the others
	phaseListing = "listing files"
	phaseScan    = "scanning WAL"
	phaseArchive = "fetching WAL" // fastrewind's alone, while it scans
	phaseCopy    = "copying"
	phaseSync    = "syncing"
)

var phaseOrder = []string{phaseStart, phaseListing, phaseScan, phaseArchive, phaseCopy, phaseSync}

// counts are bytes that a program says it dealt with; 0 if it did not say.
type counts struct {
	Scanned    int64 `json:"scanned,omitempty"`    // of WAL
	Copied     int64 `json:"copied,omitempty"`     // written to the target
	PlannedMB  int64 `json:"planned_mb,omitempty"` // "need to copy"
	SourceSize int64 `json:"source_mb,omitempty"`  // "total source directory size"
}

func contenders(env *pgtest.Env, ours pgtest.Binaries, jobs []int) []contender {
	list := []contender{{name: "pg_rewind", stock: true, program: env.Bin("pg_rewind"), args: []string{"-P"}, read: readStock}}
	args := []string{"-P", "--log-format=json"}
	if len(jobs) == 0 {
		return append(list, contender{name: "fastrewind", program: ours.Fastrewind, args: args, read: readOurs})
	}
	for _, n := range jobs {
		list = append(list, contender{
			name:    fmt.Sprintf("fastrewind -j %d", n),
			program: ours.Fastrewind,
			args:    append([]string{"-j", fmt.Sprint(n)}, args...),
			read:    readOurs,
		})
	}
	return list
}

var needToCopy = regexp.MustCompile(`need to copy (\d+) MB \(total source directory size is (\d+) MB\)`)

func (c *counts) readPlan(line string) {
	if m := needToCopy.FindStringSubmatch(line); m != nil {
		c.PlannedMB, _ = strconv.ParseInt(m[1], 10, 64)  // digits; one that overflows is as good as none
		c.SourceSize, _ = strconv.ParseInt(m[2], 10, 64) // likewise
	}
}

// stockMarks are stock's messages, and the phase that begins where each is printed (main, pg_rewind.c). It reads the
// WAL backwards to the checkpoint after the first of them, and forwards after the fifth.
var stockMarks = []struct{ text, phase string }{
	{"servers diverged at WAL location", phaseScan},
	{"rewinding from last common checkpoint", phaseListing},
	{"reading source file list", phaseListing},
	{"reading target file list", phaseListing},
	{"reading WAL in target", phaseScan},
	{"need to copy", phaseCopy},
	{"creating backup label and updating control file", phaseSync},
	{"syncing target data directory", phaseSync},
	{"Done!", ""},
}

func readStock(lines []stampedLine, wall float64) (phases, counts) {
	p, c := phases{}, counts{}
	phase, since := phaseStart, 0.0
	for _, l := range lines {
		c.readPlan(l.text)
		for _, mark := range stockMarks {
			if strings.Contains(l.text, mark.text) {
				p[phase] += l.at - since
				phase, since = mark.phase, l.at
			}
		}
	}
	if phase != "" {
		p[phase] += wall - since
	}
	delete(p, "")
	return p, c
}

// readOurs reads fastrewind's JSON messages: at the end of each phase there is one with its time.
func readOurs(lines []stampedLine, wall float64) (phases, counts) {
	p, c := phases{}, counts{}
	first := wall
	for _, l := range lines {
		c.readPlan(l.text)
		var m struct {
			Msg     string  `json:"msg"`
			Phase   string  `json:"phase"`
			Final   bool    `json:"final"`
			Elapsed float64 `json:"elapsed_s"`
			Done    int64   `json:"done"`
		}
		if json.Unmarshal([]byte(l.text), &m) != nil || m.Msg != "progress" || !m.Final {
			continue
		}
		p[m.Phase] += m.Elapsed
		first = min(first, max(0, l.at-m.Elapsed))
		switch m.Phase {
		case phaseScan:
			c.Scanned += m.Done
		case phaseCopy:
			c.Copied += m.Done
		}
	}
	p[phaseStart] = first
	return p, c
}
