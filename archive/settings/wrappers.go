package settings

import (
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
)

// wrapper takes one layer off a command: what is returned is the command inside, with its name as first argument, or none.
type wrapper func(s *shell, c simple, outer *vars) simple

// wrappers are the programs that run another. They are made in init because some of them look for wrappers inside.
var wrappers map[string]wrapper

func init() {
	wrappers = map[string]wrapper{
		"env":       env,
		"envdir":    envdir,
		"chpst":     chpst,
		"eval":      eval,
		"sudo":      options("-u -g -h -p -C -r -t -T -U -D -R --user --group --host --prompt --chdir --chroot --role --type", 0),
		"doas":      options("-u -C", 0),
		"runuser":   switchUser,
		"su":        switchUser,
		"gosu":      options("", 1),
		"su-exec":   options("", 1),
		"setuidgid": options("", 1),
		"timeout":   options("-k -s --kill-after --signal", 1),
		"nice":      options("-n --adjustment", 0),
		"ionice":    options("-c -n -t --class --classdata", 0),
		"chrt":      options("", 1),
		"taskset":   options("", 1),
		"stdbuf":    options("-i -o -e --input --output --error", 0),
		"flock":     options("-w -E --timeout --conflict-exit-code", 1),
		"nohup":     options("", 0),
		"setsid":    options("", 0),
		"exec":      options("-a", 0),
		"command":   options("", 0),
		"builtin":   options("", 0),
		"time":      options("-f -o --format --output", 0),
		"chronic":   options("", 0),
		"busybox":   options("", 0),
		"unbuffer":  options("", 0),
		"!":         options("", 0),
		"sh":        shellCommand,
		"bash":      shellCommand,
		"dash":      shellCommand,
		"ash":       shellCommand,
		"ksh":       shellCommand,
		"zsh":       shellCommand,
	}
}

// isOption reports whether a word is an option. A dash alone is none.
func isOption(w word) bool { return w.known && len(w.text) > 1 && w.text[0] == '-' }

// skipOptions drops the options in front, those of valued with their values, and assignments.
func skipOptions(args []word, valued map[string]bool) []word {
	for len(args) > 0 && isOption(args[0]) {
		opt := args[0].text
		args = args[1:]
		if opt == "--" {
			break
		}
		if valued[opt] && len(args) > 0 {
			args = args[1:]
		}
	}
	return args
}

// options makes the wrapper of a program with options, of which those listed take a value as the next word, and then some
// arguments before the command. Assignments before the command are what sudo lets pass.
func options(valued string, arguments int) wrapper {
	takes := set(strings.Fields(valued)...)
	return func(_ *shell, c simple, _ *vars) simple {
		c.args = skipOptions(c.args, takes)
		c.args = c.args[min(arguments, len(c.args)):]
		return assignments(c)
	}
}

// assignments takes A=b words off the front.
func assignments(c simple) simple {
	more := map[string]location.Secret{}
	for len(c.args) > 0 && c.args[0].known {
		name, value, ok := strings.Cut(c.args[0].text, "=")
		if !ok || name == "" || strings.ContainsAny(name, "/ ") {
			break
		}
		more[name] = location.Secret(value)
		c.args = c.args[1:]
	}
	c.vars = c.vars.with(more)
	return c
}

func env(_ *shell, c simple, _ *vars) simple {
	for len(c.args) > 0 && (isOption(c.args[0]) || c.args[0].text == "-") {
		opt := c.args[0].text
		c.args = c.args[1:]
		name, isUnset := strings.CutPrefix(opt, "--unset=")
		switch {
		case opt == "-" || opt == "-i" || opt == "--ignore-environment":
			c.vars.set, c.vars.base = nil, nil
		case (opt == "-u" || opt == "--unset") && len(c.args) > 0:
			name, isUnset = c.args[0].text, true
			c.args = c.args[1:]
		case (opt == "-C" || opt == "--chdir") && len(c.args) > 0:
			c.vars.cwd = c.vars.abs(c.args[0].text)
			c.args = c.args[1:]
		}
		if isUnset {
			c.vars = c.vars.with1(name, "")
		}
	}
	return assignments(c)
}

func envdir(s *shell, c simple, _ *vars) simple {
	if len(c.args) == 0 {
		return simple{}
	}
	return s.withEnvdir(c, c.args[0], c.args[1:])
}

// withEnvdir adds the variables of a directory to what a command sees.
func (s *shell) withEnvdir(c simple, dir word, rest []word) simple {
	at := ""
	if dir.known && !hasMark(dir.text) {
		at = c.vars.abs(dir.text)
	}
	if at == "" {
		s.out.note("restore_command uses an envdir whose name is not known")
		return simple{}
	}
	more, err := s.env.envdir(at)
	if err != nil {
		s.err = err
		return simple{}
	}
	c.vars, c.args = c.vars.with(more), rest
	return c
}

func chpst(s *shell, c simple, _ *vars) simple {
	valued := set("-u", "-U", "-b", "-e", "-/", "-n", "-l", "-L", "-m", "-d", "-o", "-p", "-f", "-c", "-r", "-t")
	for len(c.args) > 1 && isOption(c.args[0]) {
		opt := c.args[0].text
		if opt == "-e" {
			if c = s.withEnvdir(c, c.args[1], c.args[2:]); len(c.args) == 0 {
				return c
			}
			continue
		}
		c.args = c.args[1:]
		if valued[opt] {
			c.args = c.args[1:]
		}
	}
	return c
}

func eval(s *shell, c simple, outer *vars) simple {
	var all []string
	for _, a := range c.args {
		if !a.known {
			s.out.note("restore_command evaluates a text that only a shell can find out")
			return simple{}
		}
		all = append(all, a.text)
	}
	s.script(strings.Join(all, " "), "restore_command", outer)
	return simple{}
}

// switchUser is su - postgres -c '...' and runuser -u postgres -- program.
func switchUser(s *shell, c simple, _ *vars) simple {
	for i, a := range c.args {
		if text, ok := strings.CutPrefix(a.text, "--command="); ok {
			return s.inner(c, word{text, a.known}, nil)
		}
		if (a.text == "-c" || a.text == "--command") && i+1 < len(c.args) {
			return s.inner(c, c.args[i+1], nil)
		}
	}
	c.args = skipOptions(c.args, set("-u", "-g", "-G", "--user", "--group", "--supp-group"))
	return c
}

// shellCommand is sh -c '...' name arguments.
func shellCommand(s *shell, c simple, _ *vars) simple {
	for i, a := range c.args {
		switch {
		case isOption(a) && !strings.HasPrefix(a.text, "--") && strings.Contains(a.text, "c"):
			if i+1 == len(c.args) {
				return simple{}
			}
			return s.inner(c, c.args[i+1], c.args[i+2:])
		case isOption(a) && a.text != "-o":
		case i > 0 && c.args[i-1].text == "-o":
		default:
			s.out.note("restore_command runs a script (\"%s\"), which is not looked into", unmarked(a.text))
			return simple{}
		}
	}
	return simple{}
}

// inner looks through a script that is an argument; positional are its $0, $1 and so on.
func (s *shell) inner(c simple, script word, positional []word) simple {
	if !script.known {
		s.out.note("restore_command runs a shell with a text that only a shell can find out")
		return simple{}
	}
	more := map[string]location.Secret{}
	for i, a := range positional[:min(len(positional), 10)] {
		if a.known {
			more[string(rune('0'+i))] = location.Secret(a.text)
		}
	}
	v := c.vars.with(more)
	s.script(script.text, "restore_command", &v)
	return simple{}
}
