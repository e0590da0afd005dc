package badinput

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

func TestBadInput(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	env := pgtest.New(t)
	m := makeTemplates(t, env)
	t.Logf("target's WAL: checkpoint in segment %d, divergence in %d, end in %d", m.checkpoint, m.divergence, m.end)
	if m.divergence < m.checkpoint+2 || m.end < m.divergence+2 {
		t.Fatal("they are not apart")
	}
	for _, c := range directoryCases(m) {
		t.Run(c.name, func(t *testing.T) { c.run(t, env, m) })
	}
	server := m.source.Copy("server")
	server.Start()
	for _, c := range serverCases(m, server) {
		t.Run(c.name, func(t *testing.T) { c.run(t, env, m) })
	}
	t.Run("running source as a directory", func(t *testing.T) {
		c := bad{spoil: func(p *pair) { p.args[3] = server.DataDir() }, want: []string{"error: source data directory must be shut down cleanly"}}
		c.run(t, env, m)
	})
	t.Run("source is the target", func(t *testing.T) { sourceIsTarget(t, env, m) })
	t.Run("running target", func(t *testing.T) { runningTarget(t, env, m) })
	t.Run("root", func(t *testing.T) { root(t, m) })

	// After all that, the two are what they were: a rewind of the same target from the same source succeeds.
	m.target.MustRewind(pgtest.BuildFastrewind(t).Fastrewind, pgtest.FromDir(m.source))
}

// another makes a control file one of another major, of one with the same layout if there is one.
func another(major int, control []byte) {
	le := binary.LittleEndian
	switch {
	case major >= 18:
		le.PutUint32(control[12:], le.Uint32(control[12:])+1)
	case major == 15:
		le.PutUint32(control[12:], 202107181) // 14
	default:
		le.PutUint32(control[8:], 1300)
		le.PutUint32(control[12:], 202209061) // 15
	}
}

