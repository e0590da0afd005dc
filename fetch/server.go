package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Options are what Connect leaves to its caller.
type Options struct {
	// Conns is how many connections there may be at the same time, at least 1. Only the first is opened at once.
	Conns int
	// ProgramName becomes application_name unless the user chose one.
	ProgramName string
	// StallTimeout is how long a statement may give no byte before its connection is given up; 0 is
	// DefaultStallTimeout, negative is for ever. A listing has five times as long.
	StallTimeout time.Duration
	// RetryFor is how long a call goes on trying after its connection broke, without any progress; 0 or less gives up at
	// once. It starts when the break is noticed, and a last attempt may go beyond it by connect_timeout. Connect itself
	// never tries twice. DefaultRetryFor is a good value.
	RetryFor time.Duration
	// Event, unless nil, is told what happens to the connection, one event at a time, from any goroutine that is in a
	// method of the Server. It must not call methods other than Generation and ServerVersion.
	Event func(Event)
	// Debugf, unless nil, gets stock's debug messages, from several goroutines at once.
	Debugf func(format string, args ...any)
}

// Server is a source that is a running server, primary or standby. A role that is not a superuser needs EXECUTE on
// four functions, the same as for stock: pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
// pg_read_binary_file(text) and pg_read_binary_file(text, bigint, bigint, boolean).
type Server struct {
	pool     *pool
	settings settings
	user     string
	version  atomic.Int64
	debugf   func(format string, args ...any) // or nil

	retryFor    time.Duration
	listAnswer  int64         // bytes that one statement of a listing may give
	fetched     atomic.Bool   // a chunk has been given to a caller
	trip        atomic.Int64  // RoundTrip, in nanoseconds; 0 before the first
	bound       atomic.Uint64 // the greatest answer of PageBound
	event       func(Event)   // or nil
	telling     sync.Mutex
	toldWaiting atomic.Int64 // when a wait was last reported, in Unix nanoseconds; 0 since the last reconnection
}

// Connect opens the first connection to the server a libpq connection string describes, sets the session up, and
// makes sure that full_page_writes is on there.
func Connect(ctx context.Context, connString string, opts Options) (*Server, error) {
	set, err := parseConnString(connString, os.Getenv)
	if err != nil {
		return nil, err
	}
	hosts, err := set.hosts(opts.ProgramName)
	if err != nil {
		return nil, err
	}
	s := &Server{
		pool:     newPool(hosts, max(opts.Conns, 1)),
		settings: set,
		user:     hosts.list[0].config.User,
		debugf:   opts.Debugf,
		retryFor: opts.RetryFor,
		event:    opts.Event,

		listAnswer: maxListAnswer,
	}
	stall := opts.StallTimeout
	if stall == 0 {
		stall = DefaultStallTimeout
	}
	for _, h := range hosts.list {
		h.stall = max(stall, 0)
	}
	for _, text := range hosts.warnings {
		s.tell(Event{Kind: EventWarning, Text: text})
	}
	if err := s.with(ctx, func(*session) error { return nil }); err != nil {
		s.pool.close()
		return nil, err
	}
	return s, nil
}

// Close closes all connections. No other method may be running or called later.
func (s *Server) Close() error {
	s.pool.close()
	return nil
}

// ServerVersion is the server's server_version_num: 150018 for 15.18.
func (s *Server) ServerVersion() int { return int(s.version.Load()) }

// PrimaryConnInfo is the value for a standby's primary_conninfo that leads to this server: what the user gave in
// connection string, service file and environment, the password included, and the user in any case. Left out are what
// the standby sets itself (replication, fallback_application_name, up to 17 dbname), what it would have to look up on the
// machine we run on (service), what libpq of the server's major does not know (keyword.since), and libpq's own defaults,
// which stock writes too. lost names what was left out because libpq of that major does not know it: the standby's
// connection is not held to it. Whoever writes the value into a configuration file doubles quotes and backslashes.
func (s *Server) PrimaryConnInfo() (value string, lost []string) {
	return s.settings.primaryConnInfo(s.ServerVersion() / 10000)
}

