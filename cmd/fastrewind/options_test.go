package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

func defaults() rewind.Config {
	return rewind.Config{
		SyncMethod: rewind.SyncFsync, ProgramName: "fastrewind", ProgramPath: "fastrewind",
		ArchiveJobs: defaultArchiveJobs, FetchSourceWAL: rewind.ChoiceAuto, RetryFor: time.Minute, StallTimeout: time.Minute,
	}
}

// TestConfig holds what each form of each option means.
func TestConfig(t *testing.T) {
	for _, c := range []struct {
		line string
		want func(*rewind.Config)
		said string // "progress on" and "debug on", as the run says
	}{
		{"-D t --source-pgdata=s", func(*rewind.Config) {}, ""},
		{"-Dt --source-pgdata s", func(*rewind.Config) {}, ""},
		{"--target-pgdata t --source-pg=s", func(*rewind.Config) {}, ""},
		{"--target=t --source-p s", func(*rewind.Config) {}, ""},
		{"-D a --source-pgdata=b -Dt --source-pgdata=s", func(*rewind.Config) {}, ""},
		{"-n -D t --source-pgdata=s", func(c *rewind.Config) { c.DryRun = true }, ""},
		{"-nN -D t --source-pgdata=s", func(c *rewind.Config) { c.DryRun, c.NoSync = true, true }, ""},
		{"-nPDt --source-pgdata=s", func(c *rewind.Config) { c.DryRun = true }, "fastrewind: progress on\n"},
		{"-cD t --source-pgdata=s", func(c *rewind.Config) { c.RestoreTargetWAL = true }, ""},
		{"--dry --no-s --prog --rest -D t --source-pgdata=s", func(c *rewind.Config) {
			c.DryRun, c.NoSync, c.RestoreTargetWAL = true, true, true
		}, "fastrewind: progress on\n"},
		{"--p -D t --source-pgdata=s", func(*rewind.Config) {}, "fastrewind: progress on\n"},
		{"--debug -D t --source-pgdata=s", func(*rewind.Config) {}, "fastrewind: debug on\n"},
		{"-RD t --source-server=host=h", func(c *rewind.Config) {
			c.WriteRecoveryConf, c.SourceDir, c.SourceServer = true, "", "host=h"
		}, ""},
		{"-D t --source-server=", func(c *rewind.Config) { c.SourceDir = "" }, ""},
		{"--no-ensure-shutdown --config-file=f -D t --source-pgdata=s", func(c *rewind.Config) {
			c.NoEnsureShutdown, c.ConfigFile = true, "f"
		}, ""},
		{"--sync-method=syncfs -D t --source-pgdata=s", func(c *rewind.Config) { c.SyncMethod = rewind.SyncSyncfs }, ""},
		{"--sync fsync -D t --source-pgdata=s", func(*rewind.Config) {}, ""},
		{"-j 3 -D t --source-pgdata=s", func(c *rewind.Config) { c.Jobs = 3 }, ""},
		{"-nj3 -D t --source-pgdata=s", func(c *rewind.Config) { c.Jobs, c.DryRun = 3, true }, ""},
		{"--jobs=1024 -D t --source-pgdata=s", func(c *rewind.Config) { c.Jobs = 1024 }, ""},
		{"--pg-bindir=b -D t --source-pgdata=s", func(c *rewind.Config) { c.PgBinDir = "b" }, ""},
		{"--restart --timeout=30min --keep-undo=u --fix-permissions -D t --source-pgdata=s", func(c *rewind.Config) {
			c.Restart, c.Timeout, c.KeepUndo, c.FixPermissions = true, 30*time.Minute, "u", true
		}, ""},
		{"--keep=a --keep=b/*.c --exclude=log --keep-config -D t --source-pgdata=s", func(c *rewind.Config) {
			c.Keep, c.Exclude, c.KeepConfig = []string{"a", "b/*.c"}, []string{"log"}, true
		}, ""},
		{"--wal-archive=s3://b/p --wal-archive /mnt/wal --wal-archive-layout=barman -D t --source-pgdata=s", func(c *rewind.Config) {
			c.WALArchives, c.WALArchiveLayout = []string{"s3://b/p", "/mnt/wal"}, "barman"
		}, ""},
		{"--s3-endpoint=e --s3-region=r --s3-profile=p --s3-ca-file=f --s3-path-style --s3-requester-pays -D t --source-pgdata=s", func(c *rewind.Config) {
			c.S3 = rewind.S3Config{Endpoint: "e", Region: "r", Profile: "p", CAFile: "f", PathStyle: true, RequesterPays: true}
		}, ""},
		{"--archive-jobs=20 --restore-timeout=90 --fetch-source-wal=off -D t --source-pgdata=s", func(c *rewind.Config) {
			c.ArchiveJobs, c.RestoreTimeout, c.FetchSourceWAL = 20, 90*time.Second, rewind.ChoiceOff
		}, ""},
		{"--retry-for=0 --stall-timeout=500ms -D t --source-pgdata=s", func(c *rewind.Config) {
			c.RetryFor, c.StallTimeout = 0, 500*time.Millisecond
		}, ""},
		{"--max-rate=1.5M -D t --source-pgdata=s", func(c *rewind.Config) { c.MaxRate = 3 << 19 }, ""},
	} {
		got, res := inProcess(t, nil, append([]string{"fastrewind"}, strings.Fields(c.line)...)...)
		want := defaults()
		want.TargetDir, want.SourceDir = "t", "s"
		c.want(&want)
		if got == nil || !reflect.DeepEqual(*got, want) || res.stderr != c.said || res.status != 0 {
			t.Errorf("%s:\n got %+v, %+v\nwant %+v, said %q", c.line, got, res, want, c.said)
		}
	}
}

