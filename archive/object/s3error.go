package object

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// diagnosis is what is wrong, in the words of who has to put it right.
type diagnosis struct {
	reason string // one line, without a capital letter at its beginning
	advice string // may be empty
	is     error  // fs.ErrNotExist, ErrDenied, or nil
}

// explain makes an error of what the SDK returned.
func (b *s3Bucket) explain(ctx context.Context, what, path string, err error) error {
	if ctx.Err() != nil {
		return fault.Because(context.Cause(ctx), "%s: stopped", b.could(what, path))
	}
	d := b.diagnose(err)
	if d.is == nil {
		d.is = hidden(errors.New(b.repeat(err.Error())))
	}
	return fault.Because(d.is, "%s: %s", b.could(what, path), d.reason).Advise("%s", d.advice)
}

// could is the beginning of all messages: what failed, and where.
func (b *s3Bucket) could(what, path string) string {
	if b.server == "" {
		return fmt.Sprintf("%s for \"%s\"", what, clean(path))
	}
	return fmt.Sprintf("%s \"%s\" (%s)", what, clean(path), b.server)
}

// repeat makes a text of the server or the SDK fit for a message.
func (b *s3Bucket) repeat(text string) string {
	for _, secret := range b.hide {
		text = strings.ReplaceAll(text, secret, "[secret]")
	}
	return clean(text)
}

func (b *s3Bucket) diagnose(err error) diagnosis {
	var broken *errBroken
	var api smithy.APIError
	var credentials *errCredentials
	switch {
	case errors.As(err, &credentials):
		return b.diagnoseCredentials(credentials)
	case errors.As(err, &broken):
		d := b.diagnoseNetwork(broken.err)
		d.reason = fmt.Sprintf("broke off at byte %d of %d: %s", broken.off, broken.size, d.reason)
		return d
	case errors.As(err, &api):
		return b.diagnoseAnswer(err, api)
	}
	return b.diagnoseNetwork(err)
}

// diagnoseCredentials is about getting credentials, before the bucket is asked for anything.
func (b *s3Bucket) diagnoseCredentials(err *errCredentials) diagnosis {
	text := b.repeat(err.Error())
	var api smithy.APIError
	switch {
	case b.set.InstanceRole:
		return diagnosis{reason: "the instance metadata service gave none: " + text,
			advice: "Has this machine an instance role, and may it reach 169.254.169.254?"}
	case errors.As(err, &api):
		return diagnosis{reason: fmt.Sprintf("refused: %s (%s)", b.repeat(api.ErrorMessage()), b.repeat(api.ErrorCode())),
			advice: "It is the role or web identity that is refused, not yet the bucket."}
	case strings.Contains(text, "EC2 IMDS role found"), strings.Contains(text, "static credentials are empty"):
		return diagnosis{reason: "none were found",
			advice: "Looked in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), the profiles in ~/.aws of the user who runs this, web identity, container and instance metadata. " +
				"Set one of these, as the archiving tool has it."}
	}
	return diagnosis{reason: text}
}

// throttled reports that the server wants fewer requests.
func throttled(err error) bool {
	var api smithy.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode() {
		case "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServiceUnavailable":
			return true
		}
	}
	return status(err) == http.StatusTooManyRequests
}

// status is the HTTP status of the answer, 0 if there was none.
func status(err error) int {
	var s interface{ HTTPStatusCode() int }
	if errors.As(err, &s) {
		return s.HTTPStatusCode()
	}
	return 0
}