// InRecovery reports whether the server is a standby.
func (s *Server) InRecovery(ctx context.Context) (bool, error) {
	v, err := s.value(ctx, "SELECT pg_catalog.pg_is_in_recovery()")
	if err != nil {
		return false, err
	}
	if len(v) != 1 {
		return false, fault.New("unexpected result set from query")
	}
	return v[0] != 0, nil
}

// FlushLSN is how far a primary's WAL is known to be on its disk. Every page that Fetch has given before has only
// changes before it. A standby refuses: its pg_control says how far it has come.
func (s *Server) FlushLSN(ctx context.Context) (pg.LSN, error) {
	v, err := s.value(ctx, "SELECT pg_catalog.pg_current_wal_flush_lsn()")
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fault.New("unrecognized result \"%x\" for current WAL flush location", v)
	}
	return pg.LSN(binary.BigEndian.Uint64(v)), nil
}

// value runs a statement that gives one value.
func (s *Server) value(ctx context.Context, sql string) ([]byte, error) {
	v, err := s.nullable(ctx, sql)
	if err == nil && v == nil {
		err = fault.New("unexpected result set from query")
	}
	return v, err
}

// ask runs use with a session until it succeeds, as persist does.
func (s *Server) ask(ctx context.Context, use func(*session) error) error {
	return s.persist(ctx, func() (bool, error) { return false, s.with(ctx, use) })
}

// nullable runs a statement that gives one value, or null, which is nil.
func (s *Server) nullable(ctx context.Context, sql string) (v []byte, err error) {
	err = s.ask(ctx, func(sess *session) error {
		sess.begin(smallAnswer, sess.stall)
		row, err := singleRow(ctx, sess.conn, sql, nil, nil)
		if err != nil {
			return s.queryFailed(ctx, err, "error running query (%s) on source server", sql)
		}
		if len(row) != 1 {
			return fault.New("unexpected result set from query")
		}
		v = row[0]
		return nil
	})
	return v, err
}

// ReadFile reads a small file whole, at most maxBytes (and MaxWholeFile) bytes.
func (s *Server) ReadFile(ctx context.Context, path string, maxBytes int64) ([]byte, error) {
	if err := VerifyPath(path); err != nil {
		return nil, err
	}
	maxBytes = max(min(maxBytes, MaxWholeFile), 0)
	var data []byte
	err := s.ask(ctx, func(sess *session) error {
		sess.begin(maxBytes, sess.stall)
		// The four-argument form, since only it can be told to stop: one byte more shows that there is more.
		row, err := singleRow(ctx, sess.conn, "SELECT pg_catalog.pg_read_binary_file($1, 0, $2, false)",
			[][]byte{[]byte(path), binary.BigEndian.AppendUint64(nil, uint64(maxBytes+1))}, []uint32{oidText, oidInt8})
		if err != nil {
			var pgErr *pgconn.PgError
			if errors.As(err, &pgErr) && pgErr.Code == codeUndefinedFile {
				err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
			}
			return s.queryFailed(ctx, err, "could not fetch remote file \"%s\"", path)
		}
		if len(row) != 1 || row[0] == nil {
			return fault.New("unexpected result set while fetching remote file \"%s\"", path)
		}
		if data = row[0]; int64(len(data)) > maxBytes {
			return fault.New("file \"%s\" is too large to be read whole", path).
				Advise("A file of its kind has at most %d bytes; in the source it has more.", maxBytes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.debugf != nil {
		s.debugf("fetched file \"%s\", length %d", path, len(data))
	}
	return data, nil
}

const (
	controlFile    = "global/pg_control"
	maxControlFile = 64 << 10 // bytes; every version's has 8192 so far, and a wrong size is the caller's to name

	controlTries = 10
	controlPause = 20 * time.Millisecond
)

// ControlFile reads global/pg_control. The server takes no lock against its own writing of the file, so a read can be
// torn; one whose checksum does not match is repeated a few times before it is given as it is.
func (s *Server) ControlFile(ctx context.Context) ([]byte, error) {
	for try := 1; ; try++ {
		data, err := s.ReadFile(ctx, controlFile, maxControlFile)
		if err != nil {
			return nil, err
		}
		if _, err := pg.DecodeControl(data); err == nil || try == controlTries {
			return data, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(controlPause):
		}
	}
}
