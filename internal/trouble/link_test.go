package trouble

import (
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// link is the network between the program and a server.
type link struct {
	port   int
	to     *pgtest.Cluster
	passed atomic.Int64 // bytes from the server
	brake  atomic.Int64 // after so many, there is only a trickle: what is under way stays under way
	trouble

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// trouble is what befalls connections.
type trouble struct {
	how   string // "": nothing; "cut": both sides; "stall": forwards nothing more from the server
	after int64  // bytes from the server on that connection
	times int64  // that many connections; the others are fine
}

func newLink(t *testing.T, to *pgtest.Cluster, tr trouble) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{port: l.Addr().(*net.TCPAddr).Port, to: to, trouble: tr, conns: make(map[net.Conn]bool)}
	k.release()
	k.wg.Go(func() { k.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		k.mu.Lock()
		for c := range k.conns {
			_ = c.Close()
		}
		k.mu.Unlock()
		k.wg.Wait()
	})
	return k
}

// release lets everything through.
func (k *link) release() { k.brake.Store(math.MaxInt64) }

// conninfo is how the program reaches the first of the servers behind some links that can be written to.
func conninfo(links ...*link) string {
	hosts, ports := "127.0.0.1", fmt.Sprint(links[0].port)
	for _, k := range links[1:] {
		hosts, ports = hosts+",127.0.0.1", ports+","+fmt.Sprint(k.port)
	}
	return fmt.Sprintf("host=%s port=%s user=%s dbname=postgres sslmode=disable connect_timeout=5", hosts, ports, pgtest.Superuser)
}

func (k *link) accept(l net.Listener) {
	for n := int64(0); ; n++ {
		client, err := l.Accept()
		if err != nil {
			return
		}
		k.keep(client)
		tr := k.trouble
		if n >= tr.times {
			tr = trouble{}
		}
		k.wg.Go(func() { k.serve(client, tr) })
	}
}

func (k *link) keep(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns[c] = true
}

func (k *link) serve(client net.Conn, tr trouble) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", k.to.Port))
	if err != nil {
		return // as if nobody listened
	}
	defer func() { _ = server.Close() }()
	k.keep(server)
	k.wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	buf := make([]byte, 16<<10)
	for seen := int64(0); ; {
		n, err := server.Read(buf)
		if n > 1000 && k.passed.Load() >= k.brake.Load() { // what is small is let through at once
			time.Sleep(100 * time.Millisecond)
		}
		if seen += int64(n); tr.how != "" && seen >= tr.after {
			if tr.how == "stall" {
				_, _ = io.Copy(io.Discard, server) // until the client has had enough
			}
			return
		}
		k.passed.Add(int64(n))
		if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}
