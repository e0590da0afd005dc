package object

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// Options tune how a bucket is reached. The zero value is right for most.
type Options struct {
	// Concurrency is how many bodies will be read at once: so many connections are kept. Default 16.
	Concurrency int
	// Retried is told of each retry, before the wait, from whatever goroutine calls the Bucket. May be nil.
	Retried func(Retry)

	ConnectTimeout time.Duration // for a connection, and again for its TLS handshake; default 10 s
	AnswerTimeout  time.Duration // from the request to the head of the answer; default 30 s
	StallTimeout   time.Duration // without a byte of a body while one is waited for; default 30 s
	// RetryDelay is the wait before the first retry; each later one is twice as long, up to 100 times. Default 100 ms.
	RetryDelay time.Duration
	// MaxPages ends a listing that does not end, 1000 names a page. Default 10000.
	MaxPages int
}

// DefaultMaxAttempts is how often a request is made, or a body is gone on with, until it is given up.
const DefaultMaxAttempts = 8

// Retry is something that failed and will be tried again.
type Retry struct {
	Path    string        // what is read or listed, as Bucket.Path has it
	Attempt int           // the one that failed, from 1
	Wait    time.Duration // until the next one
	Reason  string        // one line, without secrets
}

// s3Bucket is an S3 bucket as a Bucket.
type s3Bucket struct {
	client *s3.Client
	set    location.S3
	opts   Options
	http   *http.Transport
	server string // for messages: the endpoint's URL, or Amazon S3 and the region
	source string // where the credentials come from, for messages
	hide   []string
	max    int
	// reached is that the server has answered at all: until then there is more likely a typing error than a failure.
	reached atomic.Bool
}

// NewS3 makes a Bucket of an S3 bucket. It looks for credentials, which may take asking a metadata service, and, on AWS,
// for the bucket's region if no setting names one; it does not look whether the bucket is there. Close closes its idle
// connections.
func NewS3(ctx context.Context, set location.S3, opts Options) (Bucket, error) {
	b := &s3Bucket{set: set, opts: withDefaults(opts), max: set.MaxAttempts}
	if b.max <= 0 {
		b.max = DefaultMaxAttempts
	}
	b.hide = secrets(set)
	if err := checkSettings(set); err != nil {
		return nil, err
	}
	roots, err := trusted(set)
	if err != nil {
		return nil, err
	}
	cfg, err := b.config(ctx, roots)
	if err != nil {
		return nil, err
	}
	b.http = newTransport(set, b.opts, rootsOf(cfg))
	client := &http.Client{
		Transport: &courier{next: b.http, stall: b.opts.StallTimeout, reached: &b.reached},
		// A signature is for one host, and so is a customer's key.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	b.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = client
		o.UsePathStyle = set.PathStyle
		if set.Endpoint != "" {
			o.BaseEndpoint = aws.String(set.Endpoint)
		}
		if o.Region == "" && o.BaseEndpoint == nil {
			o.Region = bucketRegion(ctx, client, set.Bucket)
		}
		if o.Region == "" {
			o.Region = "us-east-1" // what servers that are not Amazon's call themselves
		}
		// newChecksum does what the SDK would do.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		for name, value := range set.Headers {
			o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue(name, value))
		}
	})
	o := b.client.Options()
	if err := b.settle(o.BaseEndpoint, o.Region); err != nil {
		_ = b.Close() // nothing is open but a connection that found the region
		return nil, err
	}
	return b, nil
}

// settle checks the endpoint that the settings and the SDK's own have come to, and names it for messages.
func (b *s3Bucket) settle(endpoint *string, region string) error {
	if endpoint == nil {
		b.server = "Amazon S3, " + region
		return nil
	}
	u, err := url.Parse(*endpoint)
	// The URL is not repeated: it may hold a password.
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return fault.New("the endpoint of S3 bucket \"%s\" is not a URL such as https://s3.example.com:9000", b.set.Bucket).
			Advise("It needs the scheme http or https and a host, and has no user, password or query.")
	}
	b.server = clean(strings.TrimSuffix(u.String(), "/"))
	if b.set.SSECKey != "" && u.Scheme != "https" {
		return fault.New("the customer key for S3 bucket \"%s\" would be sent without encryption to %s", b.set.Bucket, b.server).
			Advise("Use an endpoint with https: S3 refuses customer keys (SSE-C) over plain http, and whoever listens would have it.")
	}
	return nil
}

