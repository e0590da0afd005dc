package trouble

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// Whose a file is after the rewind.
const (
	targets  = "the target's own"
	sources  = "the source's"
	nobodies = "nobody's"
)

// Who has a file before.
const (
	both = iota
	onlyTarget
	onlySource
)

// ownFiles are beside the server's data. What becomes of them is by ownOptions.
var ownFiles = []struct {
	path string
	has  int
	is   string
}{
	{"postgresql.conf", both, targets},
	{"pg_hba.conf", both, targets},
	{"pg_ident.conf", both, targets},
	{"conf.d/both.conf", both, targets},
	{"conf.d/target.conf", onlyTarget, targets},
	{"conf.d/source.conf", onlySource, nobodies}, // the directory is kept as a whole
	{"server.crt", both, targets},
	{"server.key", both, targets},
	{"root.crl", onlyTarget, targets},
	{"root.crt", onlySource, sources}, // the target has none to keep
	// A directory that only the target has stays for one file's sake.
	{"certs/target.pem", onlyTarget, targets},
	{"certs/target.txt", onlyTarget, nobodies},
	{"certs/more/target.pem", onlyTarget, nobodies},
	{"tls/both.pem", both, targets},
	{"tls/target.pem", onlyTarget, targets},
	{"tls/source.pem", onlySource, sources},
	{"tls/both.txt", both, sources},
	{"log/both.log", both, targets},
	{"log/target.log", onlyTarget, targets},
	{"log/source.log", onlySource, nobodies},
	{"log/more/target.log", onlyTarget, targets},
	{"dumps/source.dump", onlySource, nobodies},
	// Nobody has said anything about these.
	{"notes/target.txt", onlyTarget, nobodies},
	{"notes.txt", both, sources},
	{"more/notes.txt", onlySource, sources},
}

var ownOptions = []string{"--keep-config", "--keep", "certs/*.pem", "--keep=tls/*.pem", "--exclude", "log", "--exclude=dumps"}

// againstPlain are the paths in which a rewind with ownOptions differs from one without; a directory that one of the two has
// not stands for all that is in it.
var againstPlain = []string{
	"certs", "conf.d/both.conf", "conf.d/source.conf", "conf.d/target.conf", "dumps", "log/both.log", "log/more", "log/source.log",
	"log/target.log", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf", "postgresql.conf", "root.crl", "server.crt", "server.key",
	"tls/both.pem", "tls/target.pem",
}

// TestOwnFiles: with --keep, --keep-config and --exclude the target keeps its own files, byte for byte, and gets none that are
// left out; everything else becomes what it becomes without these options, and the server follows, with its own settings.
func TestOwnFiles(t *testing.T) {
	d := newPlay(t)
	source, target := d.promoted("source"), d.old
	target.SQL("postgres", "ALTER SYSTEM SET maintenance_work_mem = '7MB'")
	target.SQL("postgres", "UPDATE v SET t = 'target'; CREATE TABLE only_target AS SELECT 1")
	target.Stop(pgtest.Fast)
	source.SQL("postgres", "ALTER SYSTEM SET maintenance_work_mem = '9MB'")
	source.SQL("postgres", "UPDATE v SET t = 'source' WHERE i % 2 = 0; CREATE TABLE only_source AS SELECT 1")
	target.AppendConf("work_mem = '5MB'", "include_dir = 'conf.d'")
	source.AppendConf("work_mem = '6MB'")
	for _, f := range ownFiles {
		if f.has != onlySource {
			d.addLine(target, f.path, "of the target")
		}
		if f.has != onlyTarget {
			d.addLine(source, f.path, "of the source")
		}
	}
	source.Quiesce()
	before, plain := target.Copy("before"), target.Copy("plain")
	from := pgtest.FromServer(source)

	for _, option := range []string{"--keep=base/5/*", "--exclude=pg_wal"} {
		res := target.Rewind(d.bin.Fastrewind, from, append([]string{option}, ownOptions...)...)
		if res.ExitCode != exitFailed {
			t.Errorf("%s was to be refused: %s", option, res)
		}
		d.mustSay(res, "which belongs to the server")
		pgtest.SameTrees(d, before, target)
	}
	target.MustRewind(d.bin.Fastrewind, from, append([]string{"--dry-run", "-R"}, ownOptions...)...)
	pgtest.SameTrees(d, before, target)

	target.MustRewind(d.bin.Fastrewind, from, append([]string{"-R"}, ownOptions...)...)
	for _, f := range ownFiles {
		got := contents(t, target, f.path)
		switch want := map[string]*pgtest.Cluster{targets: before, sources: source}[f.is]; {
		case want == nil && got != nil:
			t.Errorf("%s is there", f.path)
		case want != nil && (got == nil || !bytes.Equal(got, contents(t, want, f.path))):
			t.Errorf("%s is not %s", f.path, f.is)
		}
	}
	// What -R adds comes behind the settings that were kept.
	kept, auto := contents(t, before, "postgresql.auto.conf"), contents(t, target, "postgresql.auto.conf")
	added, ok := bytes.CutPrefix(auto, kept)
	if !ok || !bytes.HasPrefix(added, []byte("primary_conninfo = ")) || bytes.Count(added, []byte("\n")) != 1 {
		t.Errorf("postgresql.auto.conf was\n%sand is\n%s", kept, auto)
	}
	plain.MustRewind(d.bin.Fastrewind, from, "-R")
	differences, _, err := pgtest.CompareTrees(target.DataDir(), plain.DataDir(), pgtest.RewindDifferences(true)...)
	if err != nil {
		t.Fatal(err)
	}
	var differ []string
	for _, difference := range differences {
		differ = append(differ, difference.Path)
	}
	slices.Sort(differ)
	if differ = slices.Compact(differ); !slices.Equal(differ, againstPlain) {
		t.Errorf("without the options, other paths differ than were expected:\n%q\nexpected\n%q", differ, againstPlain)
	}

	d.follows(target, source)
	target.Start()
	if work, maintenance := target.Setting("work_mem"), target.Setting("maintenance_work_mem"); work != "5MB" || maintenance != "7MB" {
		t.Errorf("its settings are %s and %s", work, maintenance)
	}
}

// addLine adds a comment to a file of a data directory, which is made if need be.
func (d *play) addLine(c *pgtest.Cluster, path, text string) {
	d.Helper()
	d.env.MustExec(pgtest.Cmd{Path: "/bin/mkdir", Args: []string{"-p", filepath.Dir(c.Path(path))}})
	d.env.WriteFile(c.Path(path), append(contents(d.T, c, path), fmt.Sprintf("# %s %s\n", path, text)...), 0o600)
}

// contents are a file's bytes, nil if there is none.
func contents(t *testing.T, c *pgtest.Cluster, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(c.Path(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return data
}
