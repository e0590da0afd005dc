package fetch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// pool lends a fixed number of sessions. They are opened when there is no idle one, and all lead to one start of one
// server: the current generation. When connections break, a new generation may take its place (admit in generation.go);
// sessions of the old one that are still lent are not lent again.
//
// It is not pgxpool, because a Server wants less and needs something else: no statement cache, type map, health checks
// or lifetimes, but every session at the same server, or none.
type pool struct {
	lent  chan struct{} // has an element for each session that is lent; its capacity is how many there may be
	hosts *hosts

	mu      sync.Mutex
	idle    []*session        // of the current generation; the one used last is at the end, and is used next
	live    int               // sessions of the current generation, idle and lent
	lost    bool              // a session broke, and none has been opened since
	closing []<-chan struct{} // of sessions given up: closed when nothing of them is left

	current Generation
	pinned  *pin // where the current generation answers
	id      identity
	first   identity       // of the first generation
	former  map[int64]bool // the starts of those before the current one
}

// pin is where a server answers.
type pin struct {
	host    *host
	address string // ip:port, or empty for a socket
}

func (p pin) String() string {
	switch {
	case p.address == "":
		return fmt.Sprintf("%s:%d", p.host.config.Host, p.host.port)
	case p.host.name != "" && !strings.HasPrefix(p.address, p.host.name+":"):
		return fmt.Sprintf("%s:%d (%s)", p.host.name, p.host.port, p.address)
	}
	return p.address
}

func newPool(hosts *hosts, conns int) *pool {
	return &pool{lent: make(chan struct{}, conns), hosts: hosts, former: make(map[int64]bool)}
}

// size is how many sessions there may be.
func (p *pool) size() int { return cap(p.lent) }

// with runs use with a session of its own, once. If the session is unusable afterwards, the next user gets another.
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
		var err error
		defer func() {
			p.putBack(sess, sess.conn.IsClosed() && transient(err))
			<-p.lent
		}()
		err = use(sess)
		return err
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

// putBack takes a session back. broken says that the server or the network has ended it: then the idle ones, too, are
// not trusted any more.
func (p *pool) putBack(sess *session, broken bool) {
	usable := !sess.conn.IsClosed() && !sess.conn.IsBusy()
	p.mu.Lock()
	current := sess.generation == p.current.Number
	var drop []*session
	switch {
	case current && usable:
		p.idle = append(p.idle, sess)
	case current:
		p.live--
		drop = []*session{sess}
		if broken {
			p.lost = true
			drop = append(drop, p.idle...)
			p.live -= len(p.idle)
			p.idle = nil
		}
	default:
		drop = []*session{sess}
	}
	p.mu.Unlock()
	for _, d := range drop {
		p.giveUp(d.conn)
	}
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
	p := s.pool
	p.mu.Lock()
	pinned, live := p.pinned, p.live
	p.mu.Unlock()
	if pinned == nil {
		return s.openAny(ctx, false)
	}
	sess, _, err := pinned.host.connect(ctx, pinned.address, nil)
	switch {
	case err == nil:
		return s.take(ctx, sess, *pinned)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case live > 0 || !transient(err):
		return nil, connectFailed(ctx, []error{err})
	}
	return s.openAny(ctx, true) // it is gone from there; perhaps another took its place
}

// take sets a session up and admits it.
func (s *Server) take(ctx context.Context, sess *session, at pin) (*session, error) {
	p := s.pool
	err := s.setUp(ctx, sess)
	var (
		isNew bool
		stale []*session
	)
	if err == nil {
		isNew, stale, err = p.admit(sess, at, s.fetched.Load())
	}
	if err != nil {
		p.giveUp(sess.conn)
		return nil, err
	}
	p.mu.Lock()
	again, now := p.lost || isNew, p.current
	p.lost = false
	p.mu.Unlock()
	for _, old := range stale {
		p.giveUp(old.conn)
	}
	if again {
		s.toldWaiting.Store(0)
		s.tell(Event{Kind: EventReconnected, Generation: now, Text: "connected to the source again: " + now.String()})
	}
	return sess, nil
}

// openAny tries the hosts in their order, as libpq does, and takes the first server that will have us. again says that
// there was one before: then a server that refuses because it stops, starts or is full does not end the search.
func (s *Server) openAny(ctx context.Context, again bool) (*session, error) {
	hosts := s.pool.hosts
	validations := []pgconn.ValidateConnectFunc{nil}
	if hosts.preferStandby {
		validations = []pgconn.ValidateConnectFunc{pgconn.ValidateConnectTargetSessionAttrsStandby, nil}
	}
	var errs []error
	for _, validate := range validations {
		errs = nil
		for _, h := range hosts.list {
			sess, address, err := h.connect(ctx, "", validate)
			if err == nil {
				return s.take(ctx, sess, pin{host: h, address: address})
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			errs = append(errs, err)
			// A server that answers and refuses us ends the search, unless it is only starting up.
			var pgErr *pgconn.PgError
			if errors.As(err, &pgErr) && pgErr.Code != codeCannotConnectNow && !(again && transient(err)) {
				return nil, connectFailed(ctx, errs)
			}
		}
	}
	return nil, connectFailed(ctx, errs)
}

// connect opens one connection to the host, at the given address only unless it is empty, and tells at which.
func (h *host) connect(ctx context.Context, only string, validate pgconn.ValidateConnectFunc) (*session, string, error) {
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
	tries.connected = true
	sess := &session{conn: conn, net: tries.net, aside: tries.aside, stall: h.stall}
	last := tries.list[len(tries.list)-1]
	if last.network == "unix" {
		return sess, "", nil
	}
	return sess, last.address, nil
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
