package main

import (
	"strings"
	"testing"
)

// TestUnknownVariables: a variable that looks like an option's and is none ends the program before it does anything, under every
// name and in every command that has settings.
func TestUnknownVariables(t *testing.T) {
	const advice = "Variables are named by long options in capitals, with _ for -; see fastrewind --help. Unset what is not one of them.\n"
	for _, c := range []struct{ name, meant string }{
		{"FASTREWIND_DRYRUN", "FASTREWIND_DRY_RUN"},
		{"FASTREWIND_DRY-RUN", "FASTREWIND_DRY_RUN"},
		{"FASTREWIND_dry_run", "FASTREWIND_DRY_RUN"},
		{"FASTREWIND_JOB", "FASTREWIND_JOBS"},
		{"FASTREWIND_PGBINDIR", "FASTREWIND_PG_BINDIR"},
		{"FASTREWIND_WAL_ARCHIV_LAYOUT", "FASTREWIND_WAL_ARCHIVE_LAYOUT"},
		{"FASTREWIND_CONF", "FASTREWIND_CONFIG"},
		{"FASTREWIND_CONFIGFILE", "FASTREWIND_CONFIG_FILE"},
		{"FASTREWIND_SOMETHING_ELSE", ""},
		{"FASTREWIND_N", ""},
		{"FASTREWIND_", ""},
		{"FASTREWIND_TESTS", ""},
	} {
		hint := ""
		if c.meant != "" {
			hint = "Perhaps you meant \"" + c.meant + "\".\n"
		}
		for _, name := range []string{"fastrewind", "pg_rewind"} {
			want := name + ": error: unrecognized environment variable \"" + c.name + "\"\n"
			switch {
			case name == "pg_rewind": // it has one line for both
				want += name + ": hint: " + hint + advice
			case hint != "":
				want += name + ": hint: " + hint + name + ": advice: " + advice
			default:
				want += name + ": advice: " + advice
			}
			env := map[string]string{c.name: "on", "FASTREWIND_JOBS": "2"}
			if cfg, got := inProcess(t, env, name, "-Dt", "--source-pgdata=s"); cfg != nil || got != (result{"", want, 1}) {
				t.Errorf("%s=on:\n got %v, %+v\nwant %q", c.name, cfg != nil, got, want)
			}
		}
		got := archiveCall(t, map[string]string{c.name: "on"}, "ls", "--wal-archive="+t.TempDir())
		if got.status != 1 || !strings.Contains(got.stderr, "unrecognized environment variable") {
			t.Errorf("archive, %s=on: %+v", c.name, got)
		}
	}

	// All of them, not only the first.
	two := map[string]string{"FASTREWIND_DRYRUN": "on", "FASTREWIND_JOB": "3"}
	if cfg, got := inProcess(t, two, "fastrewind", "-Dt", "--source-pgdata=s"); cfg != nil || strings.Count(got.stderr, "unrecognized") != 2 {
		t.Errorf("two of them: %+v", got)
	}
	// Who asks for help gets it.
	for _, order := range []string{"--help", "--version"} {
		if _, got := inProcess(t, two, "fastrewind", order); got.status != 0 || got.stdout == "" || got.stderr != "" {
			t.Errorf("%s: %+v", order, got)
		}
	}

	for name, value := range map[string]string{
		"FASTREWIND_DRYRUN":                    "", // counts as not set
		"FASTREWIND":                           "x",
		"FASTREWINDER_DRYRUN":                  "on",
		"MY_FASTREWIND_DRYRUN":                 "on",
		"FASTREWIND_TEST_MAJORS":               "15",
		"FASTREWIND_TEST_S3":                   "minio",
		"FASTREWIND_SURVIVAL_ROUNDS":           "100",
		"FASTREWIND_SERVICE_HOST":              "10.0.0.1",
		"FASTREWIND_SERVICE_PORT":              "80",
		"FASTREWIND_SERVICE_PORT_WEB":          "80",
		"FASTREWIND_PORT":                      "tcp://10.0.0.1:80",
		"FASTREWIND_PORT_80_TCP":               "tcp://10.0.0.1:80",
		"FASTREWIND_PORT_80_TCP_ADDR":          "10.0.0.1",
		"FASTREWIND_METRICS_SERVICE_HOST":      "10.0.0.1",
		"FASTREWIND_METRICS_PORT_80_TCP":       "tcp://10.0.0.1:80",
		"FASTREWIND_METRICS_PORT_53_UDP_PROTO": "udp",
	} {
		cfg, got := inProcess(t, map[string]string{name: value}, "fastrewind", "-Dt", "--source-pgdata=s")
		if cfg == nil || got.stderr != "" {
			t.Errorf("%s=%s: %+v", name, value, got)
		}
	}
}

// TestUnknownVariableOfProcess: the same with the environment of a real process.
func TestUnknownVariableOfProcess(t *testing.T) {
	argv := []string{"fastrewind", "-Dt", "--source-pgdata=s"}
	if got := call(t, binary, argv, "FASTREWIND_DRYRUN=on"); got.status != 1 || !strings.Contains(got.stderr, "\"FASTREWIND_DRYRUN\"") {
		t.Errorf("got %+v", got)
	}
	if got := call(t, binary, argv, "FASTREWIND_DRY_RUN=on"); got != (result{}) {
		t.Errorf("got %+v", got)
	}
}

func TestChanges(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "ABC", 0}, {"kitten", "sitting", 3}, {"DRYRUN", "DRY_RUN", 1},
		{"ab", "ba", 2}, {"flaw", "lawn", 2},
	} {
		if got := changes(c.a, c.b); got != c.want {
			t.Errorf("%s to %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
