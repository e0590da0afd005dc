package object_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

const size = 300_000

// TestCut cuts a body at every kind of place, by an end, a reset in its middle or a stall: it goes on with a range of the
// same object.
func TestCut(t *testing.T) {
	for _, c := range []struct {
		name string
		opts s3test.Options
		copy bool // objects are copied into the server's directory: they have no ETag
	}{{"http", s3test.Options{}, false}, {"https", s3test.Options{TLS: true}, false}, {"no ETag", s3test.Options{}, true}} {
		t.Run(c.name, func(t *testing.T) {
			s := startServer(t, c.opts)
			data := random(1, size)
			if dir := t.TempDir(); c.copy {
				write(t, filepath.Join(dir, "key"), data)
				s.CopyTree(bucketName, "", dir)
			} else {
				s.Put(bucketName, "key", data)
			}
			p := s3test.NewProxy(t, s)
			var told retries
			opts := quick
			opts.Retried = told.add
			b := open(t, settings(s, p.URL), opts)
			first := func(f *s3test.Fault) func(s3test.Request) *s3test.Fault {
				return func(r s3test.Request) *s3test.Fault {
					if r.N == 0 {
						return f
					}
					return nil
				}
			}
			for _, at := range []int64{0, 1, 4095, 4096, 32767, 32768, 65535, 65536, 65537, 131072, size / 2, size - 65536, size - 2, size - 1} {
				p.Inject(first(s3test.Cut(at)))
				p.Requests()
				mustRead(t, b, "key", data)
				got := p.Requests()
				if len(got) != 2 || got[1].Header.Get("Range") != fmt.Sprintf("bytes=%d-", at) {
					t.Errorf("cut at %d: %d requests, the last with range %q", at, len(got), got[len(got)-1].Header.Get("Range"))
				}
				if etag := got[len(got)-1].Header.Get("If-Match"); (etag == "") != (c.copy && s.Root != "") {
					t.Errorf("If-Match: %q", etag)
				}
				if r := told.take(); len(r) != 1 || r[0].Path != "s3://wal/key" || r[0].Attempt != 1 || !strings.Contains(r[0].Reason, fmt.Sprintf("broke off at byte %d of %d", at, size)) {
					t.Errorf("cut at %d: %+v", at, r)
				}
			}
			opts.StallTimeout = 300 * time.Millisecond // on a busy machine some more stalls may be seen
			b = open(t, settings(s, p.URL), opts)
			for _, at := range []int64{0, 1, 65536, size - 1} {
				p.Inject(first(s3test.Stall(at)))
				p.Requests()
				mustRead(t, b, "key", data)
				if got := p.Requests(); len(got) < 2 || got[1].Header.Get("Range") != fmt.Sprintf("bytes=%d-", at) {
					t.Errorf("stall at %d: %d requests", at, len(got))
				}
				if r := told.take(); len(r) == 0 || !strings.Contains(r[0].Reason, fmt.Sprintf("broke off at byte %d of %d: no byte came", at, size)) {
					t.Errorf("stall at %d: %+v", at, r)
				}
			}
		})
	}
}

