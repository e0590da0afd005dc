package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Generation is one start of one server: what the connections lead to. A source that restarts, or another server that
// takes its place, is a new generation.
type Generation struct {
	Number     int       // 1 for the one found by Connect
	Started    time.Time // when its postmaster started
	Host       string    // where it answered: "host:port", or the path of a socket
	SystemID   uint64    // 0 if the role may not read files, and then nothing else below is known
	TLI        pg.TLI    // its timeline (pg.Control.CurrentTLI) when the first connection to it was made
	InRecovery bool      // whether it was a standby then
	Elsewhere  bool      // its data directory is, or may be, another one than that of the generation before
}

// String says it in a line.
func (g Generation) String() string {
	role := "primary"
	if g.InRecovery {
		role = "standby"
	}
	if g.SystemID == 0 {
		role = "server"
	}
	return fmt.Sprintf("%s at %s, on timeline %d, started at %s", role, g.Host, g.TLI, g.Started.UTC().Format(time.RFC3339))
}

// SourceChangedError says that the server that answers now is not one whose files can be put beside those already
// fetched. Starting anew, from the listing on, can go on from there.
//
// With different timelines, the new server left the old one's history: blocks that were fetched may hold changes that it
// never had, and its replay will not touch them. With equal ones it is another server, and one of the two is or was a
// standby, which may not have received what the lost one had.
type SourceChangedError struct {
	Old, New pg.TLI
}

func (e *SourceChangedError) Error() string {
	if e.Old == e.New {
		return fmt.Sprintf("source server was replaced by another server on timeline %d", e.New)
	}
	return fmt.Sprintf("source server has changed from timeline %d to timeline %d", e.Old, e.New)
}

// errTwoServers: two servers answer at the same time.
var errTwoServers = errors.New("the connections lead to more than one server")

// identity is what tells a server from another, and from itself after a restart.
type identity struct {
	started    int64 // postmaster's start, in the server's microseconds: no two starts of any servers have the same, in practice
	dir        dirIdentity
	systemID   uint64
	tli        pg.TLI
	inRecovery bool
}

// dirIdentity tells a data directory from its copies. There is nothing in PostgreSQL that does. The change times are of
// files that stay as they are once the directory has been made; those of two copies are the same only if all of them were
// made in the same seconds, and then the place where the server answers has to tell. A directory whose owner was set anew,
// as some containers do when they start, or that has moved to another machine, looks like another one. For a primary that
// changes nothing; from a standby, the rewind has to be run again.
type dirIdentity struct {
	changed [3]int64 // of the files in identitySQL, in microseconds, to the second; 0 if there is none
	address string   // the server's own, empty for a socket
	host    *host
}

func (id identity) known() bool { return id.systemID != 0 }

// postgresEpoch is 2000-01-01, from which the server's timestamps count microseconds.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

const identitySQL = `SELECT pg_catalog.pg_read_binary_file('global/pg_control', 0, 8193, true),
  (pg_catalog.pg_stat_file('PG_VERSION', true)).change, (pg_catalog.pg_stat_file('base/1/PG_VERSION', true)).change,
  (pg_catalog.pg_stat_file('backup_label.old', true)).change, pg_catalog.host(pg_catalog.inet_server_addr()),
  pg_catalog.pg_is_in_recovery()`

// identify fills in what the server is. What the role may not see, or what the server will not say in a form we know,
// stays unknown: the questions that follow will fail with better words.
func (sess *session) identify(ctx context.Context) error {
	for try := 1; ; try++ {
		sess.begin(smallAnswer, sess.stall)
		row, err := singleRow(ctx, sess.conn, identitySQL, nil, nil)
		switch {
		case err != nil && !transient(err) && !sess.conn.IsClosed():
			return nil
		case err != nil:
			return err
		case len(row) != 6 || len(row[4]) > maxComponent || len(row[5]) != 1:
			return nil
		}
		for i, v := range row[1:4] {
			if len(v) == 8 {
				sess.id.dir.changed[i] = int64(binary.BigEndian.Uint64(v))
			}
		}
		sess.id.dir.address = string(row[4])
		c, err := pg.DecodeControl(row[0])
		if err == nil {
			sess.id.systemID, sess.id.tli, sess.id.inRecovery = c.SystemID, c.CurrentTLI(), row[5][0] != 0
			return nil
		}
		if try == controlTries { // not torn: of another form
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(controlPause):
		}
	}
}

// Generation tells what the connections lead to. It changes only while a call of another method is running.
func (s *Server) Generation() Generation {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	return s.pool.current
}

