// Package waltest writes WAL for tests: pages and records as a server would write them, on as many timelines as wanted,
// with every awkward case a server produces, and with whatever faults a test asks for. It shares no code with package
// wal beyond its constants, so that reader and writer cannot agree on a mistake.
//
//	log.go     the files that were written, and how a reader gets at their bytes
//	writer.go  pages: headers, continuation, segments, switches, timelines, records never finished
//	record.go  records: from their parts to their bytes
package waltest
