package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// DiffKind is in what respect a path differs between two trees.
type DiffKind string

// The ways in which a path can differ.
const (
	OnlyInA     DiffKind = "only in the first"
	OnlyInB     DiffKind = "only in the second"
	TypeDiff    DiffKind = "type"
	ModeDiff    DiffKind = "mode"
	OwnerDiff   DiffKind = "owner"
	LinkDiff    DiffKind = "link target"
	SizeDiff    DiffKind = "size"
	ContentDiff DiffKind = "content"
)

// treeBlock is the unit in which differing content is reported: the block size of relations.
const treeBlock = 8192

// Difference is one respect in which one path differs. A file may differ in several.
type Difference struct {
	Path         string // relative to the data directories
	Kind         DiffKind
	Detail       string // what was found on either side, in words
	PathA, PathB string // where the two are
	// Blocks are the numbers of all blocks of 8192 bytes that differ within the smaller of the two sizes, ascending.
	// Only for ContentDiff.
	Blocks []int64

	rootA, rootB string
}

func (d Difference) String() string { return fmt.Sprintf("%s: %s: %s", d.Path, d.Kind, d.Detail) }

// Allow is a kind of difference that is expected, with the reason.
type Allow struct {
	Reason string
	Match  func(Difference) (bool, error)
}

// CompareTrees compares two data directories of stopped clusters byte for byte: which paths there are, their types,
// modes, owners, sizes, contents and link targets, through pg_wal and the links in pg_tblspc, too. Link targets that lie
// in each cluster's own directory (the parent of the data directory) count as equal if they are the same from there.
// Times are not compared. It returns the differences that nothing in allow matches, and those that were allowed.
func CompareTrees(a, b string, allow ...Allow) (differences, allowed []Difference, err error) {
	t := &treeComparer{a: filepath.Clean(a), b: filepath.Clean(b), bufA: make([]byte, 1<<20), bufB: make([]byte, 1<<20)}
	if err := t.path(""); err != nil {
		return nil, nil, err
	}
next:
	for _, d := range t.found {
		for _, rule := range allow {
			ok, err := rule.Match(d)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", rule.Reason, err)
			}
			if ok {
				allowed = append(allowed, d)
				continue next
			}
		}
		differences = append(differences, d)
	}
	return differences, allowed, nil
}

// SameTrees fails the test (by Errorf) for every difference between two stopped clusters' data directories that is not
// allowed. It returns those that were.
func SameTrees(tb TB, a, b *Cluster, allow ...Allow) []Difference {
	tb.Helper()
	differences, allowed, err := CompareTrees(a.DataDir(), b.DataDir(), allow...)
	if err != nil {
		tb.Fatalf("pgtest: comparing %s with %s: %v", a.Name, b.Name, err)
	}
	for i, d := range differences {
		if i == 50 {
			tb.Errorf("and %d more differences between %s and %s", len(differences)-i, a.Name, b.Name)
			break
		}
		tb.Errorf("%s and %s differ: %s", a.Name, b.Name, d)
	}
	return allowed
}

type treeComparer struct {
	a, b       string
	bufA, bufB []byte
	found      []Difference
}

func (t *treeComparer) report(path string, kind DiffKind, format string, args ...any) *Difference {
	t.found = append(t.found, Difference{
		Path: path, Kind: kind, Detail: fmt.Sprintf(format, args...),
		PathA: t.resolve(t.a, path), PathB: t.resolve(t.b, path), rootA: t.a, rootB: t.b,
	})
	return &t.found[len(t.found)-1]
}

// path compares what is at a path that exists on both sides, and everything below it.
func (t *treeComparer) path(rel string) error {
	pathA, pathB := t.resolve(t.a, rel), t.resolve(t.b, rel)
	infoA, err := os.Lstat(pathA)
	if err != nil {
		return err
	}
	infoB, err := os.Lstat(pathB)
	if err != nil {
		return err
	}
	if ta, tb := infoA.Mode().Type(), infoB.Mode().Type(); ta != tb {
		t.report(rel, TypeDiff, "%s and %s", typeName(ta), typeName(tb))
		return nil
	}
	isLink := infoA.Mode().Type() == fs.ModeSymlink
	if !isLink { // a link's own mode means nothing
		if infoA.Mode() != infoB.Mode() {
			t.report(rel, ModeDiff, "%s and %s", infoA.Mode(), infoB.Mode())
		}
	}
	if oa, ob := owner(infoA), owner(infoB); oa != ob {
		t.report(rel, OwnerDiff, "%s and %s", oa, ob)
	}
	switch {
	case isLink:
		return t.link(rel, pathA, pathB)
	case infoA.IsDir():
		return t.directory(rel, pathA, pathB)
	case infoA.Mode().IsRegular():
		if infoA.Size() != infoB.Size() {
			t.report(rel, SizeDiff, "%d and %d bytes", infoA.Size(), infoB.Size())
		}
		return t.content(rel, pathA, pathB)
	}
	return nil
}

