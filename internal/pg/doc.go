// Package pg is the vocabulary of the project: the names, numbers and on-disk formats of PostgreSQL that every other
// package speaks of, with types for what must not be mixed. It does no I/O and starts no goroutine: bytes in, values out.
//
//	lsn.go      LSN, timeline, WAL segment numbers and file names
//	rel.go      relations, forks, and the paths of their files
//	entry.go    what a listing of a data directory is made of, and pieces of files
//	version.go  the one table of what differs between majors
//	control.go  global/pg_control
//	history.go  timeline history files
//	label.go    backup_label
package pg
