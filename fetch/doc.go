// Package fetch reads the source of a rewind: a stopped cluster's data directory (Dir) or a running server (Server).
// A source only gives. It never sees the target, and nothing here writes to a disk.
//
//	source.go     the limits of the contract, and the checks of paths and ranges common to both sources
//	dir.go        a data directory
//	server.go     a server: connecting, small questions, whole small files
//	session.go    one connection to it, and how a session is set up
//	pool.go       a fixed number of such connections, and what becomes of them when they break
//	generation.go which server they lead to; how new its pages can be
//	retry.go      going on after a break; events; what is worth another try
//	conn.go       limits of time and of bytes on a connection
//	flood.go      a limit of what a server sends beside rows
//	listing.go    the file list of a server, in parallel by directory
//	chunks.go     ranges of files from a server
//	keywords.go   libpq's connection keywords: which are passed on, translated, or refused
//	conninfo.go   connection strings, service files and environment, read as libpq reads them
//	uri.go        connection URIs
//	hosts.go      what to dial, and how: one pgconn configuration for each host
//	passfile.go   password files; home.go: where the user's files are
//	tls.go        TLS as libpq does it; revocation.go: revocation lists; key.go: encrypted private keys
//	messages.go   errors of connections and queries in libpq's words
//	text.go       the server's words, fit for a terminal
//
// # What a source promises
//
// List gives every path once, sorted in byte order: files with their sizes, directories, and links by the rules of
// stock pg_rewind. It may be called again at any time and lists anew.
//
// ReadFile gives the whole content of a small file, as its own copy. A file that does not exist is fs.ErrNotExist to
// errors.Is; a file larger than the caller's limit is an error, never a cut.
//
// Fetch gives ranges of files. For each range, in the order of the ranges, it calls emit exactly once, with the
// range's index, from the goroutine that called Fetch, until it or emit fails; then it stops and returns that first
// error. Data starts at the range's Offset and holds all bytes up to its end or up to the end of the file, whichever
// comes first: less than asked for, even nothing, means the file ends there. Data belongs to the source and is valid
// only until emit returns. Ranges have 1 to MaxChunk bytes; others are an error of the caller's and nothing is
// fetched. All ranges of one call go to the server as one statement, so the caller decides how many round trips
// there are.
//
// All methods may be called from many goroutines at the same time, except Close, which must come after all others
// have returned. They honour their context: once it is done they return its error soon, from wherever they wait.
//
// Errors are *fault.Error with stock's text where it has one, made once here.
//
// # A source that changes under us
//
// A stopped cluster must not change, so Dir holds every file against the listing it gave: if the size differs when the
// file is opened, when a range that the listing covers comes back short, or when the last listed byte has been read,
// the fetch fails ("size of source file … changed concurrently"). A file that vanished fails too. Files that List has
// not given are read as they are.
//
// A running server changes all the time, between the listing and the copy and while a page is being read. That is
// accepted because replay of the WAL, which starts before the listing, repairs what matters:
//
//   - A file grew. Only what was listed is fetched (callers ask for at least 1 MiB of a whole file, so that small files
//     that are not WAL-logged, such as configuration files, arrive complete). Pages added to a relation later are in
//     the WAL.
//   - A file shrank, or was truncated and grew again. Fetch gives fewer bytes, which is not an error: the truncation is
//     in the WAL and is replayed.
//   - A file vanished. Fetch gives Gone, and the caller removes its copy: the removal is in the WAL, and a file that is
//     not WAL-logged is one the server can do without. A file that vanished while listing is not listed.
//   - A file appeared after the listing. It is not copied; its creation and content are in the WAL.
//   - A page or a small file was written while it was read. A torn page is repaired by the full-page image that
//     full_page_writes, which Connect insists on, puts into the WAL; pg_control carries a checksum, and ControlFile
//     reads it again if that does not match. A torn configuration file remains possible, as with pg_basebackup.
//   - A tablespace appeared or vanished. Its link is listed as the server knew it in the same statement.
//
// What no server does by itself is an error, and the whole fetch fails: more bytes than were asked for, another file or
// offset than asked for, a missing or an extra row, a path or a link that leads out of the data directory or that no
// PostgreSQL would make, a directory entry that is two things at once. A name that is not valid UTF-8 is legal on the
// source's disk and is refused all the same, quoted, since it could not be asked for. What a server can make us hold in
// memory is bounded: a message, what comes beside rows, the bytes of an answer, the entries of a listing and their names.
// Its words are shown with everything escaped that could control a terminal.
//
// # A source that goes away
//
// A connection that breaks, or gives no byte for Options.StallTimeout, is replaced. The pause before each attempt grows
// from 0.1 to 5 seconds; Options.RetryFor without progress ends the call with ErrSourceLost in its error's chain. Fetch
// asks again only for what it has not emitted. ReadFile and the small questions are repeated, and so is a listing's
// statement. A server that refuses for lasting reasons (a password, a missing right) ends the call at once.
//
// All connections of a Server lead to one start of one postmaster, a generation. A new one may take its place, if what
// was fetched from the old can stand beside what will be fetched from the new:
//
//   - The same data directory, started again (a crash, a restart): its files only ever go forward, and the lock on the
//     directory says that the old server is gone. Accepted. A listing during which it happened starts over.
//   - Another server of the same system on the same timeline, once no connection to the old one is left: accepted if it
//     is a primary, which wrote all the WAL there is of that timeline, or if nothing has been fetched yet. Another standby
//     may be behind the lost one, so that pages that were fetched are newer than all it can tell of:
//     *SourceChangedError.
//   - Another timeline: *SourceChangedError. Pages of the old server may hold what the new one never had.
//   - Another system, or two servers that answer at the same time (a balancer): an error.
//
// A standby that is promoted in place keeps its connections and its generation. PageBound tells at any time how new the
// pages given so far can be at most.
package fetch
