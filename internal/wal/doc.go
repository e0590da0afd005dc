// Package wal decodes PostgreSQL's write-ahead log: bytes in, values out. It opens no file and starts no goroutine.
//
//	page.go    page headers, and the checks PostgreSQL makes before believing one
//	record.go  the header of a record and its block references
//	reader.go  from pages to records: continuation, CRC, the next record's place
//	error.go   the three ways in which reading can stop
//	rmgr.go    resource managers and the few info bits that matter here
//
// Every check of PostgreSQL's own reader (src/backend/access/transam/xlogreader.c) is made, in its order and with its
// words, so that a DBA who knows one knows the other. Nothing is allocated per record.
package wal
