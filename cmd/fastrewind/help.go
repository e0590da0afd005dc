package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin"
)

// usageStock is 15's text with 17's line for --sync-method. %[1]s is the program's name.
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
      --config-file=FILENAME     use specified main server configuration
                                 file when running target cluster
      --debug                    write a lot of debug messages
      --no-ensure-shutdown       do not automatically fix unclean shutdown
      --sync-method=METHOD       set method for syncing files to disk
  -V, --version                  output version information, then exit
  -?, --help                     show this help, then exit
`

const usageStockEnd = `
Report bugs to <pgsql-bugs@lists.postgresql.org>.
PostgreSQL home page: <https://www.postgresql.org/>
`

const usageOwn = `
Options that pg_rewind does not have:
  -j, --jobs=NUM                 workers, and connections to the source server
                                 (default: number of CPUs, from 2 to %[2]d)
      --pg-bindir=DIRECTORY      look here first for the target's postgres program
      --log-format=FORMAT        write messages as "text" (default) or "json"

Every option can also be set by an environment variable: FASTREWIND_ and the long name in
capitals, with _ for -. The command line goes before the environment, the environment before
the default; a source on the command line goes before any source in the environment. Switches
are on or off. An empty variable counts as not set. This works under the name pg_rewind, too:
  FASTREWIND_JOBS=4  FASTREWIND_TARGET_PGDATA=/data/15  FASTREWIND_PROGRESS=on

All messages go to standard error; "error:", "detail:" and "hint:" are pg_rewind's words, what
follows "advice:" is said by %[1]s alone. The exit status is 0 if the target is rewound
or needs no rewind, 1 on any error. Called under the name pg_rewind, by a link or a copy, the
program writes what pg_rewind writes and nothing more.

Examples:
  What would be done? Nothing is modified:
    %[1]s --dry-run --progress --target-pgdata=/var/lib/postgresql/15/main \
        --source-server='host=new-primary user=rewind dbname=postgres'
  Rewind the old primary and make it a standby of the new one:
    %[1]s -PR -D /var/lib/postgresql/15/main \
        --source-server='host=new-primary user=rewind dbname=postgres'
  Rewind from the data directory of a stopped server, missing WAL from the archive:
    %[1]s -Pc -D /data/old --source-pgdata=/data/new

Home page: <https://github.com/fastrewind/fastrewind>
`

// usage is the text of --help; no line is longer than 95 columns, as the tests of PostgreSQL 17 demand.
func usage(self program) string {
	if self.stock {
		return fmt.Sprintf(usageStock, self.name) + usageStockEnd
	}
	return fmt.Sprintf(usageStock, self.name) + fmt.Sprintf(usageOwn, self.name, defaultJobsMost)
}

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version string

// versionText is the text of --version. Under stock's name it is the version of the PostgreSQL programs beside us, as
// scripts compare the two.
func versionText(self program, env func(string) (string, bool)) string {
	if self.stock {
		return stockName + " (PostgreSQL) " + postgresVersion(self, env) + "\n"
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

// postgresVersion is the version of the postgres program that a rewind would use for a target of the newest major we
// know, or that major alone if there is no such program.
func postgresVersion(self program, env func(string) (string, bool)) string {
	majors := pg.Majors()
	newest := majors[len(majors)-1]
	binDir, _ := env(variable("pg-bindir"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	found, err := pgbin.Find(ctx, pgbin.Options{
		Major: newest, BinDir: binDir, ProgramPath: self.path, ProgramName: self.name,
	})
	if err != nil {
		return strconv.Itoa(newest) // no server is installed here, which --version need not mind
	}
	return strings.TrimPrefix(found.Version, "postgres (PostgreSQL) ")
}

// A reader of standard output who has gone away is no error.

func printHelp(out io.Writer, self program) { _, _ = io.WriteString(out, usage(self)) }

func printVersion(out io.Writer, self program, env func(string) (string, bool)) {
	_, _ = io.WriteString(out, versionText(self, env))
}
