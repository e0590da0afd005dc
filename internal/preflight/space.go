package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

const (
	// allocation is what file systems give out at least, and what a directory takes.
	allocation = 4096
	// inodeMargin is for temporary files, the journal and whatever else is few.
	inodeMargin = 16
)

// margin is kept free beyond what is needed: metadata, and what the source's files grow until they are copied.
func margin(need int64) int64 { return sum(2<<20, need/32) }

// volume is one file system that will be written to.
type volume struct {
	path   string // on it
	first  int    // order of finding
	copy   int64  // bytes by which the plan grows it
	needs  []Need
	inodes uint64
}

// space looks whether each file system has room for what will be written to it. Files are overwritten in place, and so
// only growth counts; what is cut off or removed does not, since that comes after all copying. Quotas are not seen.
func (c *checker) space(ctx context.Context) error {
	volumes := map[uint64]*volume{}
	devices := map[string]*volume{} // by directory, relative to the target
	spaces := map[string]string{}   // where the tablespaces will be that are not there yet, by path of the link
	at := func(full string) *volume {
		dev, where, err := device(full)
		if err != nil {
			return nil
		}
		v := volumes[dev]
		if v == nil {
			v = &volume{path: where, first: len(volumes)}
			volumes[dev] = v
		}
		return v
	}
	for i := range c.Plan.Actions {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		a := &c.Plan.Actions[i]
		bytes, inodes := growth(a)
		if bytes == 0 && inodes == 0 {
			continue
		}
		if a.Kind == plan.Create && a.Type == pg.SymbolicLink && spaceLink(a.Path) {
			spaces[a.Path] = a.LinkTarget
		}
		dir := path.Dir(a.Path)
		v, known := devices[dir]
		if !known {
			v = at(c.where(dir, spaces))
			devices[dir] = v
		}
		if v == nil {
			continue // other checks say why
		}
		v.copy = sum(v.copy, bytes)
		v.inodes += inodes
	}
	for _, n := range c.Needs {
		if n.Bytes <= 0 {
			continue
		}
		if v := at(n.Dir); v != nil {
			v.needs = append(v.needs, n)
		}
	}
	for _, v := range slices.SortedFunc(maps.Values(volumes), func(a, b *volume) int { return cmp.Compare(a.first, b.first) }) {
		c.room(v)
	}
	return nil
}

// where is a directory of the target, if need be by the link to it that is yet to be made.
func (c *checker) where(dir string, spaces map[string]string) string {
	parts := strings.SplitN(dir, "/", 3)
	if len(parts) >= 2 {
		if to, found := spaces[parts[0]+"/"+parts[1]]; found {
			return filepath.Join(to, strings.Join(parts[2:], "/"))
		}
	}
	return c.full(dir)
}

// growth is how many bytes and inodes one action takes.
func growth(a *plan.Action) (bytes int64, inodes uint64) {
	present := max(a.TargetSize, a.PresentSize) // an interrupted run may have copied some of it already
	switch a.Kind {
	case plan.Create:
		return allocation, 1
	case plan.Copy:
		if present == 0 {
			inodes = 1 // or an empty file is there already
		}
		return allocated(a.SourceSize - present), inodes
	case plan.CopyTail:
		return allocated(a.SourceSize - present), 0
	default:
		return 0, 0
	}
}

func allocated(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return sum(n, allocation-1) / allocation * allocation
}

// sum does not overflow: listings may claim any size.
func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// device is the file system that full is on, or will be once it is made, and the path that says so.
func device(full string) (dev uint64, where string, err error) {
	for {
		st, err := stat(full, true)
		if err == nil {
			return st.dev, full, nil
		}
		up := filepath.Dir(full)
		if !errors.Is(err, fs.ErrNotExist) || up == full {
			return 0, "", err
		}
		full = up
	}
}

// room compares one file system's need with what it has.
func (c *checker) room(v *volume) {
	var fsinfo unix.Statfs_t
	if err := unix.Statfs(v.path, &fsinfo); err != nil {
		c.found(Of(Space, fault.Because(err, "could not get the free space of \"%s\": %s", v.path, fault.M(err))).At(v.path).Warn())
		return
	}
	free := freeBytes(&fsinfo)
	certain, most := v.copy, v.copy
	for _, n := range v.needs {
		most = sum(most, n.Bytes)
		if n.AtMost {
			certain = sum(certain, n.Bytes/4)
		} else {
			certain = sum(certain, n.Bytes)
		}
	}
	if most > 0 && sum(most, margin(most)) > free {
		p := New(Space, "not enough free space for \"%s\": %s needed, %s free", v.path, size(sum(most, margin(most))), size(free)).
			At(v.path).because(unix.ENOSPC).Advise("%s", v.breakdown(most))
		if sum(certain, margin(certain)) <= free {
			p.Text = fmt.Sprintf("free space for \"%s\" may not be enough: up to %s needed, %s free", v.path, size(sum(most, margin(most))), size(free))
			p.Warning = true
		}
		c.found(p)
	}
	if fsinfo.Files > 0 && v.inodes > 0 && v.inodes+inodeMargin > uint64(fsinfo.Ffree) {
		c.found(New(Space, "not enough free inodes for \"%s\": %d files and directories will be made, %d inodes are free",
			v.path, v.inodes, fsinfo.Ffree).At(v.path).because(unix.ENOSPC).
			Advise("The file system has room for bytes, but not for so many more files. Remove small files from it."))
	}
}

// freeBytes leaves out what is reserved for root, unless that is who we are.
func freeBytes(st *unix.Statfs_t) int64 {
	blocks := uint64(st.Bavail)
	if os.Geteuid() == 0 {
		blocks = st.Bfree
	}
	unit := uint64(st.Bsize)
	if unit == 0 || blocks > math.MaxInt64/unit {
		return math.MaxInt64
	}
	return int64(blocks * unit)
}

func (v *volume) breakdown(most int64) string {
	text := "Copying makes files grow by " + size(v.copy)
	for _, n := range v.needs {
		atMost := ""
		if n.AtMost {
			atMost = " at most"
		}
		text += fmt.Sprintf("; %s takes %s%s", n.What, size(n.Bytes), atMost)
	}
	return text + fmt.Sprintf("; %s are to stay free. What the rewind removes is removed last, and does not help. Make room on that file system.",
		size(margin(most)))
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	default:
		return fmt.Sprintf("%d kB", (n+1023)>>10)
	}
}
