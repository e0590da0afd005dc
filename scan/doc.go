// Package scan reads the target's WAL and says which blocks it changed: segments in, a BlockMap out.
//
//	scan.go      a run: shards handed to workers, newest first, until the checkpoint is found
//	shard.go     one shard: the records that begin in it
//	seam.go      what must hold between neighbouring shards, and at both ends
//	effects.go   what a record does to files
//	blockmap.go  the set of changed blocks
//	segment.go   segments as a stretch of log; single records
//
// The log is cut into shards at segment borders (large segments into several). A record belongs to the shard in which
// it begins: a shard passes over the rest of a record that began before it, and reads on past its own end to finish its
// last one. Shards are scanned side by side, each from its own place; that together they are exactly the sequence of
// records a single reader would have seen is proved afterwards at the seams.
//
// Stock pg_rewind first follows the records' back links from the divergence to the last checkpoint before it, one by
// one, and then reads all of it again forward. Here segments are scanned whole, the newest first, until one contains
// such a checkpoint, and what was decoded on the way is kept: each segment is read once.
package scan
