package main

import (
	"os"
	"strings"
)

// Scripts and HA managers were written against GNU getopt_long: operands may stand before options, long options may be
// shortened, and each mistake has a text of its own. pflag knows none of that, so the command line is first read here,
// by getopt_long's rules (glibc, posix/getopt.c), and written anew in the one form that pflag reads the same way:
// --name for a switch, --name=value for the others.

// longOption is a row of getopt_long's table.
type longOption struct {
	name  string
	short byte // 0: none
	value bool // takes a value (required_argument)
	last  bool // ends the reading of options: --help and --version
	early bool // is an option as the very first argument only; elsewhere a complaint without text
	rank  int  // shortened names are looked up among rank 0 first, then 1, …; see match
}

// grammar is a table of options. Its order matters only for complaints.
type grammar []longOption

// complaint is what getopt itself prints about a command line. The text may be empty, as when stock meets --help in
// any place but the first: then only the hint is printed.
type complaint struct{ text string }

func (c complaint) Error() string { return c.text }

// read returns the options of args in plain form, in their order, and the operands. On a complaint the options before
// the faulty one are returned too, since stock would have acted on them, and complained about them, first.
func (g grammar) read(args []string) (options, operands []string, err error) {
	_, posix := os.LookupEnv("POSIXLY_CORRECT") // then the first operand ends the options
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var found []string
		var last bool
		switch {
		case arg == "--":
			return options, append(operands, args...), nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			operands = append(operands, arg)
			if posix {
				return options, append(operands, args...), nil
			}
		case strings.HasPrefix(arg, "--"):
			found, args, last, err = g.long(arg, args)
		default:
			found, args, last, err = g.shorts(arg, args)
		}
		options = append(options, found...)
		if err != nil || last {
			return options, operands, err
		}
	}
	return options, operands, nil
}

// long reads one long option; a value that does not follow a = is taken from rest.
func (g grammar) long(arg string, rest []string) (found, left []string, last bool, err error) {
	name, value, hasValue := strings.Cut(arg[2:], "=")
	matches := g.match(name)
	switch {
	case len(matches) == 0:
		return nil, rest, false, complaint{"unrecognized option '" + arg + "'"}
	case len(matches) > 1:
		text := "option '" + arg + "' is ambiguous; possibilities:"
		for _, o := range matches {
			text += " '--" + o.name + "'"
		}
		return nil, rest, false, complaint{text}
	}
	o := matches[0]
	if !o.value {
		if hasValue {
			return nil, rest, false, complaint{"option '--" + o.name + "' doesn't allow an argument"}
		}
		if o.early {
			return nil, rest, false, complaint{}
		}
		return []string{"--" + o.name}, rest, o.last, nil
	}
	if !hasValue {
		if len(rest) == 0 {
			return nil, rest, false, complaint{"option '--" + o.name + "' requires an argument"}
		}
		value, rest = rest[0], rest[1:]
	}
	return []string{"--" + o.name + "=" + value}, rest, false, nil
}

// match finds the option of exactly this name, or else those that start with it. Of the latter only the lowest rank
// counts: --p meant --progress before --pg-bindir existed, and goes on meaning it.
func (g grammar) match(name string) []longOption {
	var matches []longOption
	for _, o := range g {
		if o.name == name {
			return []longOption{o}
		}
		if !strings.HasPrefix(o.name, name) {
			continue
		}
		if len(matches) > 0 && o.rank < matches[0].rank {
			matches = nil
		}
		if len(matches) == 0 || o.rank == matches[0].rank {
			matches = append(matches, o)
		}
	}
	return matches
}

// shorts reads a cluster of short options; the first that takes a value takes the rest of the cluster or, if there is
// none, the next argument.
func (g grammar) shorts(arg string, rest []string) (found, left []string, last bool, err error) {
	for i := 1; i < len(arg); i++ {
		o, ok := g.short(arg[i])
		switch {
		case !ok:
			return found, rest, false, complaint{"invalid option -- '" + arg[i:i+1] + "'"}
		case !o.value:
			found = append(found, "--"+o.name)
			if o.last {
				return found, rest, true, nil
			}
		case i+1 < len(arg):
			return append(found, "--"+o.name+"="+arg[i+1:]), rest, false, nil
		case len(rest) > 0:
			return append(found, "--"+o.name+"="+rest[0]), rest[1:], false, nil
		default:
			return found, rest, false, complaint{"option requires an argument -- '" + arg[i:] + "'"}
		}
	}
	return found, rest, false, nil
}

func (g grammar) short(c byte) (longOption, bool) {
	for _, o := range g {
		if o.short == c {
			return o, true
		}
	}
	return longOption{}, false
}
