package plan

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// randomTree lists a data directory as no hand would write it: names chosen so that byte order and directory order
// disagree ("a.b" sorts between "a" and "a/b"), relations, excluded and temporary names, at any depth.
func randomTree(r *rand.Rand) []pg.Entry {
	names := []string{"a", "a.b", "a0", "b", "5", "16384", "16384.1", "16384_vm", "base", "global", "pg_wal", "pg_subtrans",
		"pgsql_tmp", "pgsql_tmp3.1", "backup_label", "PG_VERSION", "pg_internal.init", "000000010000000000000003", "\xff"}
	var out []pg.Entry
	var fill func(prefix string, depth int)
	fill = func(prefix string, depth int) {
		for _, n := range names {
			if r.IntN(3) > 0 {
				continue
			}
			p := prefix + n
			// The type is a function of the path, mostly: else nearly every pair of trees would be refused.
			isDir := (len(p)+int(p[len(p)-1]))%2 == 0
			if r.IntN(400) == 0 {
				isDir = !isDir
			}
			// A server makes no directory of such a name; nor would stock get on with one.
			if _, rel := pg.ParseRelFile(p, spcDir); rel || excluded(p) {
				isDir = false
			}
			switch {
			case isDir && depth < 3:
				out = append(out, dir(p))
				fill(p+"/", depth+1)
			default:
				out = append(out, file(p, r.Int64N(12*block)))
			}
		}
	}
	fill("", 0)
	slices.SortFunc(out, func(a, b pg.Entry) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// TestProperties runs plans of random trees on a model of the target, and looks at every order and bound a copier relies
// on.
func TestProperties(t *testing.T) {
	made := 0
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 15))
		in := Input{Source: randomTree(r), Target: randomTree(r), SegSize: segSize, TablespaceDir: spcDir,
			FirstDivergedSeg: pg.SegNo(r.IntN(6)), MaxGapBlocks: r.IntN(4)}
		blocks := noted{}
		for _, e := range in.Target {
			for b := range uint32(14) {
				if r.IntN(2) == 0 {
					blocks[e.Path] = append(blocks[e.Path], b)
				}
			}
		}
		in.Blocks = blocks
		p, err := Make(in)
		if err != nil {
			if !strings.Contains(err.Error(), "different type") {
				t.Fatalf("seed %d: %v", seed, err)
			}
			continue
		}
		made++
		if err := rehearse(in, p, blocks); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if made < 100 {
		t.Errorf("only %d of the pairs of trees were of matching types; the test shows little", made)
	}
}

// rehearse carries a plan out on a model of the target.
func rehearse(in Input, p *Plan, blocks noted) error {
	target := map[string]pg.Entry{}
	for _, e := range in.Target {
		target[e.Path] = e
	}
	source := map[string]pg.Entry{}
	for _, e := range in.Source {
		source[e.Path] = e
	}
	var copied int64
	seen := map[string]bool{}
	last := Create
	for _, a := range p.Actions {
		if seen[a.Path] {
			return fmt.Errorf("%s has two actions", a.Path)
		}
		seen[a.Path] = true
		if a.Kind < last {
			return fmt.Errorf("%s of %s after %s", a.Kind, a.Path, last)
		}
		last = a.Kind
		have, exists := target[a.Path]
		switch a.Kind {
		case Create, Copy:
			if parent := path.Dir(a.Path); parent != "." && target[parent].Type != pg.Directory {
				return fmt.Errorf("%s of %s before its directory", a.Kind, a.Path)
			}
			if exists && a.Kind == Create {
				return fmt.Errorf("%s exists already", a.Path)
			}
			target[a.Path] = source[a.Path]
		case CopyTail, None, Truncate:
			if !exists {
				return fmt.Errorf("%s of %s, which the target does not have", a.Kind, a.Path)
			}
			target[a.Path] = source[a.Path]
		case Remove:
			if !exists {
				return fmt.Errorf("removal of %s, which the target does not have", a.Path)
			}
			if have.Type == pg.Directory {
				for other := range target {
					if strings.HasPrefix(other, a.Path+"/") {
						return fmt.Errorf("removal of %s before %s", a.Path, other)
					}
				}
			}
			delete(target, a.Path)
		}
		if err := checkSpans(a, in.MaxGapBlocks, blocks[a.Path]); err != nil {
			return fmt.Errorf("%s of %s: %w", a.Kind, a.Path, err)
		}
		for _, s := range a.CopySpans() {
			copied += s.Length
		}
	}
	if copied != p.CopyBytes {
		return fmt.Errorf("copies %d bytes, announced %d", copied, p.CopyBytes)
	}
	// What is left must be the source, without what is never copied.
	for _, e := range in.Source {
		if left, ok := target[e.Path]; !temporary(e.Path) && !excluded(e.Path) && (!ok || left.Type != e.Type || left.Size != e.Size && !strings.HasSuffix(e.Path, "PG_VERSION")) {
			return fmt.Errorf("%s is not as in the source at the end", e.Path)
		}
	}
	for name, e := range target {
		if name == pg.BackupLabelName && e.Type == pg.RegularFile {
			continue // of another procedure
		}
		if _, ok := source[name]; !ok {
			return fmt.Errorf("%s is left over", name)
		}
		if temporary(name) || excluded(name) {
			return fmt.Errorf("%s is excluded, but left", name)
		}
	}
	return nil
}

