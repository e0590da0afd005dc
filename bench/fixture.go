package main

import (
	"fmt"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// fixture is a way to make two clusters that have come apart.
type fixture struct {
	name string
	init pgtest.InitOptions // what initdb is told; Conf is the fixture's
	// load fills the primary before there is a standby.
	load func(primary *pgtest.Cluster, s scale)
	// together is done on the primary while the standby follows it; may be nil.
	together func(primary *pgtest.Cluster, s scale)
	// littleWAL: diverge writes less WAL than the scale says, because something else is to be measured.
	littleWAL bool
	// diverge writes at least s.WALBytes of WAL on the old primary, and something on the promoted standby.
	diverge func(old, promoted *pgtest.Cluster, s scale)
}

// randomUpdates is pgbench's table updated at random, with checkpoints in between: every first change of a page after a
// checkpoint logs the whole page, so the WAL is mostly full-page images, and the changed blocks lie scattered.
var randomUpdates = &fixture{
	name: "random updates",
	load: func(p *pgtest.Cluster, s scale) {
		p.Pgbench("-i", "-q", "-s", fmt.Sprint(s.pgbenchScale()))
	},
	diverge: func(old, promoted *pgtest.Cluster, s scale) {
		updateRows(old, s, s.WALBytes)
		old.Pgbench("-n", "-c", "2", "-t", "500")
		updateRows(promoted, s, s.WALBytes/10)
		promoted.Pgbench("-n", "-c", "2", "-t", "500")
	},
}

// updateRows updates rows at random until walBytes of WAL were written, in four stretches with a checkpoint before each.
func updateRows(c *pgtest.Cluster, s scale, walBytes int64) {
	rows := s.pgbenchScale() * 100_000
	const stretches = 4
	// A row costs somewhat over one page image: its own, and that of the index if it is the first there.
	batch := max(100, walBytes/stretches/10_000)
	c.SQL("postgres", "CHECKPOINT")
	start := c.LSN()
	for part := int64(1); part <= stretches; part++ {
		// Each statement of the loop is smaller than a stretch, so that the total is not much exceeded.
		for seed := 0; walSince(c, start) < walBytes*part/stretches; seed++ {
			c.SQL("postgres", fmt.Sprintf(`
SELECT setseed(0.%d%03d);
UPDATE pgbench_accounts SET abalance = abalance + 1
WHERE aid IN (SELECT 1 + (random() * %d)::int FROM generate_series(1, %d));`, part, seed%1000, rows-1, max(100, batch/4)))
		}
		c.SQL("postgres", "CHECKPOINT")
	}
}

// smallRecords is WAL without page images to speak of: updates within a page, inserts into a table and its index,
// commits; some 60 to 130 bytes a record.
var smallRecords = &fixture{
	name: "small records",
	load: func(p *pgtest.Cluster, _ scale) {
		p.Pgbench("-i", "-q", "-s", "1")
		p.SQL("postgres", `
CREATE TABLE hot (id int PRIMARY KEY, v int) WITH (fillfactor = 50);
CREATE TABLE log (id bigserial PRIMARY KEY, v int);
INSERT INTO hot SELECT g, 0 FROM generate_series(1, 50000) g;`)
	},
	diverge: func(old, promoted *pgtest.Cluster, s scale) {
		old.SQL("postgres", fmt.Sprintf(`
DO $$
DECLARE start pg_lsn := pg_current_wal_insert_lsn();
BEGIN
	WHILE pg_current_wal_insert_lsn() - start < %d LOOP
		UPDATE hot SET v = v + 1;
		COMMIT;
		FOR i IN 1..1000 LOOP
			UPDATE hot SET v = 0 WHERE id = i * 50;
			COMMIT;
		END LOOP;
		INSERT INTO log (v) SELECT g FROM generate_series(1, 20000) g;
		COMMIT;
	END LOOP;
END $$;`, s.WALBytes))
		promoted.Pgbench("-n", "-c", "2", "-t", "200")
	},
}

// walSince is how many bytes of WAL the server has written since an LSN.
func walSince(c *pgtest.Cluster, lsn string) int64 {
	var n int64
	_, err := fmt.Sscan(c.Query("postgres", fmt.Sprintf("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '%s')::bigint", lsn)), &n)
	if err != nil {
		return 0 // what the server printed was no number: the next statement will fail for the same reason
	}
	return n
}

// pair is the clusters of one fixture.
type pair struct {
	name   string // of the fixture
	env    *pgtest.Env
	old    *pgtest.Cluster // the pristine target, never touched again
	source *pgtest.Cluster // the promoted standby
	work   *pgtest.Cluster // the copy of old that the programs rewind
	mirror *mirror         // keeps work equal to old
	// settings are the source's, as it showed them.
	settings map[string]string
}

// make makes the clusters. The WAL of loading the data is not kept: a primary that has lived for a while has only the
// last WAL, too, and stock would otherwise be charged with copying what it needs not.
func (f *fixture) make(tb pgtest.TB, cfg *config) *pair {
	env := pgtest.New(tb, pgtest.Options{Dir: cfg.dir, Timeout: startTimeout})
	init := f.init
	init.Conf = []string{
		"wal_level = minimal", "max_wal_senders = 0", "wal_keep_size = 0", "max_wal_size = 1GB", "maintenance_work_mem = 256MB",
		"full_page_writes = on", "wal_compression = off",
	}
	old := env.Init("old", init)
	old.Start()
	f.load(old, cfg.scale)
	old.AppendConf("wal_level = replica", "max_wal_senders = 10", "wal_keep_size = 1TB", "max_wal_size = 1TB")
	old.Restart()
	old.Checkpoint()
	source := old.Standby("source")
	source.Start()
	if f.together != nil {
		f.together(old, cfg.scale)
	}
	old.WaitReplay(source)
	source.Promote()
	source.Checkpoint()
	f.diverge(old, source, cfg.scale)
	settings := map[string]string{}
	for _, name := range []string{
		"server_version", "shared_buffers", "wal_segment_size", "block_size", "data_checksums", "wal_log_hints",
		"full_page_writes", "wal_compression", "fsync",
	} {
		settings[name] = source.Setting(name)
	}
	old.Stop(pgtest.Fast)
	source.Stop(pgtest.Fast)
	p := &pair{name: f.name, env: env, old: old, source: source, work: old.Copy("work"), settings: settings}
	var err error
	if p.mirror, err = newMirror(old.DataDir(), p.work.DataDir()); err != nil {
		tb.Fatalf("bench: %v", err)
	}
	return p
}

// be makes the source what a scenario wants: stopped, or running without a change of its own.
func (p *pair) be(kind sourceKind) {
	switch {
	case kind.live() && !p.source.Running():
		p.source.Start()
		p.source.Quiesce()
	case !kind.live() && p.source.Running():
		p.source.Stop(pgtest.Fast)
	}
}
