package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// A host that begins with an @ is a socket wherever it is given, and no name to be looked up.
func TestAbstractHosts(t *testing.T) {
	for conn, want := range map[string]string{
		"host=@pg":                           "unix @pg/.s.PGSQL.5432",
		"host=@pg port=7":                    "unix @pg/.s.PGSQL.7",
		"host=@pg sslmode=verify-full":       "unix @pg/.s.PGSQL.5432", // sockets have no TLS
		"host=@a:b//c":                       "unix @a:b//c/.s.PGSQL.5432",
		"host=@pg,/tmp load_balance_hosts=":  "unix @pg/.s.PGSQL.5432",
		"host=@pg load_balance_hosts=random": "unix @pg/.s.PGSQL.5432",
		"postgresql://%40pg:7/d":             "unix @pg/.s.PGSQL.7",
		"postgresql:///d?host=@pg":           "unix @pg/.s.PGSQL.5432",
		"host=@pg hostaddr=127.0.0.1":        "tcp 127.0.0.1:5432",
		"host=/pg":                           "unix /pg/.s.PGSQL.5432",
	} {
		s, err := parseConnString(conn, env())
		if err != nil {
			t.Fatal(err)
		}
		hs, err := s.hosts("x")
		if err != nil {
			t.Errorf("%s: %v", conn, err)
			continue
		}
		h := hs.list[0]
		refuse := errors.New("not in this test")
		h.dialer.ControlContext = func(context.Context, string, string, syscall.RawConn) error { return refuse }
		cfg, tries := h.prepare("")
		if _, err := pgconn.ConnectConfig(t.Context(), cfg); !errors.Is(err, refuse) || len(tries.list) == 0 {
			t.Errorf("%s: %v", conn, err)
			continue
		}
		if got := tries.list[0].network + " " + tries.list[0].address; got != want {
			t.Errorf("%s: dialled %s, not %s", conn, got, want)
		}
	}
}

// TestAbstractSocket connects to a real server that listens in the abstract namespace and nowhere else.
func TestAbstractSocket(t *testing.T) {
	p := livePrimary(t, "source")
	if p.Env().Major < 14 {
		t.Skip("13 has no abstract sockets")
	}
	p.Stop(pgtest.Fast)
	name := fmt.Sprintf("@fastrewind-test-%d-%d", os.Getpid(), p.Port)
	log := &serverLog{grown: make(chan struct{})}
	server := p.Env().Begin(pgtest.Cmd{Path: "postgres", Cluster: p, Stdout: log, Stderr: log,
		Args: []string{"-D", p.DataDir(), "-p", strconv.Itoa(p.Port), "-k", name, "-c", "listen_addresses="}})
	t.Cleanup(func() {
		server.Signal(syscall.SIGINT)
		<-server.Done()
	})
	await := func(text string) {
		t.Helper()
		if !log.await(text, server.Done()) {
			t.Fatalf("the server does not say %q: %s", text, log)
		}
	}
	await("database system is ready to accept connections")

	conn := fmt.Sprintf("host=%s port=%d user=rewinder dbname=postgres", name, p.Port)
	s := connectWith(t, conn, Options{Conns: 2})
	err := s.with(t.Context(), func(*session) error { // both connections at the same time
		return s.with(t.Context(), func(*session) error { return nil })
	})
	if err != nil {
		t.Error(err)
	}
	if data, err := s.ReadFile(t.Context(), "PG_VERSION", 10); err != nil || string(data) != strconv.Itoa(p.Env().Major)+"\n" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := s.ControlFile(t.Context()); err != nil || len(data) != pg.ControlSize {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	// A standby of 14 or later reaches it with what -R writes: its libpq says so.
	value, lost := s.PrimaryConnInfo()
	if !strings.Contains(value, "host='"+name+"'") || lost != nil {
		t.Errorf("%s, lost %q", value, lost)
	}
	psql := func(conn string) *pgtest.Result {
		return p.Env().Exec(pgtest.Cmd{Path: "psql", Args: []string{"-At", "-c", "SELECT current_user", conn + " dbname=postgres"}})
	}
	if res := psql(value); res.Stdout != "rewinder\n" {
		t.Errorf("%s", res)
	}
	// The request to end what nobody waits for any more finds its way, too.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.value(ctx, "DO $$ BEGIN RAISE LOG 'it has begun'; PERFORM pg_catalog.pg_sleep(1000); END $$")
		ended <- err
	}()
	await("it has begun")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	await("canceling statement due to user request")

	for _, c := range []string{conn + " requirepeer=nobody", strings.Replace(conn, name, name+"-not", 1)} {
		said := strings.TrimPrefix(strings.TrimSuffix(psql(c).Stderr, "\n"), "psql: error: ")
		if f := connectError(t, c); f.Text != said || said == "" {
			t.Errorf("%s: %q, and libpq says %q", c, f.Text, said)
		}
	}
}

// serverLog is what a server writes, for a test that waits for its words.
type serverLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed, and made anew, when there is more
}

// Write implements io.Writer.
func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.grown)
	l.grown = make(chan struct{})
	return l.text.Write(p)
}

func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the server has written a text. It is false if the server ends before, or says nothing for a minute.
func (l *serverLog) await(text string, ended <-chan struct{}) bool {
	for {
		l.mu.Lock()
		there, grown := bytes.Contains(l.text.Bytes(), []byte(text)), l.grown
		l.mu.Unlock()
		if there {
			return true
		}
		select {
		case <-grown:
		case <-ended:
			return false
		case <-time.After(time.Minute):
			return false
		}
	}
}
