// Package walcheck looks into WAL archives for the person at the keyboard: what is there, one file of it, and whether a
// range of it would do for a rewind. It changes nothing, and needs no cluster.
//
//	archives.go  Archives: the places, opened, and of which cluster their WAL is
//	list.go      everything there is, put together into ranges while it is listed
//	get.go       one WAL file, verified before its first byte is seen
//	publish.go   a file that appears whole or not at all
//	span.go      which segments are meant: two names, two LSNs, or what a rewind of a target needs
//	check.go     a range of segments, checked in stretches side by side
//	stretch.go   one stretch: every record in it
//	stream.go    the bytes of segments, in order, while they arrive
//
// A segment is never held in memory as a whole, nor is a listing: a million segments of a gigabyte each cost what ten
// of a megabyte do.
package walcheck
