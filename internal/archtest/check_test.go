package archtest

import (
	"strings"
	"testing"
)

// sound is a small graph that obeys Arrows; each case of TestCheckFindsBrokenArrows adds one import to it.
func sound() Graph {
	g := Graph{}
	for pkg, imports := range map[string][]string{
		"cmd/fastrewind":  {"internal/rewind", "internal/fault"},
		"internal/rewind": {"archive", "scan", "internal/plan", "fetch", "copier", "internal/pg"},
		"archive":         {"internal/pg"},
		"scan":            {"internal/wal", "internal/pg"},
		"internal/plan":   {"internal/pg"},
		"fetch":           {"internal/pg", "internal/datadir"},
		"copier":          {"internal/plan", "internal/fsx"},
		"internal/wal":    {"internal/pg"},
		"internal/pg":     {"internal/fault"},
		"internal/fsx":    {"internal/pg"},
		"internal/fault":  nil, "internal/datadir": nil, "internal/pgtest": nil,
		"internal/integration": {"internal/pgtest"},
		"bench":                {"internal/pgtest"},
	} {
		list := []string{"fmt"}
		for _, imp := range imports {
			list = append(list, Module+"/"+imp)
		}
		g[Module+"/"+pkg] = list
	}
	g[Module+"/fetch"] = append(g[Module+"/fetch"], "github.com/jackc/pgx/v5/pgconn", "net")
	g[Module+"/cmd/fastrewind"] = append(g[Module+"/cmd/fastrewind"], "github.com/spf13/pflag", "os/signal")
	return g
}

func TestCheckAcceptsSoundGraph(t *testing.T) {
	for _, broken := range Check(sound(), Arrows) {
		t.Error(broken)
	}
}

func TestCheckFindsBrokenArrows(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		want           string // part of a complaint
	}{
		{"product imports the test harness", "internal/rewind", Module + "/internal/pgtest", "internal/rewind imports internal/pgtest"},
		{"command reaches the test harness through another", "internal/rewind", Module + "/internal/pgtest",
			"cmd/fastrewind must never import " + Module + "/internal/pgtest, but does by " + Module + "/cmd/fastrewind -> " + Module + "/internal/rewind -> "},
		{"fetch sees the plan", "fetch", Module + "/internal/plan", "fetch imports internal/plan"},
		{"fetch sees the scan through a leaf", "internal/datadir", Module + "/scan", "fetch must never import " + Module + "/scan"},
		{"copier sees the source", "copier", Module + "/fetch", "copier must never import " + Module + "/fetch"},
		{"copier speaks to servers through the plan", "internal/plan", "net", "copier must never import net"},
		{"plan opens files", "internal/plan", "os", "internal/plan must never import os"},
		{"scan knows the archive", "scan", Module + "/archive", "scan must never import"},
		{"archive knows the scan", "archive", Module + "/scan", "archive imports scan"},
		{"pgx elsewhere", "internal/rewind", "github.com/jackc/pgx/v5", "internal/rewind imports github.com/jackc/pgx/v5, which is only for [fetch]"},
		{"aws elsewhere", "fetch", "github.com/aws/aws-sdk-go-v2/service/s3", "only for [archive/object]"},
		{"flags elsewhere", "scan", "github.com/spf13/pflag", "only for [cmd/fastrewind]"},
		{"standard flags elsewhere", "copier", "flag", "only for [cmd/fastrewind bench internal/soak]"},
		{"logging elsewhere", "copier", "go.uber.org/zap/zapcore", "logged once"},
		{"testing in a program", "internal/pgtest", "testing", "testing"},
		{"vocabulary does I/O", "internal/pg", "os", "internal/pg must never import os"},
		{"vocabulary does I/O through its leaf", "internal/fault", "os", "internal/pg must never import os"},
		{"decoder starts goroutines", "internal/wal", "golang.org/x/sync/errgroup", "internal/wal must never import golang.org/x/sync"},
		{"decoder locks", "internal/wal", "sync/atomic", "internal/wal must never import sync"},
		{"leaf imports upwards", "internal/fsx", Module + "/copier", "internal/fsx imports copier"},
		{"bench looks inside", "bench", Module + "/scan", "bench imports scan"},
		{"harness rests on what it tests", "internal/pgtest", Module + "/internal/pg", "internal/pgtest imports internal/pg"},
		{"somebody imports the command", "internal/rewind", Module + "/cmd/fastrewind", "internal/rewind imports cmd/fastrewind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := sound()
			g[Module+"/"+c.from] = append(g[Module+"/"+c.from], c.to)
			broken := Check(g, Arrows)
			if !strings.Contains(strings.Join(broken, "\n"), c.want) {
				t.Errorf("%s -> %s: expected a complaint with %q, got %q", c.from, c.to, c.want, broken)
			}
		})
	}
}

func TestCheckFindsNewPackage(t *testing.T) {
	g := sound()
	g[Module+"/internal/misc"] = nil
	broken := Check(g, Arrows)
	if len(broken) != 1 || !strings.Contains(broken[0], "internal/misc has no place yet") {
		t.Errorf("got %q", broken)
	}
}

// TestCheckIsNotFooledByPrefixes: flagset is not below flag.
func TestCheckIsNotFooledByPrefixes(t *testing.T) {
	g := sound()
	g[Module+"/scan"] = append(g[Module+"/scan"], "flagset", "github.com/jackc/pgxtras", "network")
	if broken := Check(g, Arrows); len(broken) > 0 {
		t.Errorf("got %q", broken)
	}
}
