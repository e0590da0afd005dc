package integration

import (
	"fmt"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// load is one kind of work: what both servers have in common before they part, and what each does by itself
// afterwards. Names of tables say which side works on them. All is deterministic, so that a difference comes back.
type load struct {
	common, old, source func(c *pgtest.Cluster)
}

// run runs one column of a list of loads.
func run(c *pgtest.Cluster, loads []load, column func(load) func(*pgtest.Cluster)) {
	for _, l := range loads {
		if f := column(l); f != nil {
			f(c)
		}
	}
}

func common(l load) func(*pgtest.Cluster)   { return l.common }
func onOld(l load) func(*pgtest.Cluster)    { return l.old }
func onSource(l load) func(*pgtest.Cluster) { return l.source }

// sql is a load in SQL and psql's own commands, in the database postgres unless it says \c.
func sql(text string) func(*pgtest.Cluster) {
	return func(c *pgtest.Cluster) { c.SQL("postgres", text) }
}

func bench(args ...string) func(*pgtest.Cluster) {
	return func(c *pgtest.Cluster) { c.Pgbench(args...) }
}

// everything is all loads that need nothing special of the cluster. The checkpoint in the middle makes pages get their
// full images again, and gives the backward search one checkpoint too many.
var everything = []load{
	pgbench, indexTypes, rewrites, catalogs, createAndDrop, growAndShrink, rowLocks,
	{old: (*pgtest.Cluster).Checkpoint, source: (*pgtest.Cluster).Checkpoint},
	unlogged, sequences, largeObjects, toast, subtransactions, others, databases, twoPhase,
}

var pgbench = load{
	common: bench("-i", "-q", "-s", "2"),
	old:    bench("-c", "2", "-t", "400"),
	source: bench("-c", "2", "-t", "250"),
}

// indexTypes keeps every access method's pages busy: splits, deletions, recycling, GIN's pending list, BRIN's
// summaries; bloom stands for extensions that log by generic records.
var indexTypes = load{
	common: sql(`
		CREATE EXTENSION bloom;
		CREATE TABLE indexed (id int, word text, tags int[], place point);
		CREATE INDEX ON indexed USING btree (id);
		CREATE INDEX ON indexed USING btree (word);
		CREATE INDEX ON indexed USING hash (word);
		CREATE INDEX ON indexed USING gin (tags);
		CREATE INDEX ON indexed USING gist (place);
		CREATE INDEX ON indexed USING spgist (place);
		CREATE INDEX ON indexed USING spgist (word);
		CREATE INDEX ON indexed USING brin (id) WITH (pages_per_range = 2);
		CREATE INDEX ON indexed USING bloom (id);` + insertIndexed(1, 3000)),
	old: sql(insertIndexed(3001, 6000) + `
		UPDATE indexed SET word = word || 'old', place = place + point(1, 1) WHERE id % 3 = 0;
		DELETE FROM indexed WHERE id % 4 = 1 OR id BETWEEN 1000 AND 1800;
		VACUUM indexed;` + insertIndexed(6001, 7000)),
	source: sql(insertIndexed(3001, 5000) + `
		UPDATE indexed SET tags = tags || id, id = -id WHERE id % 5 = 0;
		DELETE FROM indexed WHERE id % 7 = 1 OR id BETWEEN 2000 AND 2400;
		VACUUM indexed;` + insertIndexed(8001, 9000)),
}

func insertIndexed(from, to int) string {
	return fmt.Sprintf(`
		INSERT INTO indexed SELECT i, md5(i::text), ARRAY[i %% 10, i %% 100, i], point(i %% 317, i %% 211)
		FROM generate_series(%d, %d) i;`, from, to)
}

// rewrites give relations new files, on either side and on both.
var rewrites = load{
	common: sql(`
		SELECT format('CREATE TABLE %I AS SELECT i AS id, repeat(md5(i::text), 5) AS t FROM generate_series(1, 600) i', name),
		       format('ALTER TABLE %I ADD PRIMARY KEY (id)', name)
		FROM (SELECT what || '_' || side AS name
		      FROM unnest(ARRAY['full', 'cluster', 'truncate', 'reindex']) what, unnest(ARRAY['old', 'source', 'both']) side) x
		\gexec`),
	old:    func(c *pgtest.Cluster) { rewriteTables(c, "old"); rewriteTables(c, "both") },
	source: func(c *pgtest.Cluster) { rewriteTables(c, "source"); rewriteTables(c, "both") },
}

func rewriteTables(c *pgtest.Cluster, side string) {
	c.SQL("postgres", strings.ReplaceAll(`
		DELETE FROM full_SIDE WHERE id % 2 = 0; VACUUM FULL full_SIDE; UPDATE full_SIDE SET t = 'SIDE' WHERE id % 5 = 0;
		UPDATE cluster_SIDE SET id = -id; CLUSTER cluster_SIDE USING cluster_SIDE_pkey; DELETE FROM cluster_SIDE WHERE id % 3 = 0;
		TRUNCATE truncate_SIDE; INSERT INTO truncate_SIDE SELECT i, 'SIDE' FROM generate_series(1, 50) i;
		UPDATE reindex_SIDE SET t = t || 'SIDE' WHERE id % 4 = 0; REINDEX TABLE reindex_SIDE;
	`, "SIDE", side))
}

// catalogs moves catalogs to other files, the mapped ones too: pg_filenode.map of the database, and that of global.
var catalogs = load{
	old:    sql(`VACUUM FULL pg_class; VACUUM FULL pg_database; REINDEX TABLE pg_attribute; ANALYZE;`),
	source: sql(`VACUUM FULL pg_proc; REINDEX TABLE pg_class; ANALYZE indexed;`),
}

// createAndDrop lets both sides give the same numbers to different tables.
var createAndDrop = load{
	common: sql(`
		CREATE TABLE dropped_by_old AS SELECT generate_series(1, 2000) i;
		CREATE TABLE dropped_by_source AS SELECT generate_series(1, 2000) i;
		CREATE TABLE dropped_by_both AS SELECT generate_series(1, 2000) i;`),
	old: sql(`
		DROP TABLE dropped_by_old, dropped_by_both;
		CREATE TABLE created_by_old (id serial PRIMARY KEY, t text);
		INSERT INTO created_by_old (t) SELECT md5(i::text) FROM generate_series(1, 3000) i;
		CREATE TABLE gone_again AS SELECT generate_series(1, 2000) i; DROP TABLE gone_again;
		BEGIN; CREATE TABLE never AS SELECT generate_series(1, 2000) i; ROLLBACK;
		CREATE TABLE created_by_both AS SELECT i, 'old' AS t FROM generate_series(1, 3000) i;`),
	source: sql(`
		DROP TABLE dropped_by_source, dropped_by_both;
		CREATE TABLE created_by_both AS SELECT i, 'source' AS t FROM generate_series(1, 1000) i;
		BEGIN; CREATE TABLE never AS SELECT generate_series(1, 2000) i; ROLLBACK;
		CREATE TABLE created_by_source (id serial PRIMARY KEY, t text);
		INSERT INTO created_by_source (t) SELECT md5(i::text) FROM generate_series(1, 2000) i;`),
}

// growAndShrink moves the ends of relations: by extension, and by vacuum's truncation.
var growAndShrink = load{
	common: sql(`
		SELECT format('CREATE TABLE %I AS SELECT i AS id, repeat(md5(i::text), 5) AS t FROM generate_series(1, 1500) i', name)
		FROM (SELECT what || '_' || side AS name
		      FROM unnest(ARRAY['grown', 'shrunk', 'crossed']) what, unnest(ARRAY['old', 'source', 'both']) side) x
		\gexec`),
	old: sql(grow("grown_old", 4000) + grow("grown_both", 3000) + shrink("shrunk_old", 100) + shrink("shrunk_both", 700) +
		// grown beyond the source's size, then back: the end of the file was written, and is not there any more
		grow("crossed_old", 3000) + shrink("crossed_old", 1400) + grow("crossed_source", 2000) + shrink("crossed_both", 300)),
	source: sql(grow("grown_source", 4000) + grow("grown_both", 4000) + shrink("shrunk_source", 100) + shrink("shrunk_both", 200) +
		shrink("crossed_old", 900) + shrink("crossed_source", 400) + grow("crossed_source", 800) + grow("crossed_both", 3000)),
}

func grow(table string, to int) string {
	return fmt.Sprintf("INSERT INTO %s SELECT i, repeat(md5(i::text), 5) FROM generate_series((SELECT max(id) + 1 FROM %[1]s), %d) i;\n", table, to)
}

func shrink(table string, to int) string {
	return fmt.Sprintf("DELETE FROM %s WHERE id > %d; VACUUM %[1]s;\n", table, to)
}

// rowLocks makes multixacts.
var rowLocks = load{
	common: sql(`CREATE TABLE locked AS SELECT i AS id, 0 AS n FROM generate_series(1, 500) i; ALTER TABLE locked ADD PRIMARY KEY (id);`),
	old:    sql(lockRows(1, 300)),
	source: sql(lockRows(200, 500)),
}

// lockRows locks each row by two subtransactions of one transaction: more than one locker is a multixact.
func lockRows(from, to int) string {
	return fmt.Sprintf(`
		BEGIN;
		SELECT count(*) FROM (SELECT 1 FROM locked WHERE id BETWEEN %d AND %d FOR KEY SHARE) x;
		SAVEPOINT a;
		UPDATE locked SET n = n + 1 WHERE id BETWEEN %[1]d AND %[2]d;
		SAVEPOINT b;
		SELECT count(*) FROM (SELECT 1 FROM locked WHERE id BETWEEN %[1]d AND %[2]d FOR UPDATE) x;
		COMMIT;`, from, to)
}

var unlogged = load{
	common: sql(`
		CREATE UNLOGGED TABLE unlogged_common (id serial PRIMARY KEY, t text);
		INSERT INTO unlogged_common (t) SELECT md5(i::text) FROM generate_series(1, 1000) i;
		CREATE UNLOGGED TABLE turned_logged AS SELECT generate_series(1, 1000) i;
		CREATE TABLE turned_unlogged AS SELECT generate_series(1, 1000) i;`),
	old: sql(`
		INSERT INTO unlogged_common (t) SELECT 'old' FROM generate_series(1, 3000) i;
		CREATE UNLOGGED TABLE unlogged_old (id serial PRIMARY KEY, t text);
		INSERT INTO unlogged_old (t) SELECT 'old' FROM generate_series(1, 1000) i;
		ALTER TABLE turned_logged SET LOGGED;`),
	source: sql(`
		INSERT INTO unlogged_common (t) SELECT 'source' FROM generate_series(1, 2000) i;
		CREATE UNLOGGED TABLE unlogged_source (id serial PRIMARY KEY, t text);
		INSERT INTO unlogged_source (t) SELECT 'source' FROM generate_series(1, 2000) i;
		ALTER TABLE turned_unlogged SET UNLOGGED;`),
}

var sequences = load{
	common: sql(`CREATE SEQUENCE counter; CREATE SEQUENCE cached CACHE 10; SELECT nextval('counter'), nextval('cached');`),
	old: sql(`SELECT count(nextval('counter')) FROM generate_series(1, 500); SELECT setval('cached', 7000);
		CREATE SEQUENCE counter_old; SELECT nextval('counter_old');`),
	source: sql(`SELECT count(nextval('counter')) FROM generate_series(1, 100); SELECT nextval('cached');
		ALTER SEQUENCE counter INCREMENT 3; SELECT nextval('counter');`),
}

var largeObjects = load{
	common: sql(`SELECT count(lo_from_bytea(50000 + i, decode(repeat(md5(i::text), 500), 'hex'))) FROM generate_series(1, 20) i;`),
	old: sql(`
		SELECT count(lo_put(50000 + i, 1000, decode(repeat('0d', 9000), 'hex'))) FROM generate_series(1, 10) i;
		SELECT count(lo_unlink(50000 + i)) FROM generate_series(11, 15) i;
		SELECT count(lo_from_bytea(60000 + i, decode(repeat('01', 20000), 'hex'))) FROM generate_series(1, 5) i;`),
	source: sql(`
		SELECT count(lo_put(50000 + i, 3000, decode(repeat('50', 9000), 'hex'))) FROM generate_series(5, 12) i;
		SELECT count(lo_unlink(50000 + i)) FROM generate_series(14, 18) i;
		SELECT count(lo_from_bytea(60000 + i, decode(repeat('02', 5000), 'hex'))) FROM generate_series(3, 9) i;`),
}

var toast = load{
	common: sql(`
		CREATE TABLE wide (id int PRIMARY KEY, t text);
		ALTER TABLE wide ALTER t SET STORAGE EXTERNAL;
		INSERT INTO wide SELECT i, repeat(md5(i::text), 400) FROM generate_series(1, 60) i;`),
	old: sql(`
		UPDATE wide SET t = repeat('old', 6000) WHERE id % 3 = 0; DELETE FROM wide WHERE id % 3 = 1; VACUUM wide;
		INSERT INTO wide SELECT i, repeat(md5(i::text), 900) FROM generate_series(100, 140) i;`),
	source: sql(`
		UPDATE wide SET t = t || t WHERE id % 4 = 0; DELETE FROM wide WHERE id % 5 = 1;
		INSERT INTO wide SELECT i, repeat(md5(i::text), 300) FROM generate_series(200, 220) i; VACUUM wide;`),
}

// subtransactions: more than the 64 a backend keeps in shared memory, so that assignments are logged; some of them
// rolled back, with the relations they made.
var subtransactions = load{
	common: sql(`CREATE TABLE nested (id int PRIMARY KEY, t text);`),
	old:    sql(nest("old", 300)),
	source: sql(nest("source", 200)),
}

func nest(side string, depth int) string {
	return fmt.Sprintf(`
		DO $$ BEGIN
			FOR i IN 1..%d LOOP
				BEGIN
					INSERT INTO nested VALUES (i, '%s');
					IF i %% 20 = 0 THEN EXECUTE format('CREATE TABLE nested_%[2]s_%%s AS SELECT generate_series(1, 100) i', i); END IF;
					IF i %% 40 = 0 THEN RAISE division_by_zero; END IF;
				EXCEPTION WHEN division_by_zero THEN NULL;
				END;
			END LOOP;
		END $$;
		BEGIN; INSERT INTO nested VALUES (-1, 'kept'); SAVEPOINT a; INSERT INTO nested VALUES (-2, 'lost'); SAVEPOINT b;
		TRUNCATE nested; ROLLBACK TO a; COMMIT;`, depth, side)
}

// others are what else writes WAL of its own kind: frozen and visible pages, materialised views, speculative
// insertions, multi-row inserts, logical messages, a segment ended early.
var others = load{
	common: sql(`
		CREATE MATERIALIZED VIEW summary AS SELECT id % 10 AS k, count(*) FROM indexed GROUP BY 1;
		CREATE TABLE upserts (k int PRIMARY KEY, n int);
		CREATE TABLE frozen AS SELECT generate_series(1, 3000) i;`),
	old: sql(`
		REFRESH MATERIALIZED VIEW summary;
		INSERT INTO upserts SELECT i, 1 FROM generate_series(1, 500) i;
		INSERT INTO upserts SELECT i, 1 FROM generate_series(400, 800) i ON CONFLICT (k) DO UPDATE SET n = upserts.n + 1;
		VACUUM (FREEZE) frozen; DELETE FROM frozen WHERE i < 100;
		SELECT pg_logical_emit_message(true, 'test', repeat('old', 10000)); SELECT pg_switch_wal();`),
	source: sql(`
		INSERT INTO upserts SELECT i, 2 FROM generate_series(300, 700) i ON CONFLICT DO NOTHING;
		UPDATE frozen SET i = -i WHERE i % 50 = 0; VACUUM (FREEZE) frozen;
		REFRESH MATERIALIZED VIEW summary; SELECT pg_switch_wal();
		SELECT pg_logical_emit_message(false, 'test', repeat('source', 1000));`),
}

// databases come and go by both strategies, of which 13 and 14 have one; the new ones of the two sides have the same
// numbers.
//
// On 13 and 14 the source leaves the template alone afterwards: replay copies its files as the rewind found them, with what
// came later, and nothing takes that away again. The same happens with stock, and to base backups. (What comes later for
// the file copy of 15 happens to write every page of it.)
var databases = load{
	common: sql(`
		CREATE DATABASE db_common;
		CREATE DATABASE db_dropped_by_old;
		CREATE DATABASE db_dropped_by_source;
		\c db_common
		CREATE TABLE t AS SELECT i AS id, md5(i::text) AS t FROM generate_series(1, 1000) i;`),
	old: strategies(`
		DROP DATABASE db_dropped_by_old;
		CREATE DATABASE db_old_log TEMPLATE db_common STRATEGY wal_log;
		CREATE DATABASE db_old_copy TEMPLATE db_common STRATEGY file_copy;
		CREATE DATABASE db_short_lived STRATEGY wal_log; DROP DATABASE db_short_lived;
		\c db_old_log
		DELETE FROM t WHERE id % 2 = 0; CREATE TABLE u AS SELECT generate_series(1, 1000) i;
		\c db_old_copy
		UPDATE t SET t = 'old'; VACUUM FULL t;
		\c db_common
		INSERT INTO t SELECT i, 'old' FROM generate_series(2000, 3000) i;`),
	source: func(c *pgtest.Cluster) {
		strategies(`
			DROP DATABASE db_dropped_by_source;
			CREATE DATABASE db_source_copy TEMPLATE db_common STRATEGY file_copy;
			CREATE DATABASE db_source_log TEMPLATE db_common STRATEGY wal_log;
			\c db_source_log
			DELETE FROM t WHERE id % 3 = 0; CREATE TABLE u AS SELECT generate_series(1, 500) i;
			\c db_source_copy
			UPDATE t SET t = 'source' WHERE id % 2 = 0;`)(c)
		if c.Env().Major >= 15 {
			c.SQL("db_common", "UPDATE t SET t = 'source' WHERE id > 700")
		}
	},
}

// strategies is sql without the word for what 13 and 14 cannot choose: they copy files.
func strategies(text string) func(*pgtest.Cluster) {
	return func(c *pgtest.Cluster) {
		if c.Env().Major < 15 {
			text = strings.NewReplacer(" STRATEGY wal_log", "", " STRATEGY file_copy", "").Replace(text)
		}
		c.SQL("postgres", text)
	}
}

// twoPhase leaves transactions prepared, before the divergence and after it. They have a database of their own: what
// they may still see, vacuum would keep in all tables.
var twoPhase = load{
	common: sql(`
		CREATE DATABASE db_two_phase;
		\c db_two_phase
		CREATE TABLE t (id int, t text);` +
		prepare("open") + prepare("ended by old") + prepare("ended by source") + prepare("ended by both")),
	old: sql(`
		\c db_two_phase
		COMMIT PREPARED 'ended by old'; ROLLBACK PREPARED 'ended by both';` +
		prepare("old") + prepare("old, ended") + `ROLLBACK PREPARED 'old, ended';` + prepare("both")),
	source: sql(`
		\c db_two_phase
		ROLLBACK PREPARED 'ended by source'; COMMIT PREPARED 'ended by both';` +
		prepare("source") + prepare("source, ended") + `COMMIT PREPARED 'source, ended';` + prepare("both")),
}

func prepare(name string) string {
	return fmt.Sprintf(`
		BEGIN; INSERT INTO t SELECT i, '%s' FROM generate_series(1, 100) i;
		SAVEPOINT a; CREATE TABLE "made by %[1]s" AS SELECT generate_series(1, 100) i; PREPARE TRANSACTION '%[1]s';`, name)
}

// tablespaces with tables, indexes and databases inside; and such that only one side has.
//
// The source moves no database: replay of that copies the database's old place over its new one, and the old place is
// gone, so whoever replays it after the fact is left with an empty database. The same happens to base backups and with
// stock.
var tablespaces = load{
	common: func(c *pgtest.Cluster) {
		c.Tablespace("ts_common")
		c.Tablespace("ts_emptied")
		c.SQL("postgres", `
			CREATE TABLE in_ts (id int PRIMARY KEY USING INDEX TABLESPACE ts_common, t text) TABLESPACE ts_common;
			INSERT INTO in_ts SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
			CREATE TABLE moved_by_old AS SELECT generate_series(1, 2000) i;
			CREATE TABLE moved_by_source TABLESPACE ts_emptied AS SELECT generate_series(1, 2000) i;
			CREATE DATABASE db_in_ts TABLESPACE ts_common;
			CREATE DATABASE db_moved TABLESPACE ts_common;
			\c db_in_ts
			CREATE TABLE t AS SELECT generate_series(1, 2000) i;`)
	},
	old: func(c *pgtest.Cluster) {
		c.PrivateTablespace("ts_old")
		c.PrivateTablespace("ts_source") // dropped again, but its directory is there for that of the source
		c.SQL("postgres", `
			DROP TABLESPACE ts_source;
			UPDATE in_ts SET t = 'old' WHERE id % 3 = 0; DELETE FROM in_ts WHERE id > 1500; VACUUM in_ts;
			ALTER TABLE moved_by_old SET TABLESPACE ts_old;
			CREATE TABLE in_ts_old TABLESPACE ts_old AS SELECT generate_series(1, 2000) i;
			CREATE DATABASE db_in_ts_old TABLESPACE ts_old;
			ALTER DATABASE db_moved SET TABLESPACE pg_default;
			\c db_in_ts
			INSERT INTO t SELECT generate_series(1, 2000) i;`)
	},
	source: func(c *pgtest.Cluster) {
		c.PrivateTablespace("ts_source")
		c.SQL("postgres", `
			UPDATE in_ts SET t = 'source' WHERE id % 2 = 0;
			ALTER TABLE moved_by_source SET TABLESPACE ts_common;
			DROP TABLESPACE ts_emptied;
			CREATE TABLE in_ts_source (id int PRIMARY KEY USING INDEX TABLESPACE ts_source, t text) TABLESPACE ts_source;
			INSERT INTO in_ts_source SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
			CREATE TABLE in_ts_common TABLESPACE ts_common AS SELECT generate_series(1, 2000) i;
			\c db_in_ts
			UPDATE t SET i = -i WHERE i % 2 = 0;`)
	},
}

// inPlace: tablespaces that are directories in pg_tblspc and no links, which are for tests.
var inPlace = load{
	old:    sql(createInPlace("old")),
	source: sql(createInPlace("source")),
}

func createInPlace(side string) string {
	return strings.ReplaceAll(`
		CREATE TABLESPACE in_place LOCATION ''; CREATE TABLE in_place TABLESPACE in_place AS SELECT 'SIDE' FROM generate_series(1, 2000);
		CREATE TABLESPACE in_place_SIDE LOCATION ''; CREATE TABLE in_place_SIDE TABLESPACE in_place_SIDE AS SELECT generate_series(1, 2000) i;`,
		"SIDE", side)
}

// dropNewTablespaces: a source directory on the same machine could only name its own.
func dropNewTablespaces(c *pgtest.Cluster) {
	c.SQL("postgres", `ALTER TABLE ALL IN TABLESPACE ts_source SET TABLESPACE pg_default;
		ALTER INDEX ALL IN TABLESPACE ts_source SET TABLESPACE pg_default;
		DROP TABLESPACE ts_source;`)
}

// largeRelations cross the border of a segment file, 131072 blocks: large_both before they part, the others on one side
// alone, large_source from next to nothing. A row fills a block, so that there is little WAL; see sparse for the rest.
// The old primary's vacuum takes large_both back below the border while the source goes on in it.
var largeRelations = load{
	common: func(c *pgtest.Cluster) {
		c.SQL("postgres", `
			CREATE TABLE large_both (id int, t text) WITH (fillfactor = 10);
			CREATE TABLE large_old (id int, t text) WITH (fillfactor = 10);
			CREATE TABLE large_source (id int, t text) WITH (fillfactor = 10);`)
		sparse(c, "large_both", "large_old")
		c.SQL("postgres", fill("large_both", 1, 200)+fill("large_old", 1, 5)+fill("large_source", 1, 10))
	},
	old: sql(`
		UPDATE large_both SET t = 'old' WHERE id % 10 = 0;
		DELETE FROM large_both WHERE id > 20; VACUUM large_both;` + fill("large_both", 1001, 1010) + fill("large_old", 6, 200)),
	source: sql(`
		UPDATE large_both SET t = 'source' WHERE id % 11 = 0;` + fill("large_both", 201, 300) + fill("large_source", 11, 131150)),
}

func fill(table string, from, to int) string {
	return fmt.Sprintf("INSERT INTO %s SELECT i, repeat(md5(i::text), 13) FROM generate_series(%d, %d) i;", table, from, to)
}

// sparse makes empty tables end 50 blocks before the border of a segment file. A page of zeros is a new page to
// PostgreSQL, and a hole in a file takes neither time nor space.
func sparse(c *pgtest.Cluster, tables ...string) {
	var paths []string
	for _, table := range tables {
		paths = append(paths, c.Path(c.Query("postgres", fmt.Sprintf("SELECT pg_relation_filepath('%s')", table))))
	}
	c.Stop(pgtest.Fast)
	for _, path := range paths {
		c.Env().MustExec(pgtest.Cmd{Path: "/usr/bin/truncate", Args: []string{"--size", fmt.Sprint((131072 - 50) * 8192), path}})
	}
	c.Start()
}
