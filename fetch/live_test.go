package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// events collects what a Server tells.
type events struct {
	mu   sync.Mutex
	list []Event
	wait chan struct{} // gets an element at the first EventWaiting
}

func newEvents() *events { return &events{wait: make(chan struct{}, 1)} }

func (e *events) tell(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
	if ev.Kind == EventWaiting {
		select {
		case e.wait <- struct{}{}:
		default:
		}
	}
}

func (e *events) count(kind EventKind) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.list {
		if ev.Kind == kind {
			n++
		}
	}
	return n
}

func connectWith(t *testing.T, conn string, opts Options) *Server {
	t.Helper()
	opts.ProgramName = "fastrewind"
	s, err := Connect(t.Context(), conn, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// bigFile is a relation of some megabytes in ranges of 8 to 128 kB, and its content.
type bigFile struct {
	ranges []pg.FileRange
	data   []byte
}

func makeBigFile(t *testing.T, p *pgtest.Cluster, table string) *bigFile {
	t.Helper()
	p.SQL("postgres", `CREATE TABLE `+table+` AS SELECT repeat(md5(g::text), 60) AS x FROM generate_series(1, 15000) AS g`)
	p.Checkpoint()
	path := p.Query("postgres", "SELECT pg_relation_filepath('"+table+"')")
	data, err := os.ReadFile(p.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	b := &bigFile{data: data}
	for off, i := int64(0), 0; off < int64(len(data)); i++ {
		length := int64(8192) << (i % 6)
		b.ranges = append(b.ranges, pg.FileRange{Path: path, Offset: off, Length: length})
		off += length
	}
	if len(data) < 24<<20 || len(b.ranges) < 50 { // more than the network holds
		t.Fatalf("%d bytes, %d ranges", len(data), len(b.ranges))
	}
	return b
}

// fetch fetches the file and checks that every chunk comes once, in its place. at is called before chunks are taken.
func (b *bigFile) fetch(ctx context.Context, s *Server, at func(i int)) (chunks int, err error) {
	var got bytes.Buffer
	next := 0
	err = s.Fetch(ctx, b.ranges, func(i int, c pg.FileChunk) error {
		if at != nil {
			at(i)
		}
		if i != next || c.Gone {
			return fmt.Errorf("chunk %d came as number %d, gone %v", i, next, c.Gone)
		}
		next++
		got.Write(c.Data)
		return nil
	})
	if err == nil && !bytes.Equal(got.Bytes(), b.data) {
		err = fmt.Errorf("%d bytes in %d chunks, not the %d of the file", got.Len(), next, len(b.data))
	}
	return next, err
}

func livePrimary(t *testing.T, name string) *pgtest.Cluster {
	if testing.Short() {
		t.Skip("needs PostgreSQL servers")
	}
	p := pgtest.New(t).Init(name, pgtest.InitOptions{})
	p.Start()
	p.SQL("postgres", grants)
	return p
}

func address(p *pgtest.Cluster) string { return fmt.Sprintf("127.0.0.1:%d", p.Port) }

// A network that breaks: what was emitted is not asked for again, and the rest arrives.
func TestBrokenNetwork(t *testing.T) {
	p := livePrimary(t, "source")
	big := makeBigFile(t, p, "big")
	const cuts = 4
	for _, how := range []string{"close", "reset", "stall"} {
		t.Run(how, func(t *testing.T) {
			px := startProxy(t, func(n int) (string, trouble) {
				if n < cuts {
					return address(p), trouble{how, 700_000 + int64(n)*12345} // in the middle of some row
				}
				return address(p), trouble{}
			})
			ev := newEvents()
			s := connectWith(t, px.conn("rewinder"), Options{RetryFor: time.Minute, StallTimeout: 300 * time.Millisecond, Event: ev.tell})
			if _, err := big.fetch(t.Context(), s, nil); err != nil {
				t.Fatalf("%v (%s)", err, advice(err))
			}
			if ev.count(EventReconnected) != cuts || ev.count(EventWaiting) < 1 || s.Generation().Number != 1 {
				t.Errorf("%+v, generation %+v", ev.list, s.Generation())
			}
			// Without what it got the first time, the file could not have come in so few bytes.
			if n := px.connections(); n < cuts+1 {
				t.Errorf("%d connections", n)
			}
		})
		t.Run(how+" for good", func(t *testing.T) {
			px := startProxy(t, func(n int) (string, trouble) {
				if n == 0 {
					return address(p), trouble{how, 700_000}
				}
				return address(p), trouble{how, 0}
			})
			s := connectWith(t, px.conn("rewinder")+" connect_timeout=2", Options{RetryFor: 400 * time.Millisecond, StallTimeout: 200 * time.Millisecond})
			n, err := big.fetch(t.Context(), s, nil)
			if !errors.Is(err, ErrSourceLost) || n == 0 || n == len(big.ranges) {
				t.Fatalf("after %d chunks: %v", n, err)
			}
			if a := advice(err); !strings.HasPrefix(err.Error(), "unexpected result while fetching remote files: ") ||
				!strings.Contains(a, "The source has not come back within 400ms: ") || !strings.Contains(a, "It was the turn of file") {
				t.Errorf("%v (%s)", err, a)
			}
			if how == "stall" && !strings.HasSuffix(err.Error(), "no answer from the server for 200ms") {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("list and small files", func(t *testing.T) {
		px := startProxy(t, func(n int) (string, trouble) {
			if n < cuts {
				return address(p), trouble{"close", 11_500} // in the middle of a listing
			}
			return address(p), trouble{}
		})
		ev := newEvents()
		s := connectWith(t, px.conn("rewinder"), Options{Conns: 2, RetryFor: time.Minute, Event: ev.tell})
		var told int64
		var mu sync.Mutex
		entries, err := s.List(t.Context(), 2, func(n int64) { mu.Lock(); told += n; mu.Unlock() })
		if err != nil {
			t.Fatal(err)
		}
		want, err := connectWith(t, p.ConnStringAs("rewinder"), Options{}).List(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != len(want) || int(told) != len(want) {
			t.Errorf("%d entries, told of %d, should be %d", len(entries), told, len(want))
		}
		if data, err := s.ControlFile(t.Context()); err != nil || len(data) != pg.ControlSize {
			t.Errorf("%d bytes, %v", len(data), err)
		}
		if ev.count(EventReconnected) == 0 {
			t.Error("nothing was cut")
		}
	})
	t.Run("cancelled while waiting", func(t *testing.T) {
		px := startProxy(t, func(n int) (string, trouble) {
			if n == 0 {
				return address(p), trouble{"close", 700_000}
			}
			return "127.0.0.1:1", trouble{}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := connectWith(t, px.conn("rewinder"), Options{RetryFor: time.Hour, Event: func(e Event) {
			if e.Kind == EventWaiting {
				cancel()
			}
		}})
		if _, err := big.fetch(ctx, s, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	t.Run("terminated by an administrator", func(t *testing.T) {
		s := connectWith(t, p.ConnStringAs("rewinder"), Options{RetryFor: time.Minute})
		_, err := big.fetch(t.Context(), s, func(i int) {
			if i%20 == 5 {
				p.SQL("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fastrewind'")
			}
		})
		if err != nil {
			t.Errorf("%v", err)
		}
	})
	t.Run("emit fails like the network", func(t *testing.T) {
		s := connectWith(t, p.ConnStringAs("rewinder"), Options{RetryFor: time.Hour})
		full := &os.PathError{Op: "write", Path: "x", Err: os.ErrDeadlineExceeded}
		n := 0
		err := s.Fetch(t.Context(), big.ranges, func(int, pg.FileChunk) error { n++; return full })
		if err != error(full) || n != 1 {
			t.Errorf("%T %v after %d", err, err, n)
		}
	})
}

// A server that crashes and starts again is the same source.
func TestRestartedSource(t *testing.T) {
	p := livePrimary(t, "source")
	big := makeBigFile(t, p, "big")
	t.Run("killed", func(t *testing.T) {
		ev := newEvents()
		s := connectWith(t, p.ConnStringAs("rewinder"), Options{Conns: 2, RetryFor: time.Minute, Event: ev.tell})
		if _, err := big.fetch(t.Context(), s, func(i int) {
			if i == 10 {
				p.Kill9()
				p.Start()
			}
		}); err != nil {
			t.Fatalf("%v (%s)", err, advice(err))
		}
		g := s.Generation()
		if g.Number != 2 || g.Elsewhere || g.InRecovery || g.TLI != 1 || g.Host != address(p) || time.Since(g.Started) > time.Minute {
			t.Errorf("%+v", g)
		}
		if n := len(ev.list); n == 0 || ev.list[n-1].Kind != EventReconnected || ev.list[n-1].Generation != g {
			t.Errorf("%+v", ev.list)
		}
	})
	t.Run("down for a while", func(t *testing.T) {
		ev := newEvents()
		s := connectWith(t, p.ConnStringAs("rewinder"), Options{Conns: 3, RetryFor: time.Minute, Event: ev.tell})
		p.Stop(pgtest.Fast)
		started := make(chan error)
		go func() {
			<-ev.wait
			started <- p.TryStart()
		}()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := big.fetch(t.Context(), s, nil); err != nil {
					t.Errorf("%v (%s)", err, advice(err))
				}
			})
		}
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if g := s.Generation(); g.Number != 2 || g.Elsewhere {
			t.Errorf("%+v", g)
		}
	})
	t.Run("listing", func(t *testing.T) {
		s := connectWith(t, p.ConnStringAs("rewinder"), Options{RetryFor: time.Minute})
		var (
			told int64
			once sync.Once
		)
		entries, err := s.List(t.Context(), 1, func(n int64) {
			told += n
			once.Do(p.Restart)
		})
		if err != nil || int(told) != len(entries) {
			t.Errorf("%d entries, told of %d: %v", len(entries), told, err)
		}
		if g := s.Generation(); g.Number != 2 {
			t.Errorf("%+v", g)
		}
	})
	t.Run("gone", func(t *testing.T) {
		for _, patience := range []time.Duration{0, 300 * time.Millisecond} {
			s := connectWith(t, p.ConnStringAs("rewinder"), Options{RetryFor: patience})
			n, err := big.fetch(t.Context(), s, func(i int) {
				if i == 10 {
					p.Kill9()
				}
			})
			if !errors.Is(err, ErrSourceLost) || n < 11 {
				t.Errorf("after %d: %v", n, err)
			}
			if _, err := s.PageBound(t.Context()); !errors.Is(err, ErrSourceLost) {
				t.Errorf("%v", err)
			}
			p.Start()
			if _, err := s.PageBound(t.Context()); err != nil { // the same call may succeed later
				t.Errorf("%v", err)
			}
		}
	})
}

// Another server in the source's place.
func TestFailover(t *testing.T) {
	a := livePrimary(t, "a")
	big := makeBigFile(t, a, "big")
	b, c := a.Standby("b"), a.Standby("c")
	b.Start()
	c.Start()
	a.WaitReplay(b)
	a.WaitReplay(c)
	b.Checkpoint() // its file is on its disk, too
	c.Checkpoint()
	hosts := func(attrs string, of ...*pgtest.Cluster) string {
		var names, ports []string
		for _, p := range of {
			names, ports = append(names, "127.0.0.1"), append(ports, fmt.Sprint(p.Port))
		}
		return fmt.Sprintf("host=%s port=%s user=rewinder dbname=postgres target_session_attrs=%s",
			strings.Join(names, ","), strings.Join(ports, ","), attrs)
	}

	t.Run("bound of a standby", func(t *testing.T) {
		s := connectWith(t, b.ConnStringAs("rewinder"), Options{})
		lsn, err := s.PageBound(t.Context())
		if ctl := b.Control(); err != nil || uint64(lsn) > ctl.MinRecoveryPoint || lsn == 0 {
			t.Errorf("%v, %v; control file says %X", lsn, err, ctl.MinRecoveryPoint)
		}
	})
	t.Run("balancer", func(t *testing.T) {
		px := startProxy(t, func(n int) (string, trouble) { return address([]*pgtest.Cluster{a, b}[n%2]), trouble{} })
		s := connectWith(t, px.conn("rewinder"), Options{Conns: 2, RetryFor: 300 * time.Millisecond})
		err := s.with(t.Context(), func(*session) error { // the first is taken
			_, err := s.ControlFile(t.Context())
			return err
		})
		if px.connections() > 2 && err == nil { // a second try led to the right one again
			return
		}
		if err == nil || !strings.HasPrefix(err.Error(), "source server was restarted, or the connection leads to another server") {
			t.Errorf("%v", err)
		}
		if s.Generation().Number != 1 {
			t.Errorf("%+v", s.Generation())
		}
	})
	t.Run("standby to standby", func(t *testing.T) {
		s := connectWith(t, hosts("standby", b, c), Options{RetryFor: time.Minute})
		if g := s.Generation(); g.Host != address(b) {
			t.Fatalf("%+v", g)
		}
		n, err := big.fetch(t.Context(), s, func(i int) {
			if i == 10 {
				b.Kill9()
			}
		})
		var changed *SourceChangedError
		if !errors.As(err, &changed) || *changed != (SourceChangedError{1, 1}) || n < 10 || errors.Is(err, ErrSourceLost) {
			t.Errorf("after %d: %v", n, err)
		}
		b.Start()
	})
	t.Run("standby to standby, nothing read", func(t *testing.T) {
		s := connectWith(t, hosts("standby", b, c), Options{RetryFor: time.Minute})
		if g := s.Generation(); g.Host != address(b) {
			t.Fatalf("%+v", g)
		}
		b.Kill9()
		if _, err := big.fetch(t.Context(), s, nil); err != nil {
			t.Error(err)
		}
		if g := s.Generation(); g.Number != 2 || !g.Elsewhere || !g.InRecovery || g.Host != address(c) {
			t.Errorf("%+v", g)
		}
		b.Start()
	})
	t.Run("standby to its primary", func(t *testing.T) {
		// It may have been promoted without our noticing, and have given pages of a timeline that the primary knows nothing of.
		s := connectWith(t, hosts("any", b, a), Options{RetryFor: time.Minute})
		n, err := big.fetch(t.Context(), s, func(i int) {
			if i == 10 {
				b.Kill9()
			}
		})
		var changed *SourceChangedError
		if !errors.As(err, &changed) || *changed != (SourceChangedError{1, 1}) || n < 10 {
			t.Errorf("after %d: %v", n, err)
		}
		b.Start()
	})
	t.Run("promoted", func(t *testing.T) { // primary dies, standby takes over
		s := connectWith(t, hosts("read-write", a, b), Options{Conns: 2, RetryFor: time.Minute})
		if g := s.Generation(); g.Host != address(a) {
			t.Fatalf("%+v", g)
		}
		n, err := big.fetch(t.Context(), s, func(i int) {
			if i == 10 {
				a.Kill9()
				b.PromoteWithoutCheckpoint()
			}
		})
		var changed *SourceChangedError
		if !errors.As(err, &changed) || *changed != (SourceChangedError{1, 2}) || n < 10 {
			t.Errorf("after %d: %v", n, err)
		}
		if err == nil || err.Error() != "source server has changed from timeline 1 to timeline 2" {
			t.Errorf("%v", err)
		}
		if _, err := s.List(t.Context(), 1, nil); !errors.As(err, &changed) {
			t.Errorf("list: %v", err)
		}
		b.Thaw()
	})
	t.Run("address moved", func(t *testing.T) { // a virtual address goes from the dead primary to the new one
		to := b
		px := startProxy(t, func(int) (string, trouble) { return address(to), trouble{} })
		s := connectWith(t, px.conn("rewinder"), Options{RetryFor: time.Minute})
		n, err := big.fetch(t.Context(), s, func(i int) {
			if i == 10 {
				px.mu.Lock()
				defer px.mu.Unlock()
				to = c // a standby still, on timeline 1
				for conn := range px.conns {
					conn.Close()
				}
			}
		})
		var changed *SourceChangedError
		if !errors.As(err, &changed) || *changed != (SourceChangedError{2, 1}) || n < 10 {
			t.Errorf("after %d: %v", n, err)
		}
	})
	t.Run("promoted in place", func(t *testing.T) {
		s := connectWith(t, c.ConnStringAs("rewinder"), Options{RetryFor: time.Minute})
		before, err := s.PageBound(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := big.fetch(t.Context(), s, func(i int) {
			if i == 10 {
				c.PromoteWithoutCheckpoint()
				c.SQL("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fastrewind'")
			}
		}); err != nil {
			t.Error(err)
		}
		if g := s.Generation(); g.Number != 1 || g.TLI != 1 {
			t.Errorf("%+v", g)
		}
		after, err := s.PageBound(t.Context())
		if err != nil || after < before {
			t.Errorf("%v, then %v, %v", before, after, err)
		}
		c.Thaw()
	})
	t.Run("another system", func(t *testing.T) {
		other := c.Env().Init("other", pgtest.InitOptions{})
		other.Start()
		other.SQL("postgres", grants)
		s := connectWith(t, hosts("any", c, other), Options{RetryFor: time.Minute})
		_, err := big.fetch(t.Context(), s, func(i int) {
			if i == 10 {
				c.Kill9()
			}
		})
		if err == nil || err.Error() != "source server was replaced by one of another system" {
			t.Errorf("%v", err)
		}
	})
}

// No connection left to give is waited for, if there was one before.
func TestTooManyConnections(t *testing.T) {
	p := livePrimary(t, "source")
	big := makeBigFile(t, p, "big")
	p.SQL("postgres", "ALTER ROLE rewinder CONNECTION LIMIT 2")
	s := connectWith(t, p.ConnStringAs("rewinder"), Options{Conns: 8, RetryFor: time.Minute})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := big.fetch(t.Context(), s, nil); err != nil {
				t.Errorf("%v (%s)", err, advice(err))
			}
		})
	}
	wg.Wait()
}
