package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Patterns are paths that a user wants treated otherwise than stock does: files that are not the server's data, such as
// configuration, certificates and logs. Each is matched, name by name as by path.Match, against a path in the data directory
// and against every directory that holds it, so that "log" means the directory and all that is in it.
type Patterns []string

// ConfigPatterns are what --keep-config keeps: the files a server is configured by that initdb, ALTER SYSTEM and administrators
// put into the data directory, and what TLS needs.
var ConfigPatterns = Patterns{
	"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf", "pg_hosts.conf", "conf.d",
	"postgresql.base.conf", "patroni.dynamic.json", // Patroni
	"override.conf", "custom.conf", // CloudNativePG
	"postgresql-auto-failover.conf", "postgresql-auto-failover-standby.conf", // pg_auto_failover
	"server.crt", "server.key", "root.crt", "root.crl",
}

// serverDirs are the server's own directories and files: what is in them must be the source's, or the target cannot be
// recovered. (Names of subdirs in initdb.c.)
var serverDirs = []string{
	"base", "global", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_multixact", "pg_notify", "pg_replslot", "pg_serial",
	"pg_snapshots", "pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc", "pg_twophase", "pg_wal", "pg_xact", "PG_VERSION",
	"backup_label", "tablespace_map", "standby.signal", "recovery.signal", "postmaster.pid", JournalName,
}

// IsForeign reports whether a path in a data directory is none that a server makes: a user's configuration, for instance.
func IsForeign(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return !slices.Contains(serverDirs, first)
}

// Check refuses what is no pattern and what reaches into the server's own data. option is named in the message.
func (p Patterns) Check(option string) error {
	for _, pattern := range p {
		first, _, _ := strings.Cut(pattern, "/")
		if !wellFormed(pattern) || path.Clean(pattern) != pattern || first == "." || first == ".." || first == "" {
			return fault.New("invalid pattern \"%s\" for option %s", pattern, option).
				WithHint("Give a path relative to the data directory; * and ? stand for parts of one name, as in conf.d/*.conf.")
		}
		for _, dir := range serverDirs {
			if ok, _ := path.Match(first, dir); ok { // the pattern is well formed
				return fault.New("pattern \"%s\" for option %s reaches into \"%s\", which belongs to the server", pattern, option, dir).
					Advise("Without the source's files there, the target could not be recovered. Only other files can be kept or left out.").
					Ours()
			}
		}
	}
	return nil
}

// wellFormed reports whether each name of a pattern is a pattern. A class such as [a/b], which path.Match would let match the
// border between two names, ends at that border and so is none.
func wellFormed(pattern string) bool {
	for name := range strings.SplitSeq(pattern, "/") {
		if _, err := path.Match(name, ""); err != nil {
			return false
		}
	}
	return true
}

// Match reports whether one of the patterns matches a path or a directory that holds it.
func (p Patterns) Match(name string) bool {
	if len(p) == 0 {
		return false
	}
	for at := name; at != "."; at = path.Dir(at) {
		if slices.ContainsFunc(p, func(pattern string) bool { return matchNames(pattern, at) }) {
			return true
		}
	}
	return false
}

func matchNames(pattern, at string) bool {
	for {
		first, patterns, more := strings.Cut(pattern, "/")
		name, names, moreNames := strings.Cut(at, "/")
		if ok, _ := path.Match(first, name); !ok || more != moreNames {
			return false
		}
		if !more {
			return true
		}
		pattern, at = patterns, names
	}
}
