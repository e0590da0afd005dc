package main

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// common is what all loads build on: pgbench's tables, and tables t1 to t8 with indexes and a sequence.
func (r *round) common(c *pgtest.Cluster) {
	c.Pgbench("-i", "-q", "-s", "1")
	c.SQL("postgres", `
		SELECT format('CREATE TABLE t%s (id serial PRIMARY KEY, word text, n int)', i) FROM generate_series(1, 8) i \gexec
		SELECT format('INSERT INTO t%s (word, n) SELECT md5(j::text), j FROM generate_series(1, %s) j', i, 200 * i * i)
		FROM generate_series(1, 8) i \gexec
		SELECT format('CREATE INDEX ON t%s (word)', i) FROM generate_series(1, 8) i \gexec
		CREATE TABLE pending (id int);
		CREATE UNLOGGED TABLE volatile AS SELECT generate_series(1, 500) i;
		CREATE SEQUENCE counter;
		CHECKPOINT`)
}

// loads puts n random loads on a server.
func (r *round) loads(c *pgtest.Cluster, n int) {
	for range n {
		r.load(c)
	}
}

// load puts one on it.
func (r *round) load(c *pgtest.Cluster) {
	switch k := r.rng.IntN(24); k {
	case 0, 1, 2:
		c.Pgbench("-n", "-c", "2", "-t", fmt.Sprint(20+r.rng.IntN(300)))
	case 3:
		c.Checkpoint()
	case 4:
		c.SQL("postgres", "SELECT pg_switch_wal()")
	default:
		db, sql := r.statements(k)
		c.SQL(db, sql)
	}
}

// statements are a load in SQL, and the database it is for.
func (r *round) statements(kind int) (db, sql string) {
	t := fmt.Sprintf("t%d", 1+r.rng.IntN(8))
	some := 2 + r.rng.IntN(9)
	name := r.name("x")
	db = "postgres"
	switch kind {
	case 5:
		sql = fmt.Sprintf("UPDATE %s SET word = word || 'u' WHERE id %% %d = 0", t, some)
	case 6:
		sql = fmt.Sprintf("DELETE FROM %s WHERE id %% %d = 0; VACUUM %[1]s", t, some)
	case 7:
		sql = fmt.Sprintf("DELETE FROM %s WHERE n > %d; VACUUM %[1]s", t, r.rng.IntN(3000)) // the table's end is cut off
	case 8:
		sql = fmt.Sprintf("TRUNCATE %s; INSERT INTO %[1]s (word, n) SELECT md5(j::text), j FROM generate_series(1, %d) j", t, r.rng.IntN(3000))
	case 9:
		sql = fmt.Sprintf("VACUUM FULL %s", t)
	case 10:
		sql = fmt.Sprintf("CLUSTER %s USING %[1]s_pkey; REINDEX TABLE %[1]s", t)
	case 11:
		sql = fmt.Sprintf("INSERT INTO %s (word, n) SELECT repeat(md5(j::text), %d), j FROM generate_series(1, %d) j", t, some, 1000+r.rng.IntN(20000))
	case 12:
		sql = fmt.Sprintf("CREATE TABLE %s AS SELECT j AS id, md5(j::text) AS w FROM generate_series(1, %d) j; CREATE INDEX ON %[1]s (w)", name, 100*some*some)
	case 13:
		sql = dropSome("x%", r.rng.IntN(1000), "DROP TABLE %I")
	case 14:
		sql = fmt.Sprintf("BEGIN; CREATE TABLE %s AS SELECT generate_series(1, 3000) i; DELETE FROM %s; ROLLBACK", name, t)
	case 15:
		sql = "CREATE DATABASE d" + name + oneOf(r, "", " STRATEGY file_copy")
	case 16:
		sql = fmt.Sprintf(`SELECT format('DROP DATABASE %%I', datname) FROM pg_database WHERE datname LIKE 'dx%%'
			ORDER BY md5(datname || '%d') LIMIT 1 \gexec`, r.rng.IntN(1000))
	case 17:
		sql = fmt.Sprintf("BEGIN; INSERT INTO pending VALUES (%d); PREPARE TRANSACTION '%s'", some, name)
		if r.oneIn(2) {
			sql += fmt.Sprintf("; %s PREPARED '%s'", oneOf(r, "COMMIT", "ROLLBACK"), name)
		}
	case 18:
		sql = fmt.Sprintf("SELECT count(nextval('counter')) FROM generate_series(1, %d); ALTER SEQUENCE counter INCREMENT %d", 10*some, some)
	case 19:
		sql = fmt.Sprintf(`SELECT lo_from_bytea(0, decode(repeat(md5('%s'), %d), 'hex'));
			SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata ORDER BY oid LIMIT 1) x`, name, 100*some)
	case 20:
		sql = fmt.Sprintf("BEGIN; SAVEPOINT a; SELECT count(*) FROM (SELECT 1 FROM %s FOR SHARE) x; SAVEPOINT b; UPDATE %[1]s SET n = n + 1 WHERE id %% %d = 1; ROLLBACK TO b; COMMIT", t, some)
	case 21:
		sql = oneOf(r, "VACUUM FULL pg_class", "VACUUM FULL pg_database", "REINDEX TABLE pg_attribute", "ANALYZE", "VACUUM")
	case 22:
		sql = fmt.Sprintf("ALTER TABLE %s SET TABLESPACE %s", t, r.tablespace())
	default:
		sql = fmt.Sprintf("CREATE TABLE %s (i int, t text) TABLESPACE %s; INSERT INTO %[1]s SELECT j, repeat('y', 200) FROM generate_series(1, %[3]d) j; TRUNCATE volatile; INSERT INTO volatile VALUES (1)",
			name, r.tablespace(), 300*some)
	}
	return db, sql
}

// tablespace is one of those there are.
func (r *round) tablespace() string {
	if strings.Contains(r.story(), "tablespace") {
		return oneOf(r, "pg_default", "elsewhere")
	}
	return "pg_default"
}

func dropSome(like string, seed int, statement string) string {
	return fmt.Sprintf(`SELECT format('%s', relname) FROM pg_class WHERE relkind = 'r' AND relname LIKE '%s' AND relnamespace = 'public'::regnamespace
		ORDER BY md5(relname || '%d') LIMIT 2 \gexec`, statement, like, seed)
}

// meanwhile puts a load on a server that may be stopped, or killed, under it. The channel is closed when it has ended.
func meanwhile(c *pgtest.Cluster, sql string) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.TrySQL("postgres", sql) // it ends with the server
	}()
	return ended
}

// signals end a rewind.
var signals = []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}
