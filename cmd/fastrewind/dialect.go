package main

import (
	"fmt"
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin"
)

// The words of pg_rewind change a little from major to major, and callers are made for those of their server's. Everywhere
// in this program messages are 15's. Under the name pg_rewind they are put into the words of the target's major here, just
// before they are printed, by the table below; a message is known by its format, as by a msgid in gettext.
//
// Sources: the pg_rewind of Debian's packages of 13.16, 15.18, 17.11, 18.6 and 19rc1. 14 and 16 were packaged without it;
// what is theirs is taken from their neighbours and from PostgreSQL's history.

// The oldest and the newest major.
var oldest, newest = pg.Majors()[0], pg.Majors()[len(pg.Majors())-1]

// wording is how a message is said by some majors.
type wording struct {
	format      string // ours, 15's; it may be found anywhere in the program
	first, last int    // majors
	theirs      string // takes the same arguments; without any verb it takes none; empty: they do not say it
	detail      string // of the message, with the same arguments, or empty
}

var wordings = []wording{
	// Information.
	{"executing in dry-run mode", oldest, 18, "", ""},
	{"executing in dry-run mode", 19, newest, "executing in dry-run mode", "The target directory will not be modified."},

	// Debug.
	{"getting %d file chunks", 13, 13, "getting file chunks", ""},
	{"using for rewind restore_command = '%s'", 17, newest, `using for rewind "restore_command = '%s'"`, ""},

	// The target's own programs and settings.
	{
		`program "%s" is needed by %s but was not found in the same directory as "%s"`, 13, 14,
		"The program \"%s\" is needed by %s but was not found in the\nsame directory as \"%s\".\nCheck your installation.", "",
	},
	{
		`program "%s" was found by "%s" but was not the same version as %s`, 13, 14,
		"The program \"%s\" was found by \"%s\"\nbut was not the same version as %s.\nCheck your installation.", "",
	},
	{"restore_command is not set in the target cluster", 17, newest, `"restore_command" is not set in the target cluster`, ""},
	{"could not read restore_command from target cluster", 18, newest, `could not read "restore_command" from target cluster`, ""},

	// Control file and source.
	{
		"WAL segment size must be a power of two between 1 MB and 1 GB, but the control file specifies %d byte%s", 17, newest,
		"invalid WAL segment size in control file (%d byte%s)",
		"The WAL segment size must be a power of two between 1 MB and 1 GB.",
	},
	{
		"full_page_writes must be enabled in the source server", 17, newest,
		`"full_page_writes" must be enabled in the source server`, "",
	},
	{
		`unexpected page modification for non-regular file "%s"`, 13, 13,
		`unexpected page modification for directory or symbolic link "%s"`, "",
	},

	// WAL.
	{
		"WAL record modifies a relation, but record type is not recognized: lsn: %v, rmid: %d, rmgr: %s, info: %02X", 13, 14,
		"WAL record modifies a relation, but record type is not recognized: lsn: %[1]v, rmgr: %[3]s, info: %02[4]X", "",
	},
	{
		"WAL record modifies a relation, but record type is not recognized: lsn: %v, rmid: %d, rmgr: %s, info: %02X", 19, newest,
		"WAL record modifies a relation, but record type is not recognized:\nlsn: %v, rmid: %d, rmgr: %s, info: %02X", "",
	},
	{
		"invalid magic number %04[1]X in log segment %[2]s, offset %[4]d", 16, newest,
		"invalid magic number %04[1]X in WAL segment %[2]s, LSN %[3]v, offset %[4]d", "",
	},
	{
		"invalid info bits %04[1]X in log segment %[2]s, offset %[4]d", 16, newest,
		"invalid info bits %04[1]X in WAL segment %[2]s, LSN %[3]v, offset %[4]d", "",
	},
	{
		"unexpected pageaddr %[1]v in log segment %[2]s, offset %[4]d", 16, newest,
		"unexpected pageaddr %[1]v in WAL segment %[2]s, LSN %[3]v, offset %[4]d", "",
	},
	{
		"out-of-sequence timeline ID %[1]d (after %[2]d) in log segment %[3]s, offset %[5]d", 16, newest,
		"out-of-sequence timeline ID %[1]d (after %[2]d) in WAL segment %[3]s, LSN %[4]v, offset %[5]d", "",
	},
	{
		"invalid record length at %v: wanted %d, got %d", 16, newest,
		"invalid record length at %v: expected at least %d, got %d", "",
	},
	{"invalid contrecord length %d (expected %d) at %v", 13, 13, "invalid contrecord length %[1]d at %[3]v", ""},
	{
		"BKPIMAGE_COMPRESSED set, but block image length %d at %v", 13, 13,
		"BKPIMAGE_IS_COMPRESSED set, but block image length %d at %v", "",
	},
	{
		"neither BKPIMAGE_HAS_HOLE nor BKPIMAGE_COMPRESSED set, but block image length is %d at %v", 13, 13,
		"neither BKPIMAGE_HAS_HOLE nor BKPIMAGE_IS_COMPRESSED set, but block image length is %d at %v", "",
	},
}

