package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// tcpPair is both ends of a connection.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestWatchedConn(t *testing.T) {
	const limit = 60 * time.Millisecond
	stalled := func(t *testing.T, c *watchedConn, err error) {
		t.Helper()
		var stall *stallError
		var timeout net.Error
		if !errors.As(err, &stall) || errors.As(err, &timeout) {
			t.Errorf("%v", err)
		}
		if _, again := c.Read(make([]byte, 1)); !errors.As(again, &stall) || !c.gone() {
			t.Errorf("afterwards: %v", again)
		}
	}
	t.Run("read", func(t *testing.T) {
		client, server := tcpPair(t)
		c := watchConn(client, limit)
		for range 3 { // bytes in time, though all of them take longer than the limit
			time.Sleep(limit / 2)
			if _, err := server.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		began := time.Now()
		_, err := c.Read(make([]byte, 10))
		if waited := time.Since(began); waited < limit {
			t.Errorf("given up after %v", waited)
		}
		stalled(t, c, err)
	})
	t.Run("write", func(t *testing.T) {
		client, server := tcpPair(t)
		c := watchConn(client, limit)
		n, err := c.Write(make([]byte, 64<<20)) // more than the kernel takes
		if n == 0 || n == 64<<20 {
			t.Errorf("%d bytes written", n)
		}
		stalled(t, c, err)
		server.Close()
	})
	t.Run("deadline of pgconn's", func(t *testing.T) {
		client, _ := tcpPair(t)
		c := watchConn(client, time.Hour)
		done := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			done <- err
		}()
		if err := c.SetDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || c.gone() {
			t.Errorf("%v", err)
		}
	})
	t.Run("deadline taken back", func(t *testing.T) {
		client, server := tcpPair(t)
		c := watchConn(client, time.Hour)
		// As when a call's context ends just after its answer has come.
		if err := c.SetDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
	t.Run("closing", func(t *testing.T) {
		client, _ := tcpPair(t)
		c := watchConn(client, 0)
		began := time.Now()
		if err := c.SetDeadline(began.Add(15 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if latest := c.read.outer.Sub(began); latest > maxClosing+time.Second {
			t.Errorf("%v", latest)
		}
	})
	t.Run("allowance", func(t *testing.T) {
		client, server := tcpPair(t)
		c := watchConn(client, 0)
		go func() {
			_, _ = io.Copy(server, bytes.NewReader(make([]byte, 8<<20)))
			server.Close()
		}()
		c.begin(4<<20, 0)
		n, err := io.Copy(io.Discard, c)
		if !errors.Is(err, errFlood) || n < 4<<20 || n > 6<<20 {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// What the keywords about TCP say reaches the socket.
func TestSocketOptions(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	options := map[string]int{
		"keepalives": unix.SO_KEEPALIVE, "idle": unix.TCP_KEEPIDLE, "interval": unix.TCP_KEEPINTVL, "count": unix.TCP_KEEPCNT,
		"user timeout": unix.TCP_USER_TIMEOUT,
	}
	for conn, want := range map[string]map[string]int{
		"": {"keepalives": 1, "idle": 10, "interval": 10, "count": 3, "user timeout": 0},
		"keepalives_idle=77 keepalives_interval=7 keepalives_count=5 tcp_user_timeout=5000": {
			"keepalives": 1, "idle": 77, "interval": 7, "count": 5, "user timeout": 5000,
		},
		"keepalives=0": {"keepalives": 0},
		"keepalives_idle=0 tcp_user_timeout='-1'": {"keepalives": 1, "idle": 7200, "interval": 10, "user timeout": 0},
	} {
		s, err := parseConnString(conn, env())
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.dialer()
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Control(func(fd uintptr) {
			for name, want := range want {
				level := unix.IPPROTO_TCP
				if name == "keepalives" {
					level = unix.SOL_SOCKET
				}
				if got, err := unix.GetsockoptInt(int(fd), level, options[name]); err != nil || got != want {
					if name == "idle" && want == 7200 && got > 0 && got != 10 {
						continue // the system's own, whatever that is here
					}
					t.Errorf("%s: %s is %d, %v; want %d", conn, name, got, err, want)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// Whatever the server's half of the conversation is, there is an answer or an error, and soon.
func FuzzWire(f *testing.F) {
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("a"), int8Col(0), []byte("abc")}}
	wire, err := row.Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Add(append(wire, wire...))
	f.Add([]byte("E\x00\x00\x00\x0bSFATAL\x00\x00"))
	f.Add([]byte{'T', 0, 0, 0, 6, 0xff, 0xff})
	f.Add([]byte{'D', 0x7f, 0xff, 0xff, 0xff})
	f.Add([]byte{'Z', 0, 0, 0, 5, 'I', 'C', 0, 0, 0, 5, 0})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := &rogue{fields: chunkFields, answer: func(b *pgproto3.Backend, conn net.Conn, _ string) bool {
			_ = b.Flush()
			_, _ = conn.Write(wire)
			return false
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		s, err := Connect(ctx, r.start(t), Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ranges := []pg.FileRange{{Path: "a", Length: 3}, {Path: "b", Offset: 8192, Length: 5}}
		next := 0
		err = s.Fetch(ctx, ranges, func(i int, c pg.FileChunk) error {
			if i != next || int64(len(c.Data)) > ranges[i].Length {
				t.Errorf("chunk %d, as number %d: %d bytes", i, next, len(c.Data))
			}
			next++
			return nil
		})
		if err == nil && next != len(ranges) {
			t.Errorf("%d chunks without an error", next)
		}
		for _, err := range []error{err, func() error { _, err := s.List(ctx, 1, nil); return err }()} {
			if err != nil && (errors.Is(err, context.DeadlineExceeded) || strings.ContainsAny(err.Error(), "\x1b\x00\r")) {
				t.Errorf("%q", err)
			}
		}
	})
}

// A row of chunks is refused, or is what was asked for.
func FuzzChunk(f *testing.F) {
	f.Add([]byte("base/5/1"), int8Col(8192), []byte("abcd"), uint8(0))
	f.Add([]byte("base/5/1"), int8Col(8192), []byte("abcde"), uint8(4))
	f.Add([]byte("../x"), []byte{1}, []byte{}, uint8(2))
	r := &pg.FileRange{Path: "base/5/1", Offset: 8192, Length: 4}
	f.Fuzz(func(t *testing.T, path, offset, data []byte, nulls uint8) {
		row := [][]byte{path, offset, data}
		for i := range row {
			if nulls&(1<<i) != 0 {
				row[i] = nil
			}
		}
		row = row[:len(row)-int(nulls>>6)%len(row)]
		c, err := decodeChunk(row, r)
		switch {
		case err != nil:
			if c.Data != nil || c.Gone || strings.ContainsAny(err.Error(), "\x1b\x00\n") {
				t.Errorf("%+v with %q", c, err)
			}
		case string(row[0]) != r.Path || !bytes.Equal(row[1], int8Col(r.Offset)) || len(c.Data) > 4 || c.Gone != (row[2] == nil):
			t.Errorf("%+v", c)
		}
	})
}

// Password files and encrypted keys are read as they are found.
func FuzzPassfileLine(f *testing.F) {
	f.Add(`h:5432:d:u:p`, "h")
	f.Add(`*:*:*:*:a\:b\\`, "x")
	f.Add(`\`, "")
	f.Fuzz(func(t *testing.T, line, host string) {
		password, ok := matchPassfile(line, []string{host, "5432", "d", "u"})
		if !ok && password != "" || len(password) > len(line) {
			t.Errorf("%q, %v", password, ok)
		}
	})
}
