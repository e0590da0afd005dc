package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

// usageStock is 15's text with 17's line for --sync-method, which older majors do not have. %[1]s is the program's name.
const usageStock = `%[1]s resynchronizes a PostgreSQL cluster with another copy of the cluster.

Usage:
  %[1]s [OPTION]...

Options:
  -c, --restore-target-wal       use restore_command in target configuration to
                                 retrieve WAL files from archives
  -D, --target-pgdata=DIRECTORY  existing data directory to modify
      --source-pgdata=DIRECTORY  source data directory to synchronize with
      --source-server=CONNSTR    source server to synchronize with
  -n, --dry-run                  stop before modifying anything
  -N, --no-sync                  do not wait for changes to be written
                                 safely to disk
  -P, --progress                 write progress messages
  -R, --write-recovery-conf      write configuration for replication
                                 (requires --source-server)
` + usageConfigFile + `      --debug                    write a lot of debug messages
      --no-ensure-shutdown       do not automatically fix unclean shutdown
` + usageSyncMethod + `  -V, --version                  output version information, then exit
  -?, --help                     show this help, then exit
`

const (
	usageConfigFile = `      --config-file=FILENAME     use specified main server configuration
                                 file when running target cluster
`
	usageSyncMethod = `      --sync-method=METHOD       set method for syncing files to disk
`
)

const usageStockEnd = `
Report bugs to <pgsql-bugs@lists.postgresql.org>.
PostgreSQL home page: <https://www.postgresql.org/>
`

// usageOptions goes on with our own options. Each part of the help is a section of the manual, too (manual.go), which
// reads them by their layout.
const usageOptions = `
Options that pg_rewind does not have:
  -j, --jobs=NUM                 workers, and connections to the source server
                                 (default: number of CPUs, from 2 to %[2]d, and up to %[2]d
                                 that copy if that is faster)
      --max-rate=RATE            copy no faster than this, all connections together
                                 (in kB/s, or use suffix "k" or "M"; default: no limit)
      --pg-bindir=DIRECTORY      look here first for the target's postgres program
      --log-format=FORMAT        write messages as "text" (default) or "json"
      --keep=PATTERN             leave the target's own file, as in conf.d/*.conf or server.key
      --exclude=PATTERN          do not copy these files, as in log; both may be given several
                                 times, and neither for the server's own data
      --keep-config              leave the target's configuration and certificates

Interrupted, the same command run again goes on where it stopped:
      --restart                  copy everything again, also what is there already
      --timeout=TIME             stop after this time (30min, 2h), to be run again
      --keep-undo=DIRECTORY      save what is overwritten or removed, for "%[1]s undo"
      --fix-permissions          make the target's files writable that are not
      --retry-for=TIME           how long to wait for a source that does not answer
                                 (default: 60s)
      --stall-timeout=TIME       give a connection up on which nothing comes (default: 60s)

WAL that the target's pg_wal does not have any more:
` + usageArchives + `      --archive-jobs=NUM         segments fetched at a time, by restore_command (-c), too
                                 (default: %[3]d)
      --restore-timeout=TIME     of one restore_command (default: none)
      --fetch-source-wal=CHOICE  fetch WAL that the source has removed and the rewound server
                                 needs (default: auto, on if there is an archive)
`

const usageCommands = `
Commands, each with a --help of its own:
  %[1]s archive ls|get|check     what is in a WAL archive
  %[1]s journal                  what an interrupted rewind has left
  %[1]s undo                     put a target back as it was (see --keep-undo)
`

const usageSettings = `
Every option can also be set by an environment variable: FASTREWIND_ and the long name in
capitals, with _ for -. The command line goes before the environment, the environment before
a configuration file, that before the default; a source given in one place goes before a
source of either kind in a later one. Switches are on or off. An empty variable counts as not
set; any other variable of such a name is an error. This works under the name pg_rewind, too:
  FASTREWIND_JOBS=4  FASTREWIND_TARGET_PGDATA=/data/15  FASTREWIND_WAL_ARCHIVE=auto

The configuration file has lines like "jobs = 4", with the names of long options. It is the
file that $FASTREWIND_CONFIG names, or else ~/.config/fastrewind/fastrewind.conf or, without
that, /etc/fastrewind/fastrewind.conf. It must belong to root or to the user.
`

const usageMessages = `
All messages go to standard error; "error:", "detail:" and "hint:" are pg_rewind's words, what
follows "advice:" is said by %[1]s alone. Called under the name pg_rewind, by a link or
a copy, the program writes what pg_rewind of the target's major writes and nothing more; only
on errors that pg_rewind does not have, the advice is the hint. JSON has it in any case.
`

const usageExit = `
Exit status:
  0  rewound, or no rewind required
  1  failed; the target is as it was
  3  interrupted, by a signal or --timeout; run the same command again to go on
  4  failed half-way; mend what the error says and run the same command again
  5  refused: something would have failed later; the target is as it was
  6  the source was lost; when it is back, run the same command again
  7  no rewind can help: take a new base backup
Under the name pg_rewind it is 1 for all but 0.
`

