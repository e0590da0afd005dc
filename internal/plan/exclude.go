package plan

import (
	"regexp"
	"strings"
)

// excludedDirs are the directories whose contents a starting server removes or rebuilds, whichever side they come from.
// The directories themselves stay (excludeDirContents, filemap.c).
var excludedDirs = [...]string{
	"pg_stat_tmp/",  // temporary statistics; extensions keep data there too
	"pg_replslot/",  // slots belong to one server; those of the source would hold back WAL for nobody
	"pg_dynshmem/",  // dsm_cleanup_for_mmap
	"pg_notify/",    // AsyncShmemInit
	"pg_serial/",    // kept for debugging only, see SerialInit
	"pg_snapshots/", // DeleteAllExportedSnapshotFiles
	"pg_subtrans/",  // zeroed by StartupSUBTRANS
}

// JournalName is the file in a data directory by which an interrupted rewind of it can go on.
const JournalName = "fastrewind.journal"

// TempSuffix ends the names of files that are being written by a rewind, to be renamed. One that a crash left behind is
// no use to anybody.
const TempSuffix = ".fastrewind.tmp"

// excludedFiles are never copied, wherever they lie (excludeFiles, filemap.c).
var excludedFiles = map[string]bool{
	"postgresql.auto.conf.tmp": true, // half-written by ALTER SYSTEM
	"current_logfiles.tmp":     true, // half-written by the logging collector
	"backup_label":             true, // of another recovery; the run writes its own
	"tablespace_map":           true,
	"backup_manifest":          true, // of the backup this server began with, not of this rewind
	"postmaster.pid":           true,
	"postmaster.opts":          true,
	JournalName + ".tmp":       true, // half-written
}

// relcacheInit begins the names of relation cache files, temporary ones included; rebuilt on start.
const relcacheInit = "pg_internal.init"

// socket matches a server's Unix socket and its lock file (UNIXSOCK_PATH, CreateSocketLockFile), for which
// unix_socket_directories may name the data directory. A source's listing does not say that it is no file.
var socket = regexp.MustCompile(`^\.s\.PGSQL\.[0-9]+(\.lock)?$`)

// temporary reports whether path is a backend's temporary file or directory: sorts, hashes, holdable cursors
// (PG_TEMP_FILE_PREFIX and PG_TEMP_FILES_DIR, storage/fd.h).
func temporary(path string) bool {
	return strings.Contains(path, "/pgsql_tmp")
}

// excluded reports whether path is never copied, for a reason that stock logs (check_file_excluded, filemap.c).
func excluded(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if excludedFiles[name] || socket.MatchString(name) || strings.HasPrefix(name, relcacheInit) || strings.HasSuffix(name, TempSuffix) {
		return true
	}
	for _, dir := range excludedDirs {
		if strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}

const tablespaceDir = "pg_tblspc/"

var (
	tablespaceLink = regexp.MustCompile(`^pg_tblspc/[0-9]+$`)
)

func isTablespaceLink(path string) bool { return tablespaceLink.MatchString(path) }

// foreignInTablespace reports whether path lies in a tablespace, but not in the directory of the clusters' version: clusters of
// other versions may have theirs beside it, and be in use (pg_upgrade leaves such, too).
func (in *Input) foreignInTablespace(path string) bool {
	below, ok := strings.CutPrefix(path, tablespaceDir)
	if !ok {
		return false
	}
	_, below, ok = strings.Cut(below, "/")
	if !ok {
		return false
	}
	dir, _, _ := strings.Cut(below, "/")
	return dir != in.TablespaceDir
}
