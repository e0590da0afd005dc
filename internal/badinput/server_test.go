package badinput

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// grants are the four rights that stock's manual wants for a role that is no superuser. We do without the third.
var grants = []string{
	"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
	"pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
}

func serverCases(m *templates, server *pgtest.Cluster) []bad {
	conn := func(conninfo string) func(p *pair) { return func(p *pair) { p.server(conninfo) } }
	at := func(port int, more string) string { return fmt.Sprintf("host=127.0.0.1 port=%d %s", port, more) }
	cases := []bad{
		{name: "nobody listens", spoil: conn(at(1, "user=postgres")), want: []string{"Connection refused"}},
		{name: "no such host", spoil: conn("host=nowhere.invalid user=postgres"), want: []string{"nowhere.invalid"}, stock: differs},
		{name: "no such role", spoil: conn(at(server.Port, "user=nobody dbname=postgres")), want: []string{`role "nobody" does not exist`}},
		{name: "no such database", spoil: conn(at(server.Port, "user=postgres dbname=nowhere")), want: []string{`database "nowhere" does not exist`}},
		{name: "unknown keyword", spoil: conn(at(server.Port, "user=postgres colour=blue")), want: []string{`invalid connection option "colour"`}},
		{name: "port is no number", spoil: conn("host=127.0.0.1 port=abc user=postgres"), want: []string{`"abc"`}, stock: differs},
		{name: "connection string without an equals sign", spoil: conn("nonsense"), want: []string{`missing "=" after "nonsense" in connection info string`}},
		{name: "connection string with an open quote", spoil: conn("host='127.0.0.1"), want: []string{"unterminated quoted string in connection info string"}},
		{name: "another system, running", spoil: func(p *pair) {
			p.control(p.newTarget(), func(b []byte) { b[0] ^= 1 })
			p.server(server.ConnString())
		}, want: []string{"error: source and target clusters are from different systems"}},
		{name: "unclean target, running source", spoil: func(p *pair) {
			p.control(p.newTarget(), func(b []byte) { b[16] = 6 })
			p.server(server.ConnString())
		}, args: []string{"--no-ensure-shutdown"}, want: []string{"error: target server must be shut down cleanly"}},
		{name: "full_page_writes is off", spoil: func(p *pair) {
			server.SQL("postgres", "alter system set full_page_writes = off")
			server.Reload()
			for server.Setting("full_page_writes") != "off" { // ends with the test at the latest
				time.Sleep(10 * time.Millisecond)
			}
			p.t.Cleanup(func() {
				server.SQL("postgres", "alter system reset full_page_writes")
				server.Reload()
			})
			p.server(server.ConnString())
		}, want: []string{"error: ", "full_page_writes", " must be enabled in the source server"}},
	}
	for _, without := range []string{grants[0], grants[1], grants[3], "any"} {
		cases = append(cases, bad{
			name: "without " + without,
			spoil: func(p *pair) {
				for _, g := range grants {
					if g == without || without == "any" {
						server.SQL("postgres", "revoke execute on function "+g+" from rewinder")
					} else {
						server.SQL("postgres", "grant execute on function "+g+" to rewinder")
					}
				}
				p.server(server.ConnStringAs("rewinder"))
			},
			want: []string{"error: ", "permission denied for function "}, stock: differs,
		})
	}
	return cases
}

// sourceIsTarget is not refused by stock: it finds nothing to do.
func sourceIsTarget(t *testing.T, env *pgtest.Env, m *templates) {
	bin := pgtest.BuildFastrewind(t)
	before := snapshot(t, m.target.DataDir())
	for _, program := range []string{bin.Fastrewind, bin.PgRewind, env.Bin("pg_rewind")} {
		r := m.target.Rewind(program, pgtest.FromDir(m.target))
		if r.ExitCode != 0 || said(r) != "source and target cluster are on the same timeline\nno rewind required" {
			t.Errorf("%s", r)
		}
	}
	if diffs := changes(before, snapshot(t, m.target.DataDir())); len(diffs) > 0 {
		t.Errorf("the target was changed: %s", diffs[0])
	}
}

// runningTarget has to be left alone by all means.
func runningTarget(t *testing.T, env *pgtest.Env, m *templates) {
	bin := pgtest.BuildFastrewind(t)
	c := m.target.Copy("running")
	c.Start()
	c.SQL("postgres", "create table witness as select 1 as a")
	pid := c.Pid()
	for _, program := range []string{bin.Fastrewind, bin.PgRewind} {
		for _, args := range [][]string{nil, {"--no-ensure-shutdown"}, {"--dry-run"}} {
			r := unfatal(c.Rewind(program, pgtest.FromDir(m.source), args...))
			if r.ExitCode != 1 || !strings.Contains(r.Stderr, fmt.Sprintf("error: target server is running (pid %d)\n", pid)) ||
				!strings.Contains(r.Stderr, "Stop the server first") { // advice, or the hint under the name pg_rewind
				t.Errorf("%s", r)
			}
		}
	}
	c.SQL("postgres", "insert into witness values (2)")
	if c.Pid() != pid || c.Query("postgres", "select sum(a) from witness") != "3" {
		t.Error("the server is not what it was")
	}
	c.Restart()
	if c.Query("postgres", "select sum(a) from witness") != "3" {
		t.Error("the cluster is not what it was")
	}
	c.Stop(pgtest.Fast)
}

// root is refused, by all three in the same words.
func root(t *testing.T, m *templates) {
	if os.Geteuid() != 0 {
		t.Log("not run as root: there is nothing to refuse")
		return
	}
	bin := pgtest.BuildFastrewind(t)
	before := snapshot(t, m.target.DataDir())
	for _, program := range []string{bin.Fastrewind, bin.PgRewind, m.target.Env().Bin("pg_rewind")} {
		cmd := exec.CommandContext(t.Context(), program, "-D", m.target.DataDir(), "--source-pgdata", m.source.DataDir())
		out, err := cmd.CombinedOutput()
		name := program[strings.LastIndex(program, "/")+1:]
		hint := name + ": hint: "
		if name == "pg_rewind" && m.target.Env().Major < 15 {
			hint = ""
		}
		want := fmt.Sprintf("%s: error: cannot be executed by \"root\"\n%sYou must run %s as the PostgreSQL superuser.\n", name, hint, name)
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || string(out) != want {
			t.Errorf("%s: %v\n%s", program, err, out)
		}
	}
	if diffs := changes(before, snapshot(t, m.target.DataDir())); len(diffs) > 0 {
		t.Errorf("the target was changed: %s", diffs[0])
	}
}
