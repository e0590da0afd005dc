// Package archive provides WAL segments, wherever they are: in the target's pg_wal, or brought back by its
// restore_command. What they mean is for others to find out; here they are files of a certain name and size.
//
//	segment.go  one open segment
//	chain.go    several stores behind one another: the nearest that has a segment provides it
//	pgwal.go    the target's pg_wal
//	restore.go  restore_command: running it, and the private directory it fills
//	command.go  restore_command: its placeholders
//
// A store is anything with Open. All stores may be used by several goroutines at once.
package archive
