package fetch

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// The types of our results (pg_type.dat).
const (
	oidBytea = 17
	oidInt8  = 20
	oidInt4  = 23
	oidText  = 25
)

// smallAnswer is room for the answer to any question about the server itself, in bytes.
const smallAnswer = 64 << 10

// binaryResult asks for all columns in binary.
var binaryResult = []int16{1}

// session is one connection, set up. One goroutine uses it at a time.
type session struct {
	conn       *pgconn.PgConn
	net        *watchedConn // below conn
	aside      *asideReader // above it, and below conn
	stall      time.Duration
	chunks     *pgconn.StatementDescription
	id         identity
	generation int // Generation.Number
}

// begin starts a statement whose answer may have some bytes, with a limit of time for each wait. Without it, or
// beyond it, the connection is given up.
func (sess *session) begin(answer int64, limit time.Duration) {
	sess.net.begin(answer, limit)
	sess.aside.aside.Store(0)
}

// sessionSettings are made once for each session, as stock does, and for two reasons more: a session that waits for
// its turn must not be ended, and a listing must not be compiled or spilled to the source's disk.
var sessionSettings = []struct {
	name, value string
	since       int // major
}{
	{"statement_timeout", "0", 0},
	{"lock_timeout", "0", 0},
	{"idle_in_transaction_session_timeout", "0", 0},
	{"idle_session_timeout", "0", 14},
	{"transaction_timeout", "0", 17},
	{"default_transaction_read_only", "on", 0}, // to keep us honest
	{"search_path", "", 0},
	{"jit", "off", 0},
	{"work_mem", "64MB", 0},
}

// setUp prepares a fresh connection for use, and finds out whose it is. s.user is known.
func (s *Server) setUp(ctx context.Context, sess *session) error {
	conn := sess.conn
	sess.begin(smallAnswer, sess.stall)
	version, ok := parseVersion(conn.ParameterStatus("server_version"))
	if !ok {
		return fault.New("unrecognized server version \"%s\"", printableLine(conn.ParameterStatus("server_version")))
	}
	s.version.Store(int64(version))

	var b strings.Builder
	b.WriteString("SELECT pg_catalog.current_setting('full_page_writes'), pg_catalog.pg_postmaster_start_time()")
	for _, set := range sessionSettings {
		if version/10000 >= set.since {
			fmt.Fprintf(&b, ", pg_catalog.set_config('%s', '%s', false)", set.name, set.value)
		}
	}
	began := time.Now()
	row, err := singleRow(ctx, conn, b.String(), nil, nil)
	if err != nil {
		return s.queryFailed(ctx, err, "error running query (%s) in source server", b.String())
	}
	began = s.noteTrip(began)
	if len(row) < 2 || len(row[1]) != 8 {
		return fault.New("unexpected result set from query")
	}
	// A page can be torn when it is read while it is written. Replay repairs it, but only with full-page images.
	if string(row[0]) != "on" {
		return fault.New("full_page_writes must be enabled in the source server").
			Advise("It is %q there. Set it to on, reload, and start again.", row[0][:min(len(row[0]), 64)])
	}
	sess.id.started = int64(binary.BigEndian.Uint64(row[1]))

	chunks, err := conn.Prepare(ctx, "fetch_chunks", chunksSQL, []uint32{oidTextArray, oidInt8Array, oidInt4Array})
	if err != nil {
		return s.queryFailed(ctx, err, "could not prepare statement to fetch file contents")
	}
	if err := checkChunkFields(chunks.Fields); err != nil {
		return err
	}
	sess.chunks = chunks
	began = s.noteTrip(began)
	if err := sess.identify(ctx); err != nil {
		return s.queryFailed(ctx, err, "could not fetch remote file \"%s\"", controlFile)
	}
	s.noteTrip(began)
	return nil
}

// noteTrip takes note of how long a statement took that began when it says, and gives the time now.
func (s *Server) noteTrip(began time.Time) time.Time {
	now := time.Now()
	took := now.Sub(began).Nanoseconds()
	for {
		least := s.trip.Load()
		if least != 0 && least <= took || s.trip.CompareAndSwap(least, took) {
			return now
		}
	}
}

// RoundTrip is the least time that a statement with a small answer has taken: a round trip, and what the server needs
// for a simple statement, some tenths of a millisecond.
func (s *Server) RoundTrip() time.Duration { return time.Duration(s.trip.Load()) }

// singleRow runs a statement that must give one row and returns a copy of it.
func singleRow(ctx context.Context, conn *pgconn.PgConn, sql string, params [][]byte, oids []uint32) ([][]byte, error) {
	formats := make([]int16, len(params))
	for i := range formats {
		formats[i] = 1
	}
	qctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := conn.ExecParams(qctx, sql, params, oids, formats, binaryResult)
	var row [][]byte
	rows := 0
	for result.NextRow() {
		if rows++; rows > 1 {
			cancel() // rather than read how many there are
			break
		}
		for _, v := range result.Values() {
			row = append(row, bytes.Clone(v))
		}
	}
	_, err := result.Close()
	switch {
	case rows > 1:
		return nil, fault.New("unexpected result set from query")
	case err != nil:
		return nil, err
	case rows != 1:
		return nil, fault.New("unexpected result set from query")
	}
	return row, nil
}

// parseVersion turns the server_version a server reports into server_version_num's form: "15.18 (Debian …)" is 150018,
// "19beta1" is 190000.
func parseVersion(v string) (int, bool) {
	var major, minor int
	if n, _ := fmt.Sscanf(v, "%d.%d", &major, &minor); n < 1 || major < 10 || major > 1000 || minor < 0 || minor > 9999 {
		return 0, false
	}
	return major*10000 + minor, true
}
