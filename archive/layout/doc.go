// Package layout finds WAL in an archive as the tools lay it out: WAL-G and WAL-E, pgBackRest, Barman's cloud tools, and
// segments copied under their own names.
//
//	names.go       what an object's name says: which WAL file, how it is encoded
//	detect.go      which layout lies below a prefix, found out by looking
//	open.go        Open: layout, stanza or server, keys
//	pgbackrest.go  archive.info, and the archive ids that belong to a cluster
//	folder.go      listings of the folders segments lie in, one LIST each, kept for a while
//	find.go        the objects that may be a WAL file, best first
//	fetch.go       reading one: decrypted, decompressed, measured, compared with the SHA-1 in its name
//	list.go        everything there is
//
// Objects are taken for a WAL file by exact name and known extension only. What merely begins with a segment's name is
// something else: WAL-G keeps metadata in SEG.json and deltas in SEG_delta, and a SEG.partial ends before the segment does.
//
// Nothing here knows what WAL means: that a segment is of the right cluster and place is for its reader to check, by the
// long header of its first page.
package layout
