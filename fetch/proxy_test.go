package fetch

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// trouble is what a proxy does to one connection.
type trouble struct {
	how   string // "": nothing; "close": both sides; "reset": likewise, by RST; "stall": forwards nothing more
	after int64  // bytes from the server
}

// proxy is a network between client and server, with its troubles.
type proxy struct {
	t    *testing.T
	l    net.Listener
	plan func(n int) (to string, _ trouble) // for connection n, from 0

	mu    sync.Mutex
	count int
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func startProxy(t *testing.T, plan func(n int) (to string, _ trouble)) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, l: l, plan: plan, conns: make(map[net.Conn]bool)}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) conn(role string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable", p.l.Addr().(*net.TCPAddr).Port, role)
}

// connections is how many there have been.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func (p *proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		to, tr := p.plan(p.count)
		p.count++
		p.conns[client] = true
		p.mu.Unlock()
		p.wg.Go(func() { p.serve(client, to, tr) })
	}
}

func (p *proxy) serve(client net.Conn, to string, tr trouble) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns[server] = true
	p.mu.Unlock()
	p.wg.Go(func() {
		_, _ = io.Copy(server, client)
		server.Close()
	})
	if tr.how == "" {
		_, _ = io.Copy(client, server)
		return
	}
	_, _ = io.CopyN(client, server, tr.after)
	switch tr.how {
	case "stall":
		_, _ = io.Copy(io.Discard, server) // until one side closes
		buf := make([]byte, 1)
		_, _ = client.Read(buf)
	case "reset":
		_ = client.(*net.TCPConn).SetLinger(0)
	}
}