// TestCutAgain cuts all answers. As long as enough comes each time, the body goes on.
func TestCutAgain(t *testing.T) {
	s := startServer(t, s3test.Options{})
	data := random(2, 4<<20)
	s.Put(bucketName, "key", data)
	p := s3test.NewProxy(t, s)
	b := open(t, settings(s, p.URL), quick)
	p.Inject(func(s3test.Request) *s3test.Fault { return s3test.Cut(100_000) })
	mustRead(t, b, "key", data)
	if n, want := len(p.Requests()), (4<<20+99_999)/100_000; n != want {
		t.Errorf("%d requests, want %d", n, want)
	}

	// A little is not enough: attempts are bounded however the failures are mixed.
	for name, f := range map[string]func(s3test.Request) *s3test.Fault{
		"nothing":     func(s3test.Request) *s3test.Fault { return s3test.Cut(0) },
		"a byte":      func(s3test.Request) *s3test.Fault { return s3test.Cut(1) },
		"a few bytes": func(s3test.Request) *s3test.Fault { return s3test.Cut(8000) },
		"and a 503": func(r s3test.Request) *s3test.Fault {
			return []*s3test.Fault{s3test.Cut(8000), s3test.SlowDown()}[r.N%2]
		},
		"and resets": func(r s3test.Request) *s3test.Fault {
			return []*s3test.Fault{s3test.Cut(8000), s3test.Reset(), s3test.InternalError()}[r.N%3]
		},
		"503 then cuts": func(r s3test.Request) *s3test.Fault {
			return []*s3test.Fault{s3test.SlowDown(), s3test.Cut(9)}[min(r.N, 1)]
		},
	} {
		p.Requests()
		p.Inject(f)
		_, err := read(t.Context(), b, "key")
		wantError(t, err, nil, "s3://wal/key")
		if n := len(p.Requests()); n != object.DefaultMaxAttempts {
			t.Errorf("%s: %d requests: %v", name, n, err)
		}
	}

	set := settings(s, p.URL)
	set.MaxAttempts = 3
	b = open(t, set, quick)
	p.Inject(func(s3test.Request) *s3test.Fault { return s3test.SlowDown() })
	p.Requests()
	if _, err := read(t.Context(), b, "key"); err == nil || len(p.Requests()) != 3 {
		t.Error(err)
	}
}

// TestRecovered: what S3 does on a bad day, in turns, for bodies and listings.
func TestRecovered(t *testing.T) {
	s := startServer(t, s3test.Options{})
	data := random(3, size)
	s.Put(bucketName, "dir/key", data)
	p := s3test.NewProxy(t, s)
	b := open(t, settings(s, p.URL), quick)
	if got := list(t, b, ""); len(got) != 1 { // the server has answered from here on
		t.Fatal(got)
	}
	bad := []*s3test.Fault{
		s3test.SlowDown(), s3test.InternalError(), s3test.Reset(), {Status: 502, Body: "<html>"}, {Status: 504, Body: "x"}, {Delay: time.Millisecond},
		s3test.Cut(0), s3test.Cut(10),
	}
	for i := range bad {
		for j := range bad {
			p.Inject(func(r s3test.Request) *s3test.Fault {
				if r.N < 2 {
					return bad[[]int{i, j}[r.N]]
				}
				return nil
			})
			for range 2 {
				p.Requests()
				mustRead(t, b, "dir/key", data)
				p.Requests()
				if got := list(t, b, "dir"); len(got) != 1 {
					t.Errorf("%d %d: %q", i, j, got)
				}
				p.Requests()
				if got, err := b.Folders(t.Context(), "", 5); len(got) != 1 || err != nil {
					t.Errorf("%d %d: %q %v", i, j, got, err)
				}
			}
		}
	}
}

