package settings

import (
	"fmt"
	"path"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/fastrewind/fastrewind/archive/location"
)

// PostgreSQL replaces the placeholders of a restore_command before a shell sees it. Here they stay recognisable: as these
// runes, which mean nothing to a shell or to Unicode.
const (
	markFile  = "\uE066" // %f
	markPath  = "\uE070" // %p
	markPoint = "\uE072" // %r
)

const (
	maxCommand = 64 << 10 // bytes of a restore_command, or of a script it sources
	maxDepth   = 8        // commands within commands
	maxSimple  = 1000     // simple commands looked at
)

// marked is a restore_command with its placeholders marked.
func marked(command string) string {
	// Runes of ours that are there already are nothing that could be understood.
	command = strings.NewReplacer(markFile, "?", markPath, "?", markPoint, "?").Replace(command)
	return strings.NewReplacer("%%", "%", "%f", markFile, "%p", markPath, "%r", markPoint).Replace(command)
}

// unmarked is a text for messages.
func unmarked(s string) string {
	return strings.NewReplacer(markFile, "%f", markPath, "%p", markPoint, "%r").Replace(s)
}

// hasMark reports whether a placeholder is in s.
func hasMark(s string) bool { return strings.ContainsAny(s, markFile+markPath+markPoint) }

// word is an argument. known is false if only a shell could say what it is.
type word struct {
	text  string
	known bool
}

// simple is one command with its arguments, as a shell would run it.
type simple struct {
	name  string // without directory
	args  []word
	vars  vars
	stdin word // what a redirection reads
}

// shell looks through a command for the simple commands in it. It runs nothing: all branches are looked at, in the order
// in which they are written.
type shell struct {
	env   Env
	out   *finding
	depth int
	seen  int
	err   error // of a file that could not be read
}

// fromCommand finds the archives that restore_command reads from.
func fromCommand(e Env, f *finding) error {
	s := &shell{env: e, out: f}
	s.script(marked(e.RestoreCommand), "restore_command", &vars{base: e.Getenv, cwd: e.TargetDir})
	return s.err
}

// script looks through the text of a script. v is what it begins with, and what it leaves to what follows.
func (s *shell) script(text, where string, v *vars) {
	if s.depth == maxDepth || len(text) > maxCommand {
		s.out.note("%s is too long or too deep to be understood", where)
		return
	}
	s.depth++
	defer func() { s.depth-- }()
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), "")
	if err != nil {
		// What bash understands, its users write.
		file, err = syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	}
	if err != nil {
		s.out.note("%s is not understood as a shell's command", where)
		return
	}
	s.stmts(file.Stmts, v)
}

func (s *shell) stmts(list []*syntax.Stmt, v *vars) {
	for _, stmt := range list {
		s.stmt(stmt, v)
	}
}

func (s *shell) stmt(stmt *syntax.Stmt, v *vars) {
	if stmt == nil || s.err != nil {
		return
	}
	if s.seen++; s.seen > maxSimple {
		return
	}
	switch cmd := stmt.Cmd.(type) {
	case *syntax.CallExpr:
		s.call(cmd, stmt.Redirs, v)
	case *syntax.DeclClause: // export A=b
		v.assign(s.assigns(cmd.Args, v))
	case *syntax.BinaryCmd:
		if cmd.Op == syntax.Pipe || cmd.Op == syntax.PipeAll {
			left, right := *v, *v
			s.stmt(cmd.X, &left)
			s.stmt(cmd.Y, &right)
			return
		}
		s.stmt(cmd.X, v)
		s.stmt(cmd.Y, v)
	case *syntax.Block:
		s.stmts(cmd.Stmts, v)
	case *syntax.Subshell:
		inner := *v
		s.stmts(cmd.Stmts, &inner)
	case *syntax.IfClause:
		for c := cmd; c != nil; c = c.Else {
			s.stmts(c.Cond, v)
			s.stmts(c.Then, v)
		}
	case *syntax.WhileClause:
		s.stmts(cmd.Cond, v)
		s.stmts(cmd.Do, v)
	case *syntax.ForClause:
		s.stmts(cmd.Do, v)
	case *syntax.CaseClause:
		for _, item := range cmd.Items {
			s.stmts(item.Stmts, v)
		}
	case *syntax.FuncDecl:
		s.stmt(cmd.Body, v)
	case *syntax.TimeClause:
		s.stmt(cmd.Stmt, v)
	}
}

