package journal

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Absent is the size of a file that is not there.
const Absent int64 = -1

// File is a path with a size in bytes, or Absent.
type File struct {
	Path string // as in fsx.FS
	Size int64
}

// sortedFiles is what a batch of paths is made of: ascending, each once. Of two sizes of one path the smaller stays, as in
// State.Original. files is not changed.
func sortedFiles(files []File) ([]File, error) {
	for _, f := range files {
		if !validPath(f.Path) {
			return nil, fault.New("path cannot be noted in the journal: %q", f.Path)
		}
		if f.Size < Absent || f.Size == math.MaxInt64 {
			return nil, fault.New("size cannot be noted in the journal: %d bytes of \"%s\"", f.Size, f.Path)
		}
	}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Size, b.Size)) })
	return slices.CompactFunc(files, func(a, b File) bool { return a.Path == b.Path }), nil
}

// maxEntry is the most bytes of a path in a batch.
const maxEntry = MaxPath + 2*3 + binary.MaxVarintLen64

// appendFile appends f, whose predecessor in the batch is before (empty for the first).
func appendFile(b []byte, before string, f File) []byte {
	shared := 0
	for shared < min(len(before), len(f.Path)) && before[shared] == f.Path[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(f.Path)-shared))
	b = append(b, f.Path[shared:]...)
	return binary.AppendUvarint(b, uint64(f.Size+1))
}

// batches cuts files, which sortedFiles made, into payloads of at most maxPayload bytes, each beginning with head. A
// payload is valid only until yield returns.
func batches(head []byte, files []File, yield func(payload []byte) error) error {
	need := len(head)
	for _, f := range files[:min(len(files), maxPayload)] {
		need += len(f.Path) + maxEntry - MaxPath
	}
	payload := append(make([]byte, 0, min(need, maxPayload)), head...)
	before := ""
	for _, f := range files {
		if len(payload)+maxEntry > maxPayload && before != "" {
			if err := yield(payload); err != nil {
				return err
			}
			payload, before = payload[:len(head)], ""
		}
		payload = appendFile(payload, before, f)
		before = f.Path
	}
	if before == "" {
		return nil
	}
	return yield(payload)
}

// eachFile takes the paths of a batch apart. path is valid only until yield returns. It returns what is wrong, or nothing.
func eachFile(d *decoder, yield func(path []byte, size int64)) (why string) {
	var path [2][]byte // this one and the one before
	for n := 0; len(d.rest) > 0; n++ {
		this, before := path[n%2], path[(n+1)%2]
		shared := d.number()
		more := d.number()
		switch {
		case d.why != "":
			return d.why
		case shared > uint64(len(before)), more > MaxPath, shared+more > MaxPath:
			return "a path of an impossible length"
		}
		this = append(append(this[:0], before[:shared]...), d.take(more)...)
		path[n%2] = this
		size := d.number()
		switch {
		case d.why != "":
			return d.why
		case size > math.MaxInt64:
			return "a size over 63 bits"
		case n > 0 && string(this) <= string(before):
			return "paths out of order"
		case !validPath(string(this)):
			return "a path that leads out of the data directory"
		}
		yield(this, int64(size)-1)
	}
	return d.end()
}

// doneHead is what stands before the paths of a done record.
func doneHead(session int, bound pg.LSN) []byte {
	var e encoder
	e.number(uint64(session))
	e.number(uint64(bound))
	return e
}
