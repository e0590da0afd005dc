package crashfs

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
)

// Keep says which changes that are not durable survive a crash.
type Keep func() keeper

// Synced keeps nothing but what was synced.
func Synced() Keep { return func() keeper { return keeper{} } }

// All keeps everything: what the running system sees, and so what a process that was killed leaves.
func All() Keep { return func() keeper { return keeper{all: true} } }

// Random keeps some of it, the same for the same seed: each name change or not, of each write each piece or not, and of
// the sizes a file had any one.
func Random(seed uint64) Keep {
	return func() keeper { return keeper{rng: rand.New(rand.NewPCG(seed, 1))} }
}

type keeper struct {
	all bool
	rng *rand.Rand // nil: none, or all
}

// Crash gives what is left of a tree when the machine loses power after the first n operations of the log, which were
// done on the directory at in it ("." for its root), when everything in the tree was durable.
func (l Log) Crash(tree Tree, at string, n int, keep Keep) (Tree, error) {
	d, err := newDisk(tree, at)
	if err != nil {
		return nil, err
	}
	for _, op := range l.Ops[:n] {
		if err := d.play(op); err != nil {
			return nil, err
		}
	}
	t := Tree{}
	k := keep()
	k.dir(t, "", d.root)
	return t, nil
}

// odds gives the probability with which things survive, for one inode: none, few, half, most, or all of them.
func (k keeper) odds() float64 {
	switch {
	case k.all:
		return 1
	case k.rng == nil:
		return 0
	default:
		return []float64{0, 0.2, 0.5, 0.8, 1}[k.rng.IntN(5)]
	}
}

// survives throws the dice for one change.
func (k keeper) survives(s state, odds float64) bool {
	switch {
	case s == durable || odds == 1:
		return true
	case odds == 0:
		return false
	default:
		return k.rng.Float64() < odds
	}
}

// dir puts what is below a directory into t.
func (k keeper) dir(t Tree, prefix string, dir *inode) {
	names := maps.Clone(dir.names)
	odds := k.odds()
	for _, c := range dir.nameChanges {
		if k.survives(c.state, odds) {
			c.apply(names)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) { // in order, so that the dice fall the same way every time
		node, full := names[name], path.Join(prefix, name)
		switch node.mode.Type() {
		case fs.ModeDir:
			t[full] = Node{Mode: node.mode}
			k.dir(t, full, node)
		case fs.ModeSymlink:
			t[full] = Node{Mode: fs.ModeSymlink, Link: node.link}
		default:
			t[full] = Node{Mode: node.mode, Data: k.content(node)}
		}
	}
}

// content is a file's bytes.
func (k keeper) content(f *inode) []byte {
	if len(f.changes) == 0 {
		return f.data
	}
	odds := k.odds()
	size := k.size(f)
	unit := max(size, 1) // all or nothing: no need to cut
	if odds > 0 && odds < 1 {
		unit = []int64{512, 4096, 8192}[k.rng.IntN(3)]
	} else {
		if data, whole := f.lastWhole(size, func(s state) bool { return k.survives(s, odds) }); whole {
			return data
		}
	}
	out := make([]byte, size)
	copy(out, f.data)
	for begin := int64(0); begin < size; begin += unit {
		piece := out[begin:min(begin+unit, size)]
		for _, c := range f.changes {
			if c.touches(begin, int64(len(piece))) && k.survives(c.state, odds) {
				c.apply(piece, begin)
			}
		}
	}
	return out
}

// lastWhole gives the data of the last change that survives, if it alone is all of the file.
func (n *inode) lastWhole(size int64, survives func(state) bool) ([]byte, bool) {
	for i := len(n.changes) - 1; i >= 0; i-- {
		c := n.changes[i]
		switch {
		case !survives(c.state) || !c.touches(0, size):
		case c.what == wrote && c.offset == 0 && int64(len(c.data)) >= size:
			return c.data[:size:size], true
		default:
			return nil, false
		}
	}
	return nil, false
}

// size chooses one of the sizes the file may have: with what is durable only, or with the first so many of the others.
func (k keeper) size(f *inode) int64 {
	sizes := []int64{f.sizeWith(0)}
	for i, c := range f.changes {
		if c.state != durable {
			sizes = append(sizes, f.sizeWith(i+1))
		}
	}
	switch {
	case k.all:
		return sizes[len(sizes)-1]
	case k.rng == nil:
		return sizes[0]
	default:
		return sizes[k.rng.IntN(len(sizes))]
	}
}

// sizeWith is the size if of the changes that are not durable only those among the first so many have happened.
func (n *inode) sizeWith(kept int) int64 {
	size := int64(len(n.data))
	for i, c := range n.changes {
		switch {
		case c.state != durable && i >= kept:
		case c.what == cut:
			size = c.offset
		case c.what == grew:
			size = max(size, c.offset)
		default:
			size = max(size, c.offset+int64(len(c.data)))
		}
	}
	return size
}

// touches reports whether the change concerns any of n bytes from begin on.
func (c change) touches(begin, n int64) bool {
	switch c.what {
	case cut:
		return c.offset < begin+n
	case wrote:
		return c.offset < begin+n && c.offset+int64(len(c.data)) > begin
	default:
		return false
	}
}

// apply does the change to a piece of the file.
func (c change) apply(piece []byte, begin int64) {
	if c.what == cut {
		clear(piece[max(c.offset-begin, 0):])
		return
	}
	if c.offset >= begin {
		copy(piece[c.offset-begin:], c.data)
	} else {
		copy(piece, c.data[begin-c.offset:])
	}
}