// TestOwnOptionsUnderStockName: HA managers pass on options that a user configured, and call pg_rewind.
func TestOwnOptionsUnderStockName(t *testing.T) {
	got, res := inProcess(t, map[string]string{"FASTREWIND_PG_BINDIR": "b"},
		"/x/pg_rewind", "--jobs=5", "-D", "t", "--source-pgdata=s")
	if got == nil || got.Jobs != 5 || got.PgBinDir != "b" || got.ProgramName != "pg_rewind" || got.ProgramPath != "/x/pg_rewind" {
		t.Errorf("got %+v, %+v", got, res)
	}
}

func TestBadValues(t *testing.T) {
	for _, c := range []struct {
		line, env, want string
	}{
		{"-j0", "", "fastrewind: error: -j/--jobs must be in range 1..1024\n"},
		{"-j1025", "", "fastrewind: error: -j/--jobs must be in range 1..1024\n"},
		{"-j99999999999999999999", "", "fastrewind: error: -j/--jobs must be in range 1..1024\n"},
		{"-jx", "", "fastrewind: error: invalid value \"x\" for option -j/--jobs\n"},
		{"--jobs=", "", "fastrewind: error: invalid value \"\" for option -j/--jobs\n"},
		{"--log-format=xml", "", "fastrewind: error: unrecognized log format: xml\n"},
		{"--max-rate=slow", "", "fastrewind: error: transfer rate \"slow\" is not a valid value\n" +
			"fastrewind: hint: Give a number of kilobytes per second, or a number with k or M after it.\n"},
		{"", "FASTREWIND_MAX_RATE=1G", "fastrewind: error: invalid --max-rate unit: \"G\"\n" +
			"fastrewind: detail: The value comes from environment variable \"FASTREWIND_MAX_RATE\".\n" +
			"fastrewind: hint: Give a number of kilobytes per second, or a number with k or M after it.\n"},
		{"--sync-method=", "", "fastrewind: error: unrecognized sync method: \n"},
		{"-jx --bogus", "", "fastrewind: error: invalid value \"x\" for option -j/--jobs\n"}, // the first mistake is told
		{"", "FASTREWIND_JOBS=x", "fastrewind: error: invalid value \"x\" for option -j/--jobs\n" +
			"fastrewind: detail: The value comes from environment variable \"FASTREWIND_JOBS\".\n"},
		{"", "FASTREWIND_DRY_RUN=maybe", "fastrewind: error: invalid value \"maybe\" for environment variable \"FASTREWIND_DRY_RUN\"\n" +
			"fastrewind: hint: Use on, off, true, false, yes, no, 1 or 0.\n"},
		{"-D t --source-pgdata=", "", "fastrewind: error: could not open file \"/global/pg_control\" for reading: No such file or directory\n" +
			"fastrewind: advice: --source-pgdata is empty.\n"},
	} {
		env := map[string]string{}
		if name, value, ok := strings.Cut(c.env, "="); ok {
			env[name] = value
		}
		cfg, got := inProcess(t, env, append([]string{"fastrewind"}, strings.Fields(c.line)...)...)
		if cfg != nil || got != (result{"", c.want, 1}) {
			t.Errorf("%s %s:\n got %+v\nwant %q", c.env, c.line, got, c.want)
		}
	}
}