// TestChanged: the rest of another object is never taken for the rest of this one.
func TestChanged(t *testing.T) {
	type change func(t *testing.T, s *s3test.Server, p *s3test.Proxy)
	put := func(data []byte) change {
		return func(_ *testing.T, s *s3test.Server, _ *s3test.Proxy) { s.Put(bucketName, "key", data) }
	}
	answer := func(f *s3test.Fault) change {
		return func(_ *testing.T, _ *s3test.Server, p *s3test.Proxy) {
			p.Inject(func(s3test.Request) *s3test.Fault { return f })
		}
	}
	data := random(4, size)
	for _, c := range []struct {
		name string
		then change
		part string
		copy bool // without ETag
	}{
		{"another one", put(random(5, size)), "changed", false},
		{"a shorter one", put(data[:1000]), "changed", false},
		{"gone", func(_ *testing.T, s *s3test.Server, _ *s3test.Proxy) { s.Delete(bucketName, "key") }, "it is gone", false},
		{"no ETag, later", func(t *testing.T, s *s3test.Server, _ *s3test.Proxy) {
			file := filepath.Join(s.Root, bucketName, "key")
			if err := os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
		}, "time of its last change", true},
		{"no ETag, shorter", func(t *testing.T, s *s3test.Server, _ *s3test.Proxy) {
			if err := os.Truncate(filepath.Join(s.Root, bucketName, "key"), 1000); err != nil {
				t.Fatal(err)
			}
		}, "changed", true},
		{"If-Match ignored", answer(&s3test.Fault{Header: http.Header{"Etag": {`"other"`}}}), "another ETag", false},
		{"another range", answer(&s3test.Fault{Header: http.Header{"Content-Range": {fmt.Sprintf("bytes 5-%d/%d", size-1, size)}}}), "asked for its bytes from 70000 on", false},
		{"no range at all", answer(&s3test.Fault{Header: http.Header{"Content-Range": {"what?"}}}), "asked for its bytes from 70000 on", false},
		{"another size", answer(&s3test.Fault{Header: http.Header{"Content-Range": {fmt.Sprintf("bytes 70000-%d/%d", size, size+1)}}}), "it has 300001 bytes now", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startServer(t, s3test.Options{})
			if c.copy && s.Root == "" {
				return // every object of this server has an ETag
			}
			if dir := t.TempDir(); c.copy {
				write(t, filepath.Join(dir, "key"), data)
				s.CopyTree(bucketName, "", dir)
			} else {
				s.Put(bucketName, "key", data)
			}
			p := s3test.NewProxy(t, s)
			p.Inject(func(r s3test.Request) *s3test.Fault { return s3test.Cut(70_000) })
			b := open(t, settings(s, p.URL), quick)
			body, o, err := b.Open(t.Context(), "key")
			if err != nil || o.Size != size {
				t.Fatal(o, err)
			}
			defer body.Close()
			p.Inject(nil)
			// The server must have sent what is let through: it reads a file, which is not as immutable as an object.
			var got bytes.Buffer
			if _, err := io.CopyN(&got, body, 70_000-1); err != nil {
				t.Fatal(err)
			}
			c.then(t, s, p)
			_, err = io.Copy(&got, body)
			wantError(t, err, nil, c.part, "s3://wal/key")
			if !bytes.Equal(got.Bytes(), data[:got.Len()]) {
				t.Error("bytes of another object")
			}
			if n, again := body.Read(make([]byte, 1)); n != 0 || !errors.Is(again, err) {
				t.Errorf("read again: %d %v", n, again)
			}
		})
	}
}

