package layout

import (
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

// TestServer: everything in the fixtures, put into a real S3 server and read from it with signed requests, decodes to what was
// archived, over http and https.
func TestServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts S3 servers")
	}
	files, err := fixtures()
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]s3test.Options{"http": {}, "https": {TLS: true}} {
		t.Run(name, func(t *testing.T) {
			server := s3test.Start(t, options)
			server.NewBucket("fixtures")
			for path, data := range files {
				if key, ok := strings.CutPrefix(path, "bucket/"); ok {
					server.Put("fixtures", key, data)
				}
			}
			for _, f := range allForms {
				t.Run(f.folder, func(t *testing.T) {
					a := f.at(t, f.folder)
					a.Dir = ""
					a.S3 = &location.S3{
						Bucket: "fixtures", Endpoint: server.URL, Region: server.Region, PathStyle: true, CAFile: server.CAFile,
						AccessKey: server.AccessKey, SecretKey: location.Secret(server.SecretKey),
					}
					bucket, err := object.NewS3(t.Context(), *a.S3, object.Options{})
					if err != nil {
						t.Fatal(err)
					}
					defer func() {
						if err := object.Close(bucket); err != nil {
							t.Error(err)
						}
					}()
					checkAll(t, open(t, a, bucket))
				})
			}
		})
	}
}