// admit decides whether a new session may be lent, and makes it the first of a new generation if it has to be. fetched
// says whether anything of an earlier generation has been given to the caller. stale are the idle sessions of the old one.
func (p *pool) admit(sess *session, at pin, fetched bool) (isNew bool, stale []*session, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sess.id.dir.host = at.host
	id, old := sess.id, p.id
	switch {
	case p.current.Number == 0: // the first of all
	case id.started == old.started:
		sess.generation = p.current.Number
		p.live++
		return false, nil, nil
	case p.former[id.started]:
		return false, nil, twoServers()
	case !id.known() || !old.known():
		return false, nil, fault.New("source server was restarted, or the connection leads to another server").
			Advise("Whether it is the same server cannot be told without the right to read files.").Ours()
	case id.systemID != old.systemID:
		return false, nil, fault.New("source server was replaced by one of another system").
			Advise("The system identifier was %d, that of the server that answers now is %d.", old.systemID, id.systemID).Ours()
	case id.tli != p.first.tli:
		return false, nil, sourceChanged(p.first.tli, id.tli)
	case id.dir == old.dir: // restarted; the lock on its directory says that the old postmaster is gone
	case p.live > 0:
		return false, nil, fault.Because(errTwoServers, "%s", twoServers().Text).Advise("%s", twoServers().Advice).Ours()
	case fetched && (id.inRecovery || old.inRecovery): // either may be behind the other
		return false, nil, sourceChanged(p.first.tli, id.tli)
	}
	if p.current.Number == 0 {
		p.first = id
	} else {
		p.former[old.started] = true
	}
	p.id = id
	p.current = Generation{
		Number:     p.current.Number + 1,
		Started:    postgresEpoch.Add(time.Duration(id.started) * time.Microsecond),
		Host:       at.String(),
		SystemID:   id.systemID,
		TLI:        id.tli,
		InRecovery: id.inRecovery,
		Elsewhere:  p.current.Number > 0 && id.dir != old.dir,
	}
	p.pinned = &at
	p.live, stale, p.idle = 1, p.idle, nil
	sess.generation = p.current.Number
	return p.current.Number > 1, stale, nil
}

func twoServers() *fault.Error {
	return fault.New("source server was restarted, or the connection leads to another server").
		Advise("All connections must lead to one running server. Connect to the server itself rather than to a balancer, and start again.").
		Ours()
}

func sourceChanged(before, after pg.TLI) error {
	e := &SourceChangedError{Old: before, New: after}
	return fault.Because(e, "%s", e).
		Advise("What was fetched before may hold changes that the new source does not have. Start again: it is then compared with the new source.").
		Ours()
}

// PageBound is an LSN that no page given by Fetch before this call is newer than: on a primary how far its WAL is
// flushed, since no page is written before its WAL; on a standby the minimum recovery point its control file has now,
// since no page is written before that. It never goes back. It may be asked at any time, and of a server that has been
// promoted meanwhile.
func (s *Server) PageBound(ctx context.Context) (pg.LSN, error) {
	for range controlTries {
		v, err := s.nullable(ctx, flushSQL)
		if err != nil {
			return 0, err
		}
		if v != nil {
			return s.raiseBound(v)
		}
		data, err := s.ControlFile(ctx)
		if err != nil {
			return 0, err
		}
		c, err := pg.DecodeControl(data)
		if err != nil {
			return 0, fault.Because(err, "%s", err.Error())
		}
		if c.State == pg.StateInArchiveRecovery && c.MinRecoveryPoint != 0 {
			return s.raise(c.MinRecoveryPoint), nil
		}
		// Promoted since the first question, or a standby that has not written a page yet.
		in, err := s.InRecovery(ctx)
		switch {
		case err != nil:
			return 0, err
		case in:
			return s.raise(c.CheckPoint), nil
		}
	}
	return 0, fault.New("source server does not say whether it is a primary or a standby")
}

const flushSQL = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END"

func (s *Server) raiseBound(v []byte) (pg.LSN, error) {
	if len(v) != 8 {
		return 0, fault.New("unrecognized result \"%x\" for current WAL flush location", v)
	}
	return s.raise(pg.LSN(binary.BigEndian.Uint64(v))), nil
}

// raise keeps the greatest bound of all generations.
func (s *Server) raise(lsn pg.LSN) pg.LSN {
	for {
		old := s.bound.Load()
		if uint64(lsn) <= old {
			return pg.LSN(old)
		}
		if s.bound.CompareAndSwap(old, uint64(lsn)) {
			return lsn
		}
	}
}
