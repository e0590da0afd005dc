package main

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

// The configuration file is for callers that can neither add options nor set the environment. One file is read, the
// first of
//
//	$FASTREWIND_CONFIG                                then it must be there; /dev/null stands for none
//	$XDG_CONFIG_HOME/fastrewind/fastrewind.conf       or, without that variable, below $HOME/.config
//	/etc/fastrewind/fastrewind.conf
//
// The command line goes before the environment, the environment before the file, the file before the defaults. Lines are
// as in postgresql.conf, but the equals sign is needed and the names are the long options:
//
//	# a comment
//	jobs = 4                 # another one
//	progress = on
//	wal-archive = s3://bucket/prefix
//	source-server = 'host=new-primary user=rewind application_name=''old one'''

// confVariable names the file. It is not the variable of an option: --config-file has FASTREWIND_CONFIG_FILE.
const confVariable = "FASTREWIND_CONFIG"

const (
	systemConfDir = "/etc"
	confName      = "fastrewind/fastrewind.conf" // below a directory for configuration files
	maxConf       = 1 << 20                      // bytes
)

// confFile is what a configuration file says.
type confFile struct {
	path     string
	public   bool // every user of the machine may read it
	settings []setting
}

// setting is one line that sets something.
type setting struct {
	option, value string
	line          int // from 1
}

// readSettings sets the options that the command line did not: by the environment or else by the configuration file.
func (o *options) readSettings(self program, p *process) error {
	if err := p.refuseUnknown(self); err != nil {
		return err
	}
	if err := o.readEnvironment(p.env); err != nil {
		return err
	}
	file, err := p.confFile(self)
	if err != nil || file == nil {
		return err
	}
	return o.apply(file)
}

// apply sets what is not set yet. A source given elsewhere goes before one of the other kind in the file. Settings that
// a command does not have are those of other commands: which exist at all was looked at when the file was read.
func (o *options) apply(file *confFile) error {
	before := maps.Clone(o.given)
	for _, s := range file.settings {
		f := o.flags.Lookup(s.option)
		switch {
		case f == nil || before[s.option]:
			continue
		case isSource(s.option) && (before["source-pgdata"] || before["source-server"]):
			continue
		}
		if err := file.set(f, s); err != nil {
			return err
		}
		o.given[s.option] = true
		if s.option == "source-server" && file.public && hasPassword(s.value) {
			o.publicSecret = file.path
		}
	}
	return nil
}

func isSource(option string) bool { return option == "source-pgdata" || option == "source-server" }

// hasPassword reports whether a connection string seems to contain one. It serves a warning only.
func hasPassword(conninfo string) bool { return passwordPattern.MatchString(conninfo) }

var passwordPattern = regexp.MustCompile(`(^|[\s?&'])(ssl)?password\s*=|^postgres(ql)?://[^/@]*:[^/@]*@`)

// warn says what was suspicious about the settings, once it is known how to say it.
func (o *options) warn(rep rewind.Reporter) {
	if o.publicSecret != "" {
		rep.Warn("configuration file \""+o.publicSecret+"\" contains a password and can be read by every user",
			"Take the permission away (chmod o-r), or keep the password in a password file (~/.pgpass).")
	}
}

// set gives an option the value of a line.
func (c *confFile) set(f *pflag.Flag, s setting) error {
	value := s.value
	if f.Value.Type() == "bool" {
		on, err := parseSwitch(value)
		if err != nil {
			return fault.New("invalid value \"%s\" for parameter \"%s\" in file \"%s\" line %d", value, s.option, c.path, s.line).
				WithHint("Use on, off, true, false, yes, no, 1 or 0.")
		}
		value = strconv.FormatBool(on)
	}
	err := f.Value.Set(value)
	if bad := (*fault.Error)(nil); errors.As(err, &bad) {
		return bad.WithDetail("The value comes from line %d of file \"%s\".", s.line, c.path)
	}
	return err
}

// withConfFile looks up variables in the environment and then, as far as it can be read, in the configuration file. It
// is for those who only look: mistakes in the file are told to those who use it.
func (p *process) withConfFile(self program) func(string) (string, bool) {
	values := map[string]string{}
	if file, err := p.confFile(self); err == nil && file != nil {
		for _, s := range file.settings {
			values[variable(s.option)] = s.value
		}
	}
	return func(name string) (string, bool) {
		if value, _ := p.env(name); value != "" {
			return value, true
		}
		value, ok := values[name]
		return value, ok
	}
}

// confFile finds, reads and checks the configuration file; nil if there is none.
func (p *process) confFile(self program) (*confFile, error) {
	if path, _ := p.env(confVariable); path != "" {
		if path == os.DevNull {
			return nil, nil
		}
		return readConf(path, p.euid, self)
	}
	for _, dir := range p.confDirs() {
		path := filepath.Join(dir, confName)
		// A home directory that is closed to us is somebody else's: callers drop privileges and leave HOME as it was.
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		return readConf(path, p.euid, self)
	}
	return nil, nil
}

