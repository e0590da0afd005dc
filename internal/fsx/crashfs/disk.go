package crashfs

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// state says whether a change is on the disk.
type state uint8

const (
	pending  state = iota // in memory
	durable               // synced
	doubtful              // a sync of it has failed: it may be on the disk or not, and no later sync will tell
)

// inode is a file, a directory or a link, whatever its names are.
type inode struct {
	mode fs.FileMode
	link string

	// A file's: what it was at the start, and what happened since, in order.
	data    []byte
	changes []change

	// A directory's: the names at the start, what happened since, and what the running system sees.
	names       map[string]*inode
	nameChanges []nameChange
	live        map[string]*inode
}

// change is one thing done to a file's content.
type change struct {
	what   what
	state  state
	offset int64  // of a write; of the other two, the size
	data   []byte // of a write
}

type what uint8

const (
	wrote what = iota
	cut        // truncated, to whatever size
	grew       // what is left for sure of a write whose data is doubtful: the size is at least so much
)

// nameChange takes a name away, gives one, or both at once.
type nameChange struct {
	state state
	gone  string
	name  string
	node  *inode // under name, or nil
}

// disk is a file system while a log is played on it.
type disk struct {
	root  *inode
	at    string // the target's directory in it, "." for the root
	files map[int]*inode
}

func newDisk(t Tree, at string) (*disk, error) {
	d := &disk{root: newDir(0o700), at: at, files: map[int]*inode{}}
	for name, n := range t {
		d.node(t, name, n)
	}
	if dir, err := d.find(at, 0); err != nil || !dir.mode.IsDir() {
		return nil, fmt.Errorf("there is no directory %q in the tree", at)
	}
	return d, nil
}

func newDir(perm fs.FileMode) *inode {
	return &inode{mode: fs.ModeDir | perm, names: map[string]*inode{}, live: map[string]*inode{}}
}

// node makes one of the tree's nodes, and the directories it is in.
func (d *disk) node(t Tree, name string, n Node) *inode {
	dir := d.root
	if parent := path.Dir(name); parent != "." {
		n, ok := t[parent]
		if !ok {
			n.Mode = fs.ModeDir | 0o700
		}
		dir = d.node(t, parent, n)
	}
	base := path.Base(name)
	if have := dir.names[base]; have != nil {
		return have
	}
	node := &inode{mode: n.Mode, link: n.Link, data: n.Data}
	if n.Mode.IsDir() {
		node = newDir(n.Mode.Perm())
	}
	dir.names[base], dir.live[base] = node, node
	return node
}

// maxLinks bounds how many links a name may go through.
const maxLinks = 8

// find gives what the running system has under a path from the root. Links are followed, the last one too.
func (d *disk) find(name string, links int) (*inode, error) {
	node, dir := d.root, "."
	parts := strings.Split(path.Clean(name), "/")
	if parts[0] == "." {
		parts = nil
	}
	for i, part := range parts {
		next := node.live[part]
		if next == nil {
			return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		if next.mode.Type() == fs.ModeSymlink {
			to := path.Join(append([]string{dir, next.link}, parts[i+1:]...)...)
			if path.IsAbs(next.link) || !fs.ValidPath(to) || links == maxLinks {
				return nil, fmt.Errorf("%s: the link %q leads out of the tree", name, next.link)
			}
			return d.find(to, links+1)
		}
		node, dir = next, path.Join(dir, part)
	}
	return node, nil
}

// dirOf gives the directory that holds a name of the target.
func (d *disk) dirOf(name string) (*inode, error) {
	dir, err := d.find(path.Join(d.at, path.Dir(name)), 0)
	if err == nil && !dir.mode.IsDir() {
		err = fmt.Errorf("%s: not in a directory", name)
	}
	return dir, err
}

// rename changes a directory's names.
func (n *inode) rename(c nameChange) {
	n.nameChanges = append(n.nameChanges, c)
	c.apply(n.live)
}

func (c nameChange) apply(names map[string]*inode) {
	if c.gone != "" {
		delete(names, c.gone)
	}
	if c.name != "" {
		names[c.name] = c.node
	}
}

// sync makes durable what is pending, or, if it fails, the data doubtful.
func (n *inode) sync(failed bool) {
	if failed {
		n.doubt()
		return
	}
	for i := range n.changes {
		if n.changes[i].state == pending {
			n.changes[i].state = durable
		}
	}
	for i := range n.nameChanges {
		n.nameChanges[i].state = durable
	}
}

func (n *inode) doubt() {
	old := n.changes
	n.changes = nil
	for _, c := range old {
		if c.what != wrote || c.state != pending {
			n.changes = append(n.changes, c)
			continue
		}
		c.state = doubtful
		n.changes = append(n.changes, c, change{what: grew, offset: c.offset + int64(len(c.data))})
	}
}

// play does one operation of a log.
func (d *disk) play(op Op) error {
	switch op.Kind {
	case OpWrite, OpTruncate, OpSync:
		return d.playFile(op)
	case OpSyncFS:
		d.each(func(n *inode) { n.sync(op.Err != nil) })
		return nil
	case OpSyncDir:
		if !op.Done {
			return nil // nothing is durable by it, and nothing is lost
		}
		dir, err := d.find(path.Join(d.at, op.Name), 0)
		if err == nil {
			dir.sync(false)
		}
		return err
	case OpClose:
		return nil
	default:
		if !op.Done {
			return nil
		}
		return d.playName(op)
	}
}

// playFile does what concerns an open file.
func (d *disk) playFile(op Op) error {
	f := d.files[op.File]
	switch {
	case f == nil:
		return fmt.Errorf("%v: no such open file", op)
	case op.Kind == OpSync:
		f.sync(op.Err != nil)
	case op.Kind == OpWrite && len(op.Data) > 0 && (op.Done || op.Partly):
		f.changes = append(f.changes, change{offset: op.Offset, data: op.Data})
	case op.Kind == OpTruncate && op.Done:
		f.changes = append(f.changes, change{what: cut, offset: op.Length})
	}
	return nil
}

// playName does what concerns names.
func (d *disk) playName(op Op) error {
	dir, err := d.dirOf(op.Name)
	if err != nil {
		return err
	}
	base := path.Base(op.Name)
	node := dir.live[base]
	switch op.Kind {
	case OpOpen:
		if op.Created {
			node = &inode{mode: op.Mode}
			dir.rename(nameChange{name: base, node: node})
		}
		if node == nil || !node.mode.IsRegular() {
			return fmt.Errorf("%v: no such file", op)
		}
		d.files[op.File] = node
	case OpMkdir:
		dir.rename(nameChange{name: base, node: newDir(op.Mode)})
	case OpSymlink:
		dir.rename(nameChange{name: base, node: &inode{mode: fs.ModeSymlink, link: op.To}})
	case OpRemove:
		dir.rename(nameChange{gone: base})
	case OpRename:
		if node == nil {
			return fmt.Errorf("%v: no such name", op)
		}
		dir.rename(nameChange{gone: base, name: path.Base(op.To), node: node})
	default:
		return fmt.Errorf("%v: what is that?", op)
	}
	return nil
}

// each calls f for every inode there is or was.
func (d *disk) each(f func(*inode)) {
	seen := map[*inode]bool{}
	var visit func(*inode)
	visit = func(n *inode) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		f(n)
		for _, c := range n.names {
			visit(c)
		}
		for _, c := range n.nameChanges {
			visit(c.node)
		}
	}
	visit(d.root)
}
