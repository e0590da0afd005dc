package archivelive

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

const wrongSecret = "not-the-secret-that-was-agreed-upon"

// testRefusals is about settings with which no archive can be read: one error each, which says which bucket, where, and why;
// and nothing is touched.
func (w *world) testRefusals(t *testing.T) {
	t.Parallel()
	expired := s3test.Start(t, s3test.Options{Expired: true})
	expired.NewBucket(bucket)
	denied := w.broken(t, func(s3test.Request, int) *s3test.Fault { return s3test.Denied() })
	skewed := w.broken(t, func(s3test.Request, int) *s3test.Fault { return s3test.Skewed() })
	keys := func(access, secret string) []string {
		return []string{"AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_REGION=" + w.s3.Region, "AWS_CA_BUNDLE=" + w.s3.CAFile}
	}
	at := func(where, endpoint string) []string {
		return []string{"--wal-archive=s3://" + where, "--s3-endpoint=" + endpoint, "--s3-path-style"}
	}
	plain := bucket + "/plain"
	c := w.copy("refused") // for all of them: nothing is done to it
	defer remove(t, c)
	// Whatever is said names these two.
	named := func(endpoint string, why ...string) []string { return append(why, bucket, endpoint) }
	for _, tt := range []struct {
		what string
		env  []string
		args []string
		want []string
	}{
		{"wrong secret", keys(w.s3.AccessKey, wrongSecret), at(plain, w.s3.URL), named(w.s3.URL, "secret key is wrong")},
		{"unknown key", keys("nobody", wrongSecret), at(plain, w.s3.URL), named(w.s3.URL, "access key is unknown")},
		{"no credentials", keys("", ""), at(plain, w.s3.URL), []string{bucket, "none were found"}},
		{"no bucket", w.credentials(), at("nobucket/plain", w.s3.URL), []string{"nobucket", w.s3.URL, "there is no bucket"}},
		{"denied", w.credentials(), at(plain, denied.URL), named(denied.URL, "denied")},
		{"clock", w.credentials(), at(plain, skewed.URL), named(skewed.URL, "clock")},
		{"expired certificate", expired.Env(), at(plain, expired.URL), named(expired.URL, "certificate has expired")},
		{"unknown authority", append(w.credentials(), "AWS_CA_BUNDLE="+expired.CAFile), at(plain, w.s3.URL), named(w.s3.URL, "unknown authority")},
		{"plain HTTP", w.credentials(), at(plain, strings.Replace(w.s3.URL, "https:", "http:", 1)), named("http://localhost", "https:")},
		{"nobody there", w.credentials(), at(plain, "https://localhost:9"), named("https://localhost:9", "refused")},
		{"an empty prefix", w.credentials(), at(bucket+"/nothing", w.s3.URL), []string{bucket + "/nothing", "no WAL archive"}},
		{"no passphrase", w.credentials(), at(bucket+"/encrypted", w.s3.URL), []string{bucket, "encrypted"}},
		{"wrong passphrase", append(w.credentials(), "PGBACKREST_REPO1_CIPHER_PASS="+wrongSecret), at(bucket+"/encrypted", w.s3.URL), []string{bucket, "pass"}},
		{"no settings", w.credentials(), []string{"--wal-archive=auto"}, []string{"found no settings of a WAL archive"}},
	} {
		t.Run(tt.what, func(t *testing.T) { w.mustFail(t, c, tt.env, tt.args, tt.want...) })
	}
	w.testMissingSegment(t, c)
	w.testDryRun(t, c)
}

// testMissingSegment: one segment is in no archive.
func (w *world) testMissingSegment(t *testing.T, c *pgtest.Cluster) {
	t.Run("a gap", func(t *testing.T) {
		const prefix = "gap"
		w.s3.CopyTree(bucket, prefix, w.orig)
		w.s3.Delete(bucket, prefix+"/"+w.missing[1])
		env, args := w.explicit(prefix)
		w.mustFail(t, c, env, args, w.missing[1], bucket)
	})
}

// testDryRun: nothing is left behind, neither in the target nor beside it.
func (w *world) testDryRun(t *testing.T, c *pgtest.Cluster) {
	for _, a := range archivers() {
		t.Run(fmt.Sprintf("dry run, %s", a.name), func(t *testing.T) {
			env, args := w.explicit(a.prefix)
			res := w.rewind(t, c, append(env, a.env(w)...), append(args, "--dry-run")...)
			if res.ExitCode != 0 {
				t.Errorf("%s", res)
			}
			w.untouched(t, c)
		})
	}
	t.Run("interrupted", func(t *testing.T) { w.interrupt(t, c) })
}

// interrupt ends a rewind by a signal while it waits for a body that does not come.
func (w *world) interrupt(t *testing.T, c *pgtest.Cluster) {
	pidFile := filepath.Join(w.tools, c.Name+".pid")
	var once sync.Once
	proxy := w.broken(t, func(r s3test.Request, _ int) *s3test.Fault {
		if !r.Get() || !strings.Contains(r.Key, w.missing[2]) {
			return nil
		}
		once.Do(func() {
			text, err := os.ReadFile(pidFile)
			pid := 0
			if err == nil {
				pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
			}
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGINT)
			}
			if err != nil {
				t.Errorf("%v", err)
			}
		})
		return s3test.Stall(1000)
	})
	env, args := w.through(proxy, "plain")
	cmd := w.command(c, env, args)
	cmd.Args = append([]string{"-c", `echo $$ >"$0" && exec "$@"`, pidFile, cmd.Path}, cmd.Args...)
	cmd.Path = "/bin/sh"
	res := w.env.Exec(cmd)
	if interrupted := 3; res.ExitCode != interrupted {
		t.Errorf("%s", res)
	}
	w.untouched(t, c)
}
