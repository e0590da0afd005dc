package crashtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Who has written a line: it begins with one of these.
const (
	byBoth   = "by both:"
	bySource = "by source:"
	byTarget = "by target:"
)

// writer makes the files of source, target, and target after the rewind.
type writer struct {
	rng                     *rand.Rand
	version                 *pg.Version
	source, target, rewound crashfs.Tree

	before, sourceTouched, targetTouched []touch // for the WAL
}

// touch is a block that a WAL record changes.
type touch struct {
	rel   pg.Rel
	block pg.BlockNo
}

func (w *writer) trees() []crashfs.Tree { return []crashfs.Tree{w.source, w.target, w.rewound} }

// place is where a path of the data directory is in a tree.
func place(name string) string {
	if below, ok := strings.CutPrefix(name, "pg_tblspc/"); ok {
		if oid, rest, ok := strings.Cut(below, "/"); ok {
			return "space" + oid + "/" + rest
		}
	}
	return path.Join(DataDir, name)
}

// mkdir makes a directory and those above it.
func (w *writer) mkdir(tree crashfs.Tree, name string) { mkdirs(tree, place(name)) }

func mkdirs(tree crashfs.Tree, at string) {
	for ; at != "."; at = path.Dir(at) {
		tree[at] = crashfs.Node{Mode: fs.ModeDir | 0o700}
	}
}

func (w *writer) file(tree crashfs.Tree, name string, data []byte) {
	at := place(name)
	mkdirs(tree, path.Dir(at))
	tree[at] = crashfs.Node{Mode: 0o600, Data: data}
}

// text is n bytes in lines of 64 that say who wrote them where.
func (w *writer) text(who, name string, n int) []byte {
	const width = 128
	out := bytes.Repeat([]byte(strings.Repeat(" ", width-1)+"\n"), n/width+1)
	for at := 0; at < n; at += width {
		begin := append(append(append(out[at:at], who...), ' '), name[:min(len(name), width-len(who)-10)]...)
		strconv.AppendInt(append(begin, ' '), int64(at/width), 10)
	}
	return out[:n]
}

// both makes a file that is copied whole, of these sizes in bytes; 0: there is none.
func (w *writer) both(name string, source, target int) {
	if source > 0 {
		data := w.text(bySource, name, source)
		if path.Base(name) == "PG_VERSION" {
			data = []byte("15\n")
		}
		w.file(w.source, name, data)
		w.file(w.rewound, name, data)
	}
	if target > 0 {
		w.file(w.target, name, w.text(byTarget, name, target))
	}
}

// tablespace makes one that is at the same place on both machines, and the directory for it on both.
func (w *writer) tablespace(oid pg.Oid, source, target bool) {
	for _, tree := range w.trees() {
		mkdirs(tree, fmt.Sprintf("space%d", oid))
	}
	link := fmt.Sprintf("pg_tblspc/%d", oid)
	node := crashfs.Node{Mode: fs.ModeSymlink, Link: fmt.Sprintf("../../space%d", oid)}
	if source {
		w.source[place(link)], w.rewound[place(link)] = node, node
	}
	if target {
		w.target[place(link)] = node
	}
}

// relation is a relation's main fork. Zero values: database 5, default tablespace.
type relation struct {
	tablespace     pg.Oid
	database       pg.Oid
	number         pg.RelNumber
	source, target pg.BlockNo   // blocks there; 0: no file, unless exists
	exists         bool         // an empty file counts
	touched        []pg.BlockNo // by the target, after the divergence
	ahead          []pg.BlockNo // by the source, after the divergence: replay will bring that
	before         []pg.BlockNo // by both, between the last checkpoint and the divergence; the source changed them again
}

// relation makes a relation's files, and notes what the logs have to say about them.
func (w *writer) relation(r relation) {
	if r.tablespace == 0 {
		r.tablespace = pg.DefaultTablespace
	}
	if r.database == 0 && r.tablespace != pg.GlobalTablespace {
		r.database = 5
	}
	rel := pg.Rel{Tablespace: r.tablespace, Database: r.database, Number: r.number}
	name := pg.RelFile{Rel: rel}.Path(w.version.TablespaceDir)
	both := min(r.source, r.target)
	block := func(who string, b pg.BlockNo) []byte {
		return w.text(who, fmt.Sprintf("%s block %d", name, b), pg.BlockSize)
	}
	var source, target, rewound []byte
	for b := range max(r.source, r.target) {
		inSource, inTarget := block(byBoth, b), block(byBoth, b)
		if b >= r.target || slices.Contains(r.ahead, b) || slices.Contains(r.before, b) {
			inSource = block(bySource, b)
		}
		if b >= r.source || slices.Contains(r.touched, b) {
			inTarget = block(byTarget, b)
		}
		if b < r.source {
			source = append(source, inSource...)
			if b >= both || slices.Contains(r.touched, b) || slices.Contains(r.before, b) {
				rewound = append(rewound, inSource...)
			} else {
				rewound = append(rewound, inTarget...)
			}
		}
		if b < r.target {
			target = append(target, inTarget...)
		}
	}
	if r.source > 0 || r.exists {
		w.file(w.source, name, source)
		w.file(w.rewound, name, rewound)
	}
	if r.target > 0 || r.exists {
		w.file(w.target, name, target)
	}
	note := func(to *[]touch, blocks []pg.BlockNo) {
		for _, b := range blocks {
			*to = append(*to, touch{rel, b})
		}
	}
	note(&w.before, r.before)
	note(&w.sourceTouched, r.ahead)
	note(&w.targetTouched, r.touched)
}