// lastWithFatal is the last major that had one more level, fatal, for errors that end the program on the spot, and that did
// not mark details and hints.
const lastWithFatal = 14

// errorsBefore15 are the errors that 13 and 14 call errors, not fatal: those of the command line. They also do that if
// they have something more to say.
var errorsBefore15 = map[string]bool{
	"no source specified (--source-pgdata or --source-server)":                           true,
	"only one of --source-pgdata or --source-server can be specified":                    true,
	"no target data directory specified (--target-pgdata)":                               true,
	"no source server information (--source-server) specified for --write-recovery-conf": true,
	`too many command-line arguments (first is "%s")`:                                    true,
	`cannot be executed by "root"`:                                                       true,
	`could not read permissions of directory "%s": %s`:                                   true,
}

// dialect is how pg_rewind of one major speaks. nil is the program under its own name.
type dialect struct {
	*pg.Version
	theirs map[string]*wording
}

// dialectOf is that of the major, or of the one that is nearest.
func dialectOf(major int) *dialect {
	v, _ := pg.VersionOf(min(max(major, oldest), newest))
	d := &dialect{v, map[string]*wording{}}
	for i := range wordings {
		if w := &wordings[i]; w.first <= v.Major && v.Major <= w.last {
			d.theirs[w.format] = w
		}
	}
	return d
}

// dialect is what the caller expects to hear: of the target's major, as soon as it is known.
func (p *process) dialect(self program, targetDir string) *dialect {
	if !self.stock {
		return nil
	}
	if targetDir != "" {
		if major, err := pgbin.MajorOf(targetDir); err == nil {
			return dialectOf(major)
		}
	}
	_, major := expectedVersion(self, p.withConfFile(self))
	return dialectOf(major)
}

// said is a message in somebody's words.
type said struct {
	text, detail string
	silent       bool // it is not said at all
}

// say puts a message into the dialect.
func (d *dialect) say(m fault.Message) said {
	if d == nil {
		return said{text: m.String()}
	}
	args := d.arguments(m.Args)
	w := d.theirs[m.Format]
	switch {
	case w == nil:
		return said{text: fmt.Sprintf(m.Format, args...)}
	case w.theirs == "":
		return said{silent: true}
	}
	format := func(text string) string {
		if !strings.Contains(text, "%") {
			return text
		}
		return fmt.Sprintf(text, args...)
	}
	return said{text: format(w.theirs), detail: format(w.detail)}
}

// arguments are a message's, in the dialect: positions in the log, and other messages.
func (d *dialect) arguments(args []any) []any {
	var changed []any
	for i, arg := range args {
		var word string
		switch arg := arg.(type) {
		case pg.LSN:
			if !d.WideLSN {
				continue
			}
			word = arg.Wide()
		case fault.Message:
			word = d.say(arg).text
		default:
			continue
		}
		if changed == nil {
			changed = append(changed, args...)
		}
		changed[i] = word
	}
	if changed == nil {
		return args
	}
	return changed
}

// marksParts reports whether details and hints are marked as what they are.
func (d *dialect) marksParts() bool { return d == nil || d.Major > lastWithFatal }

// severity is what the error is called. more says that a detail or another error follows.
func (d *dialect) severity(m fault.Message, more bool) string {
	if d.marksParts() || more || errorsBefore15[m.Format] {
		return "error"
	}
	return "fatal"
}
