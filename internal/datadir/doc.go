// Package datadir reads a PostgreSQL data directory on this machine: the source's when it is a directory, and the
// target's. It never writes. What it lists and how it follows links are the rules of stock pg_rewind's file_ops.c
// (traverse_datadir), so that a plan made from its listings is stock's plan.
//
//	list.go  the listing, in parallel by directory
//	root.go  opening listed files, and nothing outside the directory but what a listing would have followed
//	read.go  small files, whole
//	mode.go  the modes new files and directories get
package datadir
