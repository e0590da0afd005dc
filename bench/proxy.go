package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// link is the network between the programs and the source server.
type link struct {
	rtt  time.Duration
	rate float64 // bytes per second in each direction, all connections together; 0: as fast as the machine
}

// proxy listens on the loopback and passes every connection on to a server, as a link between them would: what comes in at
// one end comes out at the other half a round trip later, in order. It delays and does not narrow: while bytes are on their
// way more follow, up to inFlight for each connection and direction. Only a link with a rate makes them queue, those of all
// connections in one line, as on a cable. A new connection costs a round trip before its first byte, as a handshake does.
type proxy struct {
	link
	sleep    func(time.Duration)
	up, down lane
	listener net.Listener // nil in tests without one
	server   string

	running sync.WaitGroup
	mu      sync.Mutex
	closed  bool
	conns   map[net.Conn]struct{}
	talks   []*talk // since roundTrips was asked last
}

// talk counts how often a connection's client waited for the server: whatever it sends after something came from there may
// be what it had to wait for.
type talk struct {
	mu         sync.Mutex
	answered   bool // the server sent something after the client did
	roundTrips int
}

// clientSent and serverSent note who sends.
func (t *talk) clientSent() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answered {
		t.roundTrips++
		t.answered = false
	}
}

func (t *talk) serverSent() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered = true
}

// roundTrips is how many round trips the busiest connection had, its handshake included, of those that began since it was
// asked last. A program that does one thing after the other has waited so often; one with several connections, at least so.
func (p *proxy) roundTrips() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := 0
	for _, t := range p.talks {
		t.mu.Lock()
		most = max(most, t.roundTrips)
		t.mu.Unlock()
	}
	p.talks = nil
	return most
}

// inFlight is how many bytes a connection may have on its way in one direction: at 20 ms of round trip enough for 0.8 GB/s,
// and in the order of what Linux lets the window of a TCP connection grow to.
const inFlight = 8 << 20

func newProxy(l link, sleep func(time.Duration)) *proxy {
	return &proxy{
		link: l, sleep: sleep, conns: map[net.Conn]struct{}{},
		up:   lane{delay: l.rtt / 2, rate: l.rate},
		down: lane{delay: l.rtt - l.rtt/2, rate: l.rate},
	}
}

// startProxy makes a link to a server at an address. Whoever starts it closes it.
func startProxy(ctx context.Context, l link, server string) (*proxy, error) {
	p := newProxy(l, nap)
	var lc net.ListenConfig
	var err error
	if p.listener, err = lc.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	p.server = server
	p.running.Go(func() { p.accept(ctx) })
	return p, nil
}

// nap sleeps to some 0.1 ms. Go's own timers wait in whole milliseconds when nothing else is to be done, and half a
// millisecond is what the shortest link delays. A signal may end it early.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // EINTR: whoever sleeps looks at the clock again
}

// port is where the proxy listens.
func (p *proxy) port() int {
	addr, ok := p.listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0 // it was made by Listen for TCP
	}
	return addr.Port
}

// accept ends when the listener is closed.
func (p *proxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(ctx, "tcp", p.server)
		if err != nil {
			_ = client.Close() // which is how the client learns of it
			continue
		}
		p.running.Go(func() { p.join(client, server) })
	}
}

// join passes bytes between two connections until both directions have ended, and closes them.
func (p *proxy) join(client, server net.Conn) {
	both := [2]net.Conn{client, server}
	t := &talk{roundTrips: 1, answered: true} // the server has accepted
	if !p.hold(both, t) {
		return
	}
	defer p.drop(both)
	for end := time.Now().Add(p.rtt); time.Now().Before(end); {
		p.sleep(time.Until(end))
	}
	var ends sync.WaitGroup
	pass := func(from, to net.Conn, l *lane, sent func()) {
		pipe := newPipe(l, p.sleep)
		ends.Go(func() { pipe.fill(from, sent) })
		ends.Go(func() {
			if pipe.drain(to) != nil {
				closeAll(both) // nobody listens: whoever sends is to know, and fill to end
			}
		})
	}
	pass(client, server, &p.up, t.clientSent)
	pass(server, client, &p.down, t.serverSent)
	ends.Wait()
}

// hold notes connections, to be closed with the proxy; it is false, and they are closed, if that has happened.
func (p *proxy) hold(conns [2]net.Conn, t *talk) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		closeAll(conns)
		return false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	p.talks = append(p.talks, t)
	return true
}

