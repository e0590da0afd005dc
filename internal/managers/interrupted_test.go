package managers

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestPatroniInterrupted kills fastrewind in the middle of a rewind that Patroni has started, in three ways. Each time the
// node must be a standby of the new primary in the end, and the data equal. The WAL that the rewind needs is only in an
// archive, and restore_command is set, so that Patroni gives --restore-target-wal.
func TestPatroniInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := &interrupted{
		script: filepath.Join(w.logs, "pg_rewind.sh"), pidFile: filepath.Join(w.logs, "rewind.pid"), archive: w.env.Dir("archive"),
	}
	i.useProgram(w)
	i.patroni = w.startPatroni(patroniOptions{
		binDir: w.binDir("bin-interrupted", i.script), load: []string{"-s", "5"},
		conf: []string{fmt.Sprintf("restore_command = 'cp %s/%%f %%p'", i.archive)},
	})
	i.nodeDies()
	i.rewindDies()
	i.wrapped()
}

// interrupted is a Patroni cluster. What Patroni calls as pg_rewind is a script that says which process becomes fastrewind.
type interrupted struct {
	*patroni
	script  string
	pidFile string
	archive string // of what loseWAL takes away; nothing is archived by the servers, lest the standby finds what it must not have

	old, heir *node
	before    int // how long the log of old was when it was killed
}

// useProgram makes the script fastrewind under the name of pg_rewind.
func (i *interrupted) useProgram(w *world) {
	w.script(i.script, fmt.Sprintf("echo $$ >%s\nexec %s \"$@\"\n", i.pidFile, w.ours.PgRewind))
}

// diverge kills the leader and has the other one take over. The old one is not started yet.
func (i *interrupted) diverge(round string) {
	i.w.t.Helper()
	i.old = i.waitLeader()
	i.heir = i.other(i.old)
	i.part(i.old, i.heir, round, true)
	i.old.loseWAL(i.archive)
	i.before = len(i.old.d.output())
	_ = os.Remove(i.pidFile) // of the round before
}

// caught makes the two diverge, lets Patroni rewind the old one, and stops fastrewind in the middle of it.
func (i *interrupted) caught(round string) (pid int) {
	t := i.w.t
	t.Helper()
	for range 5 { // on a busy machine a rewind may be over before it is noticed
		i.diverge(round)
		i.old.start()
		if pid, ok := i.catch(); ok {
			i.halfRewound()
			return pid
		}
		t.Logf("%s: the rewind was over too soon", round)
		i.waitStreaming(i.heir, i.old)
	}
	t.Fatalf("%s: no rewind was caught\n%s", round, i.tails())
	return 0
}

// catch waits until fastrewind has made sure that no server can start on the target, and is about to change it, stops it
// there (SIGSTOP), and returns its process; or false if it was too fast.
func (i *interrupted) catch() (pid int, ok bool) {
	t := i.w.t
	t.Helper()
	for end := time.Now().Add(deadline); !i.guarded(); { // without sleeping: the rewind takes a second
		if time.Now().After(end) {
			return 0, false
		}
		if _, err := os.Stat(i.pidFile); err == nil && strings.Contains(i.log(), "pg_rewind exit code=0") {
			return 0, false
		}
	}
	data, err := os.ReadFile(i.pidFile)
	if err == nil {
		pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return 0, false
	}
	i.w.wait("fastrewind to stop", func() bool { state, _ := stat(pid); return state == "T" || !alive(pid) }, i.tails)
	if !i.guarded() {
		_ = syscall.Kill(pid, syscall.SIGCONT) // ESRCH: it has ended
		return 0, false
	}
	return pid, true
}

// guarded reports whether pg_control has another version than the other server's (ControlFileData.pg_control_version).
func (i *interrupted) guarded() bool {
	const offset = 8
	version := func(n *node) (uint32, bool) {
		data, err := os.ReadFile(n.c.Path("global", "pg_control"))
		if err != nil || len(data) < offset+4 {
			return 0, false
		}
		return binary.LittleEndian.Uint32(data[offset:]), true
	}
	ours, ok1 := version(i.old)
	theirs, ok2 := version(i.heir)
	return ok1 && ok2 && ours != theirs
}

// halfRewound makes sure that the target is as Patroni must find it: pg_controldata reads it, and says that it can be
// rewound; the journal is there.
func (i *interrupted) halfRewound() {
	t := i.w.t
	t.Helper()
	control := i.w.env.MustExec(pgtest.Cmd{Path: "pg_controldata", Args: []string{i.old.c.DataDir()}})
	for _, want := range []string{
		"wal_log_hints setting:                on\n", "Database cluster state:               shut down", // or "... in recovery"
	} {
		if !strings.Contains(control.Stdout, want) {
			t.Errorf("pg_controldata does not say %q of a half-rewound directory: %s", want, control)
		}
	}
	if !i.guarded() {
		t.Errorf("a server could be started on a half-rewound directory")
	}
	i.w.env.MustExec(pgtest.Cmd{Path: i.w.ours.Fastrewind, Args: []string{"journal", "-D", i.old.c.DataDir()}})
}

