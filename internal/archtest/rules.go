package archtest

// Module is this module's path.
const Module = "github.com/fastrewind/fastrewind"

// Layer says which of the module's packages one of them may import.
type Layer struct {
	Package string   // relative to the module
	May     []string // relative to the module
	Why     string
}

// Only says who alone may import a package.
type Only struct {
	Import string // an import path and everything below it
	In     []string
	Why    string
}

// Never says what a package must not import, directly or through other packages of the module.
type Never struct {
	Package string
	Imports []string // import paths and everything below them; relative ones begin with "./"
	Why     string
}

// Rules are the arrows.
type Rules struct {
	Layers []Layer
	Only   []Only
	Never  []Never
}

// Arrows are the arrows of this module. Imports of test files are not subject to them.
var Arrows = Rules{
	Layers: []Layer{
		{"cmd/fastrewind", []string{"internal/rewind", "internal/fault", "internal/pg", "internal/pgbin"},
			"the command turns flags into a Config and an error into an exit code; what a run does is told in internal/rewind"},
		{"internal/rewind", []string{
			"archive", "scan", "internal/plan", "fetch", "copier",
			"internal/pg", "internal/wal", "internal/fsx", "internal/fault", "internal/datadir", "internal/pgbin",
		}, "the one package that knows all the others; nothing but the command knows it"},
		{"archive", []string{"internal/pg", "internal/fault", "internal/fsx", "internal/pgbin", "internal/pgbin/proc"},
			"it gives segments, and satisfies the interface scan declares without knowing scan"},
		{"scan", []string{"internal/pg", "internal/wal", "internal/fault", "internal/fsx"},
			"it turns segments, whoever gives them, into a block map"},
		{"internal/plan", []string{"scan", "internal/pg", "internal/fault"},
			"a pure function of listings and block map: nothing that could touch a file or a server"},
		{"fetch", []string{"internal/pg", "internal/fault", "internal/datadir"},
			"it only gives: it never sees the target, the plan, or who asks"},
		{"copier", []string{"internal/plan", "internal/pg", "internal/fault", "internal/fsx"},
			"it never knows where bytes come from: it declares the Source it pulls from"},
		{"internal/datadir", []string{"internal/pg", "internal/fault"}, "a leaf: reads a data directory, knows no purpose"},
		{"internal/pgbin", []string{"internal/pg", "internal/fault", "internal/pgbin/proc"}, "a leaf: finds and runs postgres"},
		{"internal/pgbin/proc", nil, "a leaf: runs one program"},
		{"internal/fsx", []string{"internal/pg", "internal/fault"}, "a leaf: the seam to the file system"},
		{"internal/wal", []string{"internal/pg", "internal/fault"}, "a leaf: bytes in, values out"},
		{"internal/pg", []string{"internal/fault"}, "the vocabulary everything else speaks"},
		{"internal/fault", nil, "the error type, below everything"},
		{"internal/wal/waltest", []string{"internal/pg", "internal/wal"}, "it writes WAL for the tests of those who read it"},
		{"internal/pgtest", nil, "an oracle must not rest on the code it tests"},
		{"internal/badinput", []string{"internal/pgtest"}, "it looks at the program from outside, as a user does"},
		{"internal/integration", []string{"internal/pgtest"}, "it looks at the program from outside, as a user does"},
		{"internal/archtest", nil, "it looks at all packages and belongs to none"},
		{"bench", []string{"internal/pgtest"}, "it runs both programs as processes and measures nothing from within"},
	},
	Only: []Only{
		{"github.com/jackc/pgx", []string{"fetch"}, "the PostgreSQL protocol is spoken in one place"},
		{"github.com/aws", []string{"archive"}, "object storage is one of archive's affairs"},
		{"github.com/spf13/cobra", []string{"cmd/fastrewind"}, "flags belong to the command"},
		{"github.com/spf13/pflag", []string{"cmd/fastrewind"}, "flags belong to the command"},
		{"flag", []string{"cmd/fastrewind", "bench"}, "flags belong to the commands"},
		{"github.com/cheggaaa/pb", []string{"cmd/fastrewind"}, "what a terminal shows is the command's affair; a run reports to a Reporter"},
		{"golang.org/x/term", []string{"cmd/fastrewind"}, "what a terminal shows is the command's affair"},
		{"go.uber.org/zap", []string{"cmd/fastrewind"}, "errors are logged once, at the top"},
		{"os/signal", []string{"cmd/fastrewind", "bench"}, "signals reach a run as the end of its context"},
		{"log", nil, "errors are returned, and logged once, at the top, by zap"},
		{"testing", nil, "tests stay out of programs"},
		{"os/exec", []string{
			"cmd/fastrewind", "archive", "internal/pgbin", "internal/pgbin/proc", "internal/pgtest", "bench",
		}, "programs are run by pgbin, and restore_command by archive"},
	},
	Never: []Never{
		{"internal/pg", notPure, "formats and names: no I/O, no goroutine; whoever has the bytes can call it"},
		{"internal/wal", notPure, "decoding: no I/O, no goroutine; sharding is scan's affair"},
		{"internal/plan", []string{"os", "net", "./fetch", "./copier", "./archive", "./internal/fsx", "./internal/datadir"},
			"a plan is decided without touching anything"},
		{"fetch", []string{"./copier", "./internal/plan", "./scan", "./archive", "./internal/rewind", "./internal/fsx"},
			"a source that could write the target is how stock went wrong"},
		{"copier", []string{"./fetch", "./archive", "./internal/rewind", "github.com/jackc/pgx", "net"},
			"bytes are pulled through an interface, whoever gives them"},
		{"scan", []string{"./archive", "./fetch", "./copier", "./internal/plan", "./internal/rewind"}, "nobody upstream knows who is downstream"},
		{"archive", []string{"./scan", "./fetch", "./copier", "./internal/plan", "./internal/rewind"}, "the first of the flow knows none of the others"},
		{"cmd/fastrewind", []string{"./internal/pgtest", "./internal/wal/waltest", "./bench", "testing"}, "no test code in the program"},
	},
}

// notPure are the packages that do I/O or are for goroutines.
var notPure = []string{"os", "io/fs", "net", "path/filepath", "context", "sync", "golang.org/x/sync", "golang.org/x/sys"}
