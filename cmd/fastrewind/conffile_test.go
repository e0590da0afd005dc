package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

// withEtc runs the program inside the test with this directory for /etc, as the user who owns the test's files, or some
// other one if that is root.
func withEtc(t *testing.T, etc string, env map[string]string, argv ...string) (cfg *rewind.Config, got result) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	user := os.Geteuid()
	if user == 0 {
		user = 1000
	}
	p := &process{
		args: argv, euid: user, etc: etc, stdout: &stdout, stderr: &stderr,
		env:   func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		names: func() []string { return slices.Collect(maps.Keys(env)) },
		width: func() int { return 0 },
		now:   time.Now,
		run: func(_ context.Context, c rewind.Config, _ rewind.Reporter) error {
			cfg = &c
			return nil
		},
	}
	status := p.start()
	return cfg, result{stdout.String(), stderr.String(), status}
}

// confIn writes a configuration file where it is looked for below dir.
func confIn(t *testing.T, dir, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, confName)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const someConf = "# who may not add options\r\n" +
	"jobs = 3   # three\n\n" +
	"  target-pgdata=/data/o'ne\n" +
	"source-server = 'host=h application_name=''the # old one'' user=u' # not quoted any more\n" +
	"max-rate = 20M # megabytes per second\n" +
	"pg-bindir = /opt/pg#15/bin\n" +
	"wal-archive = /mnt/with blank\n" +
	"wal-archive = s3://b/p\n" +
	"progress = off\n" +
	"write-recovery-conf = on\n" +
	"s3-region =\n" +
	"timeout = ''\n"

// TestConfFile: every name under which the program runs, and every form of a line.
func TestConfFile(t *testing.T) {
	dir := t.TempDir()
	confIn(t, dir, someConf, 0o644)
	for _, name := range []string{"fastrewind", "pg_rewind"} {
		want := defaults()
		want.ProgramName, want.ProgramPath = name, name
		want.Jobs, want.TargetDir, want.PgBinDir, want.WriteRecoveryConf = 3, "/data/o'ne", "/opt/pg#15/bin", true
		want.MaxRate = 20 << 20
		want.SourceServer = "host=h application_name='the # old one' user=u"
		want.WALArchives = []string{"/mnt/with blank", "s3://b/p"}
		got, res := withEtc(t, dir, nil, name)
		if got == nil || !reflect.DeepEqual(*got, want) || res != (result{}) {
			t.Errorf("%s:\n got %+v, %+v\nwant %+v", name, got, res, want)
		}
	}
}

// TestConfPrecedence: command line, environment, file, default; of files the first alone.
func TestConfPrecedence(t *testing.T) {
	etc, home, xdg, named := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	confIn(t, etc, "jobs = 2\npg-bindir = etc\n", 0o644)
	confIn(t, filepath.Join(home, ".config"), "jobs = 3\n", 0o644)
	confIn(t, xdg, "jobs = 4\n", 0o644)
	file := confIn(t, named, "jobs = 5\nsource-server = host=h\ndry-run = on\nwal-archive = /conf\n", 0o644)
	for _, c := range []struct {
		name string
		line string
		env  map[string]string
		want func(*rewind.Config)
	}{
		{"the machine's", "-D t --source-pgdata=s", nil, func(c *rewind.Config) { c.Jobs, c.PgBinDir = 2, "etc" }},
		{"the home directory's", "-D t --source-pgdata=s", map[string]string{"HOME": home}, func(c *rewind.Config) { c.Jobs = 3 }},
		{"a home directory without", "-D t --source-pgdata=s", map[string]string{"HOME": named}, func(c *rewind.Config) { c.Jobs, c.PgBinDir = 2, "etc" }},
		{"XDG_CONFIG_HOME", "-D t --source-pgdata=s", map[string]string{"HOME": home, "XDG_CONFIG_HOME": xdg}, func(c *rewind.Config) { c.Jobs = 4 }},
		{"XDG_CONFIG_HOME that is relative", "-D t --source-pgdata=s", map[string]string{"HOME": home, "XDG_CONFIG_HOME": "x"}, func(c *rewind.Config) { c.Jobs = 3 }},
		{"a named file", "-D t", map[string]string{"HOME": home, confVariable: file}, func(c *rewind.Config) {
			c.Jobs, c.SourceDir, c.SourceServer, c.DryRun, c.WALArchives = 5, "", "host=h", true, []string{"/conf"}
		}},
		{"no file", "-D t --source-pgdata=s", map[string]string{"HOME": home, confVariable: os.DevNull}, func(*rewind.Config) {}},
		{"the environment first", "-D t", map[string]string{
			confVariable: file, "FASTREWIND_JOBS": "6", "FASTREWIND_DRY_RUN": "off", "FASTREWIND_WAL_ARCHIVE": "/env", "FASTREWIND_SOURCE_PGDATA": "s",
		}, func(c *rewind.Config) { c.Jobs, c.WALArchives = 6, []string{"/env"} }},
		{"an empty variable", "-D t", map[string]string{confVariable: file, "FASTREWIND_JOBS": ""}, func(c *rewind.Config) {
			c.Jobs, c.SourceDir, c.SourceServer, c.DryRun, c.WALArchives = 5, "", "host=h", true, []string{"/conf"}
		}},
		{"the command line first", "-D t --source-pgdata=s -j 7 --wal-archive=/line", map[string]string{confVariable: file, "FASTREWIND_JOBS": "6"},
			func(c *rewind.Config) { c.Jobs, c.DryRun, c.WALArchives = 7, true, []string{"/line"} }},
	} {
		want := defaults()
		want.TargetDir, want.SourceDir = "t", "s"
		c.want(&want)
		got, res := withEtc(t, etc, c.env, append([]string{"fastrewind"}, strings.Fields(c.line)...)...)
		if got == nil || !reflect.DeepEqual(*got, want) || res != (result{}) {
			t.Errorf("%s:\n got %+v, %+v\nwant %+v", c.name, got, res, want)
		}
	}
}

