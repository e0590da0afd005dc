package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// TestExpand: what the placeholders are, major by major. That 16 changed them is from its source
// (replace_percent_placeholders); 15 and the texts of 17 and 18 were seen.
func TestExpand(t *testing.T) {
	const (
		unexpected = `String contains unexpected placeholder "%s".`
		atEnd      = `String ends unexpectedly after escape character "%".`
		noR        = "cannot use restore_command with %r placeholder"
	)
	tests := []struct {
		command string
		before  string // 13 to 15
		detail  string // 16 to 19; empty: as before
	}{
		{`cp /a/%f %p`, `cp /a/SEG /d/SEG`, ""},
		{`cp "/a/%f" "%p"`, `cp "/a/SEG" "/d/SEG"`, ""},
		{`%%f %%%f %x %`, `%f %SEG %x %`, fmt.Sprintf(unexpected, "%x")},
		{`%%f %%%f %`, `%f %SEG %`, atEnd},
		{`%x%f`, `%xSEG`, fmt.Sprintf(unexpected, "%x")},
		{`%x%%`, `%x%`, fmt.Sprintf(unexpected, "%x")},
		{`%é%p`, `%é/d/SEG`, fmt.Sprintf(unexpected, "%é")},
		{`%`, `%`, atEnd},
		{`%%`, `%`, ""},
		{`%%r`, `%r`, ""},
		{`date +%s; cp %f %p`, `date +%s; cp SEG /d/SEG`, fmt.Sprintf(unexpected, "%s")},
		{`true`, `true`, ""},
		{``, ``, ""},
		{`x %r`, noR, fmt.Sprintf(unexpected, "%r")},
		{`%%%r`, noR, fmt.Sprintf(unexpected, "%r")},
		{`%x%r`, noR, fmt.Sprintf(unexpected, "%x")},
	}
	for major := 13; major <= 19; major++ {
		for _, tt := range tests {
			got, err := expand(tt.command, "/d/SEG", "SEG", major)
			var f *fault.Error
			switch {
			case major >= 16 && tt.detail != "":
				if !errors.As(err, &f) || f.Text != `invalid value for parameter "restore_command": "`+tt.command+`"` || f.Detail != tt.detail {
					t.Errorf("%d: expand(%q) = %q, %v", major, tt.command, got, err)
				}
			case tt.before == noR:
				if !errors.As(err, &f) || f.Text != noR || f.Advice == "" {
					t.Errorf("%d: expand(%q) = %q, %v", major, tt.command, got, err)
				}
			case err != nil || got != tt.before:
				t.Errorf("%d: expand(%q) = %q, %v; want %q", major, tt.command, got, err, tt.before)
			}
		}
	}
}

func TestCommand(t *testing.T) {
	w := newWorld(t)
	put(t, w.archive, 3, content(3))
	log := filepath.Join(w.archive, "log")
	s := w.command(t, fmt.Sprintf("echo %%f %%p $WALG_DOWNLOAD_CONCURRENCY >> %s; cp %s/%%f %%p", log, w.archive))
	for range 2 {
		mustOpen(t, s, 3)
	}
	ran, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Fields(string(ran))
	if len(said) != 3 || said[0] != name(3) || filepath.Base(said[1]) != name(3) || said[2] != "1" {
		t.Fatalf("ran with %q", ran)
	}
	if filepath.Dir(filepath.Dir(said[1])) != s.dir.path || !filepath.IsAbs(said[1]) {
		t.Errorf("%%p is %s, the private directory %s", said[1], s.dir.path)
	}
	if fi, err := os.Stat(s.dir.path); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("private directory: %v, %v", fi.Mode(), err)
	}
	if filepath.Dir(s.dir.path) != filepath.Dir(w.data) {
		t.Errorf("private directory %s is not beside %s", s.dir.path, w.data)
	}
	if _, err := s.Open(t.Context(), 1, 4); !errors.Is(err, fs.ErrNotExist) || err.Error() != `could not restore file "`+name(4)+`" from archive` {
		t.Errorf("missing in the archive: %v", err)
	}
	if _, ok := s.Keep(name(4)); ok {
		t.Error("keeps what was not restored")
	}
	kept, ok := s.Keep(name(3))
	if !ok {
		t.Fatal("does not keep a restored segment")
	}
	if err := os.Rename(kept, filepath.Join(w.wal, name(3))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), 1, 3); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a segment moved away: %v", err)
	}
	for _, n := range []string{name(3), "x", "", "../" + name(3)} {
		if path, ok := s.Keep(n); ok {
			t.Errorf("keeps %q: %s", n, path)
		}
	}
}