// confDirs are the directories in which a configuration file is looked for.
func (p *process) confDirs() []string {
	var dirs []string
	if dir, _ := p.env("XDG_CONFIG_HOME"); filepath.IsAbs(dir) { // one that is relative is to be ignored
		dirs = append(dirs, dir)
	} else if home, _ := p.env("HOME"); filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".config"))
	}
	if p.etc != "" {
		dirs = append(dirs, p.etc)
	}
	return dirs
}

// readConf reads a configuration file. Who can write it decides what is overwritten by whom, so it must belong to root
// or to user, and nobody else may be able to write it.
func readConf(path string, user int, self program) (*confFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hold us up
	if err != nil {
		return nil, fault.Because(err, "could not open configuration file \"%s\": %s", path, fault.M(err))
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Because(err, "could not stat file \"%s\": %s", path, fault.M(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New("configuration file \"%s\" is not a regular file", path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 && int64(stat.Uid) != int64(user) {
		return nil, fault.New("configuration file \"%s\" must be owned by the current user or root", path).
			Advise("chown it, or set %s to another file, or to %s for none.", confVariable, os.DevNull).Ours()
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fault.New("configuration file \"%s\" can be written by others than its owner", path).
			WithDetail("File has permissions %04o.", mode).
			Advise("Take the permissions away: chmod go-w \"%s\".", path).Ours()
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err != nil {
		return nil, fault.Because(err, "could not read file \"%s\": %s", path, fault.M(err))
	}
	if len(text) > maxConf {
		return nil, fault.New("configuration file \"%s\" is larger than %d bytes", path, maxConf)
	}
	c := &confFile{path: path, public: info.Mode().Perm()&0o004 != 0}
	if err := c.parse(string(text)); err != nil {
		return nil, err
	}
	return c, c.check(self)
}

// parse splits the text into settings.
func (c *confFile) parse(text string) error {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, found := strings.Cut(line, "=")
		if !found {
			return fault.New("syntax error in file \"%s\" line %d", c.path, i+1).
				Advise("A line is: name = value. A name is that of a long option, without the dashes.").Ours()
		}
		value, ok := confValue(strings.TrimSpace(rest))
		if !ok || strings.ContainsRune(value, 0) {
			// The value is not shown: it may be a password.
			return fault.New("syntax error in file \"%s\" line %d", c.path, i+1).
				Advise("The value's quotes do not match. Inside single quotes, a quote is written twice.").Ours()
		}
		c.settings = append(c.settings, setting{strings.TrimSpace(name), value, i + 1})
	}
	return nil
}

// confValue reads a value: what is between single quotes, or everything up to a comment.
func confValue(s string) (value string, ok bool) {
	if !strings.HasPrefix(s, "'") {
		if at := commentPattern.FindStringIndex(s); at != nil {
			s = s[:at[0]]
		}
		return s, true
	}
	for s = s[1:]; ; s = s[1:] {
		before, after, found := strings.Cut(s, "'")
		if !found {
			return "", false
		}
		value += before
		if !strings.HasPrefix(after, "'") {
			after = strings.TrimSpace(after)
			return value, after == "" || after[0] == '#'
		}
		value += "'"
		s = after
	}
}

var commentPattern = regexp.MustCompile(`(^|\s+)#.*$`)

// check refuses what no command would take: names that are no options, values that are wrong, and, of options that can
// be given once only, a second value. A file is wrong even where the command line overrules it. A parameter without a value counts as not set,
// as an empty variable does.
func (c *confFile) check(self program) error {
	all := &options{flags: pflag.NewFlagSet("", pflag.ContinueOnError), given: map[string]bool{}}
	all.define(self)
	lines := map[string]int{}
	settings := c.settings
	c.settings = nil
	for _, s := range settings {
		f := all.flags.Lookup(s.option)
		if f == nil || f.Name == "help" || f.Name == "version" { // these two are orders, not settings
			return fault.New("unrecognized configuration parameter \"%s\" in file \"%s\" line %d", s.option, c.path, s.line).
				Advise("Names are those of long options, without the dashes; see fastrewind --help.").Ours()
		}
		if s.value == "" {
			continue
		}
		if _, several := f.Value.(*listValue); !several && lines[s.option] != 0 {
			return fault.New("parameter \"%s\" is set twice in file \"%s\", in lines %d and %d", s.option, c.path, lines[s.option], s.line)
		}
		lines[s.option] = s.line
		if err := c.set(f, s); err != nil {
			return err
		}
		c.settings = append(c.settings, s)
	}
	return nil
}
