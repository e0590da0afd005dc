package s3test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// TB is what s3test needs of a test. testing.TB has it, and so has pgtest's.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(f func())
	Name() string
	Context() context.Context
}

// Options choose how a server speaks. The zero value is plain HTTP.
type Options struct {
	TLS     bool // https, with a certificate for localhost and 127.0.0.1 signed by Server.CAFile
	Expired bool // the certificate has expired; implies TLS
	// Domain, if set, is the domain below which buckets are hosts ("s3.test": http://bucket.s3.test:port). Nothing resolves
	// it: clients have to connect to Server.Addr. Path style stays possible at Server.URL.
	Domain string
}

// Server is an S3 server on 127.0.0.1. What is in it ends with its TB.
type Server struct {
	tb        TB
	URL       string // http://127.0.0.1:port or https://localhost:port
	Addr      string // 127.0.0.1:port
	Region    string
	AccessKey string
	SecretKey string
	CAFile    string // the certificate that signs the server's; empty without TLS
	// Root is where objects are plain files, <bucket>/<key>, to be made, damaged and removed by ordinary calls. Empty if
	// the server keeps them otherwise (MinIO).
	Root string
	// Name is the server's program.
	Name string

	dog    *watchdog
	client *http.Client
	once   *sync.Once
}

// Start starts a server. It has no bucket yet.
func Start(tb TB, opts Options) *Server {
	tb.Helper()
	p, err := chosen()
	if err != nil {
		tb.Fatalf("s3test: %v", err)
	}
	file, err := p.find()
	if err != nil {
		tb.Fatalf("s3test: %v", err)
	}
	opts.TLS = opts.TLS || opts.Expired
	// Another process may take the port between its choice and its use: then the next try has another one.
	for try := 0; ; try++ {
		s, err := start(tb.Context(), p, file, opts)
		if err == nil {
			s.tb = tb
			tb.Cleanup(s.Stop)
			return s
		}
		if try == 4 || tb.Context().Err() != nil {
			tb.Fatalf("s3test: %s: %v", p.name, err)
		}
	}
}

func start(ctx context.Context, p program, file string, opts Options) (*Server, error) {
	dir, err := os.MkdirTemp(parentDir(), "s3t")
	if err != nil {
		return nil, err
	}
	s := &Server{once: new(sync.Once), Name: p.name, Region: "us-east-1", AccessKey: "test" + rand.Text()[:12], SecretKey: rand.Text()}
	if err := s.launch(p, file, dir, opts); err != nil {
		_ = os.RemoveAll(dir) // the error is what counts
		return nil, err
	}
	deadline := time.Now().Add(time.Minute)
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := s.answers(ctx)
		if err == nil {
			return s, nil
		}
		if s.dog.ended() || time.Now().After(deadline) || ctx.Err() != nil {
			err = fmt.Errorf("it does not answer on %s: %w\n%s", s.Addr, err, s.dog.log())
			s.Stop()
			return nil, err
		}
		time.Sleep(wait)
	}
}

func parentDir() string {
	if dir := os.Getenv("PGTEST_DIR"); dir != "" {
		return dir
	}
	return "/tmp"
}

// launch prepares a directory and starts the program.
func (s *Server) launch(p program, file, dir string, opts Options) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.Addr = fmt.Sprintf("127.0.0.1:%d", port)
	s.URL = "http://" + s.Addr
	roots := x509.NewCertPool()
	if opts.TLS {
		s.URL = fmt.Sprintf("https://localhost:%d", port)
		ca, err := newAuthority()
		if err == nil {
			err = ca.issue(dir, opts.Expired)
		}
		if err != nil {
			return err
		}
		s.CAFile = filepath.Join(dir, "ca.crt")
		roots.AddCert(ca.cert)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, filepath.Join(dir, "root"): 0o755, filepath.Join(dir, "side"): 0o700} {
		if err := os.MkdirAll(path, mode); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask was
			return err
		}
	}
	s.client = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: copiers,
		// For the signed requests of tests; what a certificate is worth is for the client under test to see.
		TLSClientConfig: &tls.Config{RootCAs: roots, InsecureSkipVerify: opts.Expired},
	}}
	command := s.versitygw
	if p == minio {
		command = s.minio
	}
	args, env := command(dir, opts)
	s.dog, err = startWatchdog(dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...), append([]string{file}, args...)...)
	return err
}

// versitygw changes into its root: all paths are absolute. The secrets of tests are in its environment.
func (s *Server) versitygw(dir string, opts Options) (args, env []string) {
	s.Root = filepath.Join(dir, "root")
	side := filepath.Join(dir, "side")
	// With a directory of accounts, unknown access keys are answered as by S3.
	args = []string{"--quiet", "--keep-alive", "--port", s.Addr, "--region", s.Region, "--iam-dir", side}
	if opts.TLS {
		args = append(args, "--cert", filepath.Join(dir, "server.crt"), "--key", filepath.Join(dir, "server.key"))
	}
	if opts.Domain != "" {
		args = append(args, "--virtual-domain", opts.Domain)
	}
	args = append(args, "posix")
	if err := unix.Setxattr(s.Root, "user.s3test", []byte("1"), 0); err != nil {
		args = append(args, "--sidecar", filepath.Join(dir, "meta")) // a file system without attributes of users
		_ = os.Mkdir(filepath.Join(dir, "meta"), 0o700)              // the server will say so if it is missing
	}
	return append(args, s.Root), []string{"ROOT_ACCESS_KEY_ID=" + s.AccessKey, "ROOT_SECRET_ACCESS_KEY=" + s.SecretKey}
}

// minio keeps its objects in files of its own form.
func (s *Server) minio(dir string, opts Options) (args, env []string) {
	certs := filepath.Join(dir, "side")
	if opts.TLS {
		for from, to := range map[string]string{"server.crt": "public.crt", "server.key": "private.key"} {
			_ = os.Link(filepath.Join(dir, from), filepath.Join(certs, to)) // the server will not speak TLS if it is missing
		}
	}
	env = []string{
		"MINIO_ROOT_USER=" + s.AccessKey, "MINIO_ROOT_PASSWORD=" + s.SecretKey, "MINIO_REGION=" + s.Region,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CI_CD=1",
	}
	if opts.Domain != "" {
		env = append(env, "MINIO_DOMAIN="+opts.Domain)
	}
	return []string{"server", "--quiet", "--anonymous", "--address", s.Addr, "--certs-dir", certs, filepath.Join(dir, "root")}, env
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("not a TCP address: " + l.Addr().String())
	}
	return addr.Port, nil
}

// answers makes a signed request, which proves that the server is ready, and that it is ours.
func (s *Server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return s.do(ctx, http.MethodGet, "/", nil, nil)
}

// Stop ends the server before the test does, and removes what it stores.
func (s *Server) Stop() {
	s.once.Do(func() {
		if s.tb != nil && s.tb.Failed() {
			s.tb.Logf("s3test: %s:\n%s", s.Name, s.dog.log())
		}
		s.client.CloseIdleConnections()
		s.dog.release()
	})
}

// Env is the environment that makes other programs (aws, barman-cloud, pgBackRest's libraries) use the server's
// credentials, and nothing else that this machine may have.
func (s *Server) Env() []string {
	env := []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey, "AWS_DEFAULT_REGION=" + s.Region, "AWS_REGION=" + s.Region,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
	}
	if s.CAFile != "" {
		env = append(env, "AWS_CA_BUNDLE="+s.CAFile)
	}
	return env
}