// rejoined waits until the old primary streams, and compares.
func (i *interrupted) rejoined(round string) {
	t := i.w.t
	t.Helper()
	i.waitStreaming(i.heir, i.old)
	i.same(t)
	if _, err := os.Stat(i.old.c.Path("fastrewind.journal")); !os.IsNotExist(err) {
		t.Errorf("%s: the journal is still there: %v", round, err)
	}
	i.wants("pg_rewind exit code=0")
	logLines(t, fmt.Sprintf("--- %s: the log of %s", round, i.old.c.Name), i.log(), "running pg_rewind from dbname", "exit code",
		"pg_rewind: ", "fastrewind: ", "Failed to rewind", "failed to start", "FATAL:  data", "starting as")
	if t.Failed() {
		t.FailNow()
	}
}

// log is what the old primary's Patroni wrote since the last failover.
func (i *interrupted) log() string { return i.old.d.output()[i.before:] }

// wants makes sure that texts are in that.
func (i *interrupted) wants(texts ...string) {
	i.w.t.Helper()
	for _, want := range texts {
		if !strings.Contains(i.log(), want) {
			i.w.t.Errorf("%q is not in the log of %s\n%s", want, i.old.c.Name, lastLines(i.log(), 60))
		}
	}
}

// nodeDies: the machine dies in the middle of the rewind, fastrewind and Patroni with it. Patroni, started again, sees that a
// rewind is needed, as it did before, and fastrewind goes on: beginning again is not possible, for the archive is gone.
func (i *interrupted) nodeDies() {
	t := i.w.t
	t.Helper()
	i.caught("node dies")
	i.old.d.kill()
	i.halfRewound()
	away := i.archive + ".away"
	if err := os.Rename(i.archive, away); err != nil {
		t.Fatal(err)
	}
	i.old.start()
	i.rejoined("node dies")
	if err := os.Rename(away, i.archive); err != nil {
		t.Fatal(err)
	}
}

// rewindDies: fastrewind alone is killed, as by a kernel out of memory. After a pg_rewind that failed although the primary is
// well, Patroni does not try again, and starts the server: the guard keeps it from serving two histories. Once Patroni is
// restarted, fastrewind goes on.
func (i *interrupted) rewindDies() {
	t := i.w.t
	t.Helper()
	if err := syscall.Kill(i.caught("rewind dies"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	i.w.wait("Patroni to try to start the server", func() bool {
		return strings.Contains(i.log(), "failed to start postgres")
	}, i.tails)
	i.wants("pg_rewind exit code=-9", "Failed to rewind from heal", "FATAL:  database files are incompatible with server")
	i.halfRewound() // nothing has touched it
	i.old.d.kill()
	i.old.start()
	i.rejoined("rewind dies")
}

// wrapped: the script of docs/patroni.md calls fastrewind under its own name, whose exit statuses say when it can go on, and
// runs it again. Patroni sees one pg_rewind that succeeds.
func (i *interrupted) wrapped() {
	t := i.w.t
	t.Helper()
	page := documentedScript(t, "../../docs/patroni.md")
	// The one thing that the test adds: which process it is.
	script := strings.Replace(page, "\tfastrewind \"$@\" &\n",
		fmt.Sprintf("\t%s \"$@\" &\necho $! >%s\n", i.w.ours.Fastrewind, i.pidFile), 1)
	if script == page {
		t.Fatalf("the script does not call fastrewind as expected:\n%s", page)
	}
	i.w.script(i.script, script)
	if err := syscall.Kill(i.caught("wrapped"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	i.rejoined("wrapped")
	i.wants("going on with it")
	if n := strings.Count(i.log(), "running pg_rewind from dbname="); n != 1 {
		t.Errorf("Patroni has run pg_rewind %d times, want once", n)
	}
}

// documentedScript is the first block of a page that begins with #!/bin/sh, without that line.
func documentedScript(t *testing.T, page string) string {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(data), "\n#!/bin/sh\n")
	script, _, end := strings.Cut(after, "\n```")
	if !ok || !end {
		t.Fatalf("no script in %s", page)
	}
	return script + "\n"
}

// TestWrapperStops: Patroni ends pg_rewind by SIGTERM, when somebody reinitialises the node, say. The script hands that on,
// waits for fastrewind, and does not run it again, whatever it was doing.
func TestWrapperStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	script := w.script(filepath.Join(w.logs, "pg_rewind"), documentedScript(t, "../../docs/patroni.md"))
	for _, c := range []struct {
		name, fastrewind string
		started, want    string // what is in the log when the signal is sent, and in the end
	}{
		{"at work", "trap 'echo stopped >>$log; exit 3' TERM\necho started >>$log\nwhile :; do sleep 0.1; done\n",
			"started\n", "started\nstopped\n"},
		{"between two attempts", "echo started >>$log\nexit 6\n", "started\n", "started\n"},
	} {
		dir := w.env.Dir("wrapper " + c.name)
		log := filepath.Join(dir, "log")
		w.script(filepath.Join(dir, "fastrewind"), fmt.Sprintf("log='%s'\n", log)+c.fastrewind)
		p := w.env.Begin(pgtest.Cmd{Path: script, Env: []string{"PATH=" + dir + ":" + os.Getenv("PATH")}})
		read := func() string {
			data, _ := os.ReadFile(log) // empty: it has not started yet
			return string(data)
		}
		w.wait("the script to start", func() bool { return read() == c.started }, read)
		p.Signal(syscall.SIGTERM)
		if r := p.Wait(); r.ExitCode != 1 || read() != c.want {
			t.Errorf("%s: exit status 1 and %q wanted, got %q: %s", c.name, c.want, read(), r)
		}
	}
}
