package object_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

// TestServerErrors: what a user can have set wrong, each with its own words, from a real server over http and https.
func TestServerErrors(t *testing.T) {
	for _, opts := range []s3test.Options{{}, {TLS: true}} {
		t.Run(fmt.Sprintf("TLS %v", opts.TLS), func(t *testing.T) {
			s := startServer(t, opts)
			s.Put(bucketName, "dir/key", []byte("content"))
			good := settings(s, s.URL)
			bad := func(change func(*location.S3)) location.S3 {
				set := good
				change(&set)
				return set
			}
			for _, c := range []struct {
				name string
				set  location.S3
				key  string
				is   error // of reading
				read []string
				list []string // nil: listing is well
			}{
				{"wrong secret", bad(func(s *location.S3) { s.SecretKey = "not the secret" }), "dir/key", nil,
					[]string{"the secret key is wrong", "SignatureDoesNotMatch", "StaticCredentials"}, []string{"the secret key is wrong"}},
				{"unknown access key", bad(func(s *location.S3) { s.AccessKey = "NOBODY" }), "dir/key", nil,
					[]string{"the access key is unknown"}, []string{"the access key is unknown"}},
				{"missing bucket", bad(func(s *location.S3) { s.Bucket = "no-such-bucket" }), "dir/key", nil,
					[]string{`there is no bucket "no-such-bucket"`}, []string{`there is no bucket "no-such-bucket"`}},
				{"wrong region", bad(func(s *location.S3) { s.Region = "eu-west-3" }), "dir/key", nil,
					[]string{"another region than eu-west-3", "us-east-1"}, []string{"another region than eu-west-3"}},
				{"missing object", good, "dir/other", errNotExist, []string{"there is no such object"}, nil},
			} {
				t.Run(c.name, func(t *testing.T) {
					b := open(t, c.set, quick)
					_, err := read(t.Context(), b, c.key)
					where := []string{"s3://" + c.set.Bucket + "/" + c.key, s.URL}
					wantError(t, err, c.is, append(where, c.read...)...)
					err = b.List(t.Context(), "dir/", func(object.Object) error { return nil })
					if c.list == nil {
						if err != nil {
							t.Error(err)
						}
						return
					}
					wantError(t, err, nil, append(c.list, "could not list", "s3://"+c.set.Bucket+"/dir/", s.URL)...)
					_, err = b.Folders(t.Context(), "", 5)
					wantError(t, err, nil, c.list...)
				})
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	s := startServer(t, s3test.Options{TLS: true})
	s.Put(bucketName, "key", []byte("content"))
	expired := startServer(t, s3test.Options{Expired: true})
	plain := startServer(t, s3test.Options{})
	ours := httptest.NewUnstartedServer(http.NotFoundHandler())
	ours.Config.ErrorLog = log.New(io.Discard, "", 0)
	ours.StartTLS()
	defer ours.Close()
	port := s.Addr[strings.LastIndexByte(s.Addr, ':'):]
	bad := func(s *s3test.Server, change func(*location.S3)) location.S3 {
		set := settings(s, s.URL)
		change(&set)
		return set
	}
	for _, c := range []struct {
		name  string
		set   location.S3
		parts []string
	}{
		{"unknown authority", bad(s, func(s *location.S3) { s.CAFile = "" }), []string{"not trusted", "CA file"}},
		{"another authority", bad(s, func(s *location.S3) { s.CAFile = expired.CAFile }), []string{"not trusted"}},
		{"expired", bad(expired, func(*location.S3) {}), []string{"expired"}},
		{"another name", bad(s, func(set *location.S3) { set.Endpoint, set.Connect = "https://other.example"+port, s.Addr }), []string{"for another name"}},
		{"TLS to a plain server", bad(plain, func(s *location.S3) { s.Endpoint = strings.Replace(s.Endpoint, "http:", "https:", 1) }),
			[]string{"does not speak TLS"}},
		{"plain to a TLS server", bad(s, func(s *location.S3) { s.Endpoint = strings.Replace(s.Endpoint, "https:", "http:", 1) }),
			[]string{"wants TLS"}},
		{"plain to Go's TLS server", bad(plain, func(s *location.S3) { s.Endpoint = strings.Replace(ours.URL, "https:", "http:", 1) }),
			[]string{"the server wants TLS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told retries
			opts := quick
			opts.Retried = told.add
			b := open(t, c.set, opts)
			_, err := read(t.Context(), b, "key")
			wantError(t, err, nil, append(c.parts, c.set.Endpoint)...)
			if n := told.take(); len(n) != 0 && c.name != "plain to a TLS server" {
				t.Errorf("tried again: %+v", n)
			}
		})
	}
	for name, set := range map[string]location.S3{
		"CA directory":        bad(s, func(set *location.S3) { set.CADir, set.CAFile = filepath.Dir(set.CAFile), "" }),
		"no verification":     bad(s, func(s *location.S3) { s.NoVerify, s.CAFile = true, "" }),
		"expired, unverified": bad(expired, func(s *location.S3) { s.NoVerify, s.CAFile = true, "" }),
		"another address":     bad(s, func(set *location.S3) { set.Endpoint, set.Connect = "https://s3.test:1", s.Addr }),
	} {
		t.Run(name, func(t *testing.T) {
			if got := list(t, open(t, set, quick), ""); len(got) > 1 {
				t.Error(got)
			}
		})
	}
	t.Run("AWS_CA_BUNDLE", func(t *testing.T) {
		t.Setenv("AWS_CA_BUNDLE", s.CAFile)
		mustRead(t, open(t, bad(s, func(s *location.S3) { s.CAFile = "" }), quick), "key", []byte("content"))
	})
	for name, c := range map[string]struct {
		set  location.S3
		part string
	}{
		"no CA file":            {location.S3{CAFile: "/nonexistent/ca"}, "/nonexistent/ca"},
		"no certificate inside": {location.S3{CAFile: "errors_test.go"}, "no certificate found"},
		"no CA directory":       {location.S3{CADir: "/nonexistent/ca"}, "/nonexistent/ca"},
		"none in the directory": {location.S3{CADir: "."}, "no certificate found"},
	} {
		t.Run(name, func(t *testing.T) {
			c.set.Bucket = bucketName
			_, err := object.NewS3(t.Context(), c.set, quick)
			wantError(t, err, nil, c.part)
		})
	}
}

// TestAnswers: what cannot be had from the test server is put into its mouth.
func TestAnswers(t *testing.T) {
	s := startServer(t, s3test.Options{})
	s.Put(bucketName, "key", []byte("content"))
	p := s3test.NewProxy(t, s)
	type words []string
	for _, c := range []struct {
		name  string
		fault s3test.Fault
		is    error
		read  words
		list  words
		tries int // requests made for reading
	}{
		{"denied", *s3test.Denied(), object.ErrDenied, words{"access is denied, or there is no such object", "s3:GetObject"},
			words{"listing is denied", "s3:ListBucket"}, 1},
		{"denied without words", s3test.Fault{Status: 403, Body: " "}, object.ErrDenied, words{"denied"}, words{"listing is denied"}, 1},
		{"clock", *s3test.Skewed(), nil, words{"clock", "RequestTimeTooSkewed"}, words{"clock"}, 0},
		{"Glacier", *s3test.Archived(), nil, words{"archive class", "restore-object"}, nil, 1},
		{"throttled", *s3test.SlowDown(), nil, words{"fewer requests", "SlowDown"}, words{"fewer requests"}, object.DefaultMaxAttempts},
		{"throttled otherwise", s3test.Fault{Status: 429, Code: "TooManyRequests"}, nil, words{"fewer requests"}, words{"fewer requests"}, 0},
		{"broken server", *s3test.InternalError(), nil, words{"the server failed"}, words{"the server failed"}, object.DefaultMaxAttempts},
		{"bad gateway", s3test.Fault{Status: 502, Body: "<html><body>Bad Gateway"}, nil, words{"502"}, words{"502"}, object.DefaultMaxAttempts},
		{"always reset", *s3test.Reset(), nil, words{"reset", "Perhaps it wants TLS"}, words{"reset"}, 3}, // fewer before the first answer
		{"redirect", s3test.Fault{Status: 301, Code: "PermanentRedirect", Message: "elsewhere",
			Header: http.Header{"X-Amz-Bucket-Region": {"eu-north-1"}, "Location": {"http://127.0.0.1:1/"}}}, nil,
			words{"another region than us-east-1", "The bucket's region is eu-north-1"}, words{"eu-north-1"}, 1},
		{"temporary redirect", s3test.Fault{Status: 307, Code: "TemporaryRedirect", Header: http.Header{"Location": {"http://127.0.0.1:1/"}}}, nil,
			words{"another region"}, nil, 1},
		{"expired token", s3test.Fault{Status: 400, Code: "ExpiredToken", Message: "The provided token has expired."}, nil,
			words{"session token"}, words{"session token"}, 1},
		{"SSE-C object", s3test.Fault{Status: 400, Code: "InvalidRequest", Message: "The object was stored using a form of Server Side Encryption."}, nil,
			words{"SSE-C"}, nil, 1},
		{"no S3 at all", s3test.Fault{Status: 404, Body: "<html><head><title>404</title></head><body>not found</body></html>"}, nil,
			words{"404", "Is the endpoint right"}, words{"404"}, 1},
		{"no S3, empty", s3test.Fault{Status: 404, Body: "\n"}, nil, words{"404", "not one of S3"}, words{"404"}, 1},
		{"plain text", s3test.Fault{Status: 404, Body: "404 page not found"}, nil, words{"404"}, words{"404"}, 1},
		{"moved page", s3test.Fault{Status: 302, Body: "moved", Header: http.Header{"Location": {"http://127.0.0.1:1/"}}}, nil, words{"302"}, words{"302"}, 1},
		{"a secret repeated", s3test.Fault{Status: 400, Code: "Odd", Message: "secret " + s.SecretKey + "\x1b[31m \u202e end"}, nil,
			words{"secret [secret]", "(Odd)"}, words{"[secret]"}, 1},
		{"endless words", s3test.Fault{Status: 400, Code: "Odd", Message: strings.Repeat("x", 2<<20)}, nil, words{"larger than any that is due"}, words{"larger than"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.Inject(func(s3test.Request) *s3test.Fault { return &c.fault })
			p.Requests()
			b := open(t, settings(s, p.URL), quick)
			_, err := read(t.Context(), b, "key")
			wantError(t, err, c.is, append(c.read, "s3://wal/key", p.URL)...)
			if n := len(p.Requests()); c.tries != 0 && n != c.tries || n > object.DefaultMaxAttempts {
				t.Errorf("%d requests for an object, want %d", n, c.tries)
			}
			if text := text(err); strings.Contains(text, s.SecretKey) || strings.ContainsAny(text, "\x1b\u202e") || len(text) > 2000 {
				t.Errorf("not fit to print: %q", text)
			}
			err = b.List(t.Context(), "pre", func(object.Object) error { return nil })
			is := c.is
			if errors.Is(is, errNotExist) {
				is = nil
			}
			wantError(t, err, is, append(c.list, "s3://wal/pre", p.URL)...)
			if n := len(p.Requests()); n > object.DefaultMaxAttempts {
				t.Errorf("%d requests for a listing", n)
			}
		})
	}
}

// TestListDeniedReadAllowed is what a role with s3:GetObject alone has.
func TestListDeniedReadAllowed(t *testing.T) {
	s := startServer(t, s3test.Options{TLS: true})
	s.Put(bucketName, "key", []byte("content"))
	p := s3test.NewProxy(t, s)
	p.Inject(func(r s3test.Request) *s3test.Fault {
		if r.List() || r.Key == "missing" {
			return s3test.Denied()
		}
		return nil
	})
	b := open(t, settings(s, p.URL), quick)
	mustRead(t, b, "key", []byte("content"))
	_, err := read(t.Context(), b, "missing")
	wantError(t, err, object.ErrDenied, "or there is no such object")
	wantError(t, b.List(t.Context(), "", func(object.Object) error { return nil }), object.ErrDenied, "listing is denied")
	_, err = b.Folders(t.Context(), "", 1)
	wantError(t, err, object.ErrDenied, "listing is denied")
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name     string
		endpoint string
		parts    []string
		tries    int
	}{
		{"refused", "http://" + addr, []string{"refused", addr}, 2},
		{"no such name", "https://no-such-host.invalid", []string{"no-such-host.invalid", "resolve"}, 0},
		{"silent", "http://" + silent.Addr().String(), []string{"did not answer in time"}, 2},
		{"silent TLS", "https://" + silent.Addr().String(), []string{"did not answer in time"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told retries
			b := open(t, location.S3{Bucket: bucketName, Endpoint: c.endpoint, PathStyle: true, AccessKey: "a", SecretKey: "b"}, object.Options{
				RetryDelay: time.Microsecond, ConnectTimeout: 50 * time.Millisecond, AnswerTimeout: 50 * time.Millisecond, Retried: told.add,
			})
			_, err := read(t.Context(), b, "key")
			wantError(t, err, nil, c.parts...)
			if n := told.take(); c.name != "no such name" && len(n) != c.tries {
				t.Errorf("%d retries: %+v", len(n), n)
			}
		})
	}
}

// TestSettings are those refused before anything is asked.
func TestSettings(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, c := range []struct {
		name string
		set  location.S3
		part string
	}{
		{"no bucket", location.S3{}, "no S3 bucket"},
		{"prefix in the bucket", location.S3{Bucket: "a/b"}, "not the name of an S3 bucket"},
		{"half a key", location.S3{Bucket: "b", AccessKey: "x"}, "only one is set"},
		{"the other half", location.S3{Bucket: "b", SecretKey: "hush-hush"}, "only one is set"},
		{"endpoint without scheme", location.S3{Bucket: "b", Endpoint: "localhost:9000", AccessKey: "a", SecretKey: "b"}, "not a URL"},
		{"endpoint with a password", location.S3{Bucket: "b", Endpoint: "https://u:hush-hush@host", AccessKey: "a", SecretKey: "b"}, "not a URL"},
		{"endpoint of another kind", location.S3{Bucket: "b", Endpoint: "ftp://host", AccessKey: "a", SecretKey: "b"}, "not a URL"},
		{"customer key", location.S3{Bucket: "b", Endpoint: "https://h", SSECKey: "hush-hush"}, "32 bytes"},
		{"customer key over http", location.S3{Bucket: "b", Endpoint: "http://h", SSECKey: "hush-hush-hush-hush-hush-hush-!!", AccessKey: "a", SecretKey: "b"}, "without encryption"},
		{"connect without port", location.S3{Bucket: "b", Connect: "host"}, "not host:port"},
		{"unknown profile", location.S3{Bucket: "b", Profile: "nobody"}, `profile "nobody"`},
		{"no credentials", location.S3{Bucket: "b"}, "none were found"},
		{"web identity without its settings", location.S3{Bucket: "b", WebIdentity: true}, "AWS_WEB_IDENTITY_TOKEN_FILE"},
		{"no instance role", location.S3{Bucket: "b", InstanceRole: true}, "instance metadata"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := object.NewS3(t.Context(), c.set, quick)
			if err == nil {
				_ = object.Close(b)
			}
			wantError(t, err, nil, c.part)
			if err != nil && strings.Contains(text(err), "hush") {
				t.Errorf("a secret is in %q", text(err))
			}
		})
	}
}

// TestEnvironment: what is wrong in settings that only the SDK knows.
func TestEnvironment(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, part string }{
		"endpoint with a password": {"AWS_ENDPOINT_URL_S3", "https://u:hush-hush@host", "not a URL"},
		"no CA bundle":             {"AWS_CA_BUNDLE", "/nonexistent/ca", "/nonexistent/ca"},
		"unknown profile":          {"AWS_PROFILE", "nobody", `profile "nobody"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			_, err := object.NewS3(t.Context(), location.S3{Bucket: "b", AccessKey: "a", SecretKey: "b"}, quick)
			wantError(t, err, nil, c.part)
			if err != nil && strings.Contains(text(err), "hush") {
				t.Errorf("a secret is in %q", text(err))
			}
		})
	}
}

// TestNoMetadataService: where the metadata service's address leads nowhere, finding no credentials does not take long.
func TestNoMetadataService(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for timeouts of the SDK's")
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String())
	start := time.Now()
	_, err = object.NewS3(t.Context(), location.S3{Bucket: "b"}, quick)
	wantError(t, err, nil, "none were found")
	t.Logf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
}

// TestRegionOfAWS finds a bucket's region as Amazon tells it, from a server that stands for Amazon's.
func TestRegionOfAWS(t *testing.T) {
	var asked []string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Host+r.URL.Path)
		w.Header().Set("X-Amz-Bucket-Region", "ap-south-2")
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if !strings.Contains(r.Header.Get("Authorization"), "/ap-south-2/s3/") {
			t.Errorf("signed for %q", r.Header.Get("Authorization"))
		}
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "hi")
	}))
	defer srv.Close()
	b := open(t, location.S3{
		Bucket: "wal", AccessKey: "a", SecretKey: "b", NoVerify: true, Connect: srv.Listener.Addr().String(),
	}, quick)
	mustRead(t, b, "key", []byte("hi"))
	if want := "HEAD s3.amazonaws.com/wal GET wal.s3.ap-south-2.amazonaws.com/key"; strings.Join(asked, " ") != want {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}
