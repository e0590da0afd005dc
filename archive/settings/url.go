package settings

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// ParseURL reads an address as --wal-archive has it: s3://bucket/prefix, file:///dir, or a directory. A relative directory
// is made absolute.
func ParseURL(s string) (location.Archive, error) {
	a := location.Archive{Origin: "--wal-archive"}
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case s == "":
		return a, fault.New("the address of the WAL archive is empty")
	case strings.ContainsAny(s, "\x00\r\n"):
		return a, fault.New("the address of the WAL archive has control characters in it")
	case !ok:
		if before, _, colon := strings.Cut(s, ":"); colon && !strings.Contains(before, "/") {
			return a, fault.New("not the address of a WAL archive: \"%s\"", s).
				Advise("Expected is s3://BUCKET/PREFIX or a directory. Write a directory with a colon in its name as ./NAME.")
		}
		return directory(a, s)
	}
	switch strings.ToLower(scheme) {
	case "s3":
		return a, parseS3(&a, rest)
	case "file":
		if host, dir, _ := strings.Cut(rest, "/"); host == "" || host == "localhost" {
			if dir, err := url.PathUnescape("/" + dir); err == nil {
				return directory(a, dir)
			}
		}
		return a, fault.New("not the address of a local directory: \"%s\"", s).Advise("Expected is file:///DIRECTORY.")
	}
	return a, fault.New("cannot read a WAL archive of the kind \"%s://\"", scheme).
		Advise("Only s3:// and directories are read directly. Let restore_command fetch the missing WAL instead (-c).")
}

func directory(a location.Archive, dir string) (location.Archive, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return a, fault.Because(err, "could not get current working directory: %s", fault.M(err))
	}
	a.Dir = dir
	return a, nil
}

// parseS3 fills in bucket and prefix from what follows s3://.
func parseS3(a *location.Archive, rest string) error {
	bucket, prefix, _ := strings.Cut(rest, "/")
	if bucket == "" || strings.ContainsAny(bucket, "@:?#\\ ") || strings.Contains(prefix, "//") ||
		strings.Contains("/"+prefix+"/", "/../") || strings.Contains("/"+prefix+"/", "/./") {
		// Not repeated: with an at sign, there may be a password in it.
		return fault.New("not the address of an S3 bucket").
			Advise("Expected is s3://BUCKET/PREFIX; credentials and endpoint are set elsewhere.")
	}
	if a.S3 == nil {
		a.S3 = &location.S3{}
	}
	a.S3.Bucket, a.Prefix = bucket, strings.Trim(prefix, "/")
	return nil
}

// endpoint makes a URL of an endpoint as tools let users write it, with or without scheme. ok is false if it is none.
func endpoint(s string) (endpointURL string, ok bool) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(strings.TrimRight(s, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", false
	}
	return u.String(), true
}

// isIP reports whether an endpoint is an address rather than a name, to which no bucket's name can be put in front.
func isIP(endpointURL string) bool {
	u, err := url.Parse(endpointURL)
	return err == nil && net.ParseIP(u.Hostname()) != nil
}

// joinHostPort adds a port to a host, which may come with one, and with a scheme.
func joinHostPort(host, port string) string {
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// portOf is the port of an endpoint that endpoint has made.
func portOf(endpointURL string) string {
	u, err := url.Parse(endpointURL)
	switch {
	case err == nil && u.Port() != "":
		return u.Port()
	case err == nil && u.Scheme == "http":
		return "80"
	}
	return "443"
}

// withPort replaces the port of an endpoint.
func withPort(endpointURL, port string) string {
	u, err := url.Parse(endpointURL)
	if err != nil {
		return endpointURL
	}
	u.Host = net.JoinHostPort(u.Hostname(), port)
	return u.String()
}
