package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// completionCommand writes what makes a shell complete our command lines. cobra could do that, too, but knows nothing of
// the options of a rewind, which are read by getopt's rules.
func (p *process) completionCommand() *cobra.Command {
	shells := map[string]func(string, []commandHelp) string{
		"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion,
	}
	return &cobra.Command{
		Use:    "completion bash|zsh|fish",
		Short:  "Write the completions for a shell",
		Args:   cobra.ArbitraryArgs,
		Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || shells[args[0]] == nil {
				return fault.New("expected is one of bash, zsh and fish")
			}
			self := program{path: "fastrewind", name: "fastrewind"} // whatever it is called now
			_, err := io.WriteString(p.stdout, shells[args[0]](self.name, p.allHelp(self)))
			return err
		},
	}
}

// completedValues are the options that take one of a few words; tests hold them against what the options accept.
var completedValues = map[string]string{
	"sync-method":        "fsync syncfs",
	"log-format":         "text json",
	"fetch-source-wal":   "auto on off",
	"wal-archive-layout": "wal-g wal-e pgbackrest barman plain",
}

// kind says how a value is completed: by these words, by directories, by files, or not at all.
func (o optionHelp) kind() (words string, directories, files bool) {
	words = completedValues[o.long]
	switch {
	case o.long == "wal-archive":
		return "auto", true, false
	case o.value == "DIRECTORY", o.value == "string" && strings.Contains(o.text, "directory"): // as cobra writes it
		return words, true, false
	}
	return words, false, strings.HasPrefix(o.value, "FILE")
}

// forms are all the ways to write an option, without its value.
func (o optionHelp) forms() []string {
	if o.short == "" {
		return []string{"--" + o.long}
	}
	return []string{"-" + o.short, "--" + o.long}
}

// path is the command's words in one.
func (c commandHelp) path() string { return strings.Join(c.words, " ") }

// subcommands are those whose path is this command's and one word more.
func (c commandHelp) subcommands(all []commandHelp) []commandHelp {
	var found []commandHelp
	for _, sub := range all {
		if n := len(sub.words); n > 0 && strings.Join(sub.words[:n-1], " ") == c.path() {
			found = append(found, sub)
		}
	}
	return found
}

// last is the word by which a command is called among its siblings.
func (c commandHelp) last() string { return c.words[len(c.words)-1] }

// paths are those of all commands but the rewind, as patterns of a case.
func paths(all []commandHelp, separator string) string {
	var list []string
	for _, c := range all[1:] {
		list = append(list, shellQuoted(c.path()))
	}
	return strings.Join(list, separator)
}

// shellQuoted quotes for bash, zsh and, as long as there is no backslash, fish.
func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// ---- bash ----------------------------------------------------------------------------------------------------------------

const bashFrame = `# bash completion for %[1]s; made by "%[1]s completion bash".

_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command='' word next
	COMPREPLY=()
	# bash takes apart --name=value: = is a word of its own.
	if [ "$cur" = = ]; then
		cur=''
	elif [ "$prev" = = ] && [ "$COMP_CWORD" -ge 2 ]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		next=${command:+$command }$word
		case "$next" in
		%[2]s) command=$next ;;
		*) break ;;
		esac
	done
	case "$command:$prev" in
%[3]s	esac
	case "$command" in
%[4]s	esac
	# A value may follow a long option in the same word.
	if [ ${#COMPREPLY[@]} = 1 ] && [[ ${COMPREPLY[0]} = *= ]]; then compopt -o nospace 2>/dev/null; fi
	return 0
}
complete -F _%[1]s %[1]s
`

func bashCompletion(name string, all []commandHelp) string {
	var values, words strings.Builder
	for _, c := range all {
		var offered []string
		for _, sub := range c.subcommands(all) {
			offered = append(offered, sub.last())
		}
		for _, o := range optionsOf(readHelp(c.text)) {
			if o.value == "" {
				offered = append(offered, "--"+o.long)
				continue
			}
			offered = append(offered, "--"+o.long+"=")
			var patterns []string
			for _, form := range o.forms() {
				patterns = append(patterns, shellQuoted(c.path()+":"+form))
			}
			compgen := ""
			known, directories, files := o.kind()
			if known != "" {
				compgen += " -W " + shellQuoted(known)
			}
			if directories {
				compgen += " -d"
			} else if files {
				compgen += " -f"
			}
			fmt.Fprintf(&values, "\t%s)\n", strings.Join(patterns, " | "))
			if directories || files {
				fmt.Fprintf(&values, "\t\tcompopt -o filenames 2>/dev/null\n")
			}
			if compgen != "" {
				fmt.Fprintf(&values, "\t\tmapfile -t COMPREPLY < <(compgen%s -- \"$cur\")\n", compgen)
			}
			fmt.Fprintf(&values, "\t\treturn 0\n\t\t;;\n")
		}
		fmt.Fprintf(&words, "\t%s) mapfile -t COMPREPLY < <(compgen -W %s -- \"$cur\") ;;\n",
			shellQuoted(c.path()), shellQuoted(strings.Join(offered, " ")))
	}
	return fmt.Sprintf(bashFrame, name, paths(all, " | "), values.String(), words.String())
}

