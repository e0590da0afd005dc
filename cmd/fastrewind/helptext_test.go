package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// aProcess is a program that is only asked about itself.
func aProcess() (*process, program) {
	self := program{path: "fastrewind", name: "fastrewind"}
	return &process{env: func(string) (string, bool) { return "", false }, euid: 1000, width: func() int { return 0 }, now: time.Now}, self
}

// TestHelpIsReadWhole: reading the layout of a help text loses no word, and finds the options that exist.
func TestHelpIsReadWhole(t *testing.T) {
	p, self := aProcess()
	seen := map[string]bool{}
	for _, c := range p.allHelp(self) {
		seen[c.path()] = true
		var words []string
		for _, item := range readHelp(c.text) {
			words = append(words, strings.Fields(item.term+" "+item.text)...)
			if item.kind == helpHeading {
				words[len(words)-1] += ":"
			}
		}
		if got, want := strings.Join(words, " "), strings.Join(strings.Fields(c.text), " "); got != want {
			t.Errorf("%q:\n got %s\nwant %s", c.path(), got, want)
		}
		found := map[string]optionHelp{}
		for _, o := range optionsOf(readHelp(c.text)) {
			found[o.long] = o
		}
		flagsOf(t, p, self, c.words).VisitAll(func(f *pflag.Flag) {
			o, ok := found[f.Name]
			silent := f.Name == "help" || f.Name == "archive-jobs" // the latter is told only where it does much
			if !ok && !silent || ok && (o.short != f.Shorthand || (o.value != "") != (f.NoOptDefVal == "")) {
				t.Errorf("%q: --%s is a %s with -%s; the help says %+v", c.path(), f.Name, f.Value.Type(), f.Shorthand, o)
			}
			delete(found, f.Name)
		})
		delete(found, "help") // cobra adds it when it runs
		if len(found) > 0 {
			t.Errorf("%q: no such options: %v", c.path(), found)
		}
	}
	for _, path := range []string{"", "archive", "archive ls", "archive get", "archive check", "journal", "undo"} {
		if !seen[path] {
			t.Errorf("the command %q is missing", path)
		}
	}
}

func flagsOf(t *testing.T, p *process, self program, words []string) *pflag.FlagSet {
	t.Helper()
	if len(words) == 0 {
		_, o := newCommand(self, []string{self.path})
		return o.flags
	}
	commands := p.commands(self)
	var c *cobra.Command
	for _, word := range words {
		c = nil
		for _, one := range commands {
			if one.Name() == word {
				c = one
			}
		}
		if c == nil {
			t.Fatalf("no command %v", words)
		}
		commands = c.Commands()
	}
	return c.Flags()
}

// TestManual: the page has every option, command, variable and file, no line that roff would take for a request of its
// own, and is the same under every name and on every machine.
func TestManual(t *testing.T) {
	p, self := aProcess()
	page := p.manual()
	for _, want := range []string{
		".TH FASTREWIND 1 ", ".SH NAME\n", ".SH OPTIONS\n", ".SH ENVIRONMENT\n", ".SH EXIT STATUS\n", ".SS fastrewind archive check\n",
		"\\fB\\-\\-from\\fR", "\\fB\\-D\\fR, \\fB\\-\\-target\\-pgdata\\fR=\\fIDIRECTORY\\fR\n", "$FASTREWIND_CONFIG", "/etc/fastrewind/fastrewind.conf",
		"\\fB\\-\\-system\\-id\\fR=\\fINUM\\fR\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	_, o := newCommand(self, []string{self.path})
	o.flags.VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(page, "\\fB"+roff("--"+f.Name)+"\\fR") {
			t.Errorf("the page has no --%s", f.Name)
		}
	})
	requests := " .\\\" .TH .nh .ad .SH .SS .B .BR .br .PP .TP .RS .RE .nf .fi "
	for line := range strings.Lines(page) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !strings.Contains(requests, " "+word+" ") {
			t.Errorf("a line that roff would not print: %q", line)
		}
	}
	var out bytes.Buffer
	p.stdout, p.args = &out, []string{"/x/a-link", "manual"}
	if status := p.start(); status != 0 || out.String() != page {
		t.Errorf("under another name the page is another, or status %d", status)
	}
}

