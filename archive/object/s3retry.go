package object

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// attempts are what one page or one body may cost: however it fails, it is given up when they are used up. Not for several
// goroutines at once.
type attempts struct {
	b    *s3Bucket
	path string // as in Retry
	used int    // failed ones
}

// tries is how often a request is made while the server has never answered.
const triesUnreached = 3

// failed counts one and says how long to wait before the next; ok is false if there is none left.
func (a *attempts) failed(err error) (wait time.Duration, ok bool) {
	a.used++
	if a.used >= a.b.max {
		return 0, false
	}
	wait = a.b.opts.RetryDelay << min(a.used-1, 6)
	if throttled(err) {
		wait *= 5 // what S3 wants then is fewer requests, not other ones
	}
	wait = min(wait, 100*a.b.opts.RetryDelay)
	wait = wait/2 + rand.N(wait/2+1)
	if a.b.opts.Retried != nil {
		a.b.opts.Retried(Retry{Path: a.path, Attempt: a.used, Wait: wait, Reason: a.b.diagnose(err).reason})
	}
	return wait, true
}

// with makes an SDK call use these attempts.
func (a *attempts) with(o *s3.Options) { o.Retryer = retryer{a} }

// retryer is the SDK's view of attempts. Its own way would count differently for a request and for a body, give up when
// many bodies at once are throttled (it has a quota for all), and try again what cannot get better.
type retryer struct{ *attempts }

func (r retryer) MaxAttempts() int { return max(r.b.max-r.used, 1) }

var retryable = retry.IsErrorRetryables(retry.DefaultRetryables)

func (r retryer) IsErrorRetryable(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	var credentials *errCredentials
	switch {
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &credentials),
		errors.Is(err, errNotTLS), errors.Is(err, errTooLarge), mixedUp(err):
		return false
	case errors.As(err, &dns) && dns.IsNotFound:
		return false
	case !r.b.reached.Load() && r.used+1 >= triesUnreached:
		return false
	case errors.Is(err, errStalled), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), cutXML(err):
		return true
	}
	return retryable.IsErrorRetryable(err) == aws.TrueTernary
}

// cutXML reports an answer that ended too early without the connection's saying so: a proxy may do that.
func cutXML(err error) bool {
	var bad *smithy.DeserializationError
	return errors.As(err, &bad) && errors.Is(err, io.ErrUnexpectedEOF)
}

func (r retryer) RetryDelay(_ int, err error) (time.Duration, error) {
	wait, ok := r.failed(err)
	if !ok {
		return 0, err
	}
	return wait, nil
}

func (retryer) GetRetryToken(context.Context, error) (func(error) error, error) { return free, nil }
func (retryer) GetInitialToken() func(error) error                              { return free }
func (retryer) GetAttemptToken(context.Context) (func(error) error, error)      { return free, nil }

func free(error) error { return nil }

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
