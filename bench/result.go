package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// result is everything one run of the benchmark found out; bench.json is its JSON.
type result struct {
	Began     time.Time         `json:"began"`
	Ended     time.Time         `json:"ended"`
	Arguments []string          `json:"arguments"`
	Machine   machine           `json:"machine"`
	Versions  map[string]string `json:"versions"` // what the programs answered to --version
	Settings  map[string]string `json:"settings"` // of the servers
	Scale     scale             `json:"scale"`
	Runs      int               `json:"runs"`
	Clusters  []clusterResult   `json:"clusters"`
	Scenarios []scenarioResult  `json:"scenarios"`
	Codecs    []codecResult     `json:"codecs,omitempty"`
}

// clusterResult is the size of one fixture's clusters.
type clusterResult struct {
	Fixture     string `json:"fixture"`
	TargetBytes int64  `json:"target_bytes"` // of all files, WAL included
	SourceBytes int64  `json:"source_bytes"`
	TargetFiles int    `json:"target_files"`
}

// scenarioResult is what was measured in one scenario. The first contender is stock.
type scenarioResult struct {
	Name       string            `json:"name"`
	About      string            `json:"about"`
	Source     sourceKind        `json:"source"`
	DryRun     bool              `json:"dry_run"`
	Archive    string            `json:"archive,omitempty"` // how the programs reached the WAL that was missing
	Missing    int               `json:"missing,omitempty"` // segments
	Goal       float64           `json:"goal"`
	Compared   bool              `json:"compared"`          // both results were compared, and found equal
	Allowed    []string          `json:"allowed,omitempty"` // paths in which they may differ, and do: when it ran
	Contenders []contenderResult `json:"contenders"`
	Floors     []floorResult     `json:"floors"`
	// The rest is of the scenarios that are more than programs in turn.
	Growth *growthResult `json:"growth,omitempty"`
	Cores  *coresResult  `json:"cores,omitempty"`
	Plans  []planResult  `json:"plans,omitempty"`
	Load   *loadResult   `json:"load,omitempty"`
}

type contenderResult struct {
	Name      string            `json:"name"`
	Wall      spread            `json:"wall_s"`
	CPU       spread            `json:"cpu_s"` // user and system
	SourceCPU spread            `json:"source_cpu_s"`
	MaxRSS    spread            `json:"max_rss"`
	Phases    map[string]spread `json:"phases_s"`
	Counts    counts            `json:"counts"` // of the last run
	// How many times less than stock, by medians; the spread is that of the rounds.
	WallRatio spread   `json:"wall_ratio"`
	CPURatio  spread   `json:"cpu_ratio"`
	ScanRatio spread   `json:"scan_ratio"` // of the phase in which WAL is scanned
	Samples   []sample `json:"samples"`
}

type floorResult struct {
	Name    string    `json:"name"`
	About   string    `json:"about"`
	Bytes   int64     `json:"bytes"`
	Seconds []float64 `json:"seconds"`
}

func newResult(cfg *config) *result {
	return &result{Began: time.Now(), Arguments: cfg.args, Scale: cfg.scale, Runs: cfg.runs}
}

// describe notes what the numbers depend on.
func (r *result) describe(tb pgtest.TB, p *pair, ours pgtest.Binaries) {
	r.Machine = describeMachine(p.env.Root)
	r.Settings = p.settings
	r.Versions = map[string]string{}
	for _, program := range []string{p.env.Bin("pg_rewind"), ours.Fastrewind} {
		first, _, _ := strings.Cut(p.env.MustExec(pgtest.Cmd{Path: program, Args: []string{"--version"}}).Stdout, "\n")
		r.Versions[filepath.Base(program)] = first
	}
	c := clusterResult{Fixture: p.name}
	var err error
	if c.TargetBytes, c.TargetFiles, err = treeSize(p.old.DataDir()); err == nil {
		c.SourceBytes, _, err = treeSize(p.source.DataDir())
	}
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	r.Clusters = append(r.Clusters, c)
}

func treeSize(dir string) (bytes int64, files int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
			files++
		}
		return err
	})
	return bytes, files, err
}

func summarize(c contender, samples, stock []sample) contenderResult {
	r := contenderResult{
		Name:      c.name,
		Wall:      spreadBy(samples, func(s sample) float64 { return s.Wall }),
		CPU:       spreadBy(samples, sample.cpu),
		SourceCPU: spreadBy(samples, func(s sample) float64 { return s.SourceCPU }),
		MaxRSS:    spreadBy(samples, func(s sample) float64 { return float64(s.MaxRSS) }),
		Phases:    map[string]spread{},
		Counts:    samples[len(samples)-1].Counts,
		WallRatio: ratioBy(stock, samples, func(s sample) float64 { return s.Wall }),
		CPURatio:  ratioBy(stock, samples, sample.cpu),
		ScanRatio: ratioBy(stock, samples, func(s sample) float64 { return s.Phases[phaseScan] }),
		Samples:   samples,
	}
	for _, s := range samples {
		for name := range s.Phases {
			r.Phases[name] = spreadBy(samples, func(s sample) float64 { return s.Phases[name] })
		}
	}
	return r
}

func ratioBy(stock, ours []sample, f func(sample) float64) spread {
	return ratio(column(stock, f), column(ours, f))
}

func column(samples []sample, f func(sample) float64) []float64 {
	list := make([]float64, len(samples))
	for i := range samples {
		list[i] = f(samples[i])
	}
	return list
}

// save writes bench.json and bench.md.
func (r *result) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bench.md"), []byte(r.markdown()), 0o644)
}
