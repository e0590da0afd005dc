package settings

import (
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
)

// wale is wal-e [options] wal-fetch %f %p.
func (s *shell) wale(c simple, origin string) {
	fl := parseFlags(c.args, set("-k", "--aws-access-key-id", "--s3-prefix", "--gs-prefix", "--wabs-prefix", "--file-prefix", "--gpg-key-id"))
	switch {
	case !fl.has("wal-fetch"):
		s.out.note("%s: only \"wal-e wal-fetch\" is understood", origin)
		return
	case fl.unknown:
		s.out.note("%s has arguments that only a shell can find out", origin)
		return
	}
	more := map[string]location.Secret{}
	for opt, name := range map[string]string{
		"-k": "AWS_ACCESS_KEY_ID", "--aws-access-key-id": "AWS_ACCESS_KEY_ID", "--s3-prefix": "WALE_S3_PREFIX",
		"--gpg-key-id": "WALE_GPG_KEY_ID", "--file-prefix": "WALE_FILE_PREFIX",
	} {
		if v := fl.values[opt]; v != "" {
			more[name] = location.Secret(v)
		}
	}
	if fl.given["--aws-instance-profile"] {
		more["AWS_INSTANCE_PROFILE"] = "true"
	}
	if !wale(s.env, c.vars.with(more), origin, s.out) {
		s.out.note("%s: no prefix is set that is read directly (WALE_S3_PREFIX, WALE_FILE_PREFIX)", origin)
	}
}

// wale finds WAL-E's archive. outer says where its variables are from; empty: the environment.
func wale(e Env, v vars, outer string, f *finding) bool {
	name := "WALE_S3_PREFIX"
	if v.get(name) == "" {
		name = "WALE_FILE_PREFIX"
	}
	prefix := v.get(name)
	if prefix == "" {
		return false
	}
	a := location.Archive{Origin: or(outer, "environment") + ", " + name, Layout: location.WALE, Extension: ".lzo"}
	if v.get("WALE_GPG_KEY_ID") != "" {
		a.Keys.Unsupported = "a key in a GnuPG key ring"
	}
	if name == "WALE_FILE_PREFIX" {
		if a.Dir = v.abs(e.home(strings.TrimPrefix(prefix, "file://localhost"))); a.Dir == "" {
			f.note("%s: not an absolute directory", a.Origin)
			return false
		}
		f.add(a)
		return true
	}
	a.S3 = &location.S3{
		Region:       v.first("AWS_REGION", "AWS_DEFAULT_REGION"),
		AccessKey:    v.get("AWS_ACCESS_KEY_ID"),
		SecretKey:    location.Secret(v.get("AWS_SECRET_ACCESS_KEY")),
		SessionToken: location.Secret(v.first("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")),
		InstanceRole: truth(v.get("AWS_INSTANCE_PROFILE")) || v.get("AWS_INSTANCE_PROFILE") == "1",
	}
	rest, ok := strings.CutPrefix(prefix, "s3://")
	if !ok || parseS3(&a, rest) != nil {
		f.note("%s: not the address of an S3 bucket", a.Origin)
		return false
	}
	if ep := v.get("WALE_S3_ENDPOINT"); ep != "" && !waleEndpoint(a.S3, f, a.Origin, ep) {
		return false
	}
	f.add(a)
	return true
}

// waleEndpoint reads WAL-E's form of an endpoint: http+path://host:port, https+virtualhost://host.
func waleEndpoint(s3 *location.S3, f *finding, origin, text string) bool {
	scheme, host, ok := strings.Cut(text, "://")
	proto, style, plus := strings.Cut(scheme, "+")
	if !ok || !plus {
		return setEndpoint(s3, f, origin, text)
	}
	s3.PathStyle = style == "path"
	return setEndpoint(s3, f, origin, proto+"://"+host)
}
