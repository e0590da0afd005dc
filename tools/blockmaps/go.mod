// A module of its own: what is compared here is no dependency of the program, nor of the linter.
module github.com/fastrewind/fastrewind/tools/blockmaps

go 1.26.0

require (
	github.com/RoaringBitmap/roaring/v2 v2.30.0
	github.com/fastrewind/fastrewind v0.0.0
)

require (
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/mschoch/smat v0.2.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/fastrewind/fastrewind => ../..