// checkSpans holds the promises of Action about its spans.
func checkSpans(a Action, maxGap int, noted []uint32) error {
	if len(a.Blocks) > 0 && (a.Kind == Create || a.Kind == Copy || a.Kind == Remove) {
		return fmt.Errorf("has blocks")
	}
	end, covered := int64(-1), map[int64]bool{}
	for _, s := range a.Blocks {
		torn := a.Kind == CopyTail && s.Offset+s.Length == a.TargetSize && a.TargetSize%block != 0
		if s.Length <= 0 || s.Offset%block != 0 || s.Length%block != 0 && !torn {
			return fmt.Errorf("span %v", s)
		}
		if s.Offset <= end || end >= 0 && s.Offset-end <= int64(maxGap)*block && !torn {
			return fmt.Errorf("span at %d after one that ends at %d", s.Offset, end)
		}
		end = s.Offset + s.Length
		if end > a.SourceSize || end > a.TargetSize {
			return fmt.Errorf("span ends at %d, sizes are %d and %d", end, a.SourceSize, a.TargetSize)
		}
		for off := s.Offset; off < end; off += block {
			covered[off/block] = true
		}
	}
	if a.Kind == CopyTail && a.TargetSize%block != 0 && end != a.TargetSize {
		return fmt.Errorf("half a block before %d is left", a.TargetSize)
	}
	if a.Kind == CopyTail || a.Kind == None || a.Kind == Truncate {
		for _, b := range noted {
			if inside := (int64(b)+1)*block <= min(a.SourceSize, a.TargetSize); inside && !covered[int64(b)] {
				return fmt.Errorf("block %d is missing", b)
			}
		}
	}
	end = -1
	for _, s := range a.CopySpans() {
		if s.Length <= 0 || s.Offset <= end || s.Offset+s.Length > a.SourceSize {
			return fmt.Errorf("copy span %v", s)
		}
		end = s.Offset + s.Length
	}
	return nil
}

// FuzzMake feeds hostile listings: any names, any order, any size. A plan or an error, never a panic, and what is planned
// keeps the copier's promises.
func FuzzMake(f *testing.F) {
	f.Add("base/5/1 1 8192\npg_wal 3 0", "base/5/1 1 100\nx 2 0", 3)
	f.Add("pg_wal/000000010000000000000003 1 5", "pg_wal/000000010000000000000003 1 5", 0)
	f.Add(".. 2 -1\n/etc 1 9223372036854775807", "\n", -4)
	f.Fuzz(func(t *testing.T, source, target string, gap int) {
		parse := func(s string) (out []pg.Entry) {
			for _, line := range strings.Split(s, "\n") {
				var e pg.Entry
				var typ uint8
				if _, err := fmt.Sscan(line, &e.Path, &typ, &e.Size); err == nil {
					e.Type = pg.EntryType(typ)
					out = append(out, e)
				}
			}
			return out
		}
		in := Input{Source: parse(source), Target: parse(target), SegSize: segSize, TablespaceDir: spcDir, FirstDivergedSeg: 9, MaxGapBlocks: max(0, min(gap, 100))}
		blocks := noted{}
		for _, e := range in.Target {
			blocks[e.Path] = []uint32{0, 1, 7, 131071}
		}
		in.Blocks = blocks
		p, err := Make(in)
		if err != nil {
			return
		}
		for _, a := range p.Actions {
			if err := checkSpans(a, in.MaxGapBlocks, blocks[a.Path]); err != nil {
				t.Fatalf("%s of %s: %v", a.Kind, a.Path, err)
			}
		}
	})
}

func BenchmarkMake(b *testing.B) {
	const n = 1_000_000
	var list []pg.Entry
	blocks := noted{}
	for i := range n {
		e := file(fmt.Sprintf("base/%d/%d", 1+i/10000, 16384+i%10000), 8*block)
		if i%100 == 0 {
			blocks[e.Path] = []uint32{1, 5}
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b pg.Entry) int { return strings.Compare(a.Path, b.Path) })
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Make(Input{Source: list, Target: list, Blocks: blocks, SegSize: segSize, TablespaceDir: spcDir}); err != nil {
			b.Fatal(err)
		}
	}
}
