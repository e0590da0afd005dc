package managers

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestCallers replays how CloudNativePG, stolon and pg_auto_failover run pg_rewind: command line, environment, connection
// string, and what they do to the data directory before and after. Their own programs need Kubernetes, a store and a monitor.
func TestCallers(t *testing.T) {
	t.Parallel()
	c := newCallers(newWorld(t))
	t.Run("CloudNativePG", c.cloudNativePG)
	t.Run("stolon", c.stolon)
	t.Run("pg_auto_failover", c.pgAutoFailover)
	t.Run("help and version", c.probes)
}

// cloudNativePG: Rewind in pkg/management/postgres/instance.go. The name is looked up in PATH. The target's WAL is only in the
// archive, whose restore_command fails the first time: the operator runs the same command up to four times.
func (c *callers) cloudNativePG(t *testing.T) {
	target := c.old.Copy("cluster-1")
	seen := filepath.Join(c.logs, "manager.log")
	manager := c.script(filepath.Join(c.logs, "manager"), fmt.Sprintf(`
[ "$1 $2 $4" = "wal-restore --log-destination --rewind" ] || exit 3
case $6 in /*) ;; *) exit 4 ;; esac # pg_rewind gives an absolute path, the server does not
echo "$5 $6" >>%[1]s
[ -e %[1]s.failed ] || { : >%[1]s.failed; exit 1; }
exec cp %[2]s/$5 $6
`, seen, c.archive))
	conninfo := fmt.Sprintf("host=localhost user=%s port=%d sslkey=%s sslcert=%s sslrootcert=%s "+
		"application_name=%s sslmode=verify-ca dbname=postgres tcp_user_timeout='5000'",
		cnpgRole, c.primary.Port, c.path(cnpgRole+".key"), c.path(cnpgRole+".crt"), c.servers.file, target.Name)
	c.env.WriteFile(target.Path("override.conf"), fmt.Appendf(nil,
		"restore_command = '%s wal-restore --log-destination %s/postgres.json --rewind %%f %%p'\n", manager, c.logs), 0o600)
	removeFile(t, target.Path("postmaster.pid"))
	lost := 0
	for _, name := range c.segments(target) {
		if name < redoSegment(target) {
			removeFile(t, target.Path("pg_wal", name))
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("no segment was removed")
	}
	control, err := os.ReadFile(target.Path("global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	c.env.WriteFile(target.Path("global", "pg_control.old"), control, 0o600)

	var r *pgtest.Result
	attempts := 0
	for attempts < 4 {
		attempts++
		r = c.env.Exec(pgtest.Cmd{Path: "/usr/bin/env", Args: []string{
			"pg_rewind", "-P", "--source-server", conninfo, "--target-pgdata", target.DataDir(), "--restore-target-wal",
		}, Env: []string{
			"PATH=" + c.bin + ":" + os.Getenv("PATH"), "PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj", "PG_OOM_ADJUST_VALUE=0",
		}})
		if r.ExitCode == 0 {
			break
		}
		t.Logf("attempt %d: %s", attempts, r)
		c.env.WriteFile(target.Path("global", "pg_control"), control, 0o600)
	}
	if r.ExitCode != 0 {
		t.Fatalf("%d attempts have failed", attempts)
	}
	output(t, r, true, "pg_rewind: connected to server\n", "pg_rewind: servers diverged at WAL location ",
		"pg_rewind: reading source file list\n", "pg_rewind: Done!\n")
	if log, err := os.ReadFile(seen); err != nil || len(log) == 0 {
		t.Errorf("restore_command was not run: %v", err)
	}
	c.rejoins(t, target, conninfo)
}

// stolon: SyncFromFollowedPGRewind in internal/postgresql/postgresql.go. The password is in the connection string and in a
// passfile; blanks, quotes and backslashes are escaped as stolon does, which is not by quotes.
func (c *callers) stolon(t *testing.T) {
	target := c.old.Copy("stolon")
	removeFile(t, target.Path("postgresql.auto.conf"))
	conninfo := strings.Join([]string{
		"application_name=stolon", "dbname=postgres", "host=127.0.0.1", "options=" + escape("-c synchronous_commit=off"),
		"password=" + escape(stolonPassword), fmt.Sprintf("port=%d", c.primary.Port), "sslmode=prefer", "user=stolon",
	}, " ")
	passfile := filepath.Join(c.logs, "pgpass")
	c.env.WriteFile(passfile, fmt.Appendf(nil, "127.0.0.1:%d:*:stolon:%s\n", c.primary.Port,
		strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(stolonPassword)), 0o600)
	r := c.env.MustExec(pgtest.Cmd{
		Path: filepath.Join(c.bin, "pg_rewind"), Args: []string{"--debug", "-D", target.DataDir(), "--source-server=" + conninfo},
		Env: []string{"PGPASSFILE=" + passfile},
	})
	output(t, r, false, "pg_rewind: servers diverged at WAL location ", "pg_rewind: Done!\n")
	c.rejoins(t, target, conninfo)
}

// pgAutoFailover: pg_rewind in src/bin/pg_autoctl/pgctl.c. It has recovered the target from its crash before, and verifies
// the server by certificate, name and revocation list.
func (c *callers) pgAutoFailover(t *testing.T) {
	target := c.old.Copy("node_1")
	target.Start()
	target.Stop(pgtest.Fast)
	rewind := func(list string) (*pgtest.Result, string) {
		conninfo := fmt.Sprintf("application_name=%s host=localhost port=%d user=%s dbname=postgres "+
			"sslmode=verify-full sslrootcert=%s sslcrl=%s",
			target.Name, c.primary.Port, pafRole, c.servers.file, list)
		return c.env.Exec(pgtest.Cmd{
			Path: filepath.Join(c.bin, "pg_rewind"),
			Args: []string{"--target-pgdata", target.DataDir(), "--source-server", conninfo, "--progress"},
			Env:  []string{"PGCONNECT_TIMEOUT=2", "PGPASSWORD=" + pafPassword},
		}), conninfo
	}

	before := fingerprint(t, target)
	r, _ := rewind(c.servers.revoke("revoked", c.serial))
	if r.ExitCode != 1 || !strings.Contains(r.Stderr, "revoked") {
		t.Errorf("a server whose certificate is revoked: exit status 1 and the reason wanted: %s", r)
	}
	if !bytes.Equal(fingerprint(t, target), before) {
		t.Errorf("the target has changed, although the rewind was refused")
	}

	r, conninfo := rewind(c.servers.revoke("none"))
	if r.ExitCode != 0 {
		t.Fatalf("%s", r)
	}
	output(t, r, true, "pg_rewind: connected to server\n", "pg_rewind: servers diverged at WAL location ", "pg_rewind: Done!\n")
	c.rejoins(t, target, conninfo+" password="+escape(pafPassword))
}

// escape is a value of a connection string, without quotes.
func escape(value string) string {
	return strings.NewReplacer(` `, `\ `, `'`, `\'`, `\`, `\\`).Replace(value)
}

// probes: what managers ask before they rewind.
func (c *callers) probes(t *testing.T) {
	for _, option := range []string{"--help", "--version", "-?", "-V"} {
		r := c.env.MustExec(pgtest.Cmd{Path: filepath.Join(c.bin, "pg_rewind"), Args: []string{option}})
		if r.Stdout == "" || r.Stderr != "" {
			t.Errorf("standard output only is wanted: %s", r)
		}
		for line := range strings.Lines(r.Stdout) {
			if len(line) > 96 {
				t.Errorf("%s: more than 95 columns: %s", option, line)
			}
		}
		if strings.Contains(strings.ToUpper(option), "-V") && !strings.HasPrefix(r.Stdout, "pg_rewind (PostgreSQL) ") {
			t.Errorf("no version as PostgreSQL prints it: %s", r)
		}
	}
	r := c.env.Exec(pgtest.Cmd{Path: filepath.Join(c.bin, "pg_rewind"), Args: []string{"--no-such-option"}})
	if r.ExitCode == 0 || r.Stderr == "" || r.Stdout != "" {
		t.Errorf("an unknown option: %s", r)
	}
}

func removeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