// diagnoseAnswer is about an answer that is no success.
func (b *s3Bucket) diagnoseAnswer(err error, api smithy.APIError) diagnosis {
	code, message := b.repeat(api.ErrorCode()), b.repeat(api.ErrorMessage())
	from := ""
	if b.source != "" {
		from = " The credentials come from " + clean(b.source) + "."
	}
	switch code {
	case "NoSuchKey":
		return diagnosis{reason: "there is no such object", is: fs.ErrNotExist}
	case "NoSuchBucket":
		return diagnosis{reason: fmt.Sprintf("there is no bucket \"%s\"", b.set.Bucket),
			advice: "Is its name right, and is this the server that has it?"}
	case "SignatureDoesNotMatch":
		return diagnosis{reason: "the secret key is wrong (SignatureDoesNotMatch)",
			advice: "The access key is known, but the secret key is not the one that belongs to it." + from}
	case "InvalidAccessKeyId":
		return diagnosis{reason: "the access key is unknown (InvalidAccessKeyId)",
			advice: "Is it of this server, and has it not been removed?" + from}
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return diagnosis{reason: fmt.Sprintf("the session token is expired or invalid (%s)", code),
			advice: "Temporary credentials are a key, a secret and a token that belong together, and end after some hours." + from}
	case "RequestTimeTooSkewed", "RequestExpired":
		return diagnosis{reason: fmt.Sprintf("this machine's clock and the server's differ too much (%s)", code),
			advice: "S3 accepts a quarter of an hour. Set the clock, and let it be kept right (chrony, ntpd)."}
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "MovedPermanently":
		d := diagnosis{reason: fmt.Sprintf("the bucket is in another region than %s: %s (%s)", b.client.Options().Region, message, code),
			advice: "Set the bucket's region (AWS_REGION, or the archiving tool's setting)."}
		if region := bucketRegionOf(err); region != "" {
			d.advice = fmt.Sprintf("The bucket's region is %s: set it (AWS_REGION, or the archiving tool's setting).", region)
		}
		return d
	case "InvalidObjectState":
		return diagnosis{reason: "the object is in an archive class (Glacier) and must be restored before it can be read (InvalidObjectState)",
			advice: "Restore it with \"aws s3api restore-object\", wait until that is done, and run this again."}
	case "AccessDenied", "Forbidden", "AllAccessDisabled":
		return diagnoseDenied(err, code, from)
	case "InvalidRequest", "InvalidArgument":
		if strings.Contains(strings.ToLower(message), "encrypt") {
			return diagnosis{reason: fmt.Sprintf("the object is encrypted with a key of the customer's (SSE-C): %s (%s)", message, code),
				advice: "Give the key that the archiving tool has."}
		}
	}
	switch {
	case throttled(err):
		return diagnosis{reason: fmt.Sprintf("the server wants fewer requests (%s)", code),
			advice: "Asked again in vain, with longer and longer waits. Use fewer at once (--archive-jobs), or try later."}
	case status(err) >= 500:
		return diagnosis{reason: fmt.Sprintf("the server failed: %s (%s)", message, code),
			advice: "Asked again in vain. Is the server well?"}
	case status(err) == http.StatusNotFound, status(err)/100 == 3:
		// Only NoSuchKey says that S3 was asked, and knows.
		return diagnosis{reason: fmt.Sprintf("the answer is %d %s, and not one of S3", status(err), http.StatusText(status(err))),
			advice: "Is the endpoint right, and does it want path style or the bucket in the host's name?"}
	}
	return diagnosis{reason: fmt.Sprintf("%s (%s)", message, code)}
}

// diagnoseDenied tells requests for objects and for listings apart.
func diagnoseDenied(err error, code, from string) diagnosis {
	var op *smithy.OperationError
	if errors.As(err, &op) && strings.HasPrefix(op.OperationName, "List") {
		return diagnosis{is: ErrDenied, reason: fmt.Sprintf("listing is denied (%s)", code),
			advice: "Listing needs s3:ListBucket on the bucket." + from}
	}
	return diagnosis{is: ErrDenied, reason: fmt.Sprintf("access is denied, or there is no such object (%s)", code),
		advice: "Reading needs s3:GetObject. Without s3:ListBucket, S3 answers that access is denied even if the object is only missing." + from}
}

// bucketRegionOf is the region that an answer names.
func bucketRegionOf(err error) string {
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.Response != nil {
		return clean(resp.Response.Header.Get("X-Amz-Bucket-Region"))
	}
	return ""
}