// assign sets variables for what follows. What only a shell could know is unset.
func (v *vars) assign(set map[string]location.Secret) {
	if len(set) > 0 {
		*v = v.with(set)
	}
}

func (s *shell) assigns(list []*syntax.Assign, v *vars) map[string]location.Secret {
	set := map[string]location.Secret{}
	for _, a := range list {
		if a.Name == nil || a.Naked || a.Append || a.Index != nil || a.Array != nil {
			continue
		}
		value := word{known: true}
		if a.Value != nil {
			value = s.word(a.Value, v)
		}
		if !value.known {
			value.text = ""
		}
		set[a.Name.Value] = location.Secret(value.text)
	}
	return set
}

func (s *shell) call(cmd *syntax.CallExpr, redirs []*syntax.Redirect, v *vars) {
	set := s.assigns(cmd.Assigns, v)
	if len(cmd.Args) == 0 {
		v.assign(set)
		return
	}
	args := make([]word, len(cmd.Args))
	for i, a := range cmd.Args {
		args[i] = s.word(a, v)
	}
	c := simple{args: args, vars: v.with(set)}
	for _, r := range redirs {
		if r.Op == syntax.RdrIn && r.Word != nil {
			c.stdin = s.word(r.Word, v)
		}
	}
	s.run(c, v)
}

// run takes the wrapping off a simple command, and asks the tool that is left. outer are the variables of what follows it.
func (s *shell) run(c simple, outer *vars) {
	for range maxDepth {
		if len(c.args) == 0 || s.err != nil {
			return
		}
		if !c.args[0].known {
			s.out.note("restore_command runs a program whose name only a shell can find out")
			return
		}
		c.name = path.Base(c.args[0].text)
		c.args = c.args[1:]
		unwrap, ok := wrappers[c.name]
		if !ok {
			s.tool(c, outer)
			return
		}
		c = unwrap(s, c, outer)
	}
}

