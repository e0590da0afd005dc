package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Limits of patience, where neither Options nor the connection string says otherwise.
const (
	// DefaultConnectTimeout is how long one attempt to reach one address may take, connect_timeout of libpq.
	DefaultConnectTimeout = 30 * time.Second
	// DefaultStallTimeout is how long a statement may give no byte.
	DefaultStallTimeout = 60 * time.Second
	// DefaultRetryFor is a good value for Options.RetryFor: a server restarts, or fails over, in less.
	DefaultRetryFor = 60 * time.Second

	// A directory is read to its end before its first row is sent: with millions of files and a cold cache that takes
	// minutes, and giving up would not make it faster.
	listPatience = 5

	firstPause = 100 * time.Millisecond // before connecting again; doubled each time
	lastPause  = 5 * time.Second
	tellEvery  = 10 * time.Second // how often a wait is reported
)

// ErrSourceLost is in the chain of an error that ended a call because the connection to the source broke and could not
// be had again within Options.RetryFor. The same call may succeed later.
var ErrSourceLost = errors.New("connection to the source lost")

// EventKind says what an Event is about.
type EventKind uint8

// The kinds of events.
const (
	// EventWarning is something the user should know that changes nothing, such as a password file that is ignored.
	EventWarning EventKind = iota + 1
	// EventWaiting says that the source is lost and a pause is made before connecting again. Err is why.
	EventWaiting
	// EventReconnected says that the source is there again. Generation is what is there.
	EventReconnected
)

// Event is something that happens to the connection and is no error yet.
type Event struct {
	Kind       EventKind
	Text       string // one message, without a final newline; may have several lines
	Err        error
	Wait       time.Duration
	Generation Generation
}

// tell reports an event, one at a time.
func (s *Server) tell(e Event) {
	if s.event == nil {
		return
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	s.event(e)
}

// tellWaiting reports a wait, once for all that wait.
func (s *Server) tellWaiting(err error, wait time.Duration) {
	now := time.Now().UnixNano()
	last := s.toldWaiting.Load()
	if last != 0 && now-last < int64(tellEvery) || !s.toldWaiting.CompareAndSwap(last, now) {
		return
	}
	s.tell(Event{
		Kind: EventWaiting, Err: err, Wait: wait,
		Text: fmt.Sprintf("connection to the source lost, connecting again for up to %v: %s", s.retryFor, err),
	})
}

// stopped is an error with which the caller of Fetch has ended it; that it may look like one of the network's changes
// nothing.
type stopped struct{ err error }

func (e *stopped) Error() string { return e.err.Error() }

// persist calls do until it succeeds, fails in a way that connecting again cannot heal, or has made no progress for
// s.retryFor. do says whether it has made progress before it failed.
func (s *Server) persist(ctx context.Context, do func() (progress bool, err error)) error {
	var (
		first error // since there was progress
		since time.Time
		pause time.Duration
	)
	for {
		progress, err := do()
		var stop *stopped
		switch {
		case err == nil:
			return nil
		case errors.As(err, &stop):
			return stop.err
		case ctx.Err() != nil:
			return ctx.Err()
		case !transient(err):
			return err
		}
		if first == nil || progress {
			first, since, pause = err, time.Now(), firstPause
		}
		left := s.retryFor - time.Since(since)
		if left <= 0 {
			return s.sourceLost(first, err)
		}
		pause = min(pause, left)
		s.tellWaiting(err, pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// sourceLost makes the error of a call that is given up: the text is that of the first failure.
func (s *Server) sourceLost(first, last error) error {
	e := fault.Because(errors.Join(ErrSourceLost, first), "%s", first.Error())
	var f *fault.Error
	if errors.As(first, &f) {
		e.Advice, e.Detail, e.Hint = f.Advice, f.Detail, f.Hint
	}
	if s.retryFor > 0 {
		text := fmt.Sprintf("The source has not come back within %v: %s", s.retryFor, last)
		if e.Advice != "" {
			text = e.Advice + "\n" + text
		}
		e.Advice = text
	}
	return e
}

// transient reports whether a new connection may heal an error.
func transient(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case codeAdminShutdown, codeCrashShutdown, codeCannotConnectNow, // the server stops or starts
			codeTooManyConnections,
			codeSerializationFailure, codeDeadlock, // a standby's replay was in conflict with our snapshot
			codeIdleSessionTimeout:
			return true
		}
		return len(pgErr.Code) == 5 && pgErr.Code[:2] == classConnectionException
	}
	var (
		stall    *stallError
		alert    tls.AlertError
		netError net.Error
	)
	switch {
	case errors.As(err, &alert): // the other side's refusal comes as a net.Error, too
		return false
	case errors.As(err, &stall), isClosed(err), errors.Is(err, pgconn.ErrConnClosed), errors.As(err, &netError),
		errors.Is(err, errTwoServers), errors.Is(err, context.DeadlineExceeded):
		return true
	}
	// In the middle of a failover no host is what target_session_attrs asks for.
	return errors.Is(err, pgconn.ErrReadOnlyConnection) || errors.Is(err, pgconn.ErrReadWriteConnection) ||
		errors.Is(err, pgconn.ErrStandbyConnection) || errors.Is(err, pgconn.ErrPrimaryConnection)
}
