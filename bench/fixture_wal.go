package main

import (
	"fmt"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// clusteredUpdates is pgbench's table updated in four long runs, and grown at its end: new versions of rows go there, and so
// do rows that are loaded, on both sides. The changed blocks lie side by side.
var clusteredUpdates = &fixture{
	name: "clustered updates",
	load: randomUpdates.load,
	diverge: func(old, promoted *pgtest.Cluster, s scale) {
		updateRuns(old, s, s.WALBytes*3/4)
		appendRows(old, s.WALBytes/4)
		updateRuns(promoted, s, s.WALBytes/10)
		appendRows(promoted, s.WALBytes/4)
	},
}

// updateRuns updates rows that lie together until walBytes of WAL were written, at four places of the table, with a
// checkpoint before each.
func updateRuns(c *pgtest.Cluster, s scale, walBytes int64) {
	rows := s.pgbenchScale() * 100_000
	const runs = 4
	// A row costs some 400 bytes: its page's image shared with 60 others, the new version, its index entry.
	batch := max(200, walBytes/runs/400/8)
	start := c.LSN()
	for run := int64(1); run <= runs; run++ {
		c.SQL("postgres", "CHECKPOINT")
		from, end := rows*(run-1)/runs, rows*run/runs
		for walSince(c, start) < walBytes*run/runs {
			c.SQL("postgres", fmt.Sprintf("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid > %d AND aid <= %d", from, from+batch))
			if from += batch; from >= end {
				from = rows * (run - 1) / runs // once more, where the run's rows were not enough
			}
		}
	}
	c.SQL("postgres", "CHECKPOINT")
}

// appendRows appends rows to a table without an index until walBytes of WAL were written.
func appendRows(c *pgtest.Cluster, walBytes int64) {
	start := c.LSN()
	for walSince(c, start) < walBytes {
		c.SQL("postgres", fmt.Sprintf(`
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime, filler)
SELECT 1, 1, g, 0, now(), repeat('x', 22) FROM generate_series(1, %d) g`, max(1000, walBytes/120/8)))
	}
	c.SQL("postgres", "CHECKPOINT")
}

// keptWAL is much WAL from before the divergence that both sides keep, for their standbys or a slot, and little else. To
// write it fast, each segment has a few records and is switched; the files are as long as others.
var keptWAL = &fixture{
	name:      "kept WAL",
	littleWAL: true,
	load: func(p *pgtest.Cluster, s scale) {
		s.DataBytes /= 10
		randomUpdates.load(p, s)
	},
	together: func(primary *pgtest.Cluster, s scale) {
		const full, segment = 8 << 30, 16 << 20
		primary.SQL("postgres", fmt.Sprintf(`
DO $$
BEGIN
	FOR i IN 1..%d LOOP
		PERFORM pg_logical_emit_message(false, 'bench', repeat('x', 1000));
		PERFORM pg_switch_wal();
	END LOOP;
END $$;
CHECKPOINT; -- where both sides part from: what is before it is read by nobody`, max(2, int(full*s.partOfFull()/segment))))
	},
	diverge: func(old, promoted *pgtest.Cluster, s scale) {
		s.DataBytes /= 10
		updateRows(old, s, s.WALBytes/20)
		updateRows(promoted, s, s.WALBytes/100)
	},
}
