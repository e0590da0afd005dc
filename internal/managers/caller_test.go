package managers

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// The roles that managers rewind with, and the passwords of those that have one.
const (
	cnpgRole = "streaming_replica" // logs in by its certificate
	pafRole  = "pgautofailover_replicator"

	stolonPassword = `sto lon's\1`
	pafPassword    = `paf's\ 2`
)

// callers is a cluster that has parted into a crashed old primary, of which every caller rewinds a copy, and a new one that
// runs. Connections are encrypted, by certificates of one authority for servers and another one for clients.
type callers struct {
	*world
	certs   string
	servers *authority
	serial  *big.Int        // of the servers' certificate
	old     *pgtest.Cluster // the template
	primary *pgtest.Cluster
	archive string // all WAL of the old primary
}

func newCallers(w *world) *callers {
	w.t.Helper()
	c := &callers{world: w, certs: w.env.Dir("certificates"), archive: w.env.Dir("archive")}
	c.servers = w.newAuthority(c.certs, "server")
	c.serial = c.servers.issue("server", x509.ExtKeyUsageServerAuth, "localhost")
	clients := w.newAuthority(c.certs, "client")
	clients.issue(cnpgRole, x509.ExtKeyUsageClientAuth)

	c.old = w.env.Init("old", pgtest.InitOptions{SegSizeMB: 1, Checksums: true, Conf: []string{
		"ssl = on", "ssl_cert_file = '" + c.path("server.crt") + "'", "ssl_key_file = '" + c.path("server.key") + "'",
		"ssl_ca_file = '" + clients.file + "'", "include_if_exists = 'override.conf'",
	}})
	w.env.WriteFile(c.old.Path("pg_hba.conf"), []byte(strings.Join([]string{
		"local all,replication all trust",
		"hostssl postgres,replication " + cnpgRole + " 127.0.0.1/32 cert map=cnpg",
		"host all,replication " + cnpgRole + " 127.0.0.1/32 reject",
		"hostssl all,replication all 127.0.0.1/32 scram-sha-256",
	}, "\n")+"\n"), 0o600)
	w.env.WriteFile(c.old.Path("pg_ident.conf"), []byte("cnpg "+cnpgRole+" "+cnpgRole+"\n"), 0o600)
	c.old.Start()
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	for _, role := range []string{cnpgRole, pafRole} {
		c.old.SQL("postgres", fmt.Sprintf(`CREATE ROLE %[1]s LOGIN REPLICATION;
			GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO %[1]s;
			GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO %[1]s;
			GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO %[1]s;
			GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO %[1]s;`, role))
	}
	c.old.SQL("postgres", fmt.Sprintf("ALTER ROLE %s PASSWORD %s; CREATE ROLE stolon SUPERUSER LOGIN PASSWORD %s",
		pafRole, quote(pafPassword), quote(stolonPassword)))
	c.old.Pgbench("-i", "-q", "-s", "2")
	c.primary = c.old.Standby("primary")
	c.primary.Start()
	c.old.WaitReplay(c.primary)
	c.primary.Promote()
	for _, change := range []struct {
		c    *pgtest.Cluster
		rows int
	}{{c.old, 3}, {c.primary, 4}} {
		change.c.SQL("postgres", fmt.Sprintf("UPDATE pgbench_accounts SET filler = '%s' WHERE aid %% %d = 0",
			change.c.Name, change.rows))
	}
	c.old.SQL("postgres", "SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT")
	c.old.Kill9()
	for _, name := range c.segments(c.old) {
		data, err := os.ReadFile(c.old.Path("pg_wal", name))
		if err != nil {
			w.t.Fatal(err)
		}
		w.env.WriteFile(filepath.Join(c.archive, name), data, 0o600)
	}
	return c
}

// path is a file among the certificates.
func (c *callers) path(name string) string { return filepath.Join(c.certs, name) }

// segments are the WAL segments in a cluster's pg_wal.
func (c *callers) segments(of *pgtest.Cluster) []string {
	entries, err := os.ReadDir(of.Path("pg_wal"))
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if len(entry.Name()) == 24 {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names
}

// rejoins starts a rewound target as a standby that connects as the manager would have it, and compares it with the primary.
// Managers write the settings of recovery themselves; none gives -R.
func (c *callers) rejoins(t *testing.T, target *pgtest.Cluster, conninfo string) {
	t.Helper()
	c.env.WriteFile(target.Path("postgresql.auto.conf"), fmt.Appendf(nil, "primary_conninfo = '%s'\n",
		strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(conninfo)), 0o600)
	c.env.WriteFile(target.Path("standby.signal"), nil, 0o600)
	target.Start()
	c.primary.WaitStreaming(target)
	c.primary.WaitReplay(target)
	pgtest.SameData(t, c.primary, target)
	target.Stop(pgtest.Fast)
	target.Checksums()
	target.Remove()
}

var progressLine = regexp.MustCompile(`(?m)^ *[0-9]+/[0-9]+ kB \([0-9]+%\) copied$`)

// output checks what all callers rely on: nothing on standard output, UTF-8, no secret, and the lines that are wanted.
func output(t *testing.T, r *pgtest.Result, progress bool, wants ...string) {
	t.Helper()
	if r.Stdout != "" {
		t.Errorf("standard output should be empty: %s", r)
	}
	if !utf8.ValidString(r.Stderr) {
		t.Errorf("not UTF-8: %q", r.Stderr)
	}
	if got := progressLine.MatchString(r.Stderr); got != progress {
		t.Errorf("lines of progress: %t, want %t: %s", got, progress, r)
	}
	for _, want := range wants {
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("%q is not in the output: %s", want, r)
		}
	}
	for _, secret := range []string{stolonPassword, pafPassword} {
		if strings.Contains(r.Stderr, secret) {
			t.Errorf("a password is in the output: %s", r.Stderr)
		}
	}
}

// fingerprint is what must not change in a target that a rewind refuses.
func fingerprint(t *testing.T, c *pgtest.Cluster) []byte {
	t.Helper()
	data, err := os.ReadFile(c.Path("global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.NewBuffer(data)
	for _, entry := range entries {
		fmt.Fprintln(text, entry.Name())
	}
	return text.Bytes()
}
