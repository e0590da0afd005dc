package location

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	s := Secret("TOPSECRET")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t", "%5.2f"} {
		for _, v := range []any{s, &s, []Secret{s}, map[string]Secret{"x": s}, struct{ S Secret }{s}} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "TOPSECRET") || strings.Contains(got, "544f50") {
				t.Errorf("%s of %T: %s", verb, v, got)
			}
		}
	}
	if data, err := json.Marshal(map[string]any{"x": s, "y": []Secret{s}}); err != nil || strings.Contains(string(data), "TOPSECRET") {
		t.Errorf("%s, %v", data, err)
	}
	if got := fmt.Sprint(Secret("")); got != "" {
		t.Errorf("nothing is %q", got)
	}
	if s.Reveal() != "TOPSECRET" {
		t.Error("it is lost")
	}
}

func TestDescribe(t *testing.T) {
	for want, a := range map[string]Archive{
		"archive /mnt/archive": {Dir: "/mnt/archive"},
		"archive /":            {Dir: "/"},
		"archive /x":           {Dir: "/", Prefix: "x"},
		"wal-g archive s3://b/p/q: endpoint http://h:1, connecting to c:2, region r, profile f, certificate not verified, encrypted with libsodium, from the file": {
			Layout: WALG, Prefix: "p/q", Origin: "the file", Keys: Keys{Sodium: "TOPSECRET"},
			S3: &S3{Bucket: "b", Endpoint: "http://h:1", Connect: "c:2", Region: "r", Profile: "f", NoVerify: true, AccessKey: "AKIA", SecretKey: "TOPSECRET"},
		},
		"pgbackrest archive s3://b: stanza main, encrypted with aes-256-cbc": {Layout: PgBackRest, Stanza: "main", S3: &S3{Bucket: "b"}, Keys: Keys{PgBackRestPass: "TOPSECRET"}},
		"barman archive s3://b: server pg":                                   {Layout: Barman, Server: "pg", S3: &S3{Bucket: "b"}},
		"plain archive /a: encrypted with OpenPGP":                           {Layout: Plain, Dir: "/a", Keys: Keys{PGP: "TOPSECRET"}},
		"plain archive /b: encrypted with a KMS":                             {Layout: Plain, Dir: "/b", Keys: Keys{PGP: "TOPSECRET", Unsupported: "a KMS"}},
	} {
		if got := a.Describe(); got != want {
			t.Errorf("%s\n%s", got, want)
		}
		if got := fmt.Sprintf("%+v", a); got != want {
			t.Errorf("printed: %s", got)
		}
	}
}