// TestEnvironment: each option has its variable, below the command line and above the default.
func TestEnvironment(t *testing.T) {
	all := map[string]string{
		"FASTREWIND_TARGET_PGDATA":       "t",
		"FASTREWIND_SOURCE_SERVER":       "host=h",
		"FASTREWIND_WRITE_RECOVERY_CONF": "on",
		"FASTREWIND_NO_ENSURE_SHUTDOWN":  "TRUE",
		"FASTREWIND_CONFIG_FILE":         "f",
		"FASTREWIND_RESTORE_TARGET_WAL":  "yes",
		"FASTREWIND_DRY_RUN":             "1",
		"FASTREWIND_NO_SYNC":             "true",
		"FASTREWIND_PROGRESS":            "on",
		"FASTREWIND_DEBUG":               "on",
		"FASTREWIND_SYNC_METHOD":         "syncfs",
		"FASTREWIND_JOBS":                "7",
		"FASTREWIND_MAX_RATE":            " 100 k ",
		"FASTREWIND_PG_BINDIR":           "b",
		"FASTREWIND_LOG_FORMAT":          "text",
		"FASTREWIND_RESTART":             "on",
		"FASTREWIND_TIMEOUT":             "2h",
		"FASTREWIND_KEEP_UNDO":           "u",
		"FASTREWIND_FIX_PERMISSIONS":     "on",
		"FASTREWIND_KEEP":                "a b",
		"FASTREWIND_EXCLUDE":             "log",
		"FASTREWIND_KEEP_CONFIG":         "on",
		"FASTREWIND_WAL_ARCHIVE":         "auto  s3://b/p",
		"FASTREWIND_WAL_ARCHIVE_LAYOUT":  "wal-g",
		"FASTREWIND_S3_ENDPOINT":         "e",
		"FASTREWIND_S3_REGION":           "r",
		"FASTREWIND_S3_PROFILE":          "p",
		"FASTREWIND_S3_CA_FILE":          "ca",
		"FASTREWIND_S3_PATH_STYLE":       "on",
		"FASTREWIND_S3_REQUESTER_PAYS":   "on",
		"FASTREWIND_ARCHIVE_JOBS":        "9",
		"FASTREWIND_RESTORE_TIMEOUT":     "1min",
		"FASTREWIND_FETCH_SOURCE_WAL":    "yes",
		"FASTREWIND_RETRY_FOR":           "5",
		"FASTREWIND_STALL_TIMEOUT":       "6",
	}
	for _, name := range []string{"fastrewind", "pg_rewind"} {
		want := rewind.Config{
			TargetDir: "t", SourceServer: "host=h", WriteRecoveryConf: true, NoEnsureShutdown: true, ConfigFile: "f",
			RestoreTargetWAL: true, DryRun: true, NoSync: true, SyncMethod: rewind.SyncSyncfs, Jobs: 7, MaxRate: 100 << 10, PgBinDir: "b",
			Restart: true, Timeout: 2 * time.Hour, KeepUndo: "u", FixPermissions: true,
			Keep: []string{"a", "b"}, Exclude: []string{"log"}, KeepConfig: true,
			WALArchives: []string{"auto", "s3://b/p"}, WALArchiveLayout: "wal-g",
			S3:          rewind.S3Config{Endpoint: "e", Region: "r", Profile: "p", CAFile: "ca", PathStyle: true, RequesterPays: true},
			ArchiveJobs: 9, RestoreTimeout: time.Minute, FetchSourceWAL: rewind.ChoiceOn,
			RetryFor: 5 * time.Second, StallTimeout: 6 * time.Second,
			ProgramName: name, ProgramPath: name,
		}
		got, res := inProcess(t, all, name)
		if got == nil || !reflect.DeepEqual(*got, want) || res.stderr != fmt.Sprintf("%[1]s: progress on\n%[1]s: debug on\n", name) {
			t.Errorf("%s, environment alone:\n got %+v, %+v\nwant %+v", name, got, res, want)
		}

		got, res = inProcess(t, all, name, "-Dt2", "--source-server=host=i", "--config-file=", "--sync-method=fsync", "-j2", "--pg-bindir=c")
		want.TargetDir, want.SourceServer, want.ConfigFile = "t2", "host=i", ""
		want.SyncMethod, want.Jobs, want.PgBinDir = rewind.SyncFsync, 2, "c"
		if got == nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s, command line first:\n got %+v, %+v\nwant %+v", name, got, res, want)
		}
	}

	// Empty or off is the default.
	none := map[string]string{"FASTREWIND_PROGRESS": "off"}
	for name := range all {
		if _, set := none[name]; !set {
			none[name] = ""
		}
	}
	want := defaults()
	want.TargetDir, want.SourceDir = "t", "s"
	if got, res := inProcess(t, none, "fastrewind", "-Dt", "--source-pgdata=s"); got == nil || !reflect.DeepEqual(*got, want) || res.stderr != "" {
		t.Errorf("empty variables:\n got %+v, %+v\nwant %+v", got, res, want)
	}

	// A source on the command line goes before one of the other kind in the environment; two in one place are an error.
	server := map[string]string{"FASTREWIND_SOURCE_SERVER": "host=h", "FASTREWIND_TARGET_PGDATA": "t"}
	if got, res := inProcess(t, server, "fastrewind", "--source-pgdata=s"); got == nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("source of the other kind:\n got %+v, %+v\nwant %+v", got, res, want)
	}
	server["FASTREWIND_SOURCE_PGDATA"] = "s"
	_, res := inProcess(t, server, "fastrewind")
	if !strings.Contains(res.stderr, "only one of --source-pgdata or --source-server") {
		t.Errorf("two sources in the environment: got %+v", res)
	}
	// Orders are not settings.
	if got, res := inProcess(t, map[string]string{"FASTREWIND_HELP": "on", "FASTREWIND_VERSION": "on"},
		"fastrewind", "-Dt", "--source-pgdata=s"); got == nil {
		t.Errorf("FASTREWIND_HELP was obeyed: %+v", res)
	}
}

