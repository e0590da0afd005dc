package fetch

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// unsetenv takes a variable out of the environment until the test ends.
func unsetenv(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // which puts it back
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

// withoutHome is the environment of a service or a cron job: no HOME, and what the password database has.
func withoutHome(t *testing.T, inPasswd string) {
	t.Helper()
	unsetenv(t, "HOME")
	old := passwdHome
	t.Cleanup(func() { passwdHome = old })
	passwdHome = func() string { return inPasswd }
}

// homeOf fills a directory with the files libpq looks for in a home: a service prod at a host, a password, a root
// certificate, and a client's certificate.
func homeOf(t *testing.T, host string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".postgresql"), 0o700); err != nil {
		t.Fatal(err)
	}
	root := newAuthority(t, "root")
	cert, key := root.issue(t, template("client of "+host))
	for name, data := range map[string][]byte{
		".pg_service.conf":           []byte("[prod]\nhost=" + host + "\n"),
		".pgpass":                    []byte("*:*:*:*:password of " + host + "\n"),
		".postgresql/root.crt":       certPEM(root.cert),
		".postgresql/postgresql.crt": certPEM(cert),
		".postgresql/postgresql.key": key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// foundAtHome says what was found for a connection to the service prod: its host, the password, whether the server's
// certificate will be verified, and whose certificate will be shown.
func foundAtHome(t *testing.T, mode string) string {
	t.Helper()
	s, err := parseConnString("service=prod user=u sslmode="+mode, os.Getenv)
	if err != nil {
		return err.Error()
	}
	return s["host"] + ", " + loginOf(t, s)
}

func loginOf(t *testing.T, s settings) string {
	t.Helper()
	hs, err := s.hosts("x")
	if err != nil {
		return err.Error()
	}
	cfg := hs.list[0].config
	said := cfg.Password
	if cfg.TLSConfig.VerifyConnection != nil {
		said += ", verified"
	}
	if cfg.TLSConfig.GetClientCertificate != nil {
		cert, err := cfg.TLSConfig.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		said += ", " + cert.Leaf.Subject.CommonName
	}
	return said
}

// The user's files are in HOME, or else where the password database says; never in the current directory.
func TestHome(t *testing.T) {
	for _, name := range []string{
		"PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGPASSWORD", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY",
	} {
		unsetenv(t, name)
	}
	t.Setenv("PGSYSCONFDIR", t.TempDir())
	set, passwd, here := homeOf(t, "home"), homeOf(t, "passwd"), homeOf(t, "here")
	t.Chdir(here)
	const none = `definition of service "prod" not found`
	for _, mode := range []string{"prefer", "require", "verify-full"} { // a root certificate makes verify-ca of require
		t.Run(mode, func(t *testing.T) {
			t.Setenv("HOME", set)
			if got, want := foundAtHome(t, mode), "home, password of home, verified, client of home"; got != want {
				t.Errorf("HOME is set: %s", got)
			}
			withoutHome(t, passwd)
			const want = "passwd, password of passwd, verified, client of passwd"
			if got := foundAtHome(t, mode); got != want {
				t.Errorf("HOME is not set: %s", got)
			}
			t.Setenv("HOME", "")
			if got := foundAtHome(t, mode); got != want {
				t.Errorf("HOME is empty: %s", got)
			}
		})
	}
	t.Run("nowhere", func(t *testing.T) {
		withoutHome(t, "")
		if got := foundAtHome(t, "prefer"); got != none {
			t.Errorf("there is no home: %s", got)
		}
		for mode, want := range map[string]string{
			"require": "",
			"verify-ca": "could not get home directory to locate root certificate file\nEither provide the file, use the system's " +
				"trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification.",
		} {
			if got := loginOf(t, settings{"host": "h", "user": "u", "sslmode": mode}); got != want {
				t.Errorf("there is no home, %s: %s", mode, got)
			}
		}
	})
}

// passwdHome is what the password database says.
func TestPasswdHome(t *testing.T) {
	unsetenv(t, "HOME")
	data, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if f := strings.Split(strings.TrimSpace(string(line)), ":"); len(f) == 7 && f[2] == strconv.Itoa(os.Geteuid()) {
			if got := passwdHome(); got != f[5] {
				t.Errorf("%q, not %q", got, f[5])
			}
			return
		}
	}
	t.Skip("the user the test runs as is not in /etc/passwd")
}