// TestCommandResults has a row for every way a command can end (facts from runs of 15.18); the same commands are held
// against stock in internal/integration.
func TestCommandResults(t *testing.T) {
	missing := `could not restore file "` + name(3) + `" from archive`
	tests := []struct {
		what, command string
		want          string
		notThere      bool // another store may be asked
	}{
		{"it fails", "exit 1", missing, true},
		{"it fails with the highest ordinary status", "exit 125", missing, true},
		{"it cannot be executed", "exit 126", "restore_command failed: command not executable", false},
		{"it is not there", "/no/such/command", "restore_command failed: command not found", false},
		{"its child was interrupted", "exit 130", "restore_command failed: child process exited with exit code 130", false},
		{"it was killed", "kill -KILL $$", "restore_command failed: child process was terminated by signal 9: Killed", false},
		{"it was terminated", "kill -TERM $$", "restore_command failed: child process was terminated by signal 15: Terminated", false},
		{"it is content with nothing", "true", missing, true},
		{"it leaves a short file", "head -c 1000 /dev/zero > %p", `unexpected file size for "` + name(3) + `": 1000 instead of 1048576`, false},
		{"it leaves a long file", "head -c 1048577 /dev/zero > %p", `unexpected file size for "` + name(3) + `": 1048577 instead of 1048576`, false},
		{"it leaves an empty file", "touch %p", `unexpected file size for "` + name(3) + `": 0 instead of 1048576`, false},
		{"it leaves zeros", "head -c 1048576 /dev/zero > %p",
			`"` + name(3) + `" is not the WAL segment it is named after: invalid magic number 0000, expected D110 for version 15`, false},
		{"it fails after a whole file", "head -c 1048576 /dev/zero > %p; exit 3", missing, true},
		{"it leaves a directory", "mkdir -p %p", `could not open file "%DIR/` + name(3) + `" restored from archive: not a regular file`, false},
		{"it leaves a pipe", "mkfifo %p", `could not open file "%DIR/` + name(3) + `" restored from archive: not a regular file`, false},
		{"it leaves a dangling link", "ln -s nowhere %p", missing, true},
		{"it wants to know the restart point", "cp %r %p", "cannot use restore_command with %r placeholder", false},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			s := w.command(t, tt.command)
			for range 2 { // a second attempt must not see the first one's leavings
				_, err := s.Open(t.Context(), 1, 3)
				if err == nil || errors.Is(err, fs.ErrNotExist) != tt.notThere {
					t.Fatalf("got %v, want %s", err, tt.want)
				}
				got := err.Error()
				if i := strings.Index(got, s.dir.path); i >= 0 { // the directory of one fetch has a name of its own
					j := i + strings.Index(got[i:], "/"+name(3))
					got = got[:i] + "%DIR" + got[j:]
				}
				if got != tt.want {
					t.Fatalf("got %s, want %s", got, tt.want)
				}
			}
			if _, ok := s.Keep(name(3)); ok {
				t.Error("keeps what did not arrive")
			}
		})
	}
}

// From 17 on stock's messages have parameter names in quotes.
func TestCommandQuotedName(t *testing.T) {
	for major := 13; major <= 19; major++ {
		c := NewCommand(CommandConfig{Command: "exit 127", Major: major, SegSize: segSize})
		want := "restore_command failed: command not found"
		if major >= 17 {
			want = `"restore_command" failed: command not found`
		}
		if err := c.Fetch(t.Context(), 1, 3, filepath.Join(t.TempDir(), name(3))); err == nil || err.Error() != want {
			t.Errorf("%d: %v", major, err)
		}
	}
}

// A command may make a link into the archive. What is kept must be a file of its own, or the target's server would one
// day write into the archive.
func TestCommandLinks(t *testing.T) {
	for _, link := range []string{"ln -s %ARCHIVE/%f %p", "ln %ARCHIVE/%f %p", "cd %ARCHIVE && ln -sr %f %p"} {
		w := newWorld(t)
		put(t, w.archive, 3, content(3))
		s := w.command(t, strings.ReplaceAll(link, "%ARCHIVE", w.archive))
		mustOpen(t, s, 3)
		path, ok := s.Keep(name(3))
		if !ok {
			t.Fatalf("%s: not kept", link)
		}
		if err := os.WriteFile(path, nil, 0); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("%s: keeps %v, %v", link, fi, err)
		}
		if kept, err := os.ReadFile(filepath.Join(w.archive, name(3))); err != nil || !bytes.Equal(kept, content(3)) {
			t.Errorf("%s: the archive's segment has changed: %v", link, err)
		}
	}
}