// TestBadConf: what is wrong with a file is told with its line, even if the command line overrules it.
func TestBadConf(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"jobs = 2\njbos = 3\n", "error: unrecognized configuration parameter \"jbos\" in file \"F\" line 2\n" +
			"fastrewind: advice: Names are those of long options, without the dashes; see fastrewind --help.\n"},
		{"--jobs = 2", "error: unrecognized configuration parameter \"--jobs\" in file \"F\" line 1\n"},
		{"help = on", "error: unrecognized configuration parameter \"help\" in file \"F\" line 1\n"},
		{"jbos =", "error: unrecognized configuration parameter \"jbos\" in file \"F\" line 1\n"},
		{"[main]", "error: syntax error in file \"F\" line 1\n" +
			"fastrewind: advice: A line is: name = value. A name is that of a long option, without the dashes.\n"},
		{"\njobs = 2\n#\njobs = 3", "error: parameter \"jobs\" is set twice in file \"F\", in lines 2 and 4\n"},
		{"\njobs = x", "error: invalid value \"x\" for option -j/--jobs\nfastrewind: detail: The value comes from line 2 of file \"F\".\n"},
		{"dry-run = maybe", "error: invalid value \"maybe\" for parameter \"dry-run\" in file \"F\" line 1\n" +
			"fastrewind: hint: Use on, off, true, false, yes, no, 1 or 0.\n"},
		{"source-server = 'password=geheim", "error: syntax error in file \"F\" line 1\n" +
			"fastrewind: advice: The value's quotes do not match. Inside single quotes, a quote is written twice.\n"},
		{"source-server = 'a' b", "error: syntax error in file \"F\" line 1\n"},
		{"pg-bindir = a\x00b", "error: syntax error in file \"F\" line 1\n"},
		{strings.Repeat("# \n", maxConf/3+1), fmt.Sprintf("error: configuration file \"F\" is larger than %d bytes\n", maxConf)},
	} {
		file := confIn(t, t.TempDir(), c.text, 0o600)
		cfg, got := withEtc(t, "", map[string]string{confVariable: file}, "fastrewind", "-j1", "-n", "-Dt", "--source-pgdata=s")
		got.stderr = strings.ReplaceAll(got.stderr, file, "F")
		if cfg != nil || got.status != 1 || !strings.HasPrefix(got.stderr, "fastrewind: "+c.want) || strings.Contains(got.stderr, "geheim") {
			t.Errorf("%.40q:\n got %+v\nwant %q", c.text, got, c.want)
		}
	}
}

