package archivelive

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/s3test"
)

// broken is a proxy before the server, and how it breaks what it passes on. The requests for one key, and all listings, are
// counted from 0.
func (w *world) broken(t *testing.T, breaks func(r s3test.Request, nth int) *s3test.Fault) *s3test.Proxy {
	proxy := s3test.NewProxy(t, w.s3)
	seen := map[string]int{}
	proxy.Inject(func(r s3test.Request) *s3test.Fault {
		nth := seen[r.Key]
		seen[r.Key]++
		return breaks(r, nth)
	})
	return proxy
}

// through are the options that name an archive behind a proxy.
func (w *world) through(proxy *s3test.Proxy, prefix string) (env, args []string) {
	env = w.credentials()
	if prefix == "encrypted" {
		env = append(env, "PGBACKREST_REPO1_CIPHER_PASS="+w.pass)
	}
	return env, []string{"--wal-archive=s3://" + bucket + "/" + prefix, "--s3-endpoint=" + proxy.URL, "--s3-path-style"}
}

// testFaults rewinds although the server, or the network before it, fails now and then.
func (w *world) testFaults(t *testing.T) {
	t.Parallel()
	first := func(fault func() *s3test.Fault, n int) func(s3test.Request, int) *s3test.Fault {
		return func(_ s3test.Request, nth int) *s3test.Fault {
			if nth < n {
				return fault()
			}
			return nil
		}
	}
	stalled := w.missing[2]
	cuts := []int64{0, 1, 17, 4096, 4097, 65536, 100000}
	tests := []struct {
		what   string
		prefix string
		layout string // named if it cannot be found out
		breaks func(r s3test.Request, nth int) *s3test.Fault
	}{
		{"slow down", "plain", "", first(s3test.SlowDown, 2)},
		{"slow down, for all", "pgbackrest", "", func(r s3test.Request, _ int) *s3test.Fault {
			if r.N%3 == 0 {
				return s3test.SlowDown()
			}
			return nil
		}},
		{"internal error", "barman/" + server, "", first(s3test.InternalError, 2)},
		{"reset", "pgbackrest", "", first(s3test.Reset, 2)},
		{"cut", "plain", "", func(r s3test.Request, nth int) *s3test.Fault {
			if nth < 3 {
				return s3test.Cut(cuts[(r.N+nth)%len(cuts)])
			}
			return nil
		}},
		{"cut, encrypted", "encrypted", "", func(r s3test.Request, nth int) *s3test.Fault {
			if nth < 2 {
				return s3test.Cut(cuts[r.N%len(cuts)])
			}
			return nil
		}},
		{"slow", "barman/" + server, "", func(s3test.Request, int) *s3test.Fault { return &s3test.Fault{Delay: 100 * time.Millisecond} }},
		{"stall", "plain", "", func(r s3test.Request, nth int) *s3test.Fault {
			if strings.Contains(r.Key, stalled) && nth == 0 {
				return s3test.Stall(1000)
			}
			return nil
		}},
		{"listing denied", "plain", "plain", func(r s3test.Request, _ int) *s3test.Fault {
			if r.List() {
				return s3test.Denied()
			}
			return nil
		}},
		{"listing denied, and what is missing", "barman/" + server + "/wals", "barman", func(r s3test.Request, _ int) *s3test.Fault {
			if r.List() || !slices.ContainsFunc(slices.Concat(w.missing, w.needed), func(name string) bool { return strings.Contains(r.Key, name) }) {
				return s3test.Denied()
			}
			return nil
		}},
		{"flipped once", "plain", "", func(r s3test.Request, nth int) *s3test.Fault {
			if r.Get() && nth == 0 {
				return s3test.Flip(damaged)
			}
			return nil
		}},
		{"not S3's answer", "pgbackrest", "", first(func() *s3test.Fault {
			return &s3test.Fault{Status: http.StatusBadGateway, Body: "<html>Bad Gateway</html>"}
		}, 2)},
	}
	for _, tt := range tests {
		c := w.copy("fault")
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			proxy := w.broken(t, tt.breaks)
			env, args := w.through(proxy, tt.prefix)
			if tt.layout != "" {
				args = append(args, "--wal-archive-layout="+tt.layout)
			}
			res := w.rewind(t, c, env, append(args, "--stall-timeout=3s")...)
			if res.ExitCode != 0 {
				t.Fatalf("%s", res)
			}
			w.sameAsReference(t, c)
			remove(t, c)
		})
	}
	busy := w.copy("busy")
	t.Run("busy for too long", func(t *testing.T) {
		t.Parallel()
		proxy := w.broken(t, func(s3test.Request, int) *s3test.Fault { return s3test.SlowDown() })
		env, args := w.through(proxy, "plain")
		w.mustFail(t, busy, env, args, bucket, proxy.URL, "fewer requests")
		remove(t, busy)
	})
}