// word evaluates a word without running anything.
func (s *shell) word(w *syntax.Word, v *vars) word {
	var b strings.Builder
	for i, part := range w.Parts {
		if lit, ok := part.(*syntax.Lit); ok {
			text := unescape(lit.Value, "")
			if i == 0 && !strings.HasPrefix(lit.Value, `\`) {
				text = s.env.home(text)
			}
			b.WriteString(text)
			continue
		}
		text, ok := s.part(part, v)
		if !ok {
			return word{}
		}
		b.WriteString(text)
	}
	return word{b.String(), true}
}

func (s *shell) part(part syntax.WordPart, v *vars) (string, bool) {
	switch p := part.(type) {
	case *syntax.Lit: // within double quotes
		return unescape(p.Value, "$`\"\\\n"), true
	case *syntax.SglQuoted:
		return p.Value, !p.Dollar
	case *syntax.DblQuoted:
		var b strings.Builder
		for _, inner := range p.Parts {
			text, ok := s.part(inner, v)
			if !ok {
				return "", false
			}
			b.WriteString(text)
		}
		return b.String(), !p.Dollar
	case *syntax.ParamExp:
		return s.param(p, v)
	}
	return "", false
}

// param is the value of a variable. The server's environment is not ours: what is not set here may be there.
func (s *shell) param(p *syntax.ParamExp, v *vars) (string, bool) {
	if p.Param == nil || p.Excl || p.Length || p.Width || p.Index != nil || p.Slice != nil || p.Repl != nil || p.Names != 0 {
		return "", false
	}
	value, set := v.set[p.Param.Value]
	text := value.Reveal()
	if !set {
		text = v.get(p.Param.Value)
	}
	if text == "" && p.Param.Value == "PGDATA" {
		text = s.env.TargetDir
	}
	if text == "" && p.Param.Value == "HOME" {
		text = s.env.HomeDir
	}
	if p.Exp != nil {
		if p.Exp.Op != syntax.DefaultUnsetOrNull && p.Exp.Op != syntax.DefaultUnset {
			return "", false
		}
		if text == "" && p.Exp.Word != nil {
			w := s.word(p.Exp.Word, v)
			return w.text, w.known
		}
	}
	return text, text != ""
}

// unescape takes away backslashes: before any character, or, within quotes, before those of only.
func unescape(s, only string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (only == "" || strings.IndexByte(only, s[i+1]) >= 0) {
			i++
			if s[i] == '\n' {
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// silent are programs that bring no WAL.
var silent = set("test", "[", "[[", "true", "false", ":", "echo", "printf", "exit", "return", "mkdir", "rm", "chmod", "chown",
	"logger", "sleep", "sync", "touch", "date", "umask", "ulimit", "trap", "unset", "set", "shift", "read", "wait", "mktemp",
	"sha256sum", "md5sum", "stat", "ls", "basename", "dirname", "head", "tail", "grep", "tee", "break", "continue", "shopt", "local")

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// tool asks what is left of a command which archive it reads.
func (s *shell) tool(c simple, outer *vars) {
	origin := "restore_command (" + c.name + ")"
	switch c.name {
	case "export":
		for _, a := range c.args {
			if name, value, ok := strings.Cut(a.text, "="); ok && a.known {
				*outer = outer.with1(name, value)
			}
		}
	case "cd":
		outer.cwd = ""
		if len(c.args) == 1 && c.args[0].known && !hasMark(c.args[0].text) {
			outer.cwd = c.vars.abs(c.args[0].text)
		}
	case ".", "source":
		s.source(c, outer)
	case "pgbackrest":
		s.pgBackRest(c, origin)
	case "wal-g", "wal-g-pg", "walg":
		s.walg(c, origin)
	case "wal-e":
		s.wale(c, origin)
	case "barman-cloud-wal-restore":
		s.barman(c, origin)
	case "aws":
		s.aws(c, origin)
	default:
		switch {
		case silent[c.name]:
		case readers[c.name]:
			s.reader(c, origin)
		case unsupported[c.name] != "":
			s.out.note("%s uses %s, %s", "restore_command", c.name, unsupported[c.name])
		default:
			s.out.note("restore_command runs \"%s\", which is not looked into", unmarked(c.name))
		}
	}
}

// unsupported says why a known program's archive cannot be read directly.
var unsupported = map[string]string{
	"barman-wal-restore": "which asks a Barman server: not read directly",
	"barman":             "which asks a Barman server: not read directly",
	"ssh":                "which runs on another machine",
	"scp":                "which copies from another machine",
	"sftp":               "which copies from another machine",
	"kubectl":            "which runs elsewhere",
	"docker":             "which runs in a container",
	"podman":             "which runs in a container",
	"gsutil":             "whose kind of storage is not read directly",
	"gcloud":             "whose kind of storage is not read directly",
	"az":                 "whose kind of storage is not read directly",
	"azcopy":             "whose kind of storage is not read directly",
	"swift":              "whose kind of storage is not read directly",
	"rclone":             "whose remotes are not read directly",
	"s3cmd":              "whose configuration is not understood",
	"s5cmd":              "whose configuration is not understood",
	"mc":                 "whose configuration is not understood",
	"curl":               "whose kind of storage is not read directly",
	"wget":               "whose kind of storage is not read directly",
	"pg_probackup":       "whose archive is not understood",
	"pghoard":            "whose archive is not understood",
	"gpg":                "whose encryption is read only from WAL-G's archives",
	"openssl":            "whose encryption is not understood",
	"age":                "whose encryption is not understood",
}

// source takes the variables from a file that a shell would run.
func (s *shell) source(c simple, outer *vars) {
	if len(c.args) == 0 || !c.args[0].known || hasMark(c.args[0].text) || outer.abs(c.args[0].text) == "" {
		s.out.note("restore_command sources a file whose name is not known")
		return
	}
	name := outer.abs(c.args[0].text)
	data, err := s.env.read(name)
	if err != nil {
		s.err = err
		return
	}
	s.script(string(data), fmt.Sprintf("\"%s\"", name), outer)
}
