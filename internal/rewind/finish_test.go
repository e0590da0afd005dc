package rewind

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// standbyOf is a source of which only primary_conninfo is asked.
type standbyOf struct {
	liveSource
	conninfo string
	lost     []string
}

func (s standbyOf) PrimaryConnInfo() (string, []string) { return s.conninfo, s.lost }

// told is a Reporter that keeps warnings.
type told struct {
	silent
	warnings []string
}

func (t *told) Warn(text, advice string) { t.warnings = append(t.warnings, text+"\n"+advice) }

// writeStandby runs -R's part on a data directory with the given postgresql.auto.conf, or none if that is empty, as often
// as asked, and gives what is there then and what was warned of.
func writeStandby(t *testing.T, before string, source standbyOf, times int) (after string, warnings []string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, autoConf)
	if before != "" {
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target, err := openTargetFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	rep := &told{}
	r := &run{
		cfg: Config{TargetDir: dir, NoSync: true}, rep: rep, live: source, modes: modes{file: 0o600, dir: 0o700},
		sourceCtl: &pg.Control{Version: &pg.Version{Major: 13}},
	}
	for range times {
		if err := r.writeRecoverySettings(target); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, standbySignal)); err != nil {
		t.Error(err)
	}
	return string(data), rep.warnings
}

const madeConninfo = `user=u password='a\'b\\c'`

// primaryLine is what stock writes for it (escape_single_quotes_ascii).
const primaryLine = `primary_conninfo = 'user=u password=''a\\''b\\\\c'''` + "\n"

// mine is a setting of the user's own.
const mine = "cluster_name = 'mine'"

// recoverySettings are files to which primary_conninfo is added, and what they are then.
var recoverySettings = []struct{ what, before, after string }{
	{"no file", "", primaryLine},
	{"as ALTER SYSTEM leaves it", "# Do not edit!\n" + mine + "\n", "# Do not edit!\n" + mine + "\n" + primaryLine},
	{"an empty line at the end", mine + "\n\n", mine + "\n\n" + primaryLine},
	{"no newline at the end", mine, mine + "\n" + primaryLine},
	{"a comment without newline", mine + "\n# by hand", mine + "\n# by hand\n" + primaryLine},
	{"another primary", mine + "\nprimary_conninfo = 'host=old'", mine + "\nprimary_conninfo = 'host=old'\n" + primaryLine},
	{"of an earlier run", mine + "\n" + primaryLine, mine + "\n" + primaryLine},
	{"of an earlier run alone", primaryLine, primaryLine},
	{"a comment that ends like it", mine + "\n#" + primaryLine, mine + "\n#" + primaryLine + primaryLine},
}

// Whatever the end of postgresql.auto.conf is, the setting becomes a line of its own, once.
func TestWriteRecoverySettings(t *testing.T) {
	for _, c := range recoverySettings {
		for times := 1; times <= 2; times++ {
			got, warnings := writeStandby(t, c.before, standbyOf{conninfo: madeConninfo}, times)
			if got != c.after || len(warnings) != 0 {
				t.Errorf("%s, written %d times:\n%s(%q), want\n%s", c.what, times, got, warnings, c.after)
			}
		}
	}
}

// The same, read by a real server's own lexer.
func TestRecoverySettingsRead(t *testing.T) {
	if testing.Short() {
		t.Skip("needs PostgreSQL's programs")
	}
	e := pgtest.New(t)
	c := e.Init("standby", pgtest.InitOptions{})
	for _, tt := range recoverySettings {
		after, _ := writeStandby(t, tt.before, standbyOf{conninfo: madeConninfo}, 2)
		e.WriteFile(c.Path(autoConf), []byte(after), 0o600)
		want := map[string]string{"primary_conninfo": madeConninfo}
		if strings.Contains(tt.before, "'mine'") {
			want["cluster_name"] = "mine"
		}
		for name, want := range want {
			res := e.Exec(pgtest.Cmd{Path: "postgres", Args: []string{"-D", c.DataDir(), "-C", name}})
			if res.ExitCode != 0 || strings.TrimSpace(res.Stdout) != want {
				t.Errorf("%s: %s, not %s", tt.what, res, want)
			}
		}
	}
}

// A standby that will connect less safely than the rewind did is warned of, by name.
func TestWarnsOfLostSettings(t *testing.T) {
	got, warnings := writeStandby(t, "", standbyOf{conninfo: "user=u", lost: []string{"sslcrldir", "require_auth"}}, 1)
	if got != "primary_conninfo = 'user=u'\n" {
		t.Errorf("%s", got)
	}
	const want = "primary_conninfo is written without what PostgreSQL 13 does not understand: sslcrldir, require_auth\n"
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], want) {
		t.Errorf("%q", warnings)
	}
}
