package pgtest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// RewindDifferences are the differences between two identical targets that two programs rewound from the same source,
// which must be allowed because they say when the program ran, and not what it did:
//
//   - pg_control: the time of its writing, and the checksum that covers it;
//   - backup_label: START TIME;
//
// and because stock keeps the target's copy of the segment in which the two parted, where the source has removed that of
// its own: a server that cannot find the source's takes it, and replays what was to be undone.
//
// For a running source, also what depends on how far the source was when each program ended:
//
//   - pg_control: minRecoveryPoint and its timeline (stock takes the insert position, fastrewind the flush position);
//   - pg_wal: what is in the source's WAL beyond the smaller of the two minRecoveryPoints.
//
// postmaster.opts, postmaster.pid, pg_internal.init and the like need no allowance: both programs remove them.
func RewindDifferences(liveSource bool) []Allow {
	allow := []Allow{AllowLabelTime(), AllowDivergedSegment(OnlyInB)}
	if liveSource {
		return append(allow, allowControl("pg_control: time, minRecoveryPoint and checksum", true), AllowWALBeyond())
	}
	return append(allow, allowControl("pg_control: time and checksum", false))
}

// allowControl matches pg_control files that agree in all but the fields named in the reason.
func allowControl(reason string, minRecovery bool) Allow {
	return Allow{Reason: reason, Match: func(d Difference) (bool, error) {
		if d.Kind != ContentDiff || d.Path != "global/pg_control" {
			return false, nil
		}
		a, err := ReadControl(d.rootA)
		if err != nil {
			return false, err
		}
		b, err := ReadControl(d.rootB)
		if err != nil {
			return false, err
		}
		return bytes.Equal(a.withoutTime(minRecovery), b.withoutTime(minRecovery)), nil
	}}
}

// AllowLabelTime matches backup_label files that differ in the line START TIME alone.
func AllowLabelTime() Allow {
	return Allow{Reason: "backup_label: START TIME", Match: func(d Difference) (bool, error) {
		if d.Kind != ContentDiff || d.Path != "backup_label" {
			return false, nil
		}
		a, err := labelWithoutTime(d.PathA)
		if err != nil {
			return false, err
		}
		b, err := labelWithoutTime(d.PathB)
		return a == b, err
	}}
}

func labelWithoutTime(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var kept []string
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "START TIME: ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, ""), nil
}

// AllowDivergedSegment matches a segment in one of the trees alone, within which, or at whose start, the history of that tree's
// cluster leaves the segment's timeline, or another one, for good. In which tree: OnlyInA or OnlyInB.
func AllowDivergedSegment(in DiffKind) Allow {
	return Allow{Reason: "the target's segment of the divergence", Match: func(d Difference) (bool, error) {
		name, ok := strings.CutPrefix(d.Path, "pg_wal/")
		if !ok || d.Kind != in {
			return false, nil
		}
		root := d.rootB
		if in == OnlyInA {
			root = d.rootA
		}
		c, err := ReadControl(root)
		if err != nil {
			return false, err
		}
		start, ok := segmentStart(name, c.SegSize)
		if !ok {
			return false, nil
		}
		histories, err := filepath.Glob(filepath.Join(root, "pg_wal", "*.history"))
		if err != nil || len(histories) == 0 {
			return false, err
		}
		last := slices.Max(histories) // that of the timeline the cluster is on
		data, err := os.ReadFile(last)
		if err != nil {
			return false, err
		}
		end := start + uint64(c.SegSize)
		after := strings.TrimSuffix(filepath.Base(last), ".history") // the timeline at the segment's end
		left := false
		for line := range strings.Lines(string(data)) {
			var tli uint32
			var high, low uint64
			if _, err := fmt.Sscanf(line, "%d\t%X/%X", &tli, &high, &low); err != nil {
				continue
			}
			switch at := high<<32 | low; {
			case at >= start && at < end:
				left = true
			case at >= end:
				return left && name[:8] != fmt.Sprintf("%08X", tli), nil
			}
		}
		return left && name[:8] != after, nil
	}}
}

// AllowWALBeyond matches WAL segments that agree up to the smaller minRecoveryPoint of the two clusters, and segments
// that only one of them has if they begin beyond it: WAL a running source wrote between the two rewinds.
func AllowWALBeyond() Allow {
	return Allow{Reason: "WAL beyond the smaller minRecoveryPoint", Match: func(d Difference) (bool, error) {
		name, ok := strings.CutPrefix(d.Path, "pg_wal/")
		if !ok || d.Kind != ContentDiff && d.Kind != OnlyInA && d.Kind != OnlyInB {
			return false, nil
		}
		a, err := ReadControl(d.rootA)
		if err != nil {
			return false, err
		}
		b, err := ReadControl(d.rootB)
		if err != nil {
			return false, err
		}
		start, ok := segmentStart(name, a.SegSize)
		if !ok {
			return false, nil
		}
		limit := min(a.MinRecoveryPoint, b.MinRecoveryPoint)
		if start >= limit {
			return true, nil
		}
		if d.Kind != ContentDiff {
			return false, nil
		}
		return samePrefix(d.PathA, d.PathB, int64(limit-start))
	}}
}

// samePrefix reports whether two files agree in their first n bytes.
func samePrefix(a, b string, n int64) (bool, error) {
	var data [2][]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		data[i], err = io.ReadAll(io.LimitReader(f, n))
		_ = f.Close() // only read from
		if err != nil {
			return false, err
		}
	}
	return bytes.Equal(data[0], data[1]), nil
}

// segmentStart is the LSN of a WAL segment's first byte, from its file name and the segment size in bytes.
func segmentStart(name string, segSize uint32) (uint64, bool) {
	if len(name) != 24 || segSize == 0 {
		return 0, false
	}
	high, err := strconv.ParseUint(name[8:16], 16, 32)
	if err != nil {
		return 0, false
	}
	low, err := strconv.ParseUint(name[16:], 16, 32)
	if err != nil {
		return 0, false
	}
	return high<<32 + low*uint64(segSize), true
}

// AllowPath matches everything about the paths of a pattern (as of path.Match, on the whole relative path).
func AllowPath(pattern, reason string) Allow {
	return Allow{Reason: reason, Match: func(d Difference) (bool, error) {
		return path.Match(pattern, d.Path)
	}}
}

// AllowSourceBlocks matches files whose every differing block is, in the first tree, the same as in the source's data
// directory: a program that reads through small gaps copies unchanged blocks, too, which replay from the divergence on
// makes equal.
func AllowSourceBlocks(source *Cluster) Allow {
	return Allow{Reason: "blocks copied although only the source changed them", Match: func(d Difference) (bool, error) {
		if d.Kind != ContentDiff {
			return false, nil
		}
		t := treeComparer{}
		from, err := os.Open(t.resolve(filepath.Clean(source.DataDir()), d.Path))
		if err != nil {
			return false, err
		}
		defer func() { _ = from.Close() }() // only read from
		ours, err := os.Open(d.PathA)
		if err != nil {
			return false, err
		}
		defer func() { _ = ours.Close() }()
		x, y := make([]byte, treeBlock), make([]byte, treeBlock)
		for _, block := range d.Blocks {
			n, err := readFull(io.NewSectionReader(from, block*treeBlock, treeBlock), x)
			if err != nil {
				return false, err
			}
			m, err := readFull(io.NewSectionReader(ours, block*treeBlock, treeBlock), y)
			if err != nil {
				return false, err
			}
			if !bytes.Equal(x[:n], y[:m]) {
				return false, nil
			}
		}
		return true, nil
	}}
}
