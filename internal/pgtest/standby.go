package pgtest

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Standby makes a streaming standby of the running server c by pg_basebackup, not started yet. Tablespaces get
// directories of the standby's own.
func (c *Cluster) Standby(name string) *Cluster {
	c.env.tb.Helper()
	s := c.env.newCluster(name)
	args := append(c.conn(), "-D", s.DataDir(), "-X", "stream", "-c", "fast", "--no-sync")
	for _, from := range c.sharedTablespaces() {
		args = append(args, "-T", from+"="+filepath.Join(s.tsDir(), filepath.Base(from)))
	}
	c.env.MustExec(Cmd{Path: "pg_basebackup", Args: args, Cluster: s})
	s.Follow(c)
	return s
}

// Follow makes the stopped cluster c a standby of primary from its next start on: standby.signal, and primary_conninfo
// at the end of postgresql.auto.conf, where it wins over what was there. A rewind with -R makes that call unnecessary.
func (c *Cluster) Follow(primary *Cluster) {
	c.env.tb.Helper()
	c.appendFile("postgresql.auto.conf", []string{
		fmt.Sprintf("primary_conninfo = 'host=%s port=%d user=%s'", primary.SocketDir(), primary.Port, Superuser),
	})
	c.env.WriteFile(c.Path("standby.signal"), nil, 0o600)
}

// Promote makes the running standby a primary and waits until it is one. The checkpoint that PostgreSQL writes
// afterwards is not waited for: call Checkpoint, or see PromoteWithoutCheckpoint.
func (c *Cluster) Promote() {
	c.env.tb.Helper()
	if got := c.Query("postgres", fmt.Sprintf("SELECT pg_promote(true, %d)", int(c.env.timeout.Seconds()))); got != "t" {
		c.env.tb.Fatalf("pgtest: promoting %s: pg_promote says %q\n%s", c.Name, got, c.logTail(40))
	}
}

// PromoteWithoutCheckpoint promotes with the checkpointer frozen (until Thaw): pg_control stays that of the standby,
// on the old timeline, as it is on a busy system for minutes. The promotion of 19 waits for all processes, so there the
// checkpointer is frozen a moment later, in a checkpoint that takes 100 ms for each page the standby has changed since its
// last: let it replay something before.
func (c *Cluster) PromoteWithoutCheckpoint() {
	c.env.tb.Helper()
	before := c.Timeline()
	if c.env.Major < 19 {
		c.Freeze("checkpointer")
		c.Promote()
	} else {
		c.Promote()
		c.Freeze("checkpointer")
	}
	if now := c.Timeline(); now != before {
		c.env.tb.Fatalf("pgtest: %s has had its checkpoint on timeline %d", c.Name, now)
	}
}

// LSN is how far the server's WAL is: the insert position of a primary, the replay position of a standby.
func (c *Cluster) LSN() string {
	c.env.tb.Helper()
	return c.Query("postgres", "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END")
}

// FlushWAL makes everything c has logged so far durable and visible to standbys: an aborted or asynchronous
// transaction's records may otherwise stay in memory.
func (c *Cluster) FlushWAL() {
	c.env.tb.Helper()
	c.SQL("postgres", "SELECT pg_logical_emit_message(true, 'pgtest', '')")
}

// WaitReplay waits until standby has replayed everything c has logged (or, itself a standby, replayed).
func (c *Cluster) WaitReplay(standby *Cluster) {
	c.env.tb.Helper()
	lsn := c.recordEnd(c.LSN())
	c.env.poll(fmt.Sprintf("%s to replay up to %s of %s", standby.Name, lsn, c.Name), func() bool {
		standby.mustRun()
		return standby.Query("postgres", fmt.Sprintf("SELECT pg_last_wal_replay_lsn() >= '%s'", lsn)) == "t"
	})
}

// recordEnd takes back the page header that the insert position has already stepped over when a record, or a switch of
// segments, has ended at a page's end: the replay position stays before it until the next record comes. Nothing ends at
// that place of a page, for the rest of a record takes at least 8 bytes there.
func (c *Cluster) recordEnd(lsn string) string {
	c.env.tb.Helper()
	var high, low uint32
	if n, err := fmt.Sscanf(lsn, "%X/%X", &high, &low); n != 2 || err != nil {
		c.env.tb.Fatalf("pgtest: %s says its LSN is %q", c.Name, lsn)
	}
	const page, shortHeader, longHeader = 8192, 24, 40 // of xlog_internal.h
	switch {
	case low%c.Control().SegSize == longHeader:
		low -= longHeader
	case low%page == shortHeader:
		low -= shortHeader
	}
	return fmt.Sprintf("%X/%X", high, low)
}

// WaitStreaming waits until standby streams from c.
func (c *Cluster) WaitStreaming(standby *Cluster) {
	c.env.tb.Helper()
	c.env.poll(fmt.Sprintf("%s to stream from %s", standby.Name, c.Name), func() bool {
		standby.mustRun()
		return c.Query("postgres", fmt.Sprintf(
			"SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = '%s' AND state = 'streaming'", standby.Name)) == "t"
	})
}

// mustRun ends a wait that has become pointless because the server ended.
func (c *Cluster) mustRun() {
	c.env.tb.Helper()
	if !c.Running() {
		c.env.tb.Fatalf("pgtest: %s is not running\n%s", c.Name, c.logTail(40))
	}
}

// Timeline is the timeline the server writes or replays, by its newest checkpoint (pg_control).
func (c *Cluster) Timeline() uint32 {
	c.env.tb.Helper()
	return c.Control().TimeLineID
}

// Setting is a configuration parameter's value as the server shows it.
func (c *Cluster) Setting(name string) string {
	c.env.tb.Helper()
	return strings.TrimSpace(c.Query("postgres", "SHOW "+name))
}
