// Package archive provides WAL segments, wherever they are: in the target's pg_wal, in an archive that is read directly,
// or brought back by restore_command. What they mean is for others to find out; here they are files of a certain name
// and size, with a first page that says whose they are.
//
//	            Chain.Open ──► PgWal                    the cluster's own pg_wal, first of all
//	Ahead ──►       └────────► Spool ──► Fetcher ...    a private directory, filled from one place after the other
//
//	segment.go   one open segment
//	identity.go  whose a segment is: its first page against what pg_control says
//	pgwal.go     the target's pg_wal
//	fetcher.go   Fetcher, and whatever writes a segment to an io.Writer as one
//	command.go   restore_command as a Fetcher: running it, what its end means, when it is tried again
//	expand.go    restore_command: its placeholders, major by major
//	private.go   the private directory, and what dead runs left of theirs
//	spool.go     Spool: who waits for which segment, and the files of those that arrived
//	schedule.go  Spool: which fetch begins next, which file goes to make room
//	fetch.go     Spool: one segment from one of the places, checked, into its file
//	ahead.go     Ahead: fetching what will be asked for next
//	chain.go     Chain: several stores behind one another; what is said when none has the segment
//	event.go     what is told to whoever keeps logs and meters
//
// A store is anything with Open. All stores may be used by several goroutines at once. Nothing here ever writes into the
// target's data directory.
package archive
