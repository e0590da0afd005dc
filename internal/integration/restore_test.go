package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestRestoreCommand runs stock and fastrewind with the same restore_command, for every way in which one can end, on every
// installed major that has a pg_rewind: both must exit alike and say the same. One segment between the last common checkpoint
// and the divergence is missing, so that whoever reads in whatever order can only miss that one.
func TestRestoreCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	compared := 0
	for _, major := range pgtest.Majors(t) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			r := newRehearsal(t, scenario{init: pgtest.InitOptions{SegSizeMB: 1}, major: major})
			if r.env.HasStock() { // 14 and 16 come without
				compared++
				restoreCommands(r)
			}
		})
	}
	if compared == 0 {
		t.Error("no major has a pg_rewind to compare with")
	}
}

func restoreCommands(r *rehearsal) {
	archive := r.env.Dir("archive")
	target, source, missing := missingOne(r, archive)
	stock := target.Copy("stock") // stock leaves in pg_wal what it restores, even in a dry run
	before := target.Copy("before")
	log := filepath.Join(archive, "log")

	tests := []struct {
		what, command string
		ok            bool
		differs       string // why ours says something else
		stockFails    string // why stock fails where ours does not
	}{
		{what: "ok", command: "cp ARCHIVE/%f %p", ok: true},
		{what: "quoted", command: `cp "ARCHIVE/%f" "%p"`, ok: true},
		{what: "placeholders that are none", command: "cp ARCHIVE/%f %p # %% %x %", ok: r.env.Major < 16},
		{what: "a percent sign at the end", command: "cp ARCHIVE/%f %p # %", ok: r.env.Major < 16},
		{what: "the restart point", command: "cp ARCHIVE/%f %p # %r"},
		{what: "a link into the archive", command: "ln -s ARCHIVE/%f %p", ok: true,
			stockFails: "it finds its own link in pg_wal, and a file in the source's"},
		{what: "status 1", command: "exit 1"},
		{what: "status 125", command: "exit 125"},
		{what: "status 126", command: "exit 126"},
		{what: "status 127", command: "exit 127"},
		{what: "status 130", command: "exit 130"},
		{what: "status 255", command: "exit 255"},
		{what: "SIGTERM", command: "kill -TERM $$"},
		{what: "SIGTERM to a child", command: "sh -c 'kill -TERM $$'; exit $?"},
		{what: "SIGKILL", command: "kill -KILL $$"},
		{what: "no such program", command: "/no/such/cmd %p"},
		{what: "not executable", command: "ARCHIVE/%f %p"},
		{what: "no file", command: "true"},
		{what: "a file, and failure", command: "cp ARCHIVE/%f %p; exit 3"},
		{what: "a short file", command: "head -c 1000 ARCHIVE/%f > %p"},
		{what: "an empty file", command: "touch %p"},
		{what: "a long file", command: "(cat ARCHIVE/%f; echo) > %p"},
		{what: "zeros", command: "head -c 1048576 /dev/zero > %p", differs: "ours refuses the file before it is read"},
		{what: "another segment", command: "cp ARCHIVE/OTHER %p", differs: "ours refuses the file before it is read"},
	}
	for _, tt := range tests {
		r.step("%s", tt.what)
		command := strings.NewReplacer("ARCHIVE", archive, "OTHER", pg.SegmentName(missing.tli, missing.seg-1, missing.size)).Replace(tt.command)
		setting := "restore_command = '" + strings.ReplaceAll("echo %f >> "+log+"; "+command, "'", "''") + "'"
		run := func(c *pgtest.Cluster, program string) (res *pgtest.Result, asked string) {
			r.env.WriteFile(log, nil, 0o600)
			r.env.WriteFile(c.Path("postgresql.auto.conf"), []byte(setting+"\n"), 0o600)
			res = c.Rewind(program, pgtest.FromDir(source), "--dry-run", "--restore-target-wal")
			return res, string(read(r, log))
		}
		theirs, theyAsked := run(stock, r.env.Bin("pg_rewind"))
		_ = os.RemoveAll(stock.Path("pg_wal", missing.name))
		ours, weAsked := run(target, r.bin.PgRewind)
		if (ours.ExitCode == 0) != tt.ok || (theirs.ExitCode == 0) != (tt.ok && tt.stockFails == "") {
			r.Errorf("stock: %s\nours: %s", theirs, ours)
			continue
		}
		if tt.stockFails != "" {
			continue
		}
		if said, they := complaints(ours), complaints(theirs); said != they && tt.differs == "" {
			r.Errorf("stock says\n%sours says\n%s", they, said)
		} else if tt.differs != "" && said == they {
			r.Errorf("no difference: %s", said)
		}
		r.checkAsked(missing, theyAsked, weAsked)
		r.nothingBeside(target)
	}
	// Interrupted while commands run, by one of them. A second signal would end the program at once.
	r.step("interrupted")
	children := filepath.Join(archive, "children")
	r.env.WriteFile(children, nil, 0o600)
	r.env.WriteFile(target.Path("postgresql.auto.conf"),
		fmt.Appendf(nil, "restore_command = 'sleep 1000 & echo $! >> %s; mkdir %[1]s.once && kill -INT $PPID; wait'\n", children), 0o600)
	if res := target.Rewind(r.bin.Fastrewind, pgtest.FromDir(source), "--restore-target-wal"); res.ExitCode == 0 {
		r.Errorf("%s", res)
	}
	pids := strings.Fields(string(read(r, children)))
	if len(pids) == 0 {
		r.Errorf("no command was run")
	}
	for _, pid := range pids {
		r.waitForEnd(pid)
	}
	r.nothingBeside(target)

	r.env.WriteFile(before.Path("postgresql.auto.conf"), read(r, target.Path("postgresql.auto.conf")), 0o600)
	pgtest.SameTrees(r, target, before) // not a byte, after all these
}

