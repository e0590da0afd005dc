package plan

import (
	"slices"
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	for _, bad := range []string{
		"", "/etc/x", "../x", "a/../b", "./a", "a/", "[", "*", "?ase", "base", "base/5/1", "pg_*", "pg_wal", "global/pg_control", "PG_VERSION",
		"*/x", "backup_label", "fastrewind.journal", "standby.signal",
	} {
		if err := (Patterns{bad}).Check("--keep"); err == nil {
			t.Errorf("%q was taken", bad)
		} else if !strings.Contains(err.Error(), "--keep") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	good := Patterns{"log", "conf.d/*.conf", "*.crt", "pg_log", "postgresql.conf", "server.k?y"}
	if err := good.Check("--keep"); err != nil {
		t.Fatal(err)
	}
	if err := ConfigPatterns.Check("--keep-config"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]bool{
		"log": true, "log/a": true, "log/a/b": true, "log2": false, "x/log": false, "conf.d": false, "conf.d/a.conf": true, "conf.d/a.txt": false,
		"a.crt": true, "x/a.crt": false, "server.key": true, "base/5/1": false, "pg_log/x": true,
	} {
		if got := good.Match(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestKeepAndExclude: what is kept stays if it is there, what is excluded stays away; both are never removed.
func TestKeepAndExclude(t *testing.T) {
	p, err := Make(Input{
		Source: list(dir("conf.d"), file("conf.d/a.conf", 1), file("conf.d/b.conf", 1), file("log", 3), file("postgresql.conf", 9), file("x", 1)),
		Target: list(dir("conf.d"), file("conf.d/a.conf", 5), file("conf.d/c.conf", 5), file("old", 1), file("postgresql.conf", 8)),
		Keep:   Patterns{"conf.d/*.conf", "postgresql.conf"}, Exclude: Patterns{"log"},
		SegSize: segSize, TablespaceDir: spcDir,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"COPY conf.d/b.conf 0+1", "COPY x 0+1", "REMOVE old",
		"excluded conf.d/a.conf", "excluded conf.d/c.conf", "excluded log", "excluded postgresql.conf"}
	if got := show(p); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