// mixedUp reports that one side speaks TLS and the other plain HTTP.
func mixedUp(err error) bool {
	text := err.Error()
	return errors.Is(err, errNotTLS) || strings.Contains(text, "server gave HTTP response to HTTPS client") ||
		strings.Contains(text, `malformed HTTP response "\x15\x03`)
}

// diagnoseNetwork is about not getting an answer.
func (b *s3Bucket) diagnoseNetwork(err error) diagnosis {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var dns *net.DNSError
	var timeout net.Error
	const badTLS = "The connection is not trusted, and nothing was sent."
	switch {
	case mixedUp(err) && strings.HasPrefix(b.server, "http:"):
		return diagnosis{reason: "the server wants TLS, and the endpoint's URL begins with http:", advice: "Write https: in the endpoint's URL."}
	case mixedUp(err), errors.As(err, &record):
		return diagnosis{reason: "the server does not speak TLS, and the endpoint's URL begins with https:",
			advice: "Is the port right? Write http: in the endpoint's URL only if the network may be trusted."}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return diagnosis{reason: "the server's certificate has expired or is not yet valid: " + b.repeat(invalid.Detail),
			advice: badTLS + " Renew the server's certificate; is this machine's clock right?"}
	case errors.As(err, &unknown):
		return diagnosis{reason: "the server's certificate is not trusted: it is signed by an unknown authority",
			advice: badTLS + " Name the file with the authority's certificate (CA file), as the archiving tool has it, or AWS_CA_BUNDLE."}
	case errors.As(err, &host):
		return diagnosis{reason: "the server's certificate is for another name: " + b.repeat(host.Error()),
			advice: badTLS + " Use the name that the certificate has, or path style if it is the bucket's name before it that does not fit."}
	case errors.As(err, &certificate):
		return diagnosis{reason: "the server's certificate is not good: " + b.repeat(certificate.Err.Error()), advice: badTLS}
	case errors.As(err, &alert):
		return diagnosis{reason: "the server ended the TLS handshake: " + b.repeat(alert.Error())}
	case errors.As(err, &dns) && dns.IsNotFound:
		return diagnosis{reason: fmt.Sprintf("the name \"%s\" does not resolve", b.repeat(dns.Name)),
			advice: "Is the endpoint right? If the bucket's name before the endpoint's does not resolve, use path style."}
	case errors.As(err, &dns):
		return diagnosis{reason: fmt.Sprintf("the name \"%s\" could not be resolved: %s", b.repeat(dns.Name), b.repeat(dns.Err))}
	case errors.Is(err, syscall.ECONNREFUSED):
		return diagnosis{reason: "the connection was refused", advice: "Is the server running, and are host and port right?"}
	case errors.Is(err, errStalled):
		return diagnosis{reason: fmt.Sprintf("no byte came for %s", b.opts.StallTimeout)}
	case errors.Is(err, errNotListing):
		return diagnosis{reason: "the answer is not one of S3", advice: "Is the endpoint right?"}
	case errors.Is(err, errTooLarge):
		return diagnosis{reason: "the answer is larger than any that is due", advice: "Is this an S3 server?"}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return diagnosis{reason: "the connection was closed too early", advice: b.perhapsTLS()}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return diagnosis{reason: "the connection was reset", advice: b.perhapsTLS()}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return diagnosis{reason: "the server did not answer in time",
			advice: "Are host and port right, and does no firewall drop the packets?"}
	}
	// An answer that the SDK cannot read has a status nevertheless.
	if s := status(err); s != 0 {
		return diagnosis{reason: fmt.Sprintf("the answer (status %d) is not one of S3: %s", s, b.repeat(innermost(err).Error())),
			advice: "Is the endpoint right?"}
	}
	return diagnosis{reason: b.repeat(innermost(err).Error())}
}

// perhapsTLS is advice about connections that end: so do those of many servers that expect TLS and get something else.
func (b *s3Bucket) perhapsTLS() string {
	if b.reached.Load() || !strings.HasPrefix(b.server, "http:") {
		return ""
	}
	return "The server has never answered. Perhaps it wants TLS: then the endpoint's URL has to begin with https:."
}

// innermost is the error without what the layers above it say about themselves.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
