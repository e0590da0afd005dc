package settings

import (
	"path"
	"strings"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/archive/location"
)

// chainS3 is the bucket access that aws-cli and boto would have with these variables and options: what an option says,
// what the variables say, and the rest left to the SDK's chain.
func chainS3(v vars, f *finding, origin, profile, endpointURL, region, caFile string) (*location.S3, bool) {
	s3 := &location.S3{
		Profile: profile,
		Region:  or(region, v.first("AWS_REGION", "AWS_DEFAULT_REGION")),
		CAFile:  or(caFile, v.get("AWS_CA_BUNDLE")),
	}
	// Only files of the process's own environment are found by the SDK.
	for _, name := range []string{"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"} {
		if own, ok := v.set[name]; ok && own != "" && (v.base == nil || v.base(name) != own.Reveal()) {
			f.note("%s sets %s, which is heeded only in fastrewind's own environment", origin, name)
			return nil, false
		}
	}
	if profile == "" { // one that is named on the command line is stronger than keys in variables
		s3.AccessKey = v.get("AWS_ACCESS_KEY_ID")
		s3.SecretKey = location.Secret(v.get("AWS_SECRET_ACCESS_KEY"))
		s3.SessionToken = location.Secret(v.first("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"))
		if s3.AccessKey == "" || s3.SecretKey == "" {
			s3.AccessKey, s3.SecretKey, s3.SessionToken = "", "", ""
			s3.Profile = v.first("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
		}
	}
	if e := or(endpointURL, v.first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")); e != "" {
		if !setEndpoint(s3, f, origin, e) {
			return nil, false
		}
		s3.PathStyle = true // what boto does with an endpoint that is not Amazon's, unless its profile says otherwise
	}
	return s3, true
}

// setEndpoint sets an endpoint as the user wrote it.
func setEndpoint(s3 *location.S3, f *finding, origin, text string) bool {
	u, ok := endpoint(text)
	if !ok {
		f.note("%s has an endpoint that is not understood", origin) // not repeated: there may be a password in it
		return false
	}
	s3.Endpoint = u
	if isIP(u) {
		s3.PathStyle = true
	}
	return true
}

// or is the first that is not empty.
func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// flags are the options and operands of a command.
type flags struct {
	values   map[string]string // of options that have one, by name with dashes; the last one counts
	given    map[string]bool   // options without a value
	operands []word
	unknown  bool // an option's value is one that only a shell can find out
}

// parseFlags takes options and operands apart, however they are mixed. Options not in valued take no value unless it is
// joined by an equals sign.
func parseFlags(args []word, valued map[string]bool) flags {
	f := flags{values: map[string]string{}, given: map[string]bool{}}
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a.text == "--" && a.known {
			f.operands = append(f.operands, args[i+1:]...)
			break
		}
		if !isOption(a) {
			f.operands = append(f.operands, a)
			continue
		}
		name, value, joined := strings.Cut(a.text, "=")
		switch {
		case joined:
			f.values[name] = value
		case valued[name] && i+1 < len(args):
			i++
			f.values[name] = args[i].text
			f.unknown = f.unknown || !args[i].known
		default:
			f.given[name] = true
		}
	}
	return f
}

// first is the value of the first of several options that was given.
func (f flags) first(names ...string) string {
	for _, name := range names {
		if v := f.values[name]; v != "" {
			return v
		}
	}
	return ""
}

// has reports whether an operand is exactly this.
func (f flags) has(operand string) bool {
	for _, o := range f.operands {
		if o.known && o.text == operand {
			return true
		}
	}
	return false
}

var awsValued = set("--endpoint-url", "--profile", "--region", "--ca-bundle", "--output", "--query", "--color",
	"--cli-read-timeout", "--cli-connect-timeout", "--sse-c", "--sse-c-key", "--sse", "--sse-kms-key-id", "--storage-class",
	"--bucket", "--key", "--range", "--version-id", "--if-match", "--sse-customer-key", "--sse-customer-algorithm",
	"--sse-customer-key-md5", "--checksum-mode", "--expected-bucket-owner", "--request-payer", "--acl", "--source-region", "--expected-size")

// aws is aws s3 cp s3://bucket/prefix/%f.gz, and aws s3api get-object.
func (s *shell) aws(c simple, origin string) {
	fl := parseFlags(c.args, awsValued)
	address := ""
	switch {
	case fl.has("s3") && (fl.has("cp") || fl.has("mv") || fl.has("sync")):
		for _, o := range fl.operands {
			if o.known && strings.HasPrefix(o.text, "s3://") {
				address = o.text
				break
			}
		}
	case fl.has("s3api") && fl.has("get-object"):
		if fl.values["--bucket"] != "" && fl.values["--key"] != "" {
			address = "s3://" + fl.values["--bucket"] + "/" + fl.values["--key"]
		}
	default:
		s.out.note("%s: only \"aws s3 cp\" and \"aws s3api get-object\" are understood", origin)
		return
	}
	switch {
	case fl.unknown || address == "":
		s.out.note("%s has arguments that only a shell can find out", origin)
		return
	case fl.given["--no-sign-request"]:
		s.out.note("%s reads without credentials: not supported", origin)
		return
	}
	dir, ext, ok := splitFile(address)
	if !ok {
		s.out.note("%s reads \"%s\", in which no WAL file's name with a known ending is recognised", origin, unmarked(address))
		return
	}
	s3, ok := chainS3(c.vars, s.out, origin, fl.values["--profile"], fl.values["--endpoint-url"], fl.values["--region"], fl.values["--ca-bundle"])
	if !ok {
		return
	}
	s3.NoVerify = fl.given["--no-verify-ssl"]
	_, payer := fl.values["--request-payer"]
	s3.RequesterPays = payer || fl.given["--request-payer"]
	key := fl.first("--sse-c-key", "--sse-customer-key")
	if strings.Contains(key, "://") || hasMark(key) { // fileb://
		s.out.note("%s reads its customer key from a file: not supported", origin)
		return
	}
	s3.SSECKey = location.Secret(key)
	a := location.Archive{Origin: origin, S3: s3, Layout: location.Plain, Extension: ext}
	if parseS3(&a, strings.TrimPrefix(dir, "s3://")) != nil {
		s.out.note("%s reads from an address that is not understood", origin)
		return
	}
	s.out.add(a)
}

// splitFile splits DIR/%f.ext. ok is false if the last element is not a WAL file's name with a known extension, or if the
// directory depends on the file.
func splitFile(name string) (dir, ext string, ok bool) {
	dir, base := path.Split(name)
	ext, ok = strings.CutPrefix(base, markFile)
	if !ok || hasMark(dir) {
		return "", "", false
	}
	_, ok = codec.ByExtension(ext)
	return dir, ext, ok
}