// ---- zsh -----------------------------------------------------------------------------------------------------------------

const zshFrame = `#compdef %[1]s
# made by "%[1]s completion zsh".

_%[1]s() {
	local command='' next
	while (( CURRENT > 2 )); do
		next="${command:+$command }${words[2]}"
		case "$next" in
		%[2]s) command=$next ;;
		*) break ;;
		esac
		shift words
		(( CURRENT-- ))
	done
	case "$command" in
%[3]s	esac
}

_%[1]s "$@"
`

func zshCompletion(name string, all []commandHelp) string {
	brackets := strings.NewReplacer("[", `\[`, "]", `\]`, `\`, `\\`)
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "\t%s)\n\t\t_arguments -s -S", shellQuoted(c.path()))
		for _, o := range optionsOf(readHelp(c.text)) {
			argument := ""
			if o.value != "" {
				argument = ":" + o.value + ":"
				switch known, directories, files := o.kind(); {
				case directories:
					argument += "_files -/"
				case files:
					argument += "_files"
				case known != "":
					argument += "(" + known + ")"
				}
			}
			for _, form := range o.forms() {
				before := "(" + strings.Join(o.forms(), " ") + ")"
				switch {
				case o.value == "":
				case strings.HasPrefix(form, "--"):
					before, form = "*", form+"="
				default:
					before, form = "*", form+"+"
				}
				fmt.Fprintf(&b, " \\\n\t\t\t%s", shellQuoted(before+form+"["+brackets.Replace(o.text)+"]"+argument))
			}
		}
		if subs := c.subcommands(all); len(subs) > 0 {
			var list []string
			for _, sub := range subs {
				list = append(list, sub.last())
			}
			fmt.Fprintf(&b, " \\\n\t\t\t%s", shellQuoted("1: :("+strings.Join(list, " ")+")"))
		}
		fmt.Fprintf(&b, "\n\t\t;;\n")
	}
	return fmt.Sprintf(zshFrame, name, paths(all, " | "), b.String())
}

// ---- fish ----------------------------------------------------------------------------------------------------------------

const fishFrame = `# fish completion for %[1]s; made by "%[1]s completion fish".

function __%[1]s_at --description 'is this the command on the command line?'
    set -l words (commandline -opc)
    set -l command ''
    for word in $words[2..-1]
        set -l next (string trim -- "$command $word")
        if contains -- $next %[2]s
            set command $next
        else
            break
        end
    end
    test "$command" = "$argv[1]"
end

complete -c %[1]s -f
`

func fishCompletion(name string, all []commandHelp) string {
	var b strings.Builder
	fmt.Fprintf(&b, fishFrame, name, paths(all, " "))
	for _, c := range all {
		at := fmt.Sprintf("complete -c %s -n %s", name, shellQuoted("__"+name+"_at \""+c.path()+"\""))
		for _, sub := range c.subcommands(all) {
			fmt.Fprintf(&b, "%s -a %s -d %s\n", at, sub.last(), shellQuoted(sub.short))
		}
		for _, o := range optionsOf(readHelp(c.text)) {
			fmt.Fprint(&b, at)
			if o.short != "" {
				fmt.Fprintf(&b, " -s %s", shellQuoted(o.short))
			}
			fmt.Fprintf(&b, " -l %s", o.long)
			switch known, directories, files := o.kind(); {
			case o.value == "":
			case directories:
				fmt.Fprintf(&b, " -x -a %s", shellQuoted(strings.TrimSpace(known+" (__fish_complete_directories)")))
			case files:
				b.WriteString(" -r -F")
			case known != "":
				fmt.Fprintf(&b, " -x -a %s", shellQuoted(known))
			default:
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", shellQuoted(o.text))
		}
	}
	return b.String()
}