func withDefaults(o Options) Options {
	def := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	def(&o.ConnectTimeout, 10*time.Second)
	def(&o.AnswerTimeout, 30*time.Second)
	def(&o.StallTimeout, 30*time.Second)
	def(&o.RetryDelay, 100*time.Millisecond)
	if o.Concurrency <= 0 {
		o.Concurrency = 16
	}
	if o.MaxPages <= 0 {
		o.MaxPages = 10000
	}
	return o
}

// checkSettings refuses what the SDK would refuse late, or in words that help nobody.
func checkSettings(set location.S3) error {
	switch {
	case set.Bucket == "":
		return fault.New("no S3 bucket is named").Advise("Write the archive as s3://bucket/prefix.")
	case strings.ContainsFunc(set.Bucket, isControl) || strings.ContainsAny(set.Bucket, " ?#") ||
		strings.Contains(set.Bucket, "/") && !strings.HasPrefix(set.Bucket, "arn:"):
		return fault.New("not the name of an S3 bucket: \"%s\"", clean(set.Bucket))
	case (set.AccessKey == "") != (set.SecretKey == ""):
		return fault.New("of the access key and the secret key for S3 bucket \"%s\", only one is set", set.Bucket).
			Advise("Set both, or neither and let the environment, a profile or a role give them.")
	}
	if set.Connect != "" {
		if _, _, err := net.SplitHostPort(set.Connect); err != nil {
			return fault.New("the address to connect to for S3 bucket \"%s\" is not host:port: \"%s\"", set.Bucket, clean(set.Connect))
		}
	}
	if set.SSECKey != "" {
		if _, err := customerKey(set); err != nil {
			return err
		}
	}
	return nil
}

// customerKey is the 32 bytes of the key for SSE-C.
func customerKey(set location.S3) ([]byte, error) {
	text := set.SSECKey.Reveal()
	if len(text) == 32 {
		return []byte(text), nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, fault.New("the customer key (SSE-C) for S3 bucket \"%s\" is not 32 bytes, nor base64 of 32 bytes", set.Bucket)
	}
	return key, nil
}

// secrets are the texts that must not be in a message, even if a server repeats them.
func secrets(set location.S3) []string {
	var hide []string
	for _, s := range []location.Secret{set.SecretKey, set.SessionToken, set.SSECKey} {
		if s != "" {
			hide = append(hide, s.Reveal())
		}
	}
	for _, value := range set.Headers { // an Authorization among them would be one
		if len(value) >= 8 {
			hide = append(hide, value)
		}
	}
	return hide
}

// Close closes the idle connections.
func (b *s3Bucket) Close() error {
	b.http.CloseIdleConnections()
	return nil
}

// Path implements Bucket.
func (b *s3Bucket) Path(key string) string { return "s3://" + b.set.Bucket + "/" + key }

// payer is what the requests say about who pays.
func (b *s3Bucket) payer() types.RequestPayer {
	if b.set.RequesterPays {
		return types.RequestPayerRequester
	}
	return ""
}

// get is the request for an object, or for its rest.
func (b *s3Bucket) get(key string) *s3.GetObjectInput {
	in := &s3.GetObjectInput{Bucket: &b.set.Bucket, Key: &key, RequestPayer: b.payer()}
	if b.set.SSECKey != "" {
		raw, err := customerKey(b.set)
		if err != nil {
			return in // NewS3 has checked it
		}
		sum := md5.Sum(raw)
		in.SSECustomerAlgorithm = aws.String("AES256")
		in.SSECustomerKey = aws.String(base64.StdEncoding.EncodeToString(raw))
		in.SSECustomerKeyMD5 = aws.String(base64.StdEncoding.EncodeToString(sum[:]))
	}
	return in
}