// TestLengths: what a server says of lengths is not believed. The server is a list of answers, one for each connection.
func TestLengths(t *testing.T) {
	data := random(6, 1000)
	head := func(status, fields string) string {
		return "HTTP/1.1 " + status + "\r\nConnection: close\r\n" + fields + "\r\n"
	}
	whole := string(data)
	long := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		name    string
		answers []string // the last for all further connections
		parts   []string // of the error; nil: the object is read
	}{
		{"as announced", []string{head("200 OK", "Content-Length: 1000\r\n") + whole}, nil},
		{"more than announced", []string{head("200 OK", "Content-Length: 1000\r\n") + whole + long}, nil},
		{"less than announced", []string{head("200 OK", "Content-Length: 1000\r\n") + whole[:500]}, []string{"broke off at byte 500 of 1000"}},
		{"negative", []string{head("200 OK", "Content-Length: -1\r\n") + whole}, []string{"Content-Length"}},
		{"too large for a number", []string{head("200 OK", "Content-Length: 92233720368547758080\r\n") + whole}, []string{"Content-Length"}},
		{"absurd", []string{head("200 OK", "Content-Length: 9223372036854775807\r\n") + whole}, []string{"of 9223372036854775807"}},
		{"not announced", []string{head("200 OK", "") + whole}, []string{"does not say how large"}},
		{"chunked", []string{head("200 OK", "Transfer-Encoding: chunked\r\n") + "3e8\r\n" + whole + "\r\n0\r\n\r\n"}, []string{"does not say how large"}},
		{"endless head", []string{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat(long, 12)}, []string{"s3://wal/key"}},
		{"no HTTP", []string{"SSH-2.0-OpenSSH_9.2\r\n"}, []string{"malformed HTTP"}},
		{"the rest, by range", []string{
			head("200 OK", "Content-Length: 1000\r\n") + whole[:600],
			head("206 Partial Content", "Content-Length: 400\r\nContent-Range: bytes 600-999/1000\r\n") + whole[600:],
		}, nil},
		{"the rest, in two", []string{
			head("200 OK", "Content-Length: 1000\r\n") + whole[:600],
			head("206 Partial Content", "Content-Length: 100\r\nContent-Range: bytes 600-699/1000\r\n") + whole[600:700],
			head("206 Partial Content", "Content-Length: 300\r\nContent-Range: bytes 700-999/1000\r\n") + whole[700:],
		}, nil},
		{"the rest, without a range", []string{
			head("200 OK", "Content-Length: 1000\r\n") + whole[:600],
			head("200 OK", "Content-Length: 1000\r\n") + whole[:500], // does not even come as far
			head("200 OK", "Content-Length: 1000\r\n") + whole,
		}, nil},
		{"the rest, without a range, shorter", []string{
			head("200 OK", "Content-Length: 1000\r\n") + whole[:600],
			head("200 OK", "Content-Length: 999\r\n") + whole[:999],
		}, []string{"it has 999 bytes now, not 1000"}},
		{"the rest is empty", []string{
			head("200 OK", "Content-Length: 1000\r\n") + whole[:600],
			head("206 Partial Content", "Content-Length: 0\r\nContent-Range: bytes 600-999/1000\r\n"),
		}, []string{"broke off at byte 600"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := rawServer(t, c.answers)
			b := open(t, location.S3{Bucket: bucketName, Endpoint: url, PathStyle: true, AccessKey: "a", SecretKey: "b"}, quick)
			if c.parts == nil {
				mustRead(t, b, "key", data)
				return
			}
			_, err := read(t.Context(), b, "key")
			wantError(t, err, nil, append(c.parts, "s3://wal/key")...)
		})
	}
}

