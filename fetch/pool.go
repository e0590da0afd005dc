package fetch

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// pool lends a fixed number of sessions. They are opened when there is no idle one, and all lead to the server the
// first one found.
//
// It is not pgxpool, because a Server wants less and needs something else: no statement cache, type map, health checks
// or lifetimes, but every session at the same start of the same server, or none.
type pool struct {
	lent  chan struct{} // has an element for each session that is lent; its capacity is how many there may be
	hosts *hosts

	mu      sync.Mutex
	idle    []*session // the one used last is at the end, and is used next
	live    int        // sessions, idle and lent
	pinned  *pin
	closing []<-chan struct{} // of sessions given up: closed when nothing of them is left
}

// pin is the server all sessions must lead to.
type pin struct {
	host    *host
	address string // ip:port, or empty for a socket
	started int64
}

func newPool(hosts *hosts, conns int) *pool {
	return &pool{lent: make(chan struct{}, conns), hosts: hosts}
}

// size is how many sessions there may be.
func (p *pool) size() int { return cap(p.lent) }

// with runs use with a session of its own. If the session is unusable afterwards, the next user gets another.
func (s *Server) with(ctx context.Context, use func(*session) error) error {
	p := s.pool
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		select {
		case p.lent <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		sess := p.takeIdle()
		if sess == nil {
			var err error
			if sess, err = s.open(ctx); err != nil {
				if p.makeDo(err) {
					continue // with one session less: its place stays taken for good
				}
				<-p.lent
				return err
			}
		}
		defer func() { <-p.lent }()
		defer p.putBack(sess)
		return use(sess)
	}
}

// makeDo reports whether a session that could not be had is to be done without: the server, or the role, has no
// connection left to give, and we have at least one.
func (p *pool) makeDo(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != codeTooManyConnections {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live > 0
}

func (p *pool) takeIdle() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	sess := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return sess
}

func (p *pool) putBack(sess *session) {
	if sess.conn.IsClosed() || sess.conn.IsBusy() {
		p.mu.Lock()
		p.live--
		p.mu.Unlock()
		p.giveUp(sess.conn)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, sess)
}

// giveUp closes a connection, or remembers to wait for it: pgconn closes in the background what a context or an error
// ended.
func (p *pool) giveUp(conn *pgconn.PgConn) {
	if !conn.IsClosed() {
		closeConn(conn)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = append(p.closing, conn.CleanupDone())
}

// close closes all sessions and waits until nothing is left of those given up. None is lent.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sess := range p.idle {
		closeConn(sess.conn)
	}
	for _, done := range p.closing {
		<-done // pgconn bounds it
	}
	p.idle, p.closing = nil, nil
}

func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // whether the server takes note of our leaving changes nothing
}

// open makes a new session.
func (s *Server) open(ctx context.Context) (*session, error) {
	sess, err := s.openPinned(ctx)
	if err == nil {
		s.pool.mu.Lock()
		s.pool.live++
		s.pool.mu.Unlock()
	}
	return sess, err
}

func (s *Server) openPinned(ctx context.Context) (*session, error) {
	p := s.pool
	p.mu.Lock()
	pinned := p.pinned
	p.mu.Unlock()
	if pinned == nil {
		return s.openAny(ctx)
	}
	conn, _, err := pinned.host.connect(ctx, pinned.address, nil)
	if err != nil {
		return nil, connectFailed(ctx, []error{err})
	}
	sess, err := s.setUp(ctx, conn)
	if err != nil {
		p.giveUp(conn)
		return nil, err
	}
	if sess.started != pinned.started {
		p.giveUp(conn)
		return nil, fault.New("source server was restarted, or the connection leads to another server").
			Advise("All connections must lead to one running server, whose postmaster does not restart in between. " +
				"Connect to the server itself rather than to a balancer, and start again.")
	}
	return sess, nil
}

// openAny makes the first session: it tries the hosts in their order, as libpq does, and pins the one it found.
func (s *Server) openAny(ctx context.Context) (*session, error) {
	p := s.pool
	validations := []pgconn.ValidateConnectFunc{nil}
	if p.hosts.preferStandby {
		validations = []pgconn.ValidateConnectFunc{pgconn.ValidateConnectTargetSessionAttrsStandby, nil}
	}
	var errs []error
	for _, validate := range validations {
		errs = nil
		for _, h := range p.hosts.list {
			conn, address, err := h.connect(ctx, "", validate)
			if err == nil {
				sess, err := s.setUp(ctx, conn)
				if err != nil {
					p.giveUp(conn)
					return nil, err
				}
				p.mu.Lock()
				p.pinned = &pin{host: h, address: address, started: sess.started}
				p.mu.Unlock()
				return sess, nil
			}
			errs = append(errs, err)
			// A server that answers and refuses us ends the search, unless it is only starting up.
			var pgErr *pgconn.PgError
			if errors.As(err, &pgErr) && pgErr.Code != codeCannotConnectNow {
				return nil, connectFailed(ctx, errs)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return nil, connectFailed(ctx, errs)
}

// connect opens one connection to the host, at the given address only unless it is empty, and tells at which.
func (h *host) connect(ctx context.Context, only string, validate pgconn.ValidateConnectFunc) (*pgconn.PgConn, string, error) {
	cfg, tries := h.prepare(only)
	if validate != nil {
		cfg.ValidateConnect = validate
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, "", fault.Because(err, "%s", h.connectText(err, tries))
	}
	tries.mu.Lock()
	defer tries.mu.Unlock()
	last := tries.list[len(tries.list)-1]
	if last.network == "unix" {
		return conn, "", nil
	}
	return conn, last.address, nil
}

func connectFailed(ctx context.Context, errs []error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return fault.Because(errors.Join(errs...), "%s", strings.Join(texts, "\n"))
}
