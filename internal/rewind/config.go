package rewind

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
	Jobs              int        // -j: workers of the scan and of the copy, and connections to the source; at least 1

	ProgramName string // argv[0]'s last component, for messages that name the program
	ProgramPath string // argv[0] as found, to look for postgres beside it
}