// rawServer answers each connection's first request with the next text, and closes it.
func rawServer(t *testing.T, answers []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			buf := make([]byte, 16<<10) // what comes is smaller
			_, _ = conn.Read(buf)
			_, _ = io.WriteString(conn, answers[min(i, len(answers)-1)]) // the client may have had enough
			if c, ok := conn.(*net.TCPConn); ok {
				_ = c.CloseWrite()
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = io.Copy(io.Discard, c) // or the kernel would reset what is still on its way
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// TestChecksum: where the store keeps a checksum of the whole object, a bit flipped on the way is noticed, over one request
// or several.
func TestChecksum(t *testing.T) {
	s := startServer(t, s3test.Options{})
	data := random(7, size)
	p := s3test.NewProxy(t, s)
	b := open(t, settings(s, p.URL), quick)
	sums := map[string]string{
		"Crc32": "", "Crc32c": "", "Sha1": "", "Sha256": "", "Crc64nvme": "",
	}
	for algorithm, value := range checksums(data) {
		t.Run(algorithm, func(t *testing.T) {
			delete(sums, algorithm)
			s.Put(bucketName, "key", data, "X-Amz-Checksum-"+algorithm, value)
			p.Inject(nil)
			p.Requests()
			mustRead(t, b, "key", data)
			if mode := p.Requests()[0].Header.Get("X-Amz-Checksum-Mode"); mode != "ENABLED" {
				t.Errorf("mode %q", mode)
			}
			for _, faults := range [][]*s3test.Fault{
				{s3test.Flip(0)}, {s3test.Flip(size - 1)}, {s3test.Flip(1234)},
				{s3test.Cut(100_000), s3test.Flip(1000)}, {{CutAt: 100_000, FlipAt: 500}, nil},
			} {
				p.Requests()
				p.Inject(func(r s3test.Request) *s3test.Fault {
					if r.N < len(faults) {
						return faults[r.N]
					}
					return nil
				})
				_, err := read(t.Context(), b, "key")
				wantError(t, err, object.ErrChecksum, "s3://wal/key", strings.ToUpper(algorithm))
			}
			p.Requests()
			p.Inject(func(r s3test.Request) *s3test.Fault {
				if r.N == 0 {
					return s3test.Cut(77_777)
				}
				return nil
			})
			mustRead(t, b, "key", data)
		})
	}
	if len(sums) != 0 {
		t.Errorf("not tried: %v", sums)
	}
	if got := crc64.Checksum([]byte("123456789"), crc64.MakeTable(0x9a6c9329ac4bc9b5)); got != 0xae8b14860a799888 { // the catalogue's check value
		t.Errorf("CRC-64/NVME is %x", got)
	}
}

// TestHeaders: what the settings want to be sent is sent, with every request.
func TestHeaders(t *testing.T) {
	s := startServer(t, s3test.Options{TLS: true})
	data := random(8, 1000)
	s.Put(bucketName, "key", data)
	p := s3test.NewProxy(t, s)
	p.Inject(func(r s3test.Request) *s3test.Fault {
		if r.N == 0 {
			return s3test.Cut(500)
		}
		return nil
	})
	set := settings(s, p.URL)
	set.RequesterPays = true
	set.Headers = map[string]string{"X-Tenant": "blue", "x-amz-meta-why": "because"}
	b := open(t, set, quick)
	mustRead(t, b, "key", data)
	list(t, b, "")
	for _, r := range p.Requests() {
		for name, want := range map[string]string{"X-Tenant": "blue", "X-Amz-Meta-Why": "because", "X-Amz-Request-Payer": "requester"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s %s: %s is %q, want %q", r.Method, r.Key, name, got, want)
			}
		}
		if agent := r.Header.Get("User-Agent"); !strings.Contains(agent, "fastrewind") {
			t.Errorf("user agent %q", agent)
		}
	}
	set.SSECKey = location.Secret(strings.Repeat("k", 32))
	b = open(t, set, quick)
	p.Requests()
	_, _ = read(t.Context(), b, "key") // servers differ in what they make of it
	_ = b.List(t.Context(), "", func(object.Object) error { return nil })
	for _, r := range p.Requests() {
		key, sum := r.Header.Get("X-Amz-Server-Side-Encryption-Customer-Key"), r.Header.Get("X-Amz-Server-Side-Encryption-Customer-Key-Md5")
		if r.List() && key+sum != "" {
			t.Error("a customer's key in a listing")
		}
		if r.Get() && (key != "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=" || sum != "mT2HRsMGJ5IX5C+0rreZ8Q==") {
			t.Errorf("customer key %q, %q", key, sum)
		}
	}
}

// TestMemory: sixteen bodies at once do not take more memory than their buffers.
func TestMemory(t *testing.T) {
	s := startServer(t, s3test.Options{})
	const large = 16 << 20
	data := random(9, large)
	s.Put(bucketName, "key", data)
	b := open(t, settings(s, s.URL), quick)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var g errgroup.Group
	for range 16 {
		g.Go(func() error {
			body, o, err := b.Open(t.Context(), "key")
			if err != nil {
				return err
			}
			defer body.Close()
			buf, off := make([]byte, 128<<10), 0
			for {
				n, err := body.Read(buf)
				if !bytes.Equal(buf[:n], data[off:off+n]) {
					return errors.New("other bytes")
				}
				if off += n; errors.Is(err, io.EOF) && int64(off) == o.Size {
					return nil
				}
				if err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 16<<20 {
		t.Errorf("%d MB allocated for reading %d MB", allocated>>20, 16*large>>20)
	}
}
