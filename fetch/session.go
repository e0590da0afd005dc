package fetch

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

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

// binaryResult asks for all columns in binary.
var binaryResult = []int16{1}

// session is one connection, set up. One goroutine uses it at a time.
type session struct {
	conn   *pgconn.PgConn
	chunks *pgconn.StatementDescription
	// started is when its server's postmaster started, in the server's microseconds: no two starts of any servers
	// have the same, in practice.
	started int64
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

// setUp prepares a fresh connection for use. s.user is known.
func (s *Server) setUp(ctx context.Context, conn *pgconn.PgConn) (*session, error) {
	version, ok := parseVersion(conn.ParameterStatus("server_version"))
	if !ok {
		return nil, fault.New("unrecognized server version \"%s\"", conn.ParameterStatus("server_version"))
	}
	s.version.Store(int64(version))

	var b strings.Builder
	b.WriteString("SELECT pg_catalog.current_setting('full_page_writes'), pg_catalog.pg_postmaster_start_time()")
	for _, set := range sessionSettings {
		if version/10000 >= set.since {
			fmt.Fprintf(&b, ", pg_catalog.set_config('%s', '%s', false)", set.name, set.value)
		}
	}
	row, err := singleRow(ctx, conn, b.String(), nil, nil)
	if err != nil {
		return nil, s.queryFailed(ctx, err, "error running query (%s) in source server", b.String())
	}
	if len(row) < 2 || len(row[1]) != 8 {
		return nil, fault.New("unexpected result set from query")
	}
	// A page can be torn when it is read while it is written. Replay repairs it, but only with full-page images.
	if string(row[0]) != "on" {
		return nil, fault.New("full_page_writes must be enabled in the source server").
			Advise("It is %q there. Set it to on, reload, and start again.", row[0])
	}
	started := int64(binary.BigEndian.Uint64(row[1]))

	chunks, err := conn.Prepare(ctx, "fetch_chunks", chunksSQL, []uint32{oidTextArray, oidInt8Array, oidInt4Array})
	if err != nil {
		return nil, s.queryFailed(ctx, err, "could not prepare statement to fetch file contents")
	}
	if err := checkChunkFields(chunks.Fields); err != nil {
		return nil, err
	}
	return &session{conn: conn, chunks: chunks, started: started}, nil
}

// singleRow runs a statement that must give one row and returns a copy of it.
func singleRow(ctx context.Context, conn *pgconn.PgConn, sql string, params [][]byte, oids []uint32) ([][]byte, error) {
	formats := make([]int16, len(params))
	for i := range formats {
		formats[i] = 1
	}
	result := conn.ExecParams(ctx, sql, params, oids, formats, binaryResult).Read()
	if result.Err != nil {
		return nil, result.Err
	}
	if len(result.Rows) != 1 {
		return nil, fault.New("unexpected result set from query")
	}
	return result.Rows[0], nil
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
