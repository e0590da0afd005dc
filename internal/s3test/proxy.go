package s3test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is a request that a Proxy got.
type Request struct {
	N      int // how many came before it
	Method string
	Bucket string // of path style
	Key    string // empty for a request to the bucket
	Query  url.Values
	Header http.Header
	Remote string // the connection's other end
}

// List reports a listing.
func (r Request) List() bool { return r.Method == http.MethodGet && r.Key == "" }

// Get reports the reading of an object.
func (r Request) Get() bool { return r.Method == http.MethodGet && r.Key != "" }

// Proxy passes requests on to a Server, and breaks some. The Host header stays what it was, so that signatures made for the
// proxy are good; clients use path style.
type Proxy struct {
	URL    string
	CAFile string // as the Server's

	server   *Server
	upstream *http.Transport
	scheme   string

	mu       sync.Mutex
	inject   func(Request) *Fault
	requests []Request
}

// NewProxy starts a proxy before a server; with TLS if the server has it. It ends with the test.
func NewProxy(tb TB, s *Server) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("s3test: proxy: %v", err)
	}
	p := &Proxy{URL: "http://" + l.Addr().String(), CAFile: s.CAFile, server: s, upstream: &http.Transport{}, scheme: "http"}
	if s.CAFile != "" {
		dir := filepath.Dir(s.CAFile)
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
		if err != nil {
			tb.Fatalf("s3test: proxy: %v", err)
		}
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			tb.Fatalf("s3test: proxy: %v", err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		p.URL, p.scheme = "https://localhost:"+port, "https"
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		p.upstream.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "localhost"}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler:     http.HandlerFunc(p.handle),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l) // until Close
	}()
	tb.Cleanup(func() {
		cancel()
		// The handlers end, the stalled ones by the end of ctx; a connection that was never used is not waited for.
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = srv.Shutdown(end)
		_ = srv.Close()
		<-served
		p.upstream.CloseIdleConnections()
	})
	return p
}

// Inject sets what is asked for each request from now on; nil passes all on. The function may return nil. It is called by
// several goroutines, but one at a time.
func (p *Proxy) Inject(f func(Request) *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inject = f
}

// Requests are those that came since the last call, in order.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := slices.Clone(p.requests)
	p.requests = nil
	return r
}

// note records a request and asks what to do with it.
func (p *Proxy) note(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	req := Request{N: len(p.requests), Method: r.Method, Query: r.URL.Query(), Header: r.Header.Clone(), Remote: r.RemoteAddr}
	req.Bucket, req.Key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	p.requests = append(p.requests, req)
	if p.inject != nil {
		if f := p.inject(req); f != nil {
			return f
		}
	}
	return &Fault{}
}

func (p *Proxy) handle(w http.ResponseWriter, r *http.Request) {
	f := p.note(r)
	if f.Delay > 0 {
		wait := time.NewTimer(f.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return
		}
	}
	if f.Reset {
		reset(w)
		return
	}
	if f.Status != 0 {
		f.answer(w, r)
		return
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = p.scheme, p.server.Addr, "" // out.Host stays
	resp, err := p.upstream.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler) // a server that is gone
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	f.header(w)
	w.WriteHeader(resp.StatusCode)
	body := io.Reader(resp.Body)
	if f.Replace != nil {
		body = bytes.NewReader(f.Replace)
	}
	f.send(w, r, body)
}

func (f *Fault) header(w http.ResponseWriter) {
	for name, values := range f.Header {
		if name = http.CanonicalHeaderKey(name); values == nil {
			w.Header().Del(name)
		} else {
			w.Header()[name] = values
		}
	}
}

// answer is an error as S3 writes it.
func (f *Fault) answer(w http.ResponseWriter, r *http.Request) {
	body := f.Body
	if body == "" {
		var b bytes.Buffer
		b.WriteString(xml.Header + "<Error><Code>")
		_ = xml.EscapeText(&b, []byte(f.Code)) // a bytes.Buffer never fails
		b.WriteString("</Code><Message>")
		_ = xml.EscapeText(&b, []byte(f.Message))
		b.WriteString("</Message><RequestId>1</RequestId></Error>")
		body = b.String()
		w.Header().Set("Content-Type", "application/xml")
	}
	f.header(w)
	w.WriteHeader(f.Status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, body) // a client that is gone does not want it
	}
}

// send sends a body with what is to be done to it.
func (f *Fault) send(w http.ResponseWriter, r *http.Request, body io.Reader) {
	end := int64(-1)
	for _, at := range []int64{f.CutAt, f.StallAt} {
		if at > 0 && (end < 0 || at-1 < end) {
			end = at - 1
		}
	}
	var off int64
	buf := make([]byte, 64<<10)
	for end < 0 || off < end {
		chunk := buf
		if end >= 0 {
			chunk = buf[:min(int64(len(buf)), end-off)]
		}
		n, err := body.Read(chunk)
		if i := f.FlipAt - 1 - off; f.FlipAt > 0 && i >= 0 && i < int64(n) {
			chunk[i] ^= 0x10
		}
		off += int64(n)
		if _, err := w.Write(chunk[:n]); err != nil {
			return // the client is gone, or got all that was announced
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	_ = http.NewResponseController(w).Flush() // what comes before the cut is to arrive
	if f.StallAt > 0 && f.StallAt-1 == end {
		<-r.Context().Done()
	}
	panic(http.ErrAbortHandler)
}

// reset closes a connection so that the other side sees a reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // else it is an orderly end, which is as good
	}
	_ = conn.Close()
}
