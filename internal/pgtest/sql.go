package pgtest

import (
	"fmt"
	"strings"
)

// SQL runs statements in a database, each in a transaction of its own unless they say otherwise, and fails the test at
// the first error.
func (c *Cluster) SQL(db, sql string) {
	c.env.tb.Helper()
	c.Query(db, sql)
}

// Query is SQL that returns what the statements print: rows as lines, columns separated by |, no final newline.
func (c *Cluster) Query(db, sql string) string {
	c.env.tb.Helper()
	r := c.psql(db, sql)
	if r.ExitCode != 0 {
		c.env.tb.Fatalf("pgtest: SQL on %s failed: %s\n%s\n%s", c.Name, sql, r.Stderr, c.logTail(20))
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// TrySQL runs statements that may fail; the error is the server's message.
func (c *Cluster) TrySQL(db, sql string) (string, error) {
	c.env.tb.Helper()
	r := c.psql(db, sql)
	if r.ExitCode != 0 {
		return r.Stdout, fmt.Errorf("%s: %s", c.Name, strings.TrimSpace(r.Stderr))
	}
	return strings.TrimSuffix(r.Stdout, "\n"), nil
}

func (c *Cluster) psql(db, sql string) *Result {
	c.env.tb.Helper()
	return c.env.Exec(Cmd{Path: "psql", Stdin: strings.NewReader(sql), Args: []string{
		"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", c.SocketDir(), "-p", fmt.Sprint(c.Port), "-U", Superuser, "-d", db, "-f", "-",
	}})
}

// conn are the arguments by which PostgreSQL's client programs find the server.
func (c *Cluster) conn() []string {
	return []string{"-h", c.SocketDir(), "-p", fmt.Sprint(c.Port), "-U", Superuser}
}

// Pgbench runs pgbench on the database postgres with further arguments: "-i", "-s", "10", or "-T", "5", "-c", "4".
func (c *Cluster) Pgbench(args ...string) *Result {
	c.env.tb.Helper()
	return c.env.MustExec(Cmd{Path: "pgbench", Args: append(append(c.conn(), args...), "postgres")})
}

// Checkpoint writes a checkpoint (a restartpoint on a standby).
func (c *Cluster) Checkpoint() {
	c.env.tb.Helper()
	c.SQL("postgres", "CHECKPOINT")
}

// Databases are the names of all databases that allow connections, sorted.
func (c *Cluster) Databases() []string {
	c.env.tb.Helper()
	return strings.Split(c.Query("postgres", `SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname COLLATE "C"`), "\n")
}

// AmCheck verifies heaps and btree indexes of all databases with pg_amcheck, including that every heap tuple is in
// its indexes, and fails the test at any complaint. A standby cannot install the extension it needs: call
// InstallAmCheck on the primary before.
func (c *Cluster) AmCheck() {
	c.env.tb.Helper()
	if c.env.Major < 14 {
		c.indexCheck()
		return
	}
	args := append(c.conn(), "--all", "--heapallindexed", "--jobs", "2")
	if c.InRecovery() {
		for _, db := range c.Databases() {
			if c.Query(db, "SELECT 1 FROM pg_extension WHERE extname = 'amcheck'") == "" {
				c.env.tb.Fatalf("pgtest: database %q of the standby %s lacks amcheck: call InstallAmCheck on the primary before", db, c.Name)
			}
		}
	} else {
		args = append(args, "--install-missing")
	}
	// Notices that the extension exists already are no complaints.
	r := c.env.MustExec(Cmd{Path: "pg_amcheck", Args: args, Env: []string{"PGOPTIONS=-c client_min_messages=warning"}})
	if r.Stdout != "" || r.Stderr != "" {
		c.env.tb.Fatalf("pgtest: pg_amcheck complains: %s", r)
	}
}

// indexCheck is what 13 has of pg_amcheck: its indexes, and that every heap tuple is in them.
func (c *Cluster) indexCheck() {
	c.env.tb.Helper()
	for _, db := range c.Databases() {
		c.SQL(db, `
			SELECT bt_index_check(i.indexrelid, true)
			FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
			WHERE a.amname = 'btree' AND i.indisready AND i.indisvalid AND c.relpersistence = 'p'`)
	}
}

// InstallAmCheck makes the extension amcheck in every database, and in template1 for databases to come.
func (c *Cluster) InstallAmCheck() {
	c.env.tb.Helper()
	for _, db := range c.Databases() {
		c.SQL(db, "SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS amcheck")
	}
}

// Checksums verifies every block of the stopped cluster with pg_checksums, and fails the test if one is wrong. The
// cluster must have checksums.
func (c *Cluster) Checksums() {
	c.env.tb.Helper()
	c.env.MustExec(Cmd{Path: "pg_checksums", Args: []string{"--check", "-D", c.DataDir()}, Cluster: c})
}

// InRecovery reports whether the server is a standby.
func (c *Cluster) InRecovery() bool {
	c.env.tb.Helper()
	return c.Query("postgres", "SELECT pg_is_in_recovery()") == "t"
}
