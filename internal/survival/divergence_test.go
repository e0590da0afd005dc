package survival

import (
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// separate makes an old primary and a standby that was promoted. The old one's WAL before they part is mostly gone, so that
// copies are small. The source is there twice: running; and as a directory, from a little earlier, with a running copy.
func (s *stage) separate() {
	old := s.env.Init("old", pgtest.InitOptions{SegSizeMB: 1, Checksums: true, Conf: []string{
		"wal_keep_size = 0", "max_wal_size = 1GB", "min_wal_size = 2MB", "wal_compression = on", "shared_buffers = 32MB",
	}})
	old.Start()
	old.Tablespace("ts_common")
	old.Tablespace("ts_dropped")
	old.Pgbench("-i", "-q", "-s", "4")
	old.SQL("postgres", `
		CREATE TABLE after_rewind (i int);
		CREATE TABLE in_ts (id int PRIMARY KEY, t text) TABLESPACE ts_common;
		INSERT INTO in_ts SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
		CREATE TABLE in_dropped TABLESPACE ts_dropped AS SELECT generate_series(1, 2000) i;
		CREATE TABLE dropped_by_old AS SELECT generate_series(1, 2000) i;
		CREATE TABLE dropped_by_source AS SELECT generate_series(1, 2000) i;
		CREATE TABLE cut_by_old AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
		CREATE TABLE cut_by_source AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
		CREATE TABLE grows AS SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
		ALTER SYSTEM SET wal_keep_size = '10GB';`)
	old.InstallAmCheck()
	old.SQL("postgres", "CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT")
	old.Reload()
	source := old.Standby("source")
	source.Start()
	old.WaitReplay(source)
	source.Promote()

	old.PrivateTablespace("ts_old")
	old.Pgbench("-t", "1500", "-N")
	old.SQL("postgres", `
		DROP TABLE dropped_by_old; DELETE FROM cut_by_old WHERE i > 100; VACUUM cut_by_old;
		TRUNCATE cut_by_source; INSERT INTO grows SELECT i, 'old' FROM generate_series(1, 50000) i;
		CREATE TABLE in_ts_old TABLESPACE ts_old AS SELECT generate_series(1, 2000) i;
		CREATE TABLE made_by_old AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
		UPDATE in_ts SET t = 'old' WHERE id % 3 = 0;
		CREATE DATABASE db_old;`)
	old.Stop(pgtest.Fast)
	s.ownFiles(old, "of the target")
	s.template = old

	source.Pgbench("-t", "1500", "-N")
	source.SQL("postgres", `
		DROP TABLE dropped_by_source, in_dropped; DELETE FROM cut_by_source WHERE i > 200; VACUUM cut_by_source;
		DROP TABLESPACE ts_dropped;
		TRUNCATE cut_by_old; INSERT INTO grows SELECT i, 'source' FROM generate_series(1, 20000) i;
		CREATE TABLE made_by_source AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i;
		UPDATE in_ts SET t = 'source' WHERE id % 2 = 0;
		CREATE DATABASE db_source;`)
	source.Stop(pgtest.Fast)
	s.ownFiles(source, "of the source")

	stopped := source.Copy("stopped")
	running := stopped.Copy("running")
	running.Start()
	s.dir = &way{name: "directory", from: pgtest.FromDir(stopped), source: stopped, primary: running}

	source.Start()
	source.PrivateTablespace("ts_source", old) // its copies have the directory then
	source.SQL("postgres", `CREATE TABLE in_ts_source TABLESPACE ts_source AS SELECT generate_series(1, 2000) i;`)
	source.Quiesce()
	s.server = &way{name: "server", from: pgtest.FromServer(source), source: source, primary: source, live: true}
}