// What tools leave beside %p goes with the fetch, and never gets near pg_wal.
func TestCommandDroppings(t *testing.T) {
	w := newWorld(t)
	for n := range pg.SegNo(4) {
		put(t, w.archive, n+1, content(n+1))
	}
	s := w.command(t, `d=$(dirname %p); mkdir -p $d/.wal-g/prefetch/running; cp `+w.archive+`/* $d/.wal-g/prefetch/; echo > $d/walg_data; cp `+w.archive+`/%f %p`)
	for n := range pg.SegNo(4) {
		mustOpen(t, s, n+1)
	}
	eventually(t, "only segments are left", func() bool {
		left, err := os.ReadDir(s.dir.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if !pg.IsSegmentName(e.Name()) {
				return false
			}
		}
		return len(left) == 4
	})
}

func TestCommandOutput(t *testing.T) {
	w := newWorld(t)
	put(t, w.archive, 3, content(3))
	var out bytes.Buffer
	ev := &events{}
	s := w.spool(t, SpoolConfig{
		Fetchers: []Fetcher{NewCommand(CommandConfig{Command: "echo one; echo two >&2; cp " + w.archive + "/%f %p 2>/dev/null", Major: 15, SegSize: segSize, Output: &out})},
		Event:    ev.note,
	})
	mustOpen(t, s, 3)
	if out.String() != "one\ntwo\n" {
		t.Errorf("output %q", out.String())
	}
	if o := ev.of(Opened); len(o) != 1 || o[0].Path != filepath.Join(s.dir.path, name(3)) || o[0].Bytes != segSize {
		t.Errorf("told %v", o)
	}
	if f := ev.of(Fetched); len(f) != 1 || f[0].Segment != name(3) || f[0].Place != "restore_command" || f[0].Bytes != segSize {
		t.Errorf("told %v", f)
	}
	// What fails ahead of need says nothing; what fails when it is needed, does.
	out.Reset()
	if err := s.Prefetch(t.Context(), 1, 4); !errors.Is(err, fs.ErrNotExist) || out.Len() > 0 {
		t.Errorf("ahead of need: %v, output %q", err, out.String())
	}
	for _, n := range []pg.SegNo{4, 5} { // one that was fetched before, one that was not
		for range 2 {
			if _, err := s.Open(t.Context(), 1, n); !errors.Is(err, fs.ErrNotExist) || out.String() != "one\ntwo\n" {
				t.Errorf("when needed: %v, output %q", err, out.String())
			}
		}
		out.Reset()
	}
}