const usageExamples = `
Examples:
  What would be done? Nothing is modified:
    %[1]s --dry-run --progress --target-pgdata=/var/lib/postgresql/15/main \
        --source-server='host=new-primary user=rewind dbname=postgres'
  Rewind the old primary and make it a standby of the new one:
    %[1]s -PR -D /var/lib/postgresql/15/main \
        --source-server='host=new-primary user=rewind dbname=postgres'
  Rewind from the data directory of a stopped server, missing WAL from the archive:
    %[1]s -Pc -D /data/old --source-pgdata=/data/new
  The same with WAL from wherever pgBackRest's settings say:
    %[1]s -P --wal-archive=auto -D /data/old --source-server='host=new-primary'
`

const usageEnd = `
Home page: <https://github.com/fastrewind/fastrewind>
`

// usageArchives is of the options that say where WAL is archived. The command archive has them, too.
const usageArchives = `      --wal-archive=WHERE        s3://bucket/prefix, a directory, or "auto": what the settings
                                 of pgBackRest, WAL-G, Barman or the restore_command say; may
                                 be given several times
      --wal-archive-layout=NAME  wal-g, wal-e, pgbackrest, barman or plain
                                 (default: found out by looking)
      --s3-endpoint=URL          of a server that is not AWS
      --s3-region=NAME
      --s3-profile=NAME          of the AWS configuration files
      --s3-ca-file=FILE          certificates to trust besides the system's
      --s3-path-style            the bucket is in the path, not in the host's name
      --s3-requester-pays
`

// usage is the text of --help; no line is longer than 95 columns, as the tests of PostgreSQL 17 demand. Under stock's name it
// is that of the dialect's major, also where options of younger ones work.
func usage(self program, as *dialect) string {
	if as != nil {
		text := usageStock
		if as.Major < 15 {
			text = strings.Replace(text, usageConfigFile, "", 1)
		}
		if as.Major < 17 {
			text = strings.Replace(text, usageSyncMethod, "", 1)
		} else {
			text = strings.Replace(text, "use restore_command in", "use \"restore_command\" in", 1)
		}
		return fmt.Sprintf(text, self.name) + usageStockEnd
	}
	text := usageStock + usageOptions + usageCommands + usageSettings + usageMessages + usageExit + usageExamples + usageEnd
	return fmt.Sprintf(text, self.name, rewind.MostJobs, defaultArchiveJobs)
}

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version string

// versionText is the text of --version. Under stock's name it is the version of the PostgreSQL programs beside us, as
// scripts compare the two.
func versionText(self program, env func(string) (string, bool)) string {
	if self.stock {
		version, _ := expectedVersion(self, env)
		return stockName + " (PostgreSQL) " + version + "\n"
	}
	v := version
	if info, ok := debug.ReadBuildInfo(); v == "" && ok {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" { // built from a work tree without a tag
		v = "devel"
	}
	majors := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(pg.Majors())), ", "), "[]")
	return fmt.Sprintf("fastrewind %s (for PostgreSQL %s)\n", v, majors)
}

// expectedVersion is the version and the major that a caller of pg_rewind expects: of the postgres program that a rewind of
// the target would use, if the settings name a target; else of the one in the directory they name, else of the one beside us,
// where pg_rewind lies; else of the newest that is installed here.
func expectedVersion(self program, env func(string) (string, bool)) (version string, major int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	number := func(p *pgbin.Postgres) string { return strings.TrimPrefix(p.Version, "postgres (PostgreSQL) ") }
	majors := pg.Majors()
	slices.Reverse(majors)
	if dir, _ := env(variable("target-pgdata")); dir != "" {
		if major, err := pgbin.MajorOf(dir); err == nil {
			majors = []int{major}
		}
	}
	if dir, _ := env(variable("pg-bindir")); dir != "" {
		if found, ok := pgbin.In(ctx, dir); ok && slices.Contains(majors, found.Major) {
			return number(found), found.Major
		}
	}
	if found, ok := pgbin.Beside(ctx, self.path); ok && slices.Contains(majors, found.Major) {
		return number(found), found.Major
	}
	for _, m := range majors {
		if found, err := pgbin.Find(ctx, pgbin.Options{Major: m, ProgramPath: self.path, ProgramName: self.name}); err == nil {
			return number(found), m
		}
	}
	return strconv.Itoa(majors[0]), majors[0] // no server is installed here, which --version need not mind
}

// A reader of standard output who has gone away is no error.

func printHelp(out io.Writer, self program, as *dialect) { _, _ = io.WriteString(out, usage(self, as)) }

func printVersion(out io.Writer, self program, env func(string) (string, bool)) {
	_, _ = io.WriteString(out, versionText(self, env))
}
