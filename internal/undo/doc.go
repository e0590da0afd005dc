// Package undo keeps what a rewind takes away, so that it can be given back: --keep-undo and "fastrewind undo".
//
// Save is called before anything is changed, with the plan of what will be, and saves what the plan's paths are and the
// bytes that will be overwritten or cut off. A run may save several times, in one session or several: before every plan
// that it carries out. Each adds what no earlier one has. Apply puts everything back.
//
//	format.go  the format of the undo directory, and its encoding and decoding
//	store.go   the directory: opened, locked, its head and parts
//	place.go   where an undo directory may lie
//	save.go    Save, Finish and Discard: what is going to change, path by path
//	data.go    the bytes: read by several workers, each into a file of its own; reflinks
//	apply.go   Apply, step by step
//	verify.go  Describe and Verify
//	spans.go   what of a file is saved already
//
// What a run does to the target without having announced it cannot be put back. Of the copier's doings that is one: it
// removes a file of which blocks were to be copied when the source has it no more. Who keeps an undo must announce such
// a removal by another Save, with a plan.Remove, before it happens.
package undo
