package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

func TestMain(m *testing.M) {
	if err := forget(); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// forget hides from the SDK's chain what this machine has.
func forget() error {
	var errs []error
	for _, name := range os.Environ() {
		if name, _, _ = strings.Cut(name, "="); strings.HasPrefix(name, "AWS_") {
			errs = append(errs, os.Unsetenv(name))
		}
	}
	return errors.Join(append(errs, os.Setenv("AWS_CONFIG_FILE", "/nonexistent/aws"),
		os.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/aws"), os.Setenv("AWS_EC2_METADATA_DISABLED", "true"))...)
}

// quick makes retries quick; what they are for is not waited for in tests.
var quick = object.Options{RetryDelay: time.Microsecond}

const bucketName = "wal"

// startServer starts a server with one bucket. Such tests are not for -short.
func startServer(t *testing.T, opts s3test.Options) *s3test.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an S3 server")
	}
	s := s3test.Start(t, opts)
	s.NewBucket(bucketName)
	return s
}

// settings are those of a server, reached at url.
func settings(s *s3test.Server, url string) location.S3 {
	return location.S3{
		Bucket: bucketName, Region: s.Region, Endpoint: url, PathStyle: true, CAFile: s.CAFile,
		AccessKey: s.AccessKey, SecretKey: location.Secret(s.SecretKey),
	}
}

// open makes a Bucket that the test closes.
func open(t *testing.T, set location.S3, opts object.Options) object.Bucket {
	t.Helper()
	b, err := object.NewS3(t.Context(), set, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := object.Close(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

// random are bytes that no codec would make smaller, the same for the same seed.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(data) // it never fails
	return data
}

// read reads an object whole.
func read(ctx context.Context, b object.Bucket, key string) ([]byte, error) {
	body, o, err := b.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err == nil && int64(len(data)) != o.Size {
		return nil, fmt.Errorf("%d bytes, announced %d", len(data), o.Size)
	}
	return data, err
}

func mustRead(t *testing.T, b object.Bucket, key string, want []byte) {
	t.Helper()
	got, err := read(t.Context(), b, key)
	if err != nil {
		t.Errorf("%s: %v", key, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, not the %d written", key, len(got), len(want))
	}
}

func list(t *testing.T, b object.Bucket, prefix string) []string {
	t.Helper()
	var keys []string
	err := b.List(t.Context(), prefix, func(o object.Object) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		t.Errorf("list %q: %v", prefix, err)
	}
	return keys
}

// text is everything an error prints.
func text(err error) string {
	var f *fault.Error
	if !errors.As(err, &f) {
		return "not a *fault.Error: " + err.Error()
	}
	return strings.Join([]string{f.Text, f.Detail, f.Hint, f.Advice}, "\n")
}

// wantError checks an error: its type, its parts, and what it must not have.
func wantError(t *testing.T, err error, is error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Errorf("not a *fault.Error: %T %v", err, err)
		return
	}
	for _, sentinel := range []error{errNotExist, object.ErrDenied, object.ErrChecksum, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, sentinel) != (sentinel == is) {
			t.Errorf("errors.Is(%v) is %v: %v", sentinel, errors.Is(err, sentinel), err)
		}
	}
	for _, part := range parts {
		if !strings.Contains(text(err), part) {
			t.Errorf("%q is not in:\n%s", part, text(err))
		}
	}
	if strings.ContainsAny(f.Text, "\n\x00") {
		t.Errorf("not one line: %q", f.Text)
	}
}

// retries collects what Options.Retried is told.
type retries struct {
	mu  sync.Mutex
	all []object.Retry
}

func (r *retries) add(one object.Retry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

func (r *retries) take() []object.Retry {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.all)
	r.all = nil
	return all
}
