package pgtest

// Source says where a rewind takes its data from.
type Source struct{ flag, value string }

// FromDir is the data directory of a stopped cluster as source.
func FromDir(c *Cluster) Source { return Source{"--source-pgdata", c.DataDir()} }

// FromServer is a running server as source, over TCP as the superuser.
func FromServer(c *Cluster) Source { return FromConn(c.ConnString()) }

// FromConn is the server a connection string names.
func FromConn(conninfo string) Source { return Source{"--source-server", conninfo} }

// Rewind runs a program with pg_rewind's options on the cluster as target. It does not fail the test if the program
// fails: look at ExitCode, or call MustRewind.
func (c *Cluster) Rewind(program string, from Source, args ...string) *Result {
	c.env.tb.Helper()
	all := append([]string{"--target-pgdata", c.DataDir(), from.flag, from.value}, args...)
	return c.env.Exec(Cmd{Path: program, Args: all, Cluster: c})
}

// MustRewind is Rewind that has to succeed.
func (c *Cluster) MustRewind(program string, from Source, args ...string) *Result {
	c.env.tb.Helper()
	r := c.Rewind(program, from, args...)
	if r.ExitCode != 0 {
		c.env.tb.Fatalf("pgtest: rewinding %s: %s", c.Name, r)
	}
	return r
}

// StockRewind runs PostgreSQL's own pg_rewind on the cluster as target, which has to succeed.
func (c *Cluster) StockRewind(from Source, args ...string) *Result {
	c.env.tb.Helper()
	return c.MustRewind(c.env.Bin("pg_rewind"), from, args...)
}
