package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

// The manual and the shells' completions are made from the texts of --help: those are written by hand, tested to have
// exactly the options that exist, and must not be written twice. They are read by their layout:
//
//	Heading:                       a line at the margin that ends with a colon, with something indented below it
//	Paragraph                      other lines at the margin
//	  -s, --long=VALUE  text       an entry: a term, two blanks or a line's end, its text; more of that further right
//	  0  text                      an entry, too
//	    anything else              an example, kept as it is

type helpKind int

const (
	helpHeading helpKind = iota
	helpParagraph
	helpEntry
	helpExample
)

// helpItem is a piece of a help text.
type helpItem struct {
	kind helpKind
	term string // of an entry
	text string // one line; of an example, lines with what they are indented by
}

var (
	entryPattern  = regexp.MustCompile(`^ {2,6}(-[^ ].*?|[a-z0-9][a-z0-9| ]*?)(?:  +(\S.*))?$`)
	exampleIndent = strings.Repeat(" ", 4)  // of an example that has a line of words above it
	furtherIndent = strings.Repeat(" ", 20) // no term begins so far right
)

func readHelp(text string) []helpItem {
	var items []helpItem
	open := false // the last item may go on
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, " ")
		indented := strings.HasPrefix(line, "  ")
		last := len(items) - 1
		var term []string
		if indented && !strings.HasPrefix(line, furtherIndent) {
			term = entryPattern.FindStringSubmatch(line)
		}
		switch {
		case line == "":
			open = false
			continue
		case !indented && !open && strings.HasSuffix(line, ":") && i+1 < len(lines) && strings.HasPrefix(lines[i+1], "  "):
			items = append(items, helpItem{kind: helpHeading, text: strings.TrimSuffix(line, ":")})
			continue
		case !indented && open && items[last].kind == helpParagraph:
			items[last].text += " " + line
			continue
		case !indented:
			items = append(items, helpItem{kind: helpParagraph, text: line})
		case open && items[last].kind == helpEntry && strings.HasPrefix(line, furtherIndent):
			items[last].text = strings.TrimSpace(items[last].text + " " + strings.TrimSpace(line))
		case term != nil && (term[2] != "" || term[1][0] == '-'):
			items = append(items, helpItem{kind: helpEntry, term: term[1], text: term[2]})
		case strings.HasSuffix(line, ":") && !strings.HasPrefix(line, exampleIndent):
			items = append(items, helpItem{kind: helpParagraph, text: strings.TrimSpace(line)}) // what an example shows
			open = false
			continue
		case open && items[last].kind == helpExample:
			items[last].text += "\n" + line
		default:
			items = append(items, helpItem{kind: helpExample, text: line})
		}
		open = true
	}
	return items
}

// optionHelp is what a help text says of an option.
type optionHelp struct {
	short, long string // without dashes; short may be empty
	value       string // what its value is called; empty for a switch
	text        string
}

// optionPattern reads the term of an option, as we write it and as cobra does (--from string).
var optionPattern = regexp.MustCompile(`^(?:-(.), )?--([a-z0-9-]+)(?:[= ](\S+))?$`)

func optionsOf(items []helpItem) []optionHelp {
	var options []optionHelp
	for _, item := range items {
		if m := optionPattern.FindStringSubmatch(item.term); item.kind == helpEntry && m != nil {
			options = append(options, optionHelp{short: m[1], long: m[2], value: m[3], text: item.text})
		}
	}
	return options
}

// commandHelp is the help of a command that does something.
type commandHelp struct {
	words []string // that name it, without the program; none for a rewind
	short string   // what it is, in a few words
	text  string
}

// allHelp returns the help of a rewind and of all commands that are not hidden.
func (p *process) allHelp(self program) []commandHelp {
	all := []commandHelp{{text: usage(self, nil)}}
	var walk func(c *cobra.Command, words []string)
	walk = func(c *cobra.Command, words []string) {
		words = append(words[:len(words):len(words)], c.Name())
		if c.Hidden || c.Name() == "help" {
			return
		}
		var out bytes.Buffer
		quiet := *p // its commands write here
		quiet.args = append([]string{self.path}, append(words, "--help")...)
		quiet.stdout, quiet.stderr, quiet.now = &out, &out, time.Now
		quiet.start()
		// cobra does not know under which name its command was called.
		text := strings.Replace(out.String(), "Usage:\n  "+c.Use, "Usage:\n  "+self.name+" "+c.Use, 1)
		all = append(all, commandHelp{words: words, short: c.Short, text: text})
		for _, sub := range c.Commands() {
			walk(sub, words)
		}
	}
	for _, c := range p.commands(self) {
		walk(c, nil)
	}
	return all
}

// part formats a part of the usage text.
func part(self program, text string) string {
	if !strings.Contains(text, "%[") {
		return text // Sprintf would complain about arguments that are not used
	}
	return fmt.Sprintf(text, self.name, rewind.MostJobs, defaultArchiveJobs)
}
