package object

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// trusted are the system's root certificates and those that the settings add.
func trusted(set location.S3) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil { // there are none: then those of the settings must do
		roots = x509.NewCertPool()
	}
	if set.CAFile != "" {
		if err := addCertificates(roots, set.CAFile); err != nil {
			return nil, err
		}
	}
	if set.CADir == "" {
		return roots, nil
	}
	entries, err := os.ReadDir(set.CADir)
	if err != nil {
		return nil, fault.Because(hidden(err), "could not open directory \"%s\": %s", set.CADir, fault.M(err)).
			Advise("It is to hold the certificates trusted for S3 bucket \"%s\".", set.Bucket)
	}
	added := false
	for _, e := range entries {
		path := filepath.Join(set.CADir, e.Name())
		if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() { // links named by hashes are what is usual there
			continue
		}
		added = addCertificates(roots, path) == nil || added
	}
	if !added {
		return nil, fault.New("no certificate found in directory \"%s\"", set.CADir).
			Advise("It is to hold the certificates trusted for S3 bucket \"%s\", in PEM form.", set.Bucket)
	}
	return roots, nil
}

// maxPEM is the largest file of certificates read: several times the whole of Mozilla's list.
const maxPEM = 4 << 20

func addCertificates(roots *x509.CertPool, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fault.Because(hidden(err), "could not open file \"%s\": %s", path, fault.M(err)).
			Advise("It is to hold the certificates trusted for the S3 endpoint.")
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxPEM))
	if err != nil {
		return fault.Because(hidden(err), "could not read file \"%s\": %s", path, fault.M(err))
	}
	if !roots.AppendCertsFromPEM(pem) {
		return fault.New("no certificate found in file \"%s\"", path).
			Advise("It is to hold the certificates trusted for the S3 endpoint, in PEM form.")
	}
	return nil
}

// newTransport keeps as many connections as bodies are read at once. HTTP/1 only: over one connection of HTTP/2, all bodies
// would share one window and one loss.
func newTransport(set location.S3, opts Options, roots *x509.CertPool) *http.Transport {
	dialer := &net.Dialer{Timeout: opts.ConnectTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, InsecureSkipVerify: set.NoVerify},
		TLSHandshakeTimeout:   opts.ConnectTimeout,
		ResponseHeaderTimeout: opts.AnswerTimeout,
		MaxIdleConns:          opts.Concurrency + 2,
		MaxIdleConnsPerHost:   opts.Concurrency + 2,
		IdleConnTimeout:       60 * time.Second,
		DisableCompression:    true, // bytes are wanted as they are stored
		ReadBufferSize:        64 << 10,
		Protocols:             new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if set.Connect != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, set.Connect)
		}
	}
	return t
}

var (
	errStalled  = errors.New("no byte came for too long")
	errTooLarge = errors.New("the answer is larger than any that is due")
	errNotTLS   = errors.New("the server wants TLS")
)

const (
	maxErrorBody = 1 << 20 // of answers that are no success
	maxListBody  = 8 << 20 // of a page of at most 1000 names of 1 kB, as XML with escapes
)

// wholeAnswer marks the context of requests whose answers the SDK reads into memory, whatever their size.
type wholeAnswer struct{}

// courier is the http.RoundTripper that bounds answers in time and, if they are read into memory, in size.
type courier struct {
	next    http.RoundTripper
	stall   time.Duration
	reached *atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (c *courier) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := c.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	c.reached.Store(true)
	body := &patient{rc: resp.Body, ctx: ctx, cancel: cancel, left: -1}
	body.timer = time.AfterFunc(c.stall, func() { cancel(errStalled) })
	body.timer.Stop()
	body.stall = c.stall
	switch {
	case resp.StatusCode >= 300:
		body.left = maxErrorBody
	case req.Context().Value(wholeAnswer{}) != nil:
		body.left = maxListBody
	}
	resp.Body = body
	if resp.StatusCode == http.StatusBadRequest && req.URL.Scheme == "http" {
		// A TLS server may say so in plain text, to which the SDK is deaf.
		start := make([]byte, 512)
		n, _ := io.ReadFull(body, start) // an error comes again to whoever reads on
		if bytes.Contains(start[:n], []byte("HTTPS")) && !bytes.Contains(start[:n], []byte("<Code>")) {
			_ = body.Close() // nothing more is wanted of it
			return nil, errNotTLS
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(start[:n]), body), body}
	}
	return resp, nil
}

// patient is a body that is waited for, but not for ever. The time between reads does not count.
type patient struct {
	rc     io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	left   int64 // bytes that may still come; negative: as many as there are
}

func (p *patient) Read(buf []byte) (int, error) {
	if p.left == 0 {
		return 0, errTooLarge
	}
	if p.left > 0 && int64(len(buf)) > p.left {
		buf = buf[:p.left]
	}
	p.timer.Reset(p.stall)
	n, err := p.rc.Read(buf)
	p.timer.Stop()
	if p.left > 0 {
		p.left -= int64(n)
	}
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(p.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (p *patient) Close() error {
	p.timer.Stop()
	p.cancel(nil)
	return p.rc.Close()
}