func (t *treeComparer) directory(rel, pathA, pathB string) error {
	namesA, err := names(pathA)
	if err != nil {
		return err
	}
	namesB, err := names(pathB)
	if err != nil {
		return err
	}
	all := append(namesA, namesB...)
	slices.Sort(all)
	for _, name := range slices.Compact(all) {
		path := strings.TrimPrefix(rel+"/"+name, "/")
		_, errA := os.Lstat(t.resolve(t.a, path))
		_, errB := os.Lstat(t.resolve(t.b, path))
		switch {
		case errA == nil && errB == nil:
			if err := t.path(path); err != nil {
				return err
			}
		case errA == nil && errors.Is(errB, fs.ErrNotExist):
			t.report(path, OnlyInA, "%s", describe(t.resolve(t.a, path)))
		case errB == nil && errors.Is(errA, fs.ErrNotExist):
			t.report(path, OnlyInB, "%s", describe(t.resolve(t.b, path)))
		default:
			return errors.Join(errA, errB)
		}
	}
	return nil
}

// link compares the targets, and goes on behind the links that PostgreSQL follows.
func (t *treeComparer) link(rel, pathA, pathB string) error {
	targetA, err := os.Readlink(pathA)
	if err != nil {
		return err
	}
	targetB, err := os.Readlink(pathB)
	if err != nil {
		return err
	}
	if ownTarget(t.a, targetA) != ownTarget(t.b, targetB) {
		t.report(rel, LinkDiff, "%s and %s", targetA, targetB)
	}
	if rel != "pg_wal" && filepath.Dir(rel) != "pg_tblspc" {
		return nil
	}
	return t.directory(rel, follow(t.a, pathA, targetA), follow(t.b, pathB, targetB))
}

// content reports the blocks that differ, and, if the sizes do, nothing about what only one side has.
func (t *treeComparer) content(rel, pathA, pathB string) error {
	fileA, err := os.Open(pathA)
	if err != nil {
		return err
	}
	defer func() { _ = fileA.Close() }() // only read from
	fileB, err := os.Open(pathB)
	if err != nil {
		return err
	}
	defer func() { _ = fileB.Close() }()
	var blocks []int64
	first := int64(-1)
	for at := int64(0); ; {
		nA, err := readFull(fileA, t.bufA)
		if err != nil {
			return err
		}
		nB, err := readFull(fileB, t.bufB)
		if err != nil {
			return err
		}
		n := min(nA, nB)
		if n == 0 {
			break
		}
		if !bytes.Equal(t.bufA[:n], t.bufB[:n]) {
			for off := 0; off < n; off += treeBlock {
				end := min(off+treeBlock, n)
				x, y := t.bufA[off:end], t.bufB[off:end]
				if bytes.Equal(x, y) {
					continue
				}
				if first < 0 {
					for i := range x {
						if x[i] != y[i] {
							first = at + int64(off+i)
							break
						}
					}
				}
				blocks = append(blocks, (at+int64(off))/treeBlock)
			}
		}
		at += int64(n)
		if nA != nB || n < len(t.bufA) {
			break
		}
	}
	if len(blocks) > 0 {
		d := t.report(rel, ContentDiff, "%d blocks, the first is block %d, its first differing byte is at offset %d of the file",
			len(blocks), blocks[0], first)
		d.Blocks = blocks
	}
	return nil
}

// readFull is io.ReadFull for which the end of the file is no error.
func readFull(r io.Reader, buf []byte) (int, error) {
	n, err := io.ReadFull(r, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// resolve is where a relative path is found, with links of tablespaces understood as the cluster's programs do.
func (t *treeComparer) resolve(root, rel string) string {
	parts := strings.SplitN(rel, "/", 3)
	if len(parts) == 3 && parts[0] == "pg_tblspc" {
		link := filepath.Join(root, parts[0], parts[1])
		if target, err := os.Readlink(link); err == nil {
			return filepath.Join(follow(root, link, target), parts[2])
		}
	}
	return filepath.Join(root, rel)
}

// follow is the directory a link of a cluster leads to.
func follow(root, link, target string) string {
	if rest, ok := strings.CutPrefix(target, privatePrefix); ok {
		return filepath.Join(filepath.Dir(root), "ts", rest)
	}
	if filepath.IsAbs(target) {
		return target
	}
	return filepath.Join(filepath.Dir(link), target)
}

// ownTarget is a link's target in a form that is the same for two clusters if each points into its own directory.
func ownTarget(root, target string) string {
	if rest, ok := strings.CutPrefix(target, filepath.Dir(root)+"/"); ok {
		return "<own directory>/" + rest
	}
	return target
}

func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list := make([]string, len(entries))
	for i, entry := range entries {
		list[i] = entry.Name()
	}
	return list, nil
}

func describe(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	if info.Mode().IsRegular() {
		return fmt.Sprintf("regular file of %d bytes", info.Size())
	}
	return typeName(info.Mode().Type())
}

func typeName(t fs.FileMode) string {
	switch t {
	case 0:
		return "regular file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	default:
		return "special file " + t.String()
	}
}

func owner(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	}
	return "unknown"
}
