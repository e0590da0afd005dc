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
		{"cmd/fastrewind", []string{"internal/rewind", "internal/walcheck", "archive/place", "archive/object", "internal/fault", "internal/pg", "internal/pgbin"},
			"the command turns flags into a Config and an error into an exit code; what a run does is told in internal/rewind"},
		{"internal/rewind", []string{
			"archive", "archive/place", "archive/layout", "archive/object", "scan", "internal/plan", "fetch", "copier",
			"internal/journal", "internal/undo", "internal/preflight",
			"internal/pg", "internal/wal", "internal/fsx", "internal/fault", "internal/datadir", "internal/pgbin",
		}, "the one package that knows all the others; nothing but the command knows it"},
		{"archive", []string{"internal/pg", "internal/fault", "internal/fsx", "internal/pgbin", "internal/pgbin/proc"},
			"it gives segments, and satisfies the interface scan declares without knowing scan"},
		{"internal/walcheck", []string{"archive/place", "archive/layout", "internal/datadir", "internal/wal", "internal/pg", "internal/fault"},
			"what a person wants to know of an archive; no part of a rewind"},
		{"archive/place", []string{"archive/settings", "archive/layout", "archive/object", "archive/location", "internal/pg", "internal/fault"},
			"from what a user says to archives that can be read; it does not know who reads them"},
		{"archive/layout", []string{"archive/object", "archive/codec", "archive/location", "internal/pg", "internal/fault"},
			"how tools name and write what they archive, over whatever bucket"},
		{"archive/settings", []string{"archive/location", "archive/codec", "internal/fault"}, "reads settings and connects to nothing"},
		{"archive/object", []string{"archive/location", "internal/fault"}, "objects by their keys; it does not know what is in them"},
		{"archive/codec", []string{"archive/location", "internal/fault"}, "bytes in, bytes out"},
		{"archive/location", nil, "the words in which settings speak to those who open archives"},
		{"scan", []string{"internal/pg", "internal/wal", "internal/fault", "internal/fsx"},
			"it turns segments, whoever gives them, into a block map"},
		{"internal/plan", []string{"scan", "internal/pg", "internal/fault"},
			"a pure function of listings and block map: nothing that could touch a file or a server"},
		{"fetch", []string{"internal/pg", "internal/fault", "internal/datadir"},
			"it only gives: it never sees the target, the plan, or who asks"},
		{"copier", []string{"internal/plan", "internal/pg", "internal/fault", "internal/fsx"},
			"it never knows where bytes come from: it declares the Source it pulls from"},
		{"internal/journal", []string{"scan", "internal/pg", "internal/fsx", "internal/fault"},
			"it keeps what was found out and what is done; what follows from it is decided by internal/rewind"},
		{"internal/undo", []string{"internal/plan", "copier", "internal/datadir", "internal/pg", "internal/fsx", "internal/fault"},
			"it saves what a plan takes away, whoever made the plan"},
		{"internal/preflight", []string{"internal/plan", "internal/datadir", "internal/pg", "internal/fsx", "internal/fault"},
			"it looks at names and attributes, and reads nothing else"},
		{"internal/datadir", []string{"internal/pg", "internal/fault"}, "a leaf: reads a data directory, knows no purpose"},
		{"internal/pgbin", []string{"internal/pg", "internal/fault", "internal/pgbin/proc"}, "a leaf: finds and runs postgres"},
		{"internal/pgbin/proc", nil, "a leaf: runs one program"},
		{"internal/fsx", []string{"internal/pg", "internal/fault"}, "a leaf: the seam to the file system"},
		{"internal/wal", []string{"internal/pg", "internal/fault"}, "a leaf: bytes in, values out"},
		{"internal/pg", []string{"internal/fault"}, "the vocabulary everything else speaks"},
		{"internal/fault", nil, "the error type, below everything"},
		{"internal/wal/waltest", []string{"internal/pg", "internal/wal"}, "it writes WAL for the tests of those who read it"},
		{"internal/fsx/crashfs", []string{"internal/fsx"}, "a file system that fails and crashes, for tests of those who write"},
		{"internal/crashtest", []string{"internal/fsx", "internal/fsx/crashfs", "internal/pg", "internal/wal", "internal/wal/waltest"},
			"it makes small clusters without a server, for tests"},
		{"internal/s3test", nil, "it runs real S3 servers for tests, and spoils their answers"},
		{"internal/pgtest", nil, "an oracle must not rest on the code it tests"},
		{"internal/badinput", []string{"internal/pgtest"}, "it looks at the program from outside, as a user does"},
		{"internal/integration", []string{"internal/pgtest"}, "it looks at the program from outside, as a user does"},
		{"internal/archtest", nil, "it looks at all packages and belongs to none"},
		{"internal/survival", []string{"internal/pgtest"}, "it looks at the program from outside, as a user does"},
		{"internal/trouble", []string{"internal/pgtest"}, "it looks at the program from outside, as a user does"},
		{"internal/soak", []string{"internal/pgtest"}, "it looks at the program from outside, as a user does"},
		{"internal/managers", []string{"internal/pgtest", "internal/s3test"}, "it looks at the program from outside, as a user does"},
		{"internal/archivelive", []string{"internal/pgtest", "internal/s3test"}, "it looks at the program from outside, as a user does"},
		{"bench", []string{"internal/pgtest", "internal/s3test"}, "it runs both programs as processes and measures nothing from within"},
	},
	Only: []Only{
		{"github.com/jackc/pgx", []string{"fetch"}, "the PostgreSQL protocol is spoken in one place"},
		{"github.com/aws", []string{"archive/object"}, "object storage is spoken to in one place"},
		{"mvdan.cc/sh", []string{"archive/settings"}, "only settings are written in shell"},
		{"go.yaml.in/yaml", []string{"archive/settings"}, "only settings are written in YAML"},
		{"github.com/pelletier/go-toml", []string{"archive/settings"}, "only settings are written in TOML"},
		{"github.com/ProtonMail/go-crypto", []string{"archive/codec"}, "only codec decrypts"},
		{"github.com/andybalholm/brotli", []string{"archive/codec"}, "only codec decodes"},
		{"github.com/pierrec/lz4", []string{"archive/codec"}, "only codec decodes"},
		{"github.com/ulikunitz/xz", []string{"archive/codec"}, "only codec decodes"},
		{"github.com/spf13/cobra", []string{"cmd/fastrewind"}, "flags belong to the command"},
		{"github.com/spf13/pflag", []string{"cmd/fastrewind"}, "flags belong to the command"},
		{"flag", []string{"cmd/fastrewind", "bench", "internal/soak"}, "flags belong to the commands"},
		{"github.com/cheggaaa/pb", []string{"cmd/fastrewind"}, "what a terminal shows is the command's affair; a run reports to a Reporter"},
		{"golang.org/x/term", []string{"cmd/fastrewind"}, "what a terminal shows is the command's affair"},
		{"go.uber.org/zap", []string{"cmd/fastrewind"}, "errors are logged once, at the top"},
		{"os/signal", []string{"cmd/fastrewind", "bench", "internal/soak"}, "signals reach a run as the end of its context"},
		{"log", nil, "errors are returned, and logged once, at the top, by zap"},
		{"testing", nil, "tests stay out of programs"},
		{"os/exec", []string{
			"cmd/fastrewind", "archive", "internal/pgbin", "internal/pgbin/proc", "internal/pgtest", "internal/s3test", "bench",
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
		{"archive/codec", []string{"os", "net", "os/exec"}, "bytes in, bytes out, wherever they come from"},
		{"archive/location", []string{"os", "net", "context", "sync"}, "words only"},
		{"cmd/fastrewind", []string{"./internal/pgtest", "./internal/s3test", "./internal/crashtest", "./internal/fsx/crashfs", "./internal/wal/waltest", "./bench", "testing"}, "no test code in the program"},
	},
}

// notPure are the packages that do I/O or are for goroutines.
var notPure = []string{"os", "io/fs", "net", "path/filepath", "context", "sync", "golang.org/x/sync", "golang.org/x/sys"}
