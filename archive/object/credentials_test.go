package object_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

// givers stands for the services that give credentials: STS, and the metadata services of instances and containers. All
// give those of the server under test.
func givers(t *testing.T, s *s3test.Server) *httptest.Server {
	t.Helper()
	expires := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // what is missing is answered as unknown
		switch action := r.Form.Get("Action"); {
		case action == "AssumeRole" && r.Form.Get("RoleArn") == "arn:aws:iam::1:role/denied":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>`)
		case action == "AssumeRole" && strings.Contains(r.Header.Get("Authorization"), "Credential=base/"),
			action == "AssumeRoleWithWebIdentity" && r.Form.Get("WebIdentityToken") == "a token":
			_, _ = fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>%[3]s</SecretAccessKey><SessionToken></SessionToken><Expiration>%[4]s</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/%[5]s</Arn><AssumedRoleId>x</AssumedRoleId></AssumedRoleUser></%[1]sResult></%[1]sResponse>`,
				action, s.AccessKey, s.SecretKey, expires, r.Form.Get("RoleSessionName"))
		case r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			_, _ = io.WriteString(w, "token")
		case strings.HasSuffix(r.URL.Path, "/security-credentials/"), strings.HasSuffix(r.URL.Path, "/security-credentials-extended/"):
			_, _ = io.WriteString(w, "the-role")
		case strings.HasSuffix(r.URL.Path, "/the-role"), r.URL.Path == "/container":
			_ = json.NewEncoder(w).Encode(map[string]string{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": expires,
				"AccessKeyId": s.AccessKey, "SecretAccessKey": s.SecretKey, "Token": "", "Expiration": expires})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

// TestCredentials takes credentials from every place that the SDK and the settings know of.
func TestCredentials(t *testing.T) {
	s := startServer(t, s3test.Options{})
	s.Put(bucketName, "key", []byte("content"))
	services := givers(t, s)
	home := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	both := fmt.Sprintf("aws_access_key_id = %s\naws_secret_access_key = %s\n", s.AccessKey, s.SecretKey)
	script := file("give", fmt.Sprintf("#!/bin/sh\necho '{\"Version\": 1, \"AccessKeyId\": %q, \"SecretAccessKey\": %q}'\n", s.AccessKey, s.SecretKey), 0o700)
	token := file("token", "a token", 0o600)
	const role = "arn:aws:iam::1:role/r"
	for _, c := range []struct {
		name string
		set  location.S3
		env  map[string]string
		part string // of the error; empty: it works
	}{
		{"environment", location.S3{}, map[string]string{"AWS_ACCESS_KEY_ID": s.AccessKey, "AWS_SECRET_ACCESS_KEY": s.SecretKey}, ""},
		{"settings before the environment", location.S3{AccessKey: s.AccessKey, SecretKey: location.Secret(s.SecretKey)},
			map[string]string{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}, ""},
		{"wrong in the environment", location.S3{}, map[string]string{"AWS_ACCESS_KEY_ID": s.AccessKey, "AWS_SECRET_ACCESS_KEY": "y"},
			"The credentials come from EnvConfigCredentials"},
		{"default profile", location.S3{}, map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file("default", "[default]\n"+both, 0o600)}, ""},
		{"a profile", location.S3{Profile: "wal"}, map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file("profile", "[wal]\n"+both, 0o600)}, ""},
		{"AWS_PROFILE", location.S3{}, map[string]string{"AWS_PROFILE": "wal", "AWS_SHARED_CREDENTIALS_FILE": file("env", "[wal]\n"+both, 0o600)}, ""},
		{"a program", location.S3{Profile: "p"}, map[string]string{"AWS_CONFIG_FILE": file("process", "[profile p]\ncredential_process = "+script+"\n", 0o600)}, ""},
		{"a program that fails", location.S3{Profile: "p"},
			map[string]string{"AWS_CONFIG_FILE": file("failing", "[profile p]\ncredential_process = /bin/false\n", 0o600)}, "exit status 1"},
		{"a role in a profile", location.S3{Profile: "r"}, map[string]string{"AWS_CONFIG_FILE": file("role",
			"[profile r]\nrole_arn = "+role+"\nsource_profile = base\n[profile base]\naws_access_key_id = base\naws_secret_access_key = b\n", 0o600)}, ""},
		{"a role in the settings", location.S3{AccessKey: "base", SecretKey: "b", RoleARN: role}, nil, ""},
		{"a role on top of a profile", location.S3{Profile: "base", RoleARN: role, RoleSessionName: "me"},
			map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file("base", "[base]\naws_access_key_id = base\naws_secret_access_key = b\n", 0o600)}, ""},
		{"a role that may not be assumed", location.S3{AccessKey: "base", SecretKey: "b", RoleARN: "arn:aws:iam::1:role/denied"}, nil, "not authorized to perform sts:AssumeRole"},
		{"web identity, by the chain", location.S3{}, map[string]string{"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": token}, ""},
		{"web identity, by the settings", location.S3{WebIdentity: true}, map[string]string{"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": token,
			"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}, ""},
		{"web identity without its file", location.S3{WebIdentity: true}, map[string]string{"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent/token"},
			"/nonexistent/token"},
		{"container", location.S3{}, map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": services.URL + "/container"}, ""},
		{"instance, by the chain", location.S3{}, map[string]string{"AWS_EC2_METADATA_DISABLED": "false"}, ""},
		{"instance, by the settings", location.S3{InstanceRole: true, RoleARN: "the-role"}, map[string]string{"AWS_EC2_METADATA_DISABLED": "false",
			"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}, ""},
		{"region by the environment", location.S3{AccessKey: s.AccessKey, SecretKey: location.Secret(s.SecretKey)}, map[string]string{"AWS_REGION": "eu-west-1"},
			"another region than eu-west-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("HOME", home)
			t.Setenv("AWS_ENDPOINT_URL_STS", services.URL)
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", services.URL)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			c.set.Bucket, c.set.Endpoint, c.set.PathStyle = bucketName, s.URL, true
			b, err := object.NewS3(t.Context(), c.set, quick)
			if err == nil {
				defer object.Close(b)
				_, err = read(t.Context(), b, "key")
			}
			if c.part == "" {
				if err != nil {
					t.Error(text(err))
				}
				return
			}
			wantError(t, err, nil, c.part)
			if strings.Contains(text(err), s.SecretKey) {
				t.Error("a secret is told")
			}
		})
	}
	t.Run("endpoint by the environment", func(t *testing.T) {
		t.Setenv("AWS_ENDPOINT_URL_S3", s.URL)
		set := settings(s, "")
		mustRead(t, open(t, set, quick), "key", []byte("content"))
		set.SecretKey = "wrong"
		_, err := read(t.Context(), open(t, set, quick), "key")
		wantError(t, err, nil, "the secret key is wrong", s.URL)
	})
}