// checkAsked holds which segments were asked for. Ours looks ahead: at segments before the checkpoint, of which it does not
// know yet that it will not need them. A wrong file that came ahead of need is given a second chance.
func (r *rehearsal) checkAsked(missing missingSegment, theyAsked, weAsked string) {
	r.Helper()
	for line := range strings.Lines(weAsked) {
		name := strings.TrimSpace(line)
		if name != missing.name && name >= missing.checkpoint || strings.Count(weAsked, name) > 2 {
			r.Errorf("ours asked for %q, stock for %q", weAsked, theyAsked)
		}
	}
	if asked := strings.Contains(theyAsked, missing.name); asked != strings.Contains(weAsked, missing.name) {
		r.Errorf("ours asked for %q, stock for %q", weAsked, theyAsked)
	}
}

// waitForEnd waits until a process that has been killed is gone, or only waits for its new parent to notice.
func (r *rehearsal) waitForEnd(pid string) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			r.Errorf("process %s is still running", pid)
			return
		}
	}
}

func read(r *rehearsal, path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		r.Fatalf("%v", err)
	}
	return data
}

type missingSegment struct {
	name       string
	checkpoint string // the segment of the last common checkpoint, which is there
	tli        pg.TLI
	seg        pg.SegNo
	size       uint32
}

// missingOne is a stopped target and a stopped source that came apart more than a segment after their last common
// checkpoint, and the segment in between that the target lacks and the archive has.
func missingOne(r *rehearsal, archive string) (target, source *pgtest.Cluster, missing missingSegment) {
	r.init.Conf = append(r.init.Conf, "archive_mode = on", "archive_timeout = 0",
		fmt.Sprintf("archive_command = 'test ! -f %s/%%f && cp %%p %[1]s/%%f'", archive))
	target, source = r.pair()
	target.Checkpoint()
	at := target.Control()
	const much = "SELECT count(pg_logical_emit_message(false, '', repeat('x', 100000))) FROM generate_series(1, 50)"
	target.SQL("postgres", much)
	target.WaitReplay(source)
	source.Promote()
	target.SQL("postgres", much+"; SELECT pg_switch_wal()")
	r.waitArchived(target)
	target.Stop(pgtest.Fast)
	source.Checkpoint()
	source.Stop(pgtest.Fast)
	m := missingSegment{tli: pg.TLI(at.TimeLineID), seg: pg.LSN(at.Checkpoint).Seg(at.SegSize) + 2, size: at.SegSize}
	m.name, m.checkpoint = pg.SegmentName(m.tli, m.seg, m.size), pg.SegmentName(m.tli, m.seg-2, m.size)
	if _, err := os.Stat(filepath.Join(archive, m.name)); err != nil {
		r.Fatalf("%v", err)
	}
	if err := os.Remove(target.Path("pg_wal", m.name)); err != nil {
		r.Fatalf("%v", err)
	}
	return target, source, m
}

// complaints are a rewind's error messages, with their details.
func complaints(res *pgtest.Result) string {
	var said strings.Builder
	for line := range strings.Lines(res.Stderr) {
		_, text, _ := strings.Cut(line, ": ") // the program's name
		for _, level := range []string{"error: ", "fatal: ", "detail: "} {
			if strings.HasPrefix(text, level) {
				said.WriteString(text)
			}
		}
	}
	return said.String()
}