// TestUntrustedConf: a file that others could have written is not obeyed, and not passed over either.
func TestUntrustedConf(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string)
		want string
	}{
		"group": {func(t *testing.T, dir string) { confIn(t, dir, "jobs = 2\n", 0o664) },
			"can be written by others than its owner\nfastrewind: detail: File has permissions 0664.\n"},
		"everybody": {func(t *testing.T, dir string) { confIn(t, dir, "jobs = 2\n", 0o602) },
			"can be written by others than its owner\nfastrewind: detail: File has permissions 0602.\n"},
		"directory": {func(t *testing.T, dir string) {
			if err := os.MkdirAll(filepath.Join(dir, confName), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "is not a regular file"},
		"FIFO": {func(t *testing.T, dir string) {
			path := confIn(t, dir, "", 0o600)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "is not a regular file"},
		"dangling link": {func(t *testing.T, dir string) {
			path := confIn(t, dir, "", 0o600)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("nowhere", path); err != nil {
				t.Fatal(err)
			}
		}, "No such file or directory"},
	} {
		dir := t.TempDir()
		c.make(t, dir)
		cfg, got := withEtc(t, dir, nil, "fastrewind", "-Dt", "--source-pgdata=s")
		if cfg != nil || got.status != 1 || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: got %+v, want %q", name, got, c.want)
		}
	}

	// A named file must be there; one of somebody else is refused whoever that is.
	_, got := withEtc(t, "", map[string]string{confVariable: "/nowhere/f.conf"}, "fastrewind", "-Dt", "--source-pgdata=s")
	if got.stderr != "fastrewind: error: could not open configuration file \"/nowhere/f.conf\": No such file or directory\n" {
		t.Errorf("a named file that is missing: got %+v", got)
	}
	file := confIn(t, t.TempDir(), "jobs = 2\n", 0o644)
	owner := os.Geteuid()
	if owner == 0 {
		owner = 4711
		if err := os.Chown(file, owner, -1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readConf(file, owner+1, program{name: "fastrewind"}); err == nil || !strings.Contains(err.Error(), "must be owned by the current user or root") {
		t.Errorf("another user's file: %v", err)
	}
	if _, err := readConf(file, owner, program{name: "fastrewind"}); err != nil {
		t.Errorf("our own file: %v", err)
	}
}

// TestConfPassword: a password that every user can read is worth a warning, but HA managers' settings go on working.
func TestConfPassword(t *testing.T) {
	for _, c := range []struct {
		server string
		mode   os.FileMode
		warns  bool
	}{
		{"host=h password=geheim", 0o644, true},
		{"'host=h password = ''geheim'''", 0o604, true},
		{"host=h sslpassword=geheim", 0o644, true},
		{"postgres://u:geheim@h/db", 0o644, true},
		{"postgresql://h/db?password=geheim", 0o644, true},
		{"host=h password=geheim", 0o640, false},
		{"host=h passfile=geheim", 0o644, false},
		{"postgres://u@h:5432/db", 0o644, false},
	} {
		dir := t.TempDir()
		confIn(t, dir, "source-server = "+c.server+"\n", c.mode)
		cfg, got := withEtc(t, dir, nil, "fastrewind", "-Dt")
		if cfg == nil || strings.Contains(got.stderr, "fastrewind: warning: ") != c.warns || strings.Contains(got.stderr, "geheim") {
			t.Errorf("%s %o: got %+v", c.server, c.mode, got)
		}
		if _, got = withEtc(t, dir, nil, "fastrewind", "-Dt", "--source-pgdata=s"); got.stderr != "" {
			t.Errorf("%s %o, not used: got %+v", c.server, c.mode, got)
		}
	}
}

// TestConfOfCommands: the archive commands take what is theirs and do not mind the rest.
func TestConfOfCommands(t *testing.T) {
	dir := t.TempDir()
	confIn(t, dir, "jobs = 3\nwal-archive = "+filepath.Join(dir, "nothing")+"\n", 0o644)
	_, got := withEtc(t, dir, nil, "fastrewind", "archive", "ls")
	if !strings.Contains(got.stderr, filepath.Join(dir, "nothing")) {
		t.Errorf("got %+v", got)
	}
}

// TestConfKnowsAllOptions: whatever option there is can be set, so that a new one needs no work here.
func TestConfKnowsAllOptions(t *testing.T) {
	values := map[string]string{"NUM": "5", "TIME": "5s", "RATE": "5M", "METHOD": "fsync", "FORMAT": "text", "auto|on|off": "on", "bool": "on"}
	_, o := newCommand(program{name: "fastrewind"}, []string{"fastrewind"})
	o.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Name == "version" {
			return
		}
		value := values[f.Value.Type()]
		if value == "" {
			value = "x"
		}
		path := confIn(t, t.TempDir(), f.Name+" = "+value+"\n", 0o600)
		c, err := readConf(path, os.Geteuid(), program{name: "fastrewind"})
		if err != nil || !reflect.DeepEqual(c.settings, []setting{{f.Name, value, 1}}) {
			t.Errorf("%s: %+v, %v", f.Name, c, err)
		}
	})
}

func FuzzConf(f *testing.F) {
	f.Add(someConf)
	f.Add("jobs='")
	f.Add("=\n#\n'=''''")
	f.Fuzz(func(t *testing.T, text string) {
		c := &confFile{path: "f"}
		if err := c.parse(text); err != nil {
			return
		}
		for _, s := range c.settings {
			if strings.ContainsAny(s.value, "\x00\n") || s.line < 1 || s.line > strings.Count(text, "\n")+1 {
				t.Errorf("setting %+v", s)
			}
			// What was read can be written, and is then read the same way.
			again := &confFile{path: "f"}
			if err := again.parse("x='" + strings.ReplaceAll(s.value, "'", "''") + "'"); err != nil || again.settings[0].value != s.value {
				t.Errorf("%q came back as %+v, %v", s.value, again.settings, err)
			}
		}
	})
}
