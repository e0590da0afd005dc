package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
)

func TestParseURL(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	const origin = "--wal-archive"
	for address, want := range map[string]location.Archive{
		"s3://bucket":              s3At(origin, "", "bucket", ""),
		"s3://bucket/":             s3At(origin, "", "bucket", ""),
		"S3://bucket/a/b c/":       s3At(origin, "", "bucket", "a/b c"),
		"s3://my.bucket-1/a%20b":   s3At(origin, "", "my.bucket-1", "a%20b"),
		"/mnt/archive":             {Origin: origin, Dir: "/mnt/archive"},
		"/mnt/a:b/../c/":           {Origin: origin, Dir: "/mnt/c"},
		"file:///mnt/a%20b":        {Origin: origin, Dir: "/mnt/a b"},
		"file://localhost/mnt/x":   {Origin: origin, Dir: "/mnt/x"},
		"archive":                  {Origin: origin, Dir: filepath.Join(cwd, "archive")},
		"./a:b":                    {Origin: origin, Dir: filepath.Join(cwd, "a:b")},
		"../x":                     {Origin: origin, Dir: filepath.Join(filepath.Dir(cwd), "x")},
		"s3://bucket/wal_005":      s3At(origin, "", "bucket", "wal_005"),
		"s3://bucket/a/archive/x/": s3At(origin, "", "bucket", "a/archive/x"),
	} {
		if got, err := ParseURL(address); err != nil || !same(t, got, want) {
			t.Errorf("%s: %s, %v", address, show(got), err)
		}
	}
	for address, says := range map[string]string{
		"":                            "is empty",
		"gs://bucket/x":               "restore_command",
		"azure://container/x":         "restore_command",
		"https://bucket.s3.amazonaws": "restore_command",
		"s3:/bucket/x":                "s3://BUCKET/PREFIX",
		"s3:bucket":                   "s3://BUCKET/PREFIX",
		"s3://":                       "s3://BUCKET/PREFIX",
		"s3:///x":                     "s3://BUCKET/PREFIX",
		"s3://key:TOPSECRET@bucket/x": "credentials and endpoint are set elsewhere",
		"s3://bucket?x=y":             "s3://BUCKET/PREFIX",
		"s3://bucket/a/../b":          "s3://BUCKET/PREFIX",
		"s3://bucket/a//b":            "s3://BUCKET/PREFIX",
		"file://host/x":               "file:///DIRECTORY",
		"file://x":                    "file:///DIRECTORY",
		"file:///a%zz":                "file:///DIRECTORY",
		"/a\nb":                       "control characters",
	} {
		got, err := ParseURL(address)
		if err == nil {
			t.Errorf("%q: %s", address, show(got))
			continue
		}
		if said := err.Error() + adviceOf(err); !strings.Contains(said, says) || strings.Contains(said, "TOPSECRET") {
			t.Errorf("%q: %s", address, said)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"minio:9000": "https://minio:9000", "http://minio:9000/": "http://minio:9000", "https://h/path/": "https://h/path", "[::1]:9000": "https://[::1]:9000",
		"ftp://x": "", "https://u:p@x": "", "https://": "", "": "", "https://x?y": "", "https://x/%zz": "", "a b": "",
	} {
		if got, ok := endpoint(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q", text, got)
		}
	}
}