// TestCompletedValues: the words that are offered are those that are accepted.
func TestCompletedValues(t *testing.T) {
	self := program{name: "fastrewind"}
	for option, words := range completedValues {
		_, o := newCommand(self, []string{"fastrewind"})
		f := o.flags.Lookup(option)
		if f == nil {
			t.Errorf("no option --%s", option)
			continue
		}
		for _, word := range strings.Fields(words) {
			if err := f.Value.Set(word); err != nil {
				t.Errorf("--%s=%s: %v", option, word, err)
			}
		}
		if f.Value.Type() != "string" && f.Value.Set("nonsense") == nil {
			t.Errorf("--%s accepts anything", option)
		}
	}
	// What is not refused at once is at least what the help says.
	_, layouts, _ := strings.Cut(usageArchives, "--wal-archive-layout=NAME")
	layouts, _, _ = strings.Cut(layouts, "(")
	if got := strings.Join(strings.Fields(strings.NewReplacer(",", " ", " or ", " ").Replace(layouts)), " "); got != completedValues["wal-archive-layout"] {
		t.Errorf("the help has the layouts %q", got)
	}
}

// TestBashCompletion asks bash.
func TestBashCompletion(t *testing.T) {
	script := filepath.Join(t.TempDir(), "completion")
	var out bytes.Buffer
	p, _ := aProcess()
	p.stdout, p.args = &out, []string{"fastrewind", "completion", "bash"}
	if status := p.start(); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	if err := os.WriteFile(script, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"one", "two words"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words string // as bash takes them apart, the last one is completed
		want  string
	}{
		{"fastrewind|--sync", "--sync-method="},
		{"fastrewind|--sync-method|=|", "fsync syncfs"},
		{"fastrewind|--sync-method|=|sy", "syncfs"},
		{"fastrewind|--sync-method|=", "fsync syncfs"},
		{"fastrewind|-n|--source-", "--source-pgdata= --source-server="},
		{"fastrewind|-D|", dir + "/one " + dir + "/two words"},
		{"fastrewind|--config-file|=|", dir + "/file " + dir + "/one " + dir + "/two words"},
		{"fastrewind|--source-server|=|", ""},
		{"fastrewind|arch", "archive"},
		{"fastrewind|archive|", "check get ls"},
		{"fastrewind|archive|ls|--js", "--json"},
		{"fastrewind|archive|get|--js", ""},
		{"fastrewind|archive|check|--wal-s", "--wal-segsize="},
		{"fastrewind|undo|--fr", "--from="},
		{"fastrewind|undo|--from|=|", dir + "/one " + dir + "/two words"},
		{"fastrewind|-P|undo|--fr", ""}, // commands come first
	} {
		words := strings.Split(c.words, "|")
		if words[len(words)-1] == "" && c.want != "" && strings.HasPrefix(c.want, dir) {
			words[len(words)-1] = dir + "/"
		}
		cmd := exec.Command("bash", append([]string{"--norc", "-u", "-c",
			`source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fastrewind; printf '%s\n' "${COMPREPLY[@]}" | sort`, script}, words...)...)
		got, err := cmd.CombinedOutput()
		lines := strings.Fields(strings.ReplaceAll(string(got), "two words", "two\x01words"))
		said := strings.ReplaceAll(strings.Join(lines, " "), "\x01", " ")
		if c.want == "check get ls" { // and options
			said = strings.Join(lines[max(0, len(lines)-3):], " ")
		}
		if err != nil || said != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.words, got, err, c.want)
		}
	}
	p.args = []string{"fastrewind", "completion", "ksh"}
	p.stderr = &out
	if status := p.start(); status != 1 {
		t.Errorf("an unknown shell: exit status %d", status)
	}
}
