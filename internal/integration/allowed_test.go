package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// allowed are all the ways in which the tree fastrewind leaves may differ from stock's. Of every scenario:
//
//   - pg_control: the time it was written, and the checksum over it; backup_label: START TIME. They say when the
//     program ran.
//   - the target's segment of the divergence, which stock keeps where the source has removed its own (pgtest.RewindDifferences).
//
// From a running source:
//
//   - pg_control: minRecoveryPoint. Stock takes the position where the source would insert next, which may lie behind
//     a page header that nothing has been written after: a standby of an idle source would wait for it. Ours takes how
//     far the source had flushed.
//   - pg_wal beyond the smaller minRecoveryPoint. Ours copies what the source logged meanwhile in a second pass; and a
//     source may log between the two runs.
//
// Where the scenario says so:
//
//   - keptFromRedo, neededFromArchive;
//   - writtenMeanwhile, if the source had a checkpoint between the two runs;
//   - with -R, the last line of postgresql.auto.conf: stock writes all of libpq's defaults, of its own version; ours what
//     the user gave.
//   - from the directory of a standby, pg_control: minRecoveryPoint. Stock takes the standby's last restartpoint, but the
//     pages it copied may be newer; ours takes how far the standby had replayed.
//
// None is needed for WAL from before the divergence, which stock 15 copies and ours does not if both sides have it: it
// is the same.
func (r *rehearsal) allowed(s sides) []pgtest.Allow {
	isStandby := s.source != s.primary
	allow := slices.Concat(pgtest.RewindDifferences(s.source.Running() || isStandby), r.differs, r.may)
	if s.source.Running() && slices.Contains(r.serverArgs, writeRecoveryConf) {
		allow = append(allow, recoverySettings)
	}
	return allow
}

const writeRecoveryConf = "--write-recovery-conf"

// writtenMeanwhile: what differs is in the later of the two trees, the first, as it is in the source. A dropped
// relation's file stays, empty, until the checkpoint.
func writtenMeanwhile(source *pgtest.Cluster) []pgtest.Allow {
	return []pgtest.Allow{
		pgtest.AllowPath("global/pg_control", "the source's own has changed"),
		pgtest.AllowPath("backup_label", "a source without newer checkpoint may need replay from its older one"),
		{Reason: "file of a dropped relation", Match: func(d pgtest.Difference) (bool, error) {
			return d.Kind == pgtest.OnlyInB && strings.HasSuffix(d.Detail, " 0 bytes"), nil
		}},
		pgtest.AllowSourceBlocks(source),
	}
}

// keptFromRedo is the target's WAL from the redo point of the last common checkpoint to the segment of its record, where
// the source has removed it: replay begins there. Stock keeps the target's segments from the record on.
var keptFromRedo = onlyOurs("WAL kept from the redo point on", func(seg, redo, checkpoint pg.SegNo) bool {
	return redo <= seg && seg < checkpoint
})

// neededFromArchive is WAL of the source's timeline that the source has removed and that replay will want: ours looks for it
// in the archive and finds it, stock leaves that to the server.
var neededFromArchive = onlyOurs("WAL the source has removed, from the archive", func(seg, _, checkpoint pg.SegNo) bool {
	return seg >= checkpoint
})

// onlyOurs are segments in our pg_wal alone, of those that match by where our backup_label says that replay begins.
func onlyOurs(reason string, match func(seg, redo, checkpoint pg.SegNo) bool) pgtest.Allow {
	return pgtest.Allow{Reason: reason, Match: func(d pgtest.Difference) (bool, error) {
		if d.Kind != pgtest.OnlyInA {
			return false, nil
		}
		root := strings.TrimSuffix(d.PathA, "/"+d.Path)
		seg, control, err := segmentOf(d, root)
		if err != nil || control == nil {
			return false, err
		}
		redo, checkpoint, err := labelled(root)
		return err == nil && match(seg, redo.Seg(control.SegSize), checkpoint.Seg(control.SegSize)), err
	}}
}

// segmentOf is the segment that differs, and the control file of its tree; nil if what differs is no segment.
func segmentOf(d pgtest.Difference, root string) (pg.SegNo, *pgtest.Control, error) {
	name, ok := strings.CutPrefix(d.Path, "pg_wal/")
	if !ok {
		return 0, nil, nil
	}
	control, err := pgtest.ReadControl(root)
	if err != nil {
		return 0, nil, err
	}
	_, seg, ok := pg.ParseSegmentName(name, control.SegSize)
	if !ok {
		return 0, nil, nil
	}
	return seg, &control, nil
}

// labelled reads where replay will begin, and which checkpoint made it so.
func labelled(root string) (redo, checkpoint pg.LSN, err error) {
	data, err := os.ReadFile(filepath.Join(root, "backup_label"))
	if err != nil {
		return 0, 0, err
	}
	var hi, lo, hi2, lo2 uint64
	var file string
	if _, err := fmt.Sscanf(string(data), "START WAL LOCATION: %X/%X (file %s\nCHECKPOINT LOCATION: %X/%X\n", &hi, &lo, &file, &hi2, &lo2); err != nil {
		return 0, 0, fmt.Errorf("backup_label: %w", err)
	}
	return pg.LSN(hi<<32 | lo), pg.LSN(hi2<<32 | lo2), nil
}

// recoverySettings is postgresql.auto.conf that differs in the value of primary_conninfo alone.
var recoverySettings = pgtest.Allow{
	Reason: "primary_conninfo without libpq's defaults",
	Match: func(d pgtest.Difference) (bool, error) {
		if d.Path != "postgresql.auto.conf" || d.Kind != pgtest.SizeDiff && d.Kind != pgtest.ContentDiff {
			return false, nil
		}
		ours, err := os.ReadFile(d.PathA)
		if err != nil {
			return false, err
		}
		stock, err := os.ReadFile(d.PathB)
		if err != nil {
			return false, err
		}
		before := func(conf []byte) []byte { return conf[:max(0, bytes.LastIndex(conf, []byte("primary_conninfo = '")))] }
		return bytes.Equal(before(ours), before(stock)), nil
	},
}