func directoryCases(m *templates) []bad {
	le := binary.LittleEndian
	// Of the target's or the source's pg_control: changed with the right checksum, and changed without.
	patch := func(which func(*pair) *pgtest.Cluster, f func(b []byte)) func(p *pair) {
		return func(p *pair) { p.control(which(p), f) }
	}
	damage := func(which func(*pair) *pgtest.Cluster, f func(b []byte) []byte) func(p *pair) {
		return func(p *pair) { p.edit(which(p).Path("global", "pg_control"), f) }
	}
	target, source := (*pair).newTarget, (*pair).newSource
	wal := func(seg uint64, f func(b []byte) []byte) func(p *pair) {
		return func(p *pair) { p.newTarget(); p.edit(p.segment(seg), f) }
	}
	history := func(text string) func(p *pair) {
		return func(p *pair) {
			p.edit(p.newSource().Path("pg_wal", "00000002.history"), func([]byte) []byte { return []byte(text) })
		}
	}
	removed := func(seg uint64) func(p *pair) {
		return func(p *pair) { p.newTarget(); p.must(os.Remove(p.segment(seg))) }
	}
	cut := func(n int) func(b []byte) []byte { return func(b []byte) []byte { return b[:n] } }
	zeros := func(b []byte) []byte { clear(b); return b }
	mode := func(path func(p *pair) string, mode os.FileMode) func(p *pair) {
		return func(p *pair) { p.newTarget(); p.must(os.Chmod(path(p), mode)) }
	}
	between := (m.checkpoint + m.divergence) / 2
	if between == m.checkpoint {
		between++
	}
	behind := (m.divergence + m.end) / 2
	hints := 176 // wal_log_hints
	if m.target.Env().Major >= 19 {
		hints = 184
	}
	return []bad{
		{name: "target does not exist", spoil: func(p *pair) { p.args[1] = "/nonexistent/target" },
			want: []string{`could not read permissions of directory "/nonexistent/target": No such file or directory`}},
		{name: "target is a file", spoil: func(p *pair) { p.args[1] = p.target.Path("PG_VERSION") }, stock: differs},
		{name: "target is an empty directory", spoil: func(p *pair) { p.args[1] = p.env.Dir("empty-target") },
			want: []string{`could not open file "`, `/global/pg_control" for reading: No such file or directory`}},
		{name: "source does not exist", spoil: func(p *pair) { p.args[3] = "/nonexistent/source" },
			want: []string{`/nonexistent/source`}, stock: differs},
		{name: "source is an empty directory", spoil: func(p *pair) { p.args[3] = p.env.Dir("empty-source") }},

		{name: "target's pg_control is empty", spoil: damage(target, cut(0)), want: []string{"error: unexpected control file size 0, expected 8192"}},
		{name: "target's pg_control is short", spoil: damage(target, cut(4000)), want: []string{"error: unexpected control file size 4000, expected 8192"}},
		{name: "target's pg_control is long", spoil: damage(target, func(b []byte) []byte { return append(b, b...) }), want: []string{"error: unexpected control file size 16384, expected 8192"}},
		{name: "target's pg_control is of zeros", spoil: damage(target, zeros), want: []string{"error: ", "WAL segment size ", "0 bytes"}},
		{name: "target's pg_control is damaged", spoil: damage(target, func(b []byte) []byte { b[100]++; return b }), want: []string{"error: unexpected control file CRC"}},
		{name: "target's pg_control has a damaged version", spoil: damage(target, func(b []byte) []byte { b[12]++; return b }), want: []string{"error: unexpected control file CRC"}},
		{name: "target's pg_control is missing", spoil: func(p *pair) { p.must(os.Remove(p.newTarget().Path("global", "pg_control"))) }},
		{name: "source's pg_control is empty", spoil: damage(source, cut(0)), want: []string{"error: unexpected control file size 0, expected 8192"}},
		{name: "source's pg_control is damaged", spoil: damage(source, func(b []byte) []byte { b[100]++; return b }), want: []string{"error: unexpected control file CRC"}},
		{name: "source's pg_control is missing", spoil: func(p *pair) { p.must(os.Remove(p.newSource().Path("global", "pg_control"))) }},
		{name: "another system", spoil: patch(source, func(b []byte) { b[0] ^= 1 }), want: []string{"error: source and target clusters are from different systems"}},
		{name: "source of another major", spoil: patch(source, func(b []byte) { another(m.target.Env().Major, b) }),
			want: []string{"error: clusters are not compatible with this version of pg_rewind"}, stock: sameError},
		{name: "target of another major", spoil: patch(target, func(b []byte) { another(m.target.Env().Major, b) }),
			want: []string{"error: clusters are not compatible with this version of pg_rewind"}, stock: sameError},
		{name: "neither checksums nor hints", spoil: patch(target, func(b []byte) { b[hints] = 0 }),
			want: []string{`error: target server needs to use either data checksums or "wal_log_hints = on"`}, exit: 7},
		{name: "unclean target", spoil: patch(target, func(b []byte) { b[16] = 6 }), args: []string{"--no-ensure-shutdown"},
			want: []string{"error: target server must be shut down cleanly"}},
		{name: "unclean target, dry run", spoil: patch(target, func(b []byte) { b[16] = 6 }), args: []string{"--dry-run"},
			want: []string{"executing \"", "error: target server must be shut down cleanly"}, stock: differs},
		{name: "unclean source", spoil: patch(source, func(b []byte) { b[16] = 6 }), want: []string{"error: source data directory must be shut down cleanly"}},
		{name: "checkpoint at an impossible place", spoil: patch(target, func(b []byte) { le.PutUint64(b[32:], le.Uint64(b[32:])|0x1FFD) }),
			want: []string{"error: could not read WAL record at "}, stock: differs},
		{name: "checkpoint where there is none", spoil: patch(target, func(b []byte) { le.PutUint64(b[32:], le.Uint64(b[32:])+8) }),
			want: []string{"error: could not read WAL record at "}},

		{name: "no common ancestor", spoil: func(p *pair) {
			p.control(p.newTarget(), func(b []byte) { le.PutUint32(b[48:], 7) })
			p.env.WriteFile(p.target.Path("pg_wal", "00000007.history"), []byte("3\t0/3000000\tx\n"), 0o600)
		}, want: []string{"error: could not find common ancestor of the source and target cluster's timelines"}, exit: 7},
		{name: "source's history is missing", spoil: func(p *pair) { p.must(os.Remove(p.newSource().Path("pg_wal", "00000002.history"))) }},
		{name: "source's history has no timeline", spoil: history("abc\t0/3000000\tx\n"), want: []string{"error: syntax error in history file: abc\t0/3000000\tx"}},
		{name: "source's history has no place", spoil: history("1\tnowhere\n"), want: []string{"error: syntax error in history file: 1\tnowhere"}},
		{name: "source's history goes back", spoil: history("1\t0/3000000\tx\n1\t0/4000000\tx\n"), want: []string{"error: invalid data in history file: 1\t0/4000000\tx"}},
		{name: "source's history names its own timeline", spoil: history("1\t0/3000000\tx\n2\t0/4000000\tx\n"), want: []string{"error: invalid data in history file"}},
		{name: "source's history forks within a record", spoil: history(fmt.Sprintf("1\t0/%X\tx\n", m.divergence*segBytes+0x2004)), want: []string{"error: could not find previous WAL record at 0/"}, stock: differs},
		{name: "source's history forks at the very beginning", spoil: history("1\t0/0\tx\n"), want: []string{"error: invalid data in history file"}, stock: differs},

		{name: "segment of the checkpoint is missing", spoil: removed(m.checkpoint),
			want: []string{`could not open file "`, `": No such file or directory`, "error: could not find previous WAL record at "}},
		{name: "segment before the divergence is missing", spoil: removed(between),
			want: []string{`could not open file "`, `": No such file or directory`, "error: could not find previous WAL record at "}},
		{name: "segment behind the divergence is missing", spoil: removed(behind),
			want: []string{`could not open file "`, `": No such file or directory`, "error: could not read WAL record at "}, stock: sameError},
		{name: "last segment is missing", spoil: removed(m.end),
			want: []string{`could not open file "`, `": No such file or directory`, "error: could not read WAL record at "}},
		{name: "segment is cut", spoil: wal(behind, cut(300_000)), want: []string{"could not read WAL record at "}, stock: differs},
		{name: "segment is empty", spoil: wal(behind, cut(0)), want: []string{"could not read WAL record at "}, stock: differs},
		{name: "segment is of zeros", spoil: wal(behind, zeros), want: []string{"error: could not read WAL record at ", "invalid magic number 0000 in "}, stock: sameError},
		{name: "segment is a copy of another", spoil: func(p *pair) {
			p.newTarget()
			b, err := os.ReadFile(p.segment(behind - 1))
			p.must(err)
			p.must(os.WriteFile(p.segment(behind), b, 0o600))
		}, want: []string{"error: could not read WAL record at ", "unexpected pageaddr "}, stock: sameError},
		{name: "segment has a damaged record", spoil: wal(behind, func(b []byte) []byte { b[500_000] ^= 4; return b }),
			want: []string{"error: could not read WAL record at ", "incorrect resource manager data checksum in record at "}, stock: sameError},
		{name: "segment has a page of zeros", spoil: wal(behind, func(b []byte) []byte { clear(b[40*8192 : 41*8192]); return b }),
			want: []string{"error: could not read WAL record at ", "invalid magic number 0000 in "}, stock: sameError},
		{name: "segment before the divergence has a damaged record", spoil: wal(between, func(b []byte) []byte { b[500_000] ^= 4; return b }),
			want: []string{"error: could not find previous WAL record at ", "incorrect resource manager data checksum in record at "}},
		{name: "segment is a directory", spoil: func(p *pair) {
			p.newTarget()
			p.must(os.Remove(p.segment(behind)))
			p.must(os.Mkdir(p.segment(behind), 0o700))
			p.must(os.Chown(p.segment(behind), owner(p.target.DataDir()), -1))
		}, want: []string{"could not read WAL record at "}, stock: differs},

		{name: "unreadable segment", spoil: mode(func(p *pair) string { return p.segment(behind) }, 0),
			want: []string{`": Permission denied`, "error: could not read WAL record at "}, stock: sameError},
		{name: "unreadable pg_control", spoil: mode(func(p *pair) string { return p.target.Path("global", "pg_control") }, 0),
			want: []string{`pg_control" for reading: Permission denied`}},
		{name: "unreadable file of the source", spoil: func(p *pair) { p.newTarget(); p.must(os.Chmod(p.newSource().Path(m.relation), 0)) },
			want: []string{`error: could not open source file "`, m.relation, "Permission denied"}, exit: refused, stock: differs},
		{name: "unreadable directory of the source", spoil: func(p *pair) { p.must(os.Chmod(p.newSource().Path(filepath.Dir(m.relation)), 0)) },
			want: []string{`could not open directory "`, "Permission denied"}, stock: sameError},
		{name: "unreadable directory of the target", spoil: mode(func(p *pair) string { return p.target.Path(filepath.Dir(m.relation)) }, 0),
			want: []string{`could not open directory "`, "Permission denied"}, stock: sameError},
		{name: "unwritable file", spoil: mode(func(p *pair) string { return p.target.Path(m.relation) }, 0o400),
			want: []string{"error: could not open ", m.relation, "Permission denied"}, exit: refused, stock: differs},
		{name: "unwritable configuration file", spoil: mode(func(p *pair) string { return p.target.Path("postgresql.conf") }, 0o400),
			want: []string{`error: could not open target file "`, "postgresql.conf", "Permission denied"}, exit: refused, stock: differs},
		{name: "unwritable directory", spoil: mode(func(p *pair) string { return p.target.Path("pg_wal") }, 0o500),
			want: []string{"pg_wal", "Permission denied"}, exit: refused, stock: differs},
		{name: "unwritable place of pg_control", spoil: mode(func(p *pair) string { return p.target.Path("global") }, 0o500),
			want: []string{"global", "Permission denied"}, exit: refused, stock: differs},
		{name: "directory here, file there", spoil: func(p *pair) {
			p.must(os.Remove(p.newTarget().Path(m.relation)))
			p.must(os.Mkdir(p.target.Path(m.relation), 0o700))
			p.must(os.Chown(p.target.Path(m.relation), owner(p.target.DataDir()), -1))
		}, want: []string{"error: unexpected page modification for ", "\"" + m.relation}},
		{name: "directory here, another file there", spoil: func(p *pair) {
			path := p.newTarget().Path("pg_hba.conf")
			p.must(os.Remove(path))
			p.must(os.Mkdir(path, 0o700))
			p.must(os.Chown(path, owner(p.target.DataDir()), -1))
		}, want: []string{`error: file "pg_hba.conf" is of different type in source and target`}},
	}
}
