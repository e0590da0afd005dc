package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// result is the part of bench.json that is drawn; the rest of it, and what it means, is told in bench/result.go.
type result struct {
	Scenarios []scenario `json:"scenarios"`
}

type scenario struct {
	Name       string      `json:"name"`
	DryRun     bool        `json:"dry_run"`
	Archive    string      `json:"archive"`
	Goal       float64     `json:"goal"`
	Contenders []contender `json:"contenders"` // the first is pg_rewind
	Floors     []struct{}  `json:"floors"`
	Growth     *struct {
		Axis   string  `json:"axis"`
		Points []point `json:"points"`
	} `json:"growth"`
	Cores *struct {
		Ratio spread `json:"ratio"`
	} `json:"cores"`
	Load *struct {
		Variants []variant `json:"variants"`
	} `json:"load"`
}

type contender struct {
	Name      string `json:"name"`
	Wall      spread `json:"wall_s"`
	WallRatio spread `json:"wall_ratio"`
	ScanRatio spread `json:"scan_ratio"`
}

type point struct {
	X          float64     `json:"x"` // bytes
	Contenders []contender `json:"contenders"`
}

type variant struct {
	Name   string `json:"name"`
	Before spread `json:"before_tps"`
	During spread `json:"during_tps"`
}

type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func read(path string) (*result, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	res := new(result)
	if err := json.Unmarshal(data, res); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return res, nil
}

// ours is fastrewind as it is called without options that make it faster.
func (s *scenario) ours() contender { return s.Contenders[min(1, len(s.Contenders)-1)] }
