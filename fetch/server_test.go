package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

func connect(t *testing.T, conn string, conns int) *Server {
	t.Helper()
	s, err := Connect(t.Context(), conn, Options{Conns: conns, ProgramName: "fastrewind"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connectError is the text of the error that connecting ends in.
func connectError(t *testing.T, conn string) *fault.Error {
	t.Helper()
	s, err := Connect(t.Context(), conn, Options{Conns: 1})
	if err == nil {
		s.Close()
		t.Fatalf("%q: connected", conn)
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("%q: %T %v", conn, err, err)
	}
	return f
}

func discard(int, pg.FileChunk) error { return nil }

// TestServer runs what needs a server, on one server; what changes the server for good comes last.
func TestServer(t *testing.T) {
	p := sampleCluster(t)
	p.Thaw()
	conn := p.ConnStringAs("rewinder")
	dir := p.DataDir()
	write := func(t *testing.T, name, content string) {
		t.Helper()
		p.Env().WriteFile(filepath.Join(dir, name), []byte(content), 0o600)
	}

	t.Run("questions", func(t *testing.T) {
		s := connect(t, conn, 1)
		if v := s.ServerVersion(); v/10000 != p.Env().Major {
			t.Errorf("version %d", v)
		}
		if in, err := s.InRecovery(t.Context()); err != nil || in {
			t.Errorf("in recovery: %v, %v", in, err)
		}
		flushed := func() pg.LSN {
			lsn, err := pg.ParseLSN(p.Query("postgres", "SELECT pg_current_wal_flush_lsn()"))
			if err != nil {
				t.Fatal(err)
			}
			return lsn
		}
		before := flushed()
		lsn, err := s.FlushLSN(t.Context())
		if after := flushed(); err != nil || lsn < before || lsn > after || lsn == 0 {
			t.Errorf("flush LSN %s, not from %s to %s (%v)", lsn, before, after, err)
		}
		named := p.Env().Major >= 18 // as stock does from there on
		if c, lost := s.PrimaryConnInfo(); !strings.Contains(c, "user=rewinder") || strings.Contains(c, "dbname") != named || lost != nil {
			t.Errorf("primary_conninfo %s, lost %q", c, lost)
		}
	})

	t.Run("session", func(t *testing.T) {
		p.SQL("postgres", `CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO rewinder;
			ALTER ROLE rewinder SET search_path = evil, pg_catalog; ALTER ROLE rewinder SET statement_timeout = '1s';
			ALTER ROLE rewinder SET lock_timeout = '1s'`)
		defer p.SQL("postgres", "ALTER ROLE rewinder RESET ALL")
		settings := map[string]string{
			"search_path": "", "statement_timeout": "0", "lock_timeout": "0",
			"idle_in_transaction_session_timeout": "0", "transaction_read_only": "on", "application_name": "fastrewind",
			"client_encoding": "UTF8",
		}
		for name, since := range map[string]int{"idle_session_timeout": 14, "transaction_timeout": 17} {
			if p.Env().Major >= since {
				p.SQL("postgres", "ALTER ROLE rewinder SET "+name+" = '1s'")
				settings[name] = "0"
			}
		}
		s := connect(t, conn, 1)
		for name, want := range settings {
			if v, err := s.value(t.Context(), "SELECT pg_catalog.current_setting('"+name+"')"); err != nil || string(v) != want {
				t.Errorf("%s = %q, %v", name, v, err)
			}
		}
	})

	t.Run("round trip", func(t *testing.T) {
		if trip := connect(t, conn, 1).RoundTrip(); trip <= 0 || trip > time.Minute {
			t.Errorf("%v", trip)
		}
	})

	t.Run("connection strings", func(t *testing.T) {
		port := fmt.Sprint(p.Port)
		for _, c := range []string{
			"host=nowhere.invalid hostaddr=127.0.0.1 port=" + port + " user=rewinder dbname=postgres",
			"host=127.0.0.1,127.0.0.1 port=1," + port + " user=rewinder dbname=postgres",
			"host=127.0.0.1 port=" + port + " user=rewinder dbname=postgres target_session_attrs=prefer-standby",
			"host=127.0.0.1 port=" + port + " user=rewinder dbname=postgres target_session_attrs=primary",
			"host=127.0.0.1 port=" + port + " user=rewinder dbname=postgres tcp_user_timeout=5000 keepalives_idle=30 " +
				"keepalives_interval=10 keepalives_count=3 gssencmode=prefer sslcompression=0 sslmode=prefer connect_timeout=5",
			"postgresql://rewinder@127.0.0.1:" + port + "/postgres?tcp_user_timeout=1000&fallback_application_name=x",
			"host=" + p.SocketDir() + " port=" + port + " user=rewinder dbname=postgres requirepeer=postgres",
		} {
			s, err := Connect(t.Context(), c, Options{Conns: 2})
			if err != nil {
				t.Errorf("%q: %v", c, err)
				continue
			}
			// Both connections, at the same time.
			err = s.with(t.Context(), func(*session) error {
				return s.with(t.Context(), func(*session) error { return nil })
			})
			if err != nil {
				t.Errorf("%q: second connection: %v", c, err)
			}
			s.Close()
		}
	})

	t.Run("connection failures", func(t *testing.T) {
		port := fmt.Sprint(p.Port)
		refused := "connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"
		for c, want := range map[string]string{
			"host=127.0.0.1 port=1 user=u":                                        refused,
			"host=127.0.0.1,127.0.0.1 port=1 user=u":                              refused + "\n" + refused,
			"host=localhost hostaddr=127.0.0.1 port=1 user=u":                     strings.Replace(refused, `"127.0.0.1",`, `"localhost" (127.0.0.1),`, 1),
			"host=nowhere.invalid port=1 user=u":                                  `could not translate host name "nowhere.invalid" to address: Name or service not known`,
			"host=/nonexistent port=7 user=u":                                     "connection to server on socket \"/nonexistent/.s.PGSQL.7\" failed: No such file or directory\n\tIs the server running locally and accepting connections on that socket?",
			conn + " dbname=none":                                                 `connection to server at "127.0.0.1", port ` + port + ` failed: FATAL:  database "none" does not exist`,
			conn + " target_session_attrs=standby":                                `connection to server at "127.0.0.1", port ` + port + ` failed: server is not in hot standby mode`,
			conn + " sslmode=require":                                             `connection to server at "127.0.0.1", port ` + port + ` failed: server does not support SSL, but SSL was required`,
			p.SocketConnString() + " user=rewinder requirepeer=nobody":            `connection to server on socket "` + p.SocketDir() + "/.s.PGSQL." + port + `" failed: requirepeer specifies "nobody", but actual peer user name is "postgres"`,
			"host=127.0.0.1 port=" + port + " user=none password=secret dbname=a": `connection to server at "127.0.0.1", port ` + port + ` failed: FATAL:  role "none" does not exist`,
		} {
			if f := connectError(t, c); f.Text != want {
				t.Errorf("%q:\n got %s\nwant %s", c, f.Text, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Connect(ctx, conn, Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})

	t.Run("missing grants", func(t *testing.T) {
		p.SQL("postgres", `CREATE ROLE "no ""body" LOGIN`)
		s := connect(t, p.ConnString()+` user='no "body'`, 1)
		_, err := s.List(t.Context(), 1, nil)
		if err == nil || err.Error() != "could not fetch file list: ERROR:  permission denied for function pg_ls_dir" {
			t.Errorf("list: %v", err)
		}
		if !strings.Contains(advice(err), `GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO "no ""body";`) {
			t.Errorf("advice: %s", advice(err))
		}
		_, err = s.ControlFile(t.Context())
		if err == nil || err.Error() != `could not fetch remote file "global/pg_control": ERROR:  permission denied for function pg_read_binary_file` || advice(err) == "" {
			t.Errorf("control file: %v", err)
		}
		err = s.Fetch(t.Context(), []pg.FileRange{{Path: "PG_VERSION", Length: 1}}, discard)
		if err == nil || err.Error() != "unexpected result while fetching remote files: ERROR:  permission denied for function pg_read_binary_file" {
			t.Errorf("fetch: %v", err)
		}
		// What the advice says is enough, word for word.
		for _, line := range strings.Split(advice(err), "\n") {
			if strings.HasPrefix(line, "GRANT ") {
				p.SQL("postgres", line)
			}
		}
		if _, err := s.List(t.Context(), 1, nil); err != nil {
			t.Error(err)
		}
	})

	// The outcomes that the package's documentation states.
	t.Run("a live source changes", func(t *testing.T) {
		s := connect(t, conn, 2)
		for _, name := range []string{"grow", "shrink", "vanish"} {
			write(t, name, "0123456789")
		}
		if err := os.Symlink("/nonexistent", filepath.Join(dir, "dangling")); err != nil {
			t.Fatal(err)
		}
		entries, err := s.List(t.Context(), 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(entries, func(e pg.Entry) bool { return e.Path == "dangling" }) {
			t.Error("a file without a size is listed")
		}
		write(t, "grow", "0123456789abc")
		write(t, "shrink", "012")
		if err := os.Remove(filepath.Join(dir, "vanish")); err != nil {
			t.Fatal(err)
		}
		var got []string
		err = s.Fetch(t.Context(), []pg.FileRange{
			{Path: "grow", Length: 10}, {Path: "grow", Length: MaxChunk}, {Path: "shrink", Length: 10}, {Path: "shrink", Offset: 5, Length: 5}, {Path: "vanish", Length: 10},
		}, func(_ int, c pg.FileChunk) error {
			got = append(got, fmt.Sprintf("%s %v", c.Data, c.Gone))
			return nil
		})
		if want := []string{"0123456789 false", "0123456789abc false", "012 false", " false", " true"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v", got, err)
		}
		for _, name := range []string{"grow", "shrink", "dangling"} {
			os.Remove(filepath.Join(dir, name))
		}
	})

	t.Run("file names in another encoding", func(t *testing.T) {
		p.SQL("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
		p.SQL("latin", strings.SplitN(grants, "\n", 2)[1])
		write(t, "na\xefve", "latin") // LATIN1 on the disk, UTF-8 on the way
		s := connect(t, conn+" dbname=latin", 1)
		entries, err := s.List(t.Context(), 1, nil)
		if err != nil || !slices.ContainsFunc(entries, func(e pg.Entry) bool { return e.Path == "naïve" }) {
			t.Errorf("not listed: %v", err)
		}
		if b, err := s.ReadFile(t.Context(), "naïve", 10); err != nil || string(b) != "latin" {
			t.Errorf("%q, %v", b, err)
		}
		// In a UTF-8 database such a name cannot be asked for, whatever the client; stock fails there as well, later.
		_, err = connect(t, conn, 1).List(t.Context(), 1, nil)
		if err == nil {
			t.Error("listed in UTF-8")
		}
		os.Remove(filepath.Join(dir, "na\xefve"))
	})

	t.Run("debug", func(t *testing.T) {
		var (
			mu    sync.Mutex
			lines []string
		)
		s, err := Connect(t.Context(), conn, Options{Debugf: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, fmt.Sprintf(format, args...))
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.ReadFile(t.Context(), "PG_VERSION", 10); err != nil {
			t.Error(err)
		}
		if err := s.Fetch(t.Context(), []pg.FileRange{{Path: "PG_VERSION", Offset: 1, Length: 10}, {Path: "none", Length: 1}}, discard); err != nil {
			t.Error(err)
		}
		want := []string{
			`fetched file "PG_VERSION", length 3`, "getting 2 file chunks", `received chunk for file "PG_VERSION", offset 1, size 2`,
			`received null value for chunk for file "none", file has been deleted`,
		}
		if !slices.Equal(lines, want) {
			t.Errorf("got %q", lines)
		}
	})

	t.Run("terminated", func(t *testing.T) {
		s := connect(t, conn, 1)
		ranges := slices.Repeat([]pg.FileRange{{Path: "global/pg_control", Length: 8192}}, 20000)
		err := s.Fetch(t.Context(), ranges, func(i int, _ pg.FileChunk) error {
			if i == 0 {
				p.SQL("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fastrewind'")
			}
			return nil
		})
		if err == nil || !strings.HasPrefix(err.Error(), "unexpected result while fetching remote files: FATAL:  terminating connection") &&
			!strings.Contains(err.Error(), "server closed the connection unexpectedly") {
			t.Errorf("%v", err)
		}
		if !strings.Contains(advice(err), `It was the turn of file "global/pg_control", offset 0, length 8192 (range `) {
			t.Errorf("advice: %s", advice(err))
		}
		if _, err := s.ControlFile(t.Context()); err != nil { // on a new session of the same server
			t.Errorf("afterwards: %v", err)
		}
	})

	t.Run("standby", func(t *testing.T) {
		p.SQL("postgres", "DROP TABLE inside") // base backups of 15 cannot have tablespaces in place
		p.SQL("postgres", "DROP TABLESPACE here")
		standby := p.Standby("standby")
		standby.Start()
		s := connect(t, standby.ConnStringAs("rewinder"), 1)
		if in, err := s.InRecovery(t.Context()); err != nil || !in {
			t.Errorf("in recovery: %v, %v", in, err)
		}
		if _, err := s.FlushLSN(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "error running query (SELECT pg_catalog.pg_current_wal_flush_lsn()) on source server: ERROR:  recovery is in progress") {
			t.Errorf("flush LSN: %v", err)
		}
		if _, err := s.List(t.Context(), 1, nil); err != nil {
			t.Error(err)
		}
		both := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=rewinder dbname=postgres", p.Port, standby.Port)
		for attrs, standbyWanted := range map[string]bool{"any": false, "standby": true, "prefer-standby": true, "read-only": true, "primary": false} {
			s := connect(t, both+" target_session_attrs="+attrs, 2)
			err := s.with(t.Context(), func(*session) error { // with the first session taken, the second must lead there too
				in, err := s.InRecovery(t.Context())
				if in != standbyWanted {
					t.Errorf("%s: standby %v", attrs, in)
				}
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", attrs, err)
			}
		}
		standby.Stop(pgtest.Fast)
	})

	t.Run("password", func(t *testing.T) {
		p.SQL("postgres", "SET password_encryption = 'scram-sha-256'; ALTER ROLE rewinder PASSWORD 'right'")
		hba := p.Path("pg_hba.conf")
		old, err := os.ReadFile(hba)
		if err != nil {
			t.Fatal(err)
		}
		p.Env().WriteFile(hba, append([]byte("host all rewinder 127.0.0.1/32 scram-sha-256\n"), old...), 0o600)
		p.Reload()
		wrong := strings.Replace(conn, "user=", "password='s3 cret' user=", 1)
		f := connectError(t, wrong)
		if want := "FATAL:  password authentication failed for user \"rewinder\""; !strings.HasSuffix(f.Text, want) || strings.Contains(f.Text+f.Advice, "cret") || strings.Contains(fmt.Sprintf("%+v", f.Err), "cret") {
			t.Errorf("%s (%+v)", f.Text, f.Err)
		}
		passfile := filepath.Join(t.TempDir(), "pass")
		if err := os.WriteFile(passfile, []byte("named.invalid:*:*:rewinder:right\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []string{
			"password=right", fmt.Sprintf("host=other.invalid,named.invalid hostaddr=127.0.0.1,127.0.0.1 port=1,%d passfile=%s", p.Port, passfile),
		} {
			s, err := Connect(t.Context(), conn+" "+c, Options{})
			if err != nil {
				t.Errorf("%s: %v", c, err)
				continue
			}
			s.Close()
		}
		p.Env().WriteFile(hba, old, 0o600)
		p.Reload()
	})

	t.Run("restarted", func(t *testing.T) {
		s := connect(t, conn, 2)
		p.Restart()
		_, err := s.ControlFile(t.Context()) // on the session of before; RetryFor is 0
		if err == nil || !strings.Contains(err.Error(), "terminating connection due to administrator command") || !errors.Is(err, ErrSourceLost) {
			t.Errorf("%v", err)
		}
		if _, err = s.ControlFile(t.Context()); err != nil {
			t.Errorf("%v", err)
		}
		if g := s.Generation(); g.Number != 2 || g.Elsewhere || g.TLI != 1 || g.InRecovery || g.SystemID == 0 {
			t.Errorf("%+v", g)
		}
	})

	t.Run("full_page_writes", func(t *testing.T) {
		p.SQL("postgres", "ALTER SYSTEM SET full_page_writes = off")
		p.Reload()
		// The checkpointer takes note of it in its own time; a new session reads the files at once.
		if f := connectError(t, conn); f.Text != "full_page_writes must be enabled in the source server" {
			t.Errorf("%s", f.Text)
		}
	})
}
