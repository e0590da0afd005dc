package s3test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("S3TEST_CHILD") != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// get is a signed request through whatever URL.
func get(t *testing.T, s *Server, base, name string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, base+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.sign(req, nil, time.Now().UTC())
	s.client.CloseIdleConnections() // a request that fails on a used connection would be made again
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func TestServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, opts := range []Options{{}, {TLS: true}, {Domain: "s3.test"}} {
		t.Run(fmt.Sprintf("%+v", opts), func(t *testing.T) {
			s := Start(t, opts)
			s.NewBucket("wal")
			s.Put("wal", "a b/+c", []byte("hello"))
			if status, body, err := get(t, s, s.URL, "/wal/a%20b/%2Bc"); status != 200 || body != "hello" {
				t.Errorf("%d %q %v", status, body, err)
			}
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "x"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "x", "y"), []byte("tree"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.CopyTree("wal", "p", dir)
			if status, body, err := get(t, s, s.URL, "/wal/p/x/y"); status != 200 || body != "tree" {
				t.Errorf("%d %q %v", status, body, err)
			}
			s.Delete("wal", "p/x/y")
			if status, body, err := get(t, s, s.URL, "/wal/p/x/y"); status != 404 || !strings.Contains(body, "NoSuchKey") {
				t.Errorf("%d %q %v", status, body, err)
			}
			other := *s
			other.SecretKey = "wrong"
			if status, body, err := get(t, &other, s.URL, "/wal/a%20b/%2Bc"); status != 403 || !strings.Contains(body, "SignatureDoesNotMatch") {
				t.Errorf("%d %q %v", status, body, err)
			}
			other.AccessKey = "nobody"
			if status, body, err := get(t, &other, s.URL, "/wal/a%20b/%2Bc"); status != 403 || !strings.Contains(body, "InvalidAccessKeyId") {
				t.Errorf("%d %q %v", status, body, err)
			}
		})
	}
}

func TestProxy(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, opts := range []Options{{}, {TLS: true}} {
		t.Run(fmt.Sprintf("%+v", opts), func(t *testing.T) {
			s := Start(t, opts)
			s.NewBucket("wal")
			data := strings.Repeat("0123456789abcdef", 10000)
			s.Put("wal", "k", []byte(data))
			p := NewProxy(t, s)
			flipped := []byte(data)
			flipped[70000] ^= 0x10
			for _, c := range []struct {
				name   string
				f      *Fault
				status int
				body   string
				err    error
			}{
				{"nothing", nil, 200, data, nil},
				{"SlowDown", SlowDown(), 503, "<Code>SlowDown</Code>", nil},
				{"denied", Denied(), 403, "<Code>AccessDenied</Code>", nil},
				{"cut at 0", Cut(0), 200, "", io.ErrUnexpectedEOF},
				{"cut at 1", Cut(1), 200, data[:1], io.ErrUnexpectedEOF},
				{"cut", Cut(100000), 200, data[:100000], io.ErrUnexpectedEOF},
				{"flip", Flip(70000), 200, string(flipped), nil},
				{"delay", &Fault{Delay: time.Millisecond}, 200, data, nil},
				{"replaced", &Fault{Replace: []byte("x"), Header: http.Header{"Content-Length": {"1"}}}, 200, "x", nil},
				{"reset", Reset(), 0, "", syscall.ECONNRESET},
			} {
				p.Inject(func(r Request) *Fault {
					if !r.Get() || r.List() || r.Bucket != "wal" || r.Key != "k" {
						t.Errorf("%+v", r)
					}
					return c.f
				})
				status, body, err := get(t, s, p.URL, "/wal/k")
				if status != c.status || body != c.body && (status < 300 || !strings.Contains(body, c.body)) || !errors.Is(err, c.err) {
					t.Errorf("%s: %d, %d bytes, %v", c.name, status, len(body), err)
				}
			}
			if n := len(p.Requests()); n != 10 {
				t.Errorf("%d requests", n)
			}
			p.Inject(func(Request) *Fault { return Stall(5) })
			req, err := http.NewRequest(http.MethodGet, p.URL+"/wal/k", nil)
			if err != nil {
				t.Fatal(err)
			}
			s.sign(req, nil, time.Now().UTC())
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := s.client.Do(req.WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			five := make([]byte, 5)
			if _, err := io.ReadFull(resp.Body, five); err != nil || string(five) != data[:5] {
				t.Error(string(five), err)
			}
			cancel()
			if n, err := resp.Body.Read(five); n != 0 || !errors.Is(err, context.Canceled) {
				t.Error(n, err)
			}
		})
	}
}

// childTB is a test whose process is killed.
type childTB struct{ *testing.T }

func (childTB) Helper()                           {}
func (childTB) Logf(format string, args ...any)   {}
func (childTB) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (childTB) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
func (childTB) Failed() bool             { return false }
func (childTB) Cleanup(func())           {}
func (childTB) Name() string             { return "child" }
func (childTB) Context() context.Context { return context.Background() }

func child() {
	s := Start(childTB{}, Options{})
	fmt.Println(s.dog.dir)
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed
}

// TestKilled kills a process that has a server with SIGKILL: server and directory are gone soon after.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "S3TEST_CHILD=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	dir = strings.TrimSpace(dir)
	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	proc := filepath.Join("/proc", strings.TrimSpace(string(pid)))
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, errDir := os.Stat(dir)
		_, errProc := os.Stat(proc)
		if errors.Is(errDir, os.ErrNotExist) && errors.Is(errProc, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, %s: %v", dir, errDir, proc, errProc)
		}
	}
}
