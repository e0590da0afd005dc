package rewind

import (
	"runtime"
	"time"

	"github.com/fastrewind/fastrewind/internal/plan"
)

// SyncMethod is how the target is made durable at the end.
type SyncMethod string

// The sync methods, named as by stock's --sync-method.
const (
	SyncFsync  SyncMethod = "fsync"  // fsync of every file and directory that was touched
	SyncSyncfs SyncMethod = "syncfs" // syncfs of every file system the target lies on
)

// Config is everything a user can ask of a run. cmd/fastrewind fills it from flags and environment.
type Config struct {
	TargetDir    string // -D: the target's data directory
	SourceDir    string // --source-pgdata; empty if the source is a server
	SourceServer string // --source-server: a libpq connection string; an empty one leaves all to libpq's environment

	DryRun            bool       // -n: decide everything, change nothing
	NoSync            bool       // -N: leave durability to the operating system
	SyncMethod        SyncMethod // --sync-method
	WriteRecoveryConf bool       // -R: primary_conninfo and standby.signal
	RestoreTargetWAL  bool       // -c: missing WAL through the target's restore_command
	ConfigFile        string     // --config-file: passed to the target's postgres as config_file
	NoEnsureShutdown  bool       // --no-ensure-shutdown: no crash recovery of an unclean target
	PgBinDir          string     // --pg-bindir: where the target's postgres is, before any other place
	Jobs              int        // -j: workers of the scan and of the copy, and connections to the source; 0: see MostJobs
	MaxRate           int64      // --max-rate: bytes per second copied from the source, by all workers together; 0: no limit

	Restart        bool          // --restart: copy again what an interrupted run has copied; its block map is used all the same
	Timeout        time.Duration // --timeout: of the whole run; 0: none
	KeepUndo       string        // --keep-undo: a directory for all that is overwritten or removed; empty: it is not kept
	FixPermissions bool          // --fix-permissions: make files of the target's owner writable that are not

	Keep, Exclude plan.Patterns // --keep, --exclude: files of which the target keeps its own; that are not copied
	KeepConfig    bool          // --keep-config: the same for configuration and certificates

	WALArchives      []string      // --wal-archive: where WAL is besides the target's pg_wal, in order: URLs, directories, "auto"
	WALArchiveLayout string        // --wal-archive-layout: how they are laid out; empty: found out by looking
	S3               S3Config      // how to reach those that are buckets, where their own settings do not say
	ArchiveJobs      int           // --archive-jobs: segments fetched at a time, by restore_command or directly; at least 1
	RestoreTimeout   time.Duration // --restore-timeout: of one restore_command; 0: none
	FetchSourceWAL   Choice        // --fetch-source-wal: WAL the source has removed and the rewound server needs, from the archive

	RetryFor     time.Duration // --retry-for: how long a source that does not answer is tried again; 0: not at all
	StallTimeout time.Duration // --stall-timeout: how long a source may say nothing before its connection is given up

	ProgramName string // argv[0]'s last component, for messages that name the program
	ProgramPath string // argv[0] as found, to look for postgres beside it
}

// keep is all of which the target keeps its own.
func (c *Config) keep() plan.Patterns {
	if !c.KeepConfig {
		return c.Keep
	}
	return append(c.Keep[:len(c.Keep):len(c.Keep)], plan.ConfigPatterns...)
}

// S3Config is how to reach buckets. What is empty is left to the AWS SDK's chain of environment and profiles.
type S3Config struct {
	Endpoint, Region, Profile, CAFile string
	PathStyle, RequesterPays          bool
}

// Choice is a switch that decides by itself unless somebody else has.
type Choice string

// The choices.
const (
	ChoiceAuto Choice = "auto"
	ChoiceOn   Choice = "on"
	ChoiceOff  Choice = "off"
)

// MostJobs is how many workers, and connections to the source, there are at most if the user leaves the number to us.
// A rewind must not eat the source's max_connections by default.
const MostJobs = 8

// decideJobs fills in the number of jobs, which the user may have left to us: one for each processor, and at least two,
// since a worker spends part of its time waiting. most is how many may copy at the same time if that is of use.
func (c *Config) decideJobs() (most int) {
	if c.Jobs > 0 {
		return c.Jobs
	}
	c.Jobs = min(max(runtime.GOMAXPROCS(0), 2), MostJobs)
	return MostJobs
}
