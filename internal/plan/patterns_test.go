package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

func TestPatterns(t *testing.T) {
	for _, bad := range []string{
		"", "/etc/x", "../x", "a/../b", "./a", "a/", "[", "*", "?ase", "base", "base/5/1", "pg_*", "pg_wal", "global/pg_control", "PG_VERSION",
		"*/x", "[b/]ase", "log/[", "[^x]ase", "backup_label", "fastrewind.journal", "standby.signal",
	} {
		if err := (Patterns{bad}).Check("--keep"); err == nil {
			t.Errorf("%q was taken", bad)
		} else if !strings.Contains(err.Error(), "--keep") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	good := Patterns{"log", "d[^x]e", "conf.d/*.conf", "*.crt", "pg_log", "postgresql.conf", "server.k?y"}
	if err := good.Check("--keep"); err != nil {
		t.Fatal(err)
	}
	if err := ConfigPatterns.Check("--keep-config"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]bool{
		"log": true, "log/a": true, "log/a/b": true, "log2": false, "x/log": false, "conf.d": false, "conf.d/a.conf": true, "conf.d/a.txt": false,
		"a.crt": true, "x/a.crt": false, "server.key": true, "base/5/1": false, "pg_log/x": true,
		"d/e": false, "due": true,
	} {
		if got := good.Match(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLate: what an interrupted run was not told to leave alone cannot be left alone any more if it is there.
func TestLate(t *testing.T) {
	late := Patterns{"x", "log", ".s.x"}
	in := Input{
		Source: list(file(".s.x", 0), dir("log"), file("log/a", 1), file("y", 1)), Target: list(dir("log"), file("y", 1)),
		Keep: Patterns{"x", "y"}, Exclude: Patterns{"log", ".s.x"}, Late: late, SegSize: segSize, TablespaceDir: spcDir,
	}
	if p, err := Make(in); err != nil || len(p.Actions) != 0 {
		t.Errorf("nothing of it is there: %v", err)
	}
	for _, there := range []string{"x", "log/b"} {
		in.Target = list(dir("log"), file("y", 1), file(there, 1))
		slices.SortFunc(in.Target, func(a, b pg.Entry) int { return strings.Compare(a.Path, b.Path) })
		if _, err := Make(in); err == nil || !strings.Contains(err.Error(), `"`+there+`"`) {
			t.Errorf("%s is there: %v", there, err)
		}
	}
}

// TestSockets: a server's sockets are no files, though a listing from afar does not say so.
func TestSockets(t *testing.T) {
	p, err := Make(Input{
		Source: list(file(".s.PGSQL.5432", 0), file(".s.PGSQL.5432.lock", 60), file("run/.s.PGSQL.5433", 0), file("x.s.PGSQL.5432", 1)),
		Target: list(file(".s.PGSQL.5432.lock", 60)), SegSize: segSize, TablespaceDir: spcDir,
	})
	want := []string{"COPY x.s.PGSQL.5432 0+1", "REMOVE .s.PGSQL.5432.lock",
		"excluded .s.PGSQL.5432", "excluded .s.PGSQL.5432.lock", "excluded run/.s.PGSQL.5433"}
	if err != nil || !slices.Equal(show(p), want) {
		t.Errorf("%q, %v", show(p), err)
	}
}

// TestKeepAndExclude: what is kept stays if it is there, what is excluded stays away; both are never removed, nor is a
// directory that holds something of either. Nothing is put into a directory that is kept as a whole.
func TestKeepAndExclude(t *testing.T) {
	for _, tt := range []struct {
		name           string
		source, target []pg.Entry
		keep, exclude  Patterns
		was            map[string]int64
		want           []string
	}{{
		name:   "files",
		source: list(dir("conf.d"), file("conf.d/a.conf", 1), file("conf.d/b.conf", 1), file("log", 3), file("postgresql.conf", 9), file("x", 1)),
		target: list(dir("conf.d"), file("conf.d/a.conf", 5), file("conf.d/c.conf", 5), file("old", 1), file("postgresql.conf", 8)),
		keep:   Patterns{"conf.d/*.conf", "postgresql.conf"}, exclude: Patterns{"log"},
		want: []string{"COPY conf.d/b.conf 0+1", "COPY x 0+1", "REMOVE old",
			"excluded conf.d/a.conf", "excluded conf.d/c.conf", "excluded log", "excluded postgresql.conf"},
	}, {
		name:   "in directories that only the target has",
		target: list(dir("conf.d"), file("conf.d/a.conf", 5), file("conf.d/x", 1), dir("log"), dir("log/a"), file("log/a/b", 1), dir("log/c"), file("log/c/d", 1)),
		keep:   Patterns{"conf.d/*.conf"}, exclude: Patterns{"log/a/b"},
		want: []string{"REMOVE log/c/d", "REMOVE log/c", "REMOVE conf.d/x", "excluded conf.d/a.conf", "excluded log/a/b"},
	}, {
		name:   "a directory as a whole",
		source: list(dir("certs"), file("certs/a", 1), dir("conf.d"), file("conf.d/a", 1), dir("conf.d/b"), file("conf.d/b/c", 1)),
		target: list(dir("conf.d"), file("conf.d/z", 1)),
		keep:   Patterns{"conf.d", "certs"},
		want: []string{"CREATE certs", "COPY certs/a 0+1",
			"excluded conf.d", "excluded conf.d/a", "excluded conf.d/b", "excluded conf.d/b/c", "excluded conf.d/z"},
	}, {
		name:   "a directory that an interrupted run has made",
		source: list(dir("conf.d"), file("conf.d/a", 1), file("conf.d/b", 1)),
		target: list(dir("conf.d"), file("conf.d/a", 1)),
		keep:   Patterns{"conf.d"},
		was:    map[string]int64{"conf.d": -1, "conf.d/a": -1},
		want:   []string{"COPY conf.d/a 0+1", "COPY conf.d/b 0+1", "excluded conf.d"},
	}} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Make(Input{
				Source: tt.source, Target: tt.target, Keep: tt.keep, Exclude: tt.exclude, SegSize: segSize, TablespaceDir: spcDir,
				Original: func(path string) (int64, bool) { size, ok := tt.was[path]; return size, ok },
			})
			if err != nil {
				t.Fatal(err)
			}
			got := show(p)
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
		})
	}
}