// TestHelp: under our own name --help and --version work in any place.
func TestHelp(t *testing.T) {
	self := thisProgram([]string{"/x/fastrewind"})
	text := usage(self, nil)
	for _, line := range []string{"--help", "-?", "-n --help", "-nP?", "--he", "-D t --help --bogus"} {
		_, got := inProcess(t, nil, append([]string{"/x/fastrewind"}, strings.Fields(line)...)...)
		if got != (result{text, "", 0}) {
			t.Errorf("%s: got %+v", line, got)
		}
	}
	for _, line := range []string{"--version", "-V", "-nV", "-n --vers"} {
		_, got := inProcess(t, nil, append([]string{"fastrewind"}, strings.Fields(line)...)...)
		if !strings.HasPrefix(got.stdout, "fastrewind ") || !strings.HasSuffix(got.stdout, "(for PostgreSQL 13, 14, 15, 16, 17, 18, 19)\n") || got.stderr != "" || got.status != 0 {
			t.Errorf("%s: got %+v", line, got)
		}
	}
	for _, text := range []string{text, usage(self, dialectOf(oldest)), usage(self, dialectOf(newest))} {
		for _, line := range strings.Split(text, "\n") {
			if len(line) > 95 {
				t.Errorf("line of %d columns: %s", len(line), line)
			}
		}
	}

	// Help and flags are the same list.
	_, o := newCommand(self, []string{"fastrewind"})
	inHelp := map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		var short, long string
		if rest, ok := strings.CutPrefix(line, "      --"); ok {
			long = rest
		} else if len(line) > 6 && strings.HasPrefix(line, "  -") && line[4:8] == ", --" {
			short, long = line[3:4], line[8:]
		} else {
			continue
		}
		long, _, _ = strings.Cut(long, " ")
		inHelp[long] = short
	}
	o.flags.VisitAll(func(f *pflag.Flag) {
		var found bool
		for long, short := range inHelp {
			name, _, takesValue := strings.Cut(long, "=")
			if name == f.Name {
				found = true
				if short != f.Shorthand || takesValue != (f.NoOptDefVal == "") {
					t.Errorf("help has %q, %q for --%s", short, long, f.Name)
				}
				delete(inHelp, long)
			}
		}
		if !found {
			t.Errorf("--%s is not in the help", f.Name)
		}
	})
	if len(inHelp) > 0 {
		t.Errorf("the help has options that do not exist: %v", inHelp)
	}
}