// A program that the command leaves behind may hold the output open as long as it likes: no run waits for it.
func TestCommandBackground(t *testing.T) {
	w := newWorld(t)
	put(t, w.archive, 3, content(3))
	var out bytes.Buffer
	pidFile := filepath.Join(w.archive, "pid")
	c := NewCommand(CommandConfig{Command: "sleep 600 & echo $! > " + pidFile + "; echo done; cp " + w.archive + "/%f %p", Major: 15, SegSize: segSize, Output: &out})
	s := w.spool(t, SpoolConfig{Fetchers: []Fetcher{c}})
	mustOpen(t, s, 3)
	if out.String() != "done\n" {
		t.Errorf("output %q", out.String())
	}
	var pid int
	if data, err := os.ReadFile(pidFile); err != nil {
		t.Fatal(err)
	} else if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

func TestToolOf(t *testing.T) {
	tests := []struct{ command, tool string }{
		{"wal-g wal-fetch %f %p", "wal-g"},
		{`envdir "/etc/wal-g.d/env" /usr/local/bin/wal-g wal-fetch "%f" "%p"`, "wal-g"},
		{"pgbackrest --stanza=main archive-get %f \"%p\"", "pgbackrest"},
		{"barman-cloud-wal-restore s3://b/p srv %f %p", "barman-cloud-wal-restore"},
		{"barman-wal-restore backup srv %f %p", "barman-wal-restore"},
		{"cp /a/%f %p", ""},
		{"aws s3 cp s3://b/wal-g/x/%f %p", ""},
		{"wal-g wal-fetch %f %p || cp /a/%f %p", ""}, // whose status it is, nobody knows
		{"cp /a/%f %p; wal-g wal-fetch %f %p", ""},
		{"my-wal-g %f %p", ""},
	}
	for _, tt := range tests {
		if got, _ := toolOf(tt.command); got != tt.tool {
			t.Errorf("%s: %q", tt.command, got)
		}
	}
}

// TestCommandRetries has a row for every reason to run a command again, and not to.
func TestCommandRetries(t *testing.T) {
	tests := []struct {
		what, tool string // the tool that the test writes, under its real name
		script     string // N is the number of the run
		runs       int
		want       string // empty: success
		missing    bool
	}{
		{"cp, missing", "anything", "exit 1", 1, "could not restore file", true},
		{"unknown status of an unknown tool", "anything", "exit 22", 1, "could not restore file", true},
		{"wal-g, missing", "wal-g", "exit 74", 1, "could not restore file", true},
		{"wal-g fails for good", "wal-g", "exit 1", 3, "could not restore file", false},
		{"wal-g fails once", "wal-g", "test $N -gt 1 || exit 1; give", 2, "", false},
		{"pgbackrest, missing", "pgbackrest", "exit 1", 1, "could not restore file", true},
		{"pgbackrest fails twice", "pgbackrest", "test $N -gt 2 || exit 103; give", 3, "", false},
		{"barman, no connection, then missing", "barman-cloud-wal-restore", "test $N -gt 1 || exit 2; exit 1", 2, "could not restore file", true},
		{"a failed run's file is no success", "pgbackrest", "test $N -gt 1 || { give; exit 103; }; exit 0", 2, "could not restore file", true},
		{"a signal is no passing failure", "pgbackrest", "kill -TERM $$", 1, "restore_command failed: child process exited with exit code 143", false},
		{"not executable", "wal-g", "exit 126", 1, "restore_command failed: command not executable", false},
		{"hangs for good", "anything", "sleep 600", 3, "could not restore file", false},
		{"hangs once", "anything", "test $N -gt 1 || sleep 600; give", 2, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			put(t, w.archive, 3, content(3))
			tool, count := filepath.Join(w.archive, tt.tool), filepath.Join(w.archive, "count")
			script := fmt.Sprintf("#!/bin/sh\necho >> %s; N=$(wc -l < %[1]s); give() { cp %s/%s $1; }\n%s\n",
				count, w.archive, name(3), strings.ReplaceAll(tt.script, "give", "give $1"))
			if err := os.WriteFile(tool, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			cfg := CommandConfig{Command: "/bin/sh " + tool + " %p", Major: 15, SegSize: segSize, Backoff: time.Millisecond}
			switch tt.what {
			case "hangs for good":
				cfg.Timeout = 200 * time.Millisecond
			case "hangs once":
				cfg.Timeout = 5 * time.Second // more than any run needs that does not hang
			case "a signal is no passing failure":
				cfg.Command += " || exit $?" // or the shell makes way for the tool
			}
			ev := &events{}
			cfg.Event = ev.note
			s := w.spool(t, SpoolConfig{Fetchers: []Fetcher{NewCommand(cfg)}})
			seg, err := s.Open(t.Context(), 1, 3)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v (%s)", err, advice(err))
			case tt.want == "":
				check(t, seg, 3)
			case err == nil || !strings.HasPrefix(err.Error(), tt.want) || errors.Is(err, fs.ErrNotExist) != tt.missing:
				t.Errorf("got %v (missing: %v)", err, errors.Is(err, fs.ErrNotExist))
			}
			ran, err := os.ReadFile(count)
			if (err != nil || len(ran) != tt.runs) && tt.what != "hangs for good" { // stopped before it could count
				t.Errorf("ran %d times, want %d: %v", len(ran), tt.runs, err)
			}
			if told := ev.of(Retried); len(told) != tt.runs-1 {
				t.Errorf("told of %d repetitions: %v", len(told), told)
			}
		})
	}
}

// While a command is stopped, or is about to be repeated, the end of the context ends it all.
func TestCommandCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	tool := filepath.Join(w.archive, "pgbackrest")
	if err := os.WriteFile(tool, []byte("exit 103"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := NewCommand(CommandConfig{Command: "/bin/sh " + tool, Major: 15, SegSize: segSize, Backoff: time.Hour, Event: func(Event) { cancel() }})
	if err := c.Fetch(ctx, 1, 3, filepath.Join(w.archive, name(3))); !errors.Is(err, context.Canceled) {
		t.Errorf("while it pauses: %v", err)
	}
	never := NewCommand(CommandConfig{Command: "/bin/sh " + tool, Major: 15, SegSize: segSize, Retries: -1, Event: func(Event) { t.Error("repeated") }})
	if err := never.Fetch(t.Context(), 1, 3, filepath.Join(w.archive, name(3))); err == nil {
		t.Error("no error")
	}
}
