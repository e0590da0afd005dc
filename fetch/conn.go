package fetch

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// watchedConn is a network connection that cannot hang and cannot flood us. It is below TLS, so its bytes are those of
// the wire.
//
// A server whose disk or host has stopped answers nothing and closes nothing; TCP's keepalives are answered by its kernel
// all the same. So each read and write has a limit of time. A server that sends without end (notices, parameters, rows)
// keeps within any such limit, and pgconn passes over what it does not know or stores it; so each statement has an
// allowance of bytes, too.
//
// The deadlines pgconn sets, to end a call whose context is done, are honoured beside ours. An error of ours is never a
// timeout to net.Error, for pgconn takes those for its own.
type watchedConn struct {
	net.Conn
	allowance atomic.Int64 // bytes that may still be received

	mu          sync.Mutex
	limit       time.Duration // longest wait for the next byte; 0 is for ever
	read, write direction
	dead        error // what every call returns once the connection has been given up
}

// direction is the deadlines of one direction.
type direction struct {
	outer time.Time             // pgconn's; zero if there is none
	armed time.Time             // what the connection has; zero if that is not known
	set   func(time.Time) error // sets it
}

// startupAllowance is how much a server may send before and between statements, in bytes: parameters, notices.
const startupAllowance = 1 << 20

// maxClosing is how long a connection may take to be closed politely. pgconn would wait for 15 seconds.
const maxClosing = 3 * time.Second

func watchConn(c net.Conn, limit time.Duration) *watchedConn {
	w := &watchedConn{Conn: c, limit: limit}
	w.read.set, w.write.set = c.SetReadDeadline, c.SetWriteDeadline
	w.allowance.Store(startupAllowance)
	return w
}

// stallError says that a connection has been given up because the other side has done nothing for too long.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string {
	return fmt.Sprintf("no answer from the server for %v", e.after)
}

// errFlood says that a connection has been given up because the server sent far more than was asked for.
var errFlood = errors.New("the server sends more than it was asked for")

// begin starts a statement whose answer may have some bytes, with a limit of time for each wait.
func (c *watchedConn) begin(answer int64, limit time.Duration) {
	// What TLS adds to 8 kB is 29 bytes, but a proxy in between may cut more finely.
	c.allowance.Store(answer + answer/8 + startupAllowance)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limit != limit {
		c.limit, c.read.armed, c.write.armed = limit, time.Time{}, time.Time{}
	}
}

// Read implements net.Conn.
func (c *watchedConn) Read(p []byte) (int, error) {
	for began := time.Now(); ; {
		if err := c.arm(&c.read, began); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if c.allowance.Add(-int64(n)) < 0 {
			c.giveUp(errFlood)
			return 0, errFlood
		}
		if err == nil {
			return n, nil
		}
		if err = c.judge(&c.read, began, err); err != nil || n > 0 {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *watchedConn) Write(p []byte) (int, error) {
	written := 0
	for began := time.Now(); ; {
		if err := c.arm(&c.write, began); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:])
		if err == nil {
			return written + n, nil
		}
		if n > 0 {
			written, began = written+n, time.Now()
		}
		if err = c.judge(&c.write, began, err); err != nil {
			return written, err
		}
	}
}

// arm sets the deadline for a read or write that began when it says: ours, or pgconn's if there is one. As long as most
// of the limit is left, what is set stays as it is; should it strike too early, judge will see that.
func (c *watchedConn) arm(d *direction, began time.Time) error {
	c.mu.Lock() // until the deadline is set, or it could undo pgconn's that comes meanwhile
	defer c.mu.Unlock()
	if c.dead != nil {
		return c.dead
	}
	deadline := d.outer
	if c.limit > 0 && deadline.IsZero() {
		if d.armed.Sub(began) > c.limit-c.limit/4 {
			return nil
		}
		deadline = began.Add(c.limit)
	}
	d.armed = deadline
	return d.set(deadline)
}

// judge says what an error of a read or write is: nil if there is none, because a deadline has struck that does not
// count any more; else the connection's error or ours.
func (c *watchedConn) judge(d *direction, began time.Time, err error) error {
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		c.giveUp(err)
		return err
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	d.armed = time.Time{}
	switch {
	case !d.outer.IsZero() && !now.Before(d.outer):
		return err // pgconn's own, to end the call
	case c.limit > 0 && now.Sub(began) >= c.limit && c.dead == nil:
		c.dead = &stallError{c.limit}
		_ = c.Conn.Close() // nobody is there to take note
	}
	return c.dead
}

// SetDeadline implements net.Conn.
func (c *watchedConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *watchedConn) SetReadDeadline(t time.Time) error {
	return c.setOuter(&c.read, t)
}

// SetWriteDeadline implements net.Conn.
func (c *watchedConn) SetWriteDeadline(t time.Time) error {
	return c.setOuter(&c.write, t)
}

func (c *watchedConn) setOuter(d *direction, t time.Time) error {
	if latest := time.Now().Add(maxClosing); t.After(latest) {
		t = latest // only a connection that is being closed gets a deadline in the future
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.outer = t
	if t.IsZero() {
		return nil // the next read or write sets its own, and one that waits goes on until its own
	}
	d.armed = time.Time{}
	return d.set(t)
}

// giveUp makes every call from now on fail, unless it does already.
func (c *watchedConn) giveUp(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead == nil {
		c.dead = err
	}
}

// gone reports whether the connection has broken or been given up: then the server need not be told.
func (c *watchedConn) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead != nil
}