func (p *proxy) drop(conns [2]net.Conn) {
	closeAll(conns)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

func closeAll(conns [2]net.Conn) {
	for _, c := range conns {
		_ = c.Close() // what was to be passed on has been written, or is lost anyway
	}
}

// close ends all connections and waits for everything the proxy runs.
func (p *proxy) close() {
	if p.listener != nil {
		_ = p.listener.Close() // nothing is lost by it
	}
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// lane is one direction of a link, shared by all connections.
type lane struct {
	delay time.Duration
	rate  float64

	mu   sync.Mutex
	free time.Time // when the last of the bytes that are in line will have left
}

// arrival is when n bytes that come now will be at the other end.
func (l *lane) arrival(n int) time.Time {
	now := time.Now()
	if l.rate == 0 {
		return now.Add(l.delay)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.free.Add(l.delay)
}

// pipe is one direction of one connection: a ring of bytes that are on their way, and when each piece of them arrives.
// One goroutine fills it and one drains it.
type pipe struct {
	lane  *lane
	sleep func(time.Duration)

	mu      sync.Mutex
	changed sync.Cond // one side at most waits: the ring is not full and empty at once
	ring    []byte
	in, out int     // bytes that came in and went out since the ring was last empty
	pieces  []piece // oldest first; none reaches over the ring's end
	broken  bool    // the other end takes no more
}

// piece is what one read gave. The last has no bytes: the sender has closed.
type piece struct {
	bytes int
	due   time.Time
}

// Sizes of a pipe. On a link with a rate, what waits is in front of the other connections: few buffers on the way of a packet
// hold more than a few milliseconds of it.
const (
	pieceSize   = 64 << 10 // most bytes of one read
	queueAtRate = 512 << 10
)

func newPipe(l *lane, sleep func(time.Duration)) *pipe {
	size := inFlight
	if l.rate > 0 {
		size = min(size, queueAtRate+int(l.rate*l.delay.Seconds()))
	}
	p := &pipe{lane: l, sleep: sleep, ring: make([]byte, size)}
	p.changed.L = &p.mu
	return p
}

// fill takes what a connection sends until it ends, or until drain has ended; it calls sent for each piece.
func (p *pipe) fill(from net.Conn, sent func()) {
	for {
		room := p.room()
		if room == nil {
			return
		}
		n, err := from.Read(room)
		if n > 0 {
			sent()
			p.add(n)
		}
		if err != nil {
			p.add(0) // a connection that broke ends like one that was closed: the other side has to be told
			return
		}
	}
}

// room waits for free bytes in the ring; nil if nobody drains it any more.
func (p *pipe) room() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.in-p.out == len(p.ring) && !p.broken {
		p.changed.Wait()
	}
	if p.broken {
		return nil
	}
	if p.in == p.out && len(p.pieces) == 0 {
		p.in, p.out = 0, 0 // what is used again is in the processor's cache
	}
	at := p.in % len(p.ring)
	return p.ring[at:min(at+pieceSize, at+len(p.ring)-(p.in-p.out), len(p.ring))]
}

func (p *pipe) add(n int) {
	due := p.lane.arrival(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in += n
	p.pieces = append(p.pieces, piece{n, due})
	p.changed.Signal()
}

// drain gives a connection what arrives, and closes its sending side after the last. After an error of writing, which it
// returns, fill ends, too, as soon as it does not read.
func (p *pipe) drain(to net.Conn) error {
	for {
		data, wait := p.arrived()
		switch {
		case wait > 0:
			p.sleep(wait)
			continue
		case len(data) == 0:
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				return ignoreClosed(half.CloseWrite())
			}
			return ignoreClosed(to.Close())
		}
		if _, err := to.Write(data); err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.broken = true
			p.changed.Signal()
			return err
		}
		p.mu.Lock()
		p.out += len(data)
		p.changed.Signal()
		p.mu.Unlock()
	}
}

// arrived waits for a piece, and returns all bytes that lie together and have arrived, or how long the first is still on its
// way. No bytes and no wait: the end. The bytes stay the pipe's; they are free when out says so.
func (p *pipe) arrived() (data []byte, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.pieces) == 0 {
		p.changed.Wait()
	}
	now := time.Now()
	if wait := p.pieces[0].due.Sub(now); wait > 0 {
		return nil, wait
	}
	at, n, taken := p.out%len(p.ring), 0, 0
	for _, next := range p.pieces {
		if next.due.After(now) || next.bytes == 0 || at+n == len(p.ring) {
			break
		}
		n += next.bytes
		taken++
	}
	p.pieces = append(p.pieces[:0], p.pieces[taken:]...) // few: those of some milliseconds
	return p.ring[at : at+n], 0
}

// ignoreClosed: what the other side has closed already needs no closing.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	return err
}

// open starts the scenario's link to the source, which runs, if it has one. The function it returns ends it.
func (s *scenario) open(tb pgtest.TB, p *pair) func() {
	if s.link == nil {
		return func() {}
	}
	var err error
	s.proxy, err = startProxy(tb.Context(), *s.link, net.JoinHostPort("127.0.0.1", strconv.Itoa(p.source.Port)))
	if err != nil {
		tb.Fatalf("bench: scenario %s: %v", s.name, err)
	}
	return s.proxy.close
}

// from is the scenario's source as a rewind takes it, at the near end of its link.
func (s *scenario) from(p *pair) (flag, value string) {
	if s.proxy != nil {
		return "--source-server", fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres", s.proxy.port(), pgtest.Superuser)
	}
	return s.source.from(p.source)
}

// withRoundTrips adds to what a scenario is about how many round trips each contender's busiest connection had, in its first
// run.
func withRoundTrips(about string, list []contender, samples [][]sample) string {
	for i, c := range list {
		if n := samples[i][0].RoundTrips; n > 0 {
			about += fmt.Sprintf("; %s: %d round trips on its busiest connection", c.name, n)
		}
	}
	return about
}
