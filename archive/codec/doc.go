// Package codec turns the bytes of an archived WAL object into the bytes PostgreSQL wrote: it decrypts, then decompresses.
// Bytes come in through an io.Reader and go out through an io.Writer; where they lie is for others to know.
//
//	chain.go       Copy: the one way through; limits, trailing bytes, whose fault an error is, panics of decoders
//	codec.go       the compressions, by extension, and the magic numbers that confirm them
//	xz.go          the xz container (the LZMA2 inside is a library's)
//	lzma.go        LZMA-alone
//	lzop.go        the lzop container, which WAL-E wrote
//	lzo1x.go       the LZO1X decompressor
//	key.go         the encryptions: which one the settings mean
//	sodium.go      WAL-G's libsodium: crypto_secretstream_xchacha20poly1305 in chunks of 8 KiB
//	pgp.go         WAL-G's OpenPGP
//	pgbackrest.go  pgBackRest's aes-256-cbc, and archive.info
//
// Not every format notices that it was damaged: an object without compression, brotli, LZMA-alone and the zstd of
// pgBackRest carry no checksum, and AES-CBC authenticates nothing. Who needs certainty compares size, page headers, the
// SHA-1 in pgBackRest's names and the CRCs of WAL records.
package codec
