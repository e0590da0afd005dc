package object

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// program is how we name ourselves to servers.
const program = "fastrewind"

// config is the SDK's chain of settings with ours before it, and credentials found.
func (b *s3Bucket) config(ctx context.Context, roots *x509.CertPool) (aws.Config, error) {
	set := b.set
	// For those that give credentials (STS, SSO), which may be elsewhere than the bucket: no other address to connect to,
	// and certificates are always verified. The SDK adds the certificates of AWS_CA_BUNDLE to the roots.
	base := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.TLSClientConfig.RootCAs = roots
		t.ResponseHeaderTimeout = b.opts.AnswerTimeout
		t.DisableKeepAlives = true // asked once an hour
	})
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(base),
		config.WithAppID(program),
		config.WithLogger(logging.Nop{}), // errors are returned, and logged at the top
	}
	if set.Region != "" {
		load = append(load, config.WithRegion(set.Region))
	}
	if set.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(set.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, append(load, config.WithCredentialsProvider(aws.AnonymousCredentials{}))...)
	if err == nil && set.AccessKey == "" {
		// Once more, now that the settings are known that a client of the metadata service takes. The last link of the chain
		// is asked wherever nobody has set anything, mostly on machines without such a service: few attempts must do.
		cfg, err = config.LoadDefaultConfig(ctx, append(load, config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) {
			o.Client = imds.NewFromConfig(cfg, func(o *imds.Options) {
				o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 2, 200*time.Millisecond })
			})
		}))...)
	}
	if err != nil {
		var noProfile config.SharedConfigProfileNotExistError
		if errors.As(err, &noProfile) {
			return cfg, fault.Because(hidden(err), "profile \"%s\" for S3 bucket \"%s\" is in no AWS configuration file", clean(noProfile.Profile), set.Bucket).
				Advise("Looked in $AWS_CONFIG_FILE and $AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/config and ~/.aws/credentials of the user who runs this.")
		}
		return cfg, fault.Because(hidden(err), "could not read the AWS settings for S3 bucket \"%s\": %s", set.Bucket, b.repeat(err.Error()))
	}
	if set.AccessKey != "" {
		cfg.Credentials = credentials.NewStaticCredentialsProvider(set.AccessKey, set.SecretKey.Reveal(), set.SessionToken.Reveal())
	}
	forSTS := cfg.Copy()
	if forSTS.Region == "" {
		forSTS.Region = "us-east-1"
	}
	switch {
	case set.WebIdentity:
		role, token := os.Getenv("AWS_ROLE_ARN"), os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE")
		if role == "" || token == "" {
			return cfg, fault.New("S3 bucket \"%s\" is to be reached by web identity, but AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are not both set", set.Bucket)
		}
		cfg.Credentials = stscreds.NewWebIdentityRoleProvider(sts.NewFromConfig(forSTS), role, stscreds.IdentityTokenFile(token),
			func(o *stscreds.WebIdentityRoleOptions) { o.RoleSessionName = sessionName(set.RoleSessionName) })
	case set.InstanceRole:
		cfg.Credentials = ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = imds.NewFromConfig(cfg) })
	}
	// Of an instance's role, others than AWS give the bare name here; the metadata service knows which one it is.
	if set.RoleARN != "" && strings.HasPrefix(set.RoleARN, "arn:") && !set.WebIdentity {
		forSTS.Credentials = aws.NewCredentialsCache(cfg.Credentials)
		cfg.Credentials = stscreds.NewAssumeRoleProvider(sts.NewFromConfig(forSTS), set.RoleARN,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = sessionName(set.RoleSessionName) })
	}
	cfg.Credentials = aws.NewCredentialsCache(&provider{b: b, next: cfg.Credentials})
	found, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return cfg, b.explain(ctx, "could not get credentials", b.Path(""), err)
	}
	b.source = found.Source
	for _, s := range []string{found.SecretAccessKey, found.SessionToken} {
		if s != "" {
			b.hide = append(b.hide, s)
		}
	}
	return cfg, nil
}

func sessionName(set string) string {
	if set == "" {
		return program
	}
	return set
}

// hidden keeps errors of others out of what errors.Is finds: a settings file that is missing is not a missing object.
func hidden(err error) error { return errors.New(err.Error()) }

// provider tells failures to get credentials from those to use them.
type provider struct {
	b    *s3Bucket
	next aws.CredentialsProvider
}

// errCredentials is a failure to get credentials.
type errCredentials struct{ err error }

func (e *errCredentials) Error() string { return e.err.Error() }
func (e *errCredentials) Unwrap() error { return e.err }

// Retrieve implements aws.CredentialsProvider.
func (p *provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.next.Retrieve(ctx)
	if err != nil {
		return c, &errCredentials{err}
	}
	return c, nil
}

// rootsOf are the certificates trusted, with those of AWS_CA_BUNDLE, which the SDK has added by now.
func rootsOf(cfg aws.Config) *x509.CertPool {
	if c, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		return c.GetTransport().TLSClientConfig.RootCAs
	}
	return nil
}

// bucketRegion asks AWS where a bucket is, which it tells even those who may not read it. Empty if it does not.
func bucketRegion(ctx context.Context, client *http.Client, bucket string) string {
	if strings.HasPrefix(bucket, "arn:") {
		return ""
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://s3.amazonaws.com/"+url.PathEscape(bucket), nil)
	if err != nil {
		return ""
	}
	resp, err := client.Do(req)
	if err != nil {
		return "" // the first real request will say what is wrong
	}
	_ = resp.Body.Close() // of a HEAD it is empty
	region := resp.Header.Get("X-Amz-Bucket-Region")
	if len(region) > 40 || strings.ContainsFunc(region, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) {
		return ""
	}
	return region
}
