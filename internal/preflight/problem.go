package preflight

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Kind groups problems that have one cause and, mostly, one remedy.
type Kind uint8

// The kinds, in the order in which a report has them.
const (
	Permission Kind = iota + 1 // modes of the user's own files and directories
	Owner                      // files that belong to somebody else
	Immutable                  // chattr +i, +a
	ReadOnly                   // file systems mounted read-only
	Space                      // free bytes and inodes
	Tablespace                 // tablespace links and where they lead
	Same                       // source and target share a directory
	Path                       // names that lead, or may lead, out of the target
	Type                       // a path is of different type in source and target
	Link                       // symbolic links in the target
	Mount                      // mount points in the way
	Label                      // a backup_label in the target
	Undo                       // the directory of --keep-undo
	Grant                      // rights at the source server
	Setting                    // settings of either server
	WAL                        // WAL that is missing on either side
	Other
)

// String is a heading.
func (k Kind) String() string {
	switch k {
	case Permission:
		return "permissions"
	case Owner:
		return "owners"
	case Immutable:
		return "immutable files"
	case ReadOnly:
		return "read-only file systems"
	case Space:
		return "free space"
	case Tablespace:
		return "tablespaces"
	case Same:
		return "directories of both clusters"
	case Path:
		return "unsafe paths"
	case Type:
		return "types of files"
	case Link:
		return "symbolic links"
	case Mount:
		return "mount points"
	case Label:
		return "backup_label"
	case Undo:
		return "undo directory"
	case Grant:
		return "rights at the source"
	case Setting:
		return "settings"
	case WAL:
		return "WAL"
	default:
		return "other"
	}
}

// Problem is one thing that would make a run fail half-way, or that its user should know before.
type Problem struct {
	Kind   Kind
	Path   string // as messages show it; may be empty
	Text   string // one line, in stock's words where stock would end with them
	Advice string // what to do about it; may be empty
	// Fixable: FixPermissions can repair it.
	Fixable bool
	// Warning: the run may go on.
	Warning bool
	Err     error // the cause, or nil

	rel string // Path below the target, for FixPermissions; "." is the target itself
}

// New makes a Problem whose text is formatted as by fmt.Sprintf, for checks that are made elsewhere.
func New(kind Kind, format string, args ...any) Problem {
	return Problem{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// Of makes a Problem of an error, with its text and advice if it is a *fault.Error. The kind and path of one that
// already came from Join stay unknown: add its Problems instead.
func Of(kind Kind, err error) Problem {
	p := Problem{Kind: kind, Text: err.Error(), Err: err}
	var f *fault.Error
	if errors.As(err, &f) {
		p.Text, p.Advice = f.Text, f.Advice
	}
	return p
}

// At returns p with its path set.
func (p Problem) At(path string) Problem { p.Path = path; return p }

// Advise returns p with its advice set.
func (p Problem) Advise(format string, args ...any) Problem {
	p.Advice = fmt.Sprintf(format, args...)
	return p
}

// Warn returns p as a warning.
func (p Problem) Warn() Problem { p.Warning = true; return p }

// Error is the cause in the error that Join makes, for errors.As: the run was refused before it changed anything.
type Error struct{ Problems []Problem } // without warnings; at least one

func (e *Error) Error() string {
	return fmt.Sprintf("%d problems, the first: %s", len(e.Problems), e.Problems[0].Text)
}

// Unwrap gives the problems' causes.
func (e *Error) Unwrap() []error {
	var errs []error
	for i := range e.Problems {
		if err := e.Problems[i].Err; err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// perKind is how many problems of one kind a report names; nobody reads the ten thousandth file of a wrong owner.
const perKind = 10

// Join makes one error of all problems but warnings; nil if there are none. Its text is that of the first, which is what
// stock would have said, but in the middle of its copying; its advice has all the others, the first ten of each kind, each
// kind with what to do.
func Join(problems []Problem) error {
	fatal := slices.DeleteFunc(slices.Clone(problems), func(p Problem) bool { return p.Warning })
	slices.SortStableFunc(fatal, func(a, b Problem) int { return int(a.Kind) - int(b.Kind) })
	if len(fatal) == 0 {
		return nil
	}
	f := fault.Because(&Error{fatal}, "%s", fatal[0].Text)
	if len(fatal) == 1 {
		return f.Advise("%s", strings.TrimSpace(fatal[0].Advice+" Nothing was changed.")).Ours()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d problems were found, and nothing was changed:", len(fatal))
	for rest := fatal; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(p Problem) bool { return p.Kind != rest[0].Kind })
		if n < 0 {
			n = len(rest)
		}
		writeKind(&b, rest[:n])
		rest = rest[n:]
	}
	return f.Advise("%s", b.String()).Ours()
}

// writeKind adds one kind's problems, and under them every advice that they have, once.
func writeKind(b *strings.Builder, problems []Problem) {
	fmt.Fprintf(b, "\n%s:", problems[0].Kind)
	var advice []string
	for i, p := range problems {
		if i < perKind {
			fmt.Fprintf(b, "\n  %s", p.Text)
		}
		if p.Advice != "" && len(advice) < perKind && !slices.Contains(advice, p.Advice) {
			advice = append(advice, p.Advice)
		}
	}
	if n := len(problems) - perKind; n > 0 {
		fmt.Fprintf(b, "\n  and %d more", n)
	}
	for _, a := range advice {
		fmt.Fprintf(b, "\n  → %s", a)
	}
}

// Warnings are the problems with which a run may go on.
func Warnings(problems []Problem) []Problem {
	return slices.DeleteFunc(slices.Clone(problems), func(p Problem) bool { return !p.Warning })
}
