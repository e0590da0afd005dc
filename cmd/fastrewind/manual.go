package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// manualCommand writes fastrewind(1), in the man macros. It is hidden, as only those who make packages need it.
func (p *process) manualCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "manual",
		Short:  "Write the manual page",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(p.stdout, p.manual())
			return err
		},
	}
}

const manualDescription = `%[1]s brings a diverged PostgreSQL data directory (the target) back in line with the server it forked
from (the source): after a failover it makes a standby out of the old primary by copying what differs, not
by copying everything. That is the job of pg_rewind(1), and %[1]s takes its options, prints its messages
and, called under the name pg_rewind, is its drop-in replacement. It reads WAL and copies files with all
processors and several connections, finds WAL that the target has removed in archives, and can be
interrupted anywhere and run again.

The target must have been shut down; if that was not done cleanly, it is first recovered by its own server
program. It needs data checksums or wal_log_hints = on, the source full_page_writes = on. Nothing is
modified until everything that could fail later has been looked at.
`

const manualFile = `Lines of the configuration file are as in postgresql.conf: a name, an equals sign and a value. Names are those of long
options, without the dashes. A value is put in single quotes if it has a # after a blank; inside of them a quote is written twice. Switches are
on or off. What can be given several times is written in several lines. Other names, wrong values, and
parameters that are set twice are errors, even where the command line overrules them.

  # for an HA manager that cannot add options
  jobs = 4
  wal-archive = s3://bucket/prefix
  s3-region = eu-central-1
  pg-bindir = /opt/pg15/bin

If the file sets source-server with a password and every user may read it, there is a warning.
`

const manualFiles = `  $FASTREWIND_CONFIG
                    the configuration file; it is an error if it does not exist. /dev/null: none is read.
                    (FASTREWIND_CONFIG_FILE is another thing: the variable of --config-file.)
  $XDG_CONFIG_HOME/fastrewind/fastrewind.conf
                    otherwise this one; without that variable it is ~/.config/fastrewind/fastrewind.conf
  /etc/fastrewind/fastrewind.conf
                    otherwise this one
`

// manual is the page. It depends on nothing but the program and its version, so that packages can be reproduced.
func (p *process) manual() string {
	self := program{path: "fastrewind", name: "fastrewind"} // whatever it is called now
	var b strings.Builder
	title := strings.Fields(versionText(self, p.env))
	fmt.Fprintf(&b, ".\\\" Made by \"%s manual\" from the texts of --help.\n", self.name)
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"%s\" \"PostgreSQL\"\n.nh\n.ad l\n", strings.ToUpper(self.name), roff(title[0]+" "+title[1]))
	section := func(name string) { fmt.Fprintf(&b, ".SH %s\n", name) }

	section("NAME")
	fmt.Fprintf(&b, "%s \\- resynchronize a PostgreSQL cluster with another copy of the cluster\n", roff(self.name))
	section("SYNOPSIS")
	fmt.Fprintf(&b, ".B %s\n[\\fIOPTION\\fR]...\n", roff(self.name))
	commands := p.allHelp(self)[1:]
	for _, c := range commands {
		fmt.Fprintf(&b, ".br\n.B %s\n[\\fIOPTION\\fR]...\n", roff(strings.Join(append([]string{self.name}, c.words...), " ")))
	}
	section("DESCRIPTION")
	writeRoff(&b, readHelp(part(self, manualDescription)))
	section("OPTIONS")
	_, options, _ := strings.Cut(part(self, usageStock), "Options:\n")
	writeRoff(&b, readHelp(options+part(self, usageOptions)))
	section("COMMANDS")
	writeRoff(&b, readHelp(strings.TrimSpace(part(self, usageCommands))))
	for _, c := range commands {
		fmt.Fprintf(&b, ".SS %s\n", roff(strings.Join(append([]string{self.name}, c.words...), " ")))
		text := c.text
		if len(c.words) > 1 { // said once, below "archive"
			text = strings.Replace(text, part(self, usageArchiveShared), "\nAnd the options of archive, above.\n", 1)
		}
		writeRoff(&b, readHelp(text))
		if len(c.words) == 1 && c.words[0] == "archive" {
			writeRoff(&b, readHelp(part(self, usageArchiveShared)))
		}
	}
	section("ENVIRONMENT")
	writeRoff(&b, readHelp(part(self, usageSettings)))
	section("CONFIGURATION FILE")
	writeRoff(&b, readHelp(manualFile))
	section("FILES")
	for _, item := range readFiles(manualFiles) {
		writeRoff(&b, []helpItem{item})
	}
	section("MESSAGES")
	writeRoff(&b, readHelp(part(self, usageMessages)))
	section("EXIT STATUS")
	writeRoff(&b, readHelp(part(self, usageExit))[1:])
	section("EXAMPLES")
	writeRoff(&b, readHelp(part(self, usageExamples))[1:])
	section("SEE ALSO")
	b.WriteString(".BR pg_rewind (1),\n.BR pg_basebackup (1),\n.BR pg_ctl (1)\n")
	writeRoff(&b, readHelp(part(self, usageEnd)))
	return b.String()
}

// readFiles reads terms on lines of their own, and their texts below.
func readFiles(text string) []helpItem {
	var items []helpItem
	for line := range strings.Lines(text) {
		if more, ok := strings.CutPrefix(line, furtherIndent[2:]); ok {
			last := &items[len(items)-1]
			last.text = strings.TrimSpace(last.text + " " + strings.TrimSpace(more))
		} else {
			items = append(items, helpItem{kind: helpEntry, term: strings.TrimSpace(line)})
		}
	}
	return items
}

// writeRoff writes items in the man macros.
func writeRoff(b *strings.Builder, items []helpItem) {
	for _, item := range items {
		switch item.kind {
		case helpHeading:
			fmt.Fprintf(b, ".PP\n\\fB%s:\\fR\n", roff(item.text))
		case helpParagraph:
			fmt.Fprintf(b, ".PP\n%s\n", roff(item.text))
		case helpEntry:
			fmt.Fprintf(b, ".TP\n%s\n%s\n", roffTerm(item.term), roff(item.text))
		case helpExample:
			fmt.Fprintf(b, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", roff(outdent(item.text)))
		}
	}
}

// outdent takes away what the first line is indented by, from all lines.
func outdent(text string) string {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	return strings.ReplaceAll(text[len(indent):], "\n"+indent, "\n")
}

// roffTerm writes names bold and the names of values in italics.
func roffTerm(term string) string {
	m := optionPattern.FindStringSubmatch(term)
	if m == nil {
		return "\\fB" + roff(term) + "\\fR"
	}
	text := ""
	if m[1] != "" {
		text = "\\fB\\-" + roff(m[1]) + "\\fR, "
	}
	text += "\\fB\\-\\-" + roff(m[2]) + "\\fR"
	if m[3] != "" {
		text += "=\\fI" + roff(m[3]) + "\\fR"
	}
	return text
}

var roffEscapes = strings.NewReplacer("\\", "\\e", "-", "\\-", "'", "\\(aq", "^", "\\(ha", "~", "\\(ti", "`", "\\(ga", "\n.", "\n\\&.")

// roff escapes text, which has no control lines.
func roff(text string) string {
	text = roffEscapes.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = "\\&" + text
	}
	return text
}
