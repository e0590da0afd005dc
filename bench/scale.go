package main

import (
	"fmt"
	"strconv"
	"strings"
)

// scale is how big the clusters are.
type scale struct {
	Name      string `json:"name"`
	DataBytes int64  `json:"data_bytes"` // of the cluster at the divergence, about
	WALBytes  int64  `json:"wal_bytes"`  // of the target's WAL after the divergence, at least
}

var scales = []scale{
	{"TINY", 32 << 20, 24 << 20}, // proves that everything works, and measures nothing
	{"SMALL", 300 << 20, 200 << 20},
	{"FULL", 3200 << 20, 1750 << 20},
}

// parseScale reads the name of a scale, or two numbers of gigabytes: 3/1.75.
func parseScale(s string) (scale, error) {
	for _, known := range scales {
		if strings.EqualFold(s, known.Name) {
			return known, nil
		}
	}
	data, wal, ok := strings.Cut(s, "/")
	dataGB, err1 := strconv.ParseFloat(data, 64)
	walGB, err2 := strconv.ParseFloat(wal, 64)
	// The bounds are what fits on a disk, and the smallest cluster that pgbench makes.
	if !ok || err1 != nil || err2 != nil || dataGB < 0.03 || dataGB > 1000 || walGB < 0.01 || walGB > 1000 {
		return scale{}, fmt.Errorf("-scale is %q; it can be TINY, SMALL, FULL, or gigabytes of data and of WAL as 3/1.75", s)
	}
	const gb = 1 << 30
	return scale{Name: s, DataBytes: int64(dataGB * gb), WALBytes: int64(walGB * gb)}, nil
}

// pgbenchScale is pgbench's scaling factor for about so many bytes: 100,000 rows of 134 bytes and their index each.
func (s scale) pgbenchScale() int64 {
	const unit = 15_600_000
	return max(1, s.DataBytes/unit)
}