// TestStockVersion: whose version it is, with programs that only say theirs. The line is there whether a server is installed or
// not.
func TestStockVersion(t *testing.T) {
	top := t.TempDir()
	put := func(dir, name, text string, mode os.FileMode) string {
		t.Helper()
		dir = filepath.Join(top, dir)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	postgres := func(dir, version string) string {
		return put(dir, "postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) "+version+"'\n", 0o755)
	}
	named, unknown, path := postgres("named", "13.99 (Fake)"), postgres("unknown", "12.99"), postgres("path", "17.99")
	beside := filepath.Join(postgres("beside", "18.99"), stockName)
	put("beside", stockName, "", 0o755)
	alone := filepath.Join(put("alone", stockName, "", 0o755), stockName)
	target := put("target", "PG_VERSION", "17\n", 0o600)
	t.Setenv("PATH", path)

	const bindir, pgdata = "FASTREWIND_PG_BINDIR", "FASTREWIND_TARGET_PGDATA"
	for _, c := range []struct {
		self string
		env  map[string]string
		want string
	}{
		{beside, nil, "18.99"},
		{beside, map[string]string{bindir: named}, "13.99 (Fake)"},
		{alone, map[string]string{bindir: named}, "13.99 (Fake)"},
		{beside, map[string]string{bindir: unknown}, "18.99"},
		{beside, map[string]string{bindir: filepath.Join(top, "nothing")}, "18.99"},
		{beside, map[string]string{bindir: named, pgdata: filepath.Join(top, "nothing")}, "13.99 (Fake)"},
		{beside, map[string]string{pgdata: target}, "17."}, // one that is installed goes before PATH
		{beside, map[string]string{bindir: named, pgdata: target}, "17."},
		{alone, nil, ""}, // of whatever is installed
	} {
		got := versionText(program{path: c.self, name: stockName, stock: true}, func(name string) (string, bool) {
			value, set := c.env[name]
			return value, set
		})
		version, ok := strings.CutPrefix(got, "pg_rewind (PostgreSQL) ")
		exact := c.want != "" && !strings.HasSuffix(c.want, ".")
		if !ok || !strings.HasPrefix(version, c.want) || exact && version != c.want+"\n" || !regexp.MustCompile(`^1[3-9]`).MatchString(version) {
			t.Errorf("%s %v: got %q, want %q", c.self, c.env, got, c.want)
		}
	}
}

func FuzzCommandLine(f *testing.F) {
	f.Add("-nPDt\n--source-pgdata=s\nx")
	f.Add("--no\n--=\n-?\n--\n-")
	f.Fuzz(func(t *testing.T, line string) {
		for _, name := range []string{"fastrewind", "pg_rewind"} {
			cfg, got := inProcess(t, nil, append([]string{name}, strings.Split(line, "\n")...)...)
			if (got.status == 0) != (cfg != nil || got.stdout != "") {
				t.Errorf("status %d, run %v, stdout %q", got.status, cfg != nil, got.stdout)
			}
			if got.status != 0 && !strings.Contains(got.stderr, name+": ") {
				t.Errorf("failed without a word: %+v", got)
			}
		}
	})
}
