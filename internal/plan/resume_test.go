package plan

import (
	"fmt"
	"slices"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// TestInterrupted: what an interrupted run has left decides together with what was there before.
func TestInterrupted(t *testing.T) {
	const path = "base/5/16384"
	const seg = "pg_wal/000000010000000000000002"
	for _, c := range []struct {
		rule           string
		source, target int64            // blocks now; -1: absent
		original       map[string]int64 // blocks; -1: absent
		copied         bool
		noted          []uint32
		want           []string
	}{
		{"a tail that was begun is copied from the original end", 10, 10, map[string]int64{path: 4}, false, []uint32{1}, []string{"COPY_TAIL " + path + " 1+1 4+6"}},
		{"however far it came", 10, 7, map[string]int64{path: 4}, false, nil, []string{"COPY_TAIL " + path + " 4+6"}},
		{"a tail longer than the source is now", 6, 10, map[string]int64{path: 4}, false, []uint32{1, 5}, []string{"TRUNCATE " + path + " 1+1 4+2"}},
		{"a tail and no more of it in the source", 4, 10, map[string]int64{path: 4}, false, []uint32{1, 5}, []string{"TRUNCATE " + path + " 1+1"}},
		{"shorter than ever", 3, 10, map[string]int64{path: 4}, false, []uint32{1, 3}, []string{"TRUNCATE " + path + " 1+1"}},
		{"a file cut to the source's size, and the source has grown", 8, 5, map[string]int64{path: 9}, false, []uint32{6}, []string{"COPY_TAIL " + path + " 5+3"}},
		{"a file that was made is copied whole", 10, 10, map[string]int64{path: -1}, false, []uint32{1}, []string{"COPY " + path + " 0+10"}},
		{"and removed if the source has it no more", -1, 10, map[string]int64{path: -1}, false, nil, []string{"REMOVE " + path}},
		{"made and complete", 10, 10, map[string]int64{path: -1}, true, []uint32{1}, nil},
		{"complete, but not there any more", 10, -1, map[string]int64{path: -1}, true, nil, []string{"COPY " + path + " 0+10"}},
		{"blocks and tail complete", 10, 10, map[string]int64{path: 4}, true, []uint32{1}, nil},
		{"complete, and the source has grown", 12, 10, map[string]int64{path: 4}, true, []uint32{1}, nil},
		{"complete, and the source has shrunk", 8, 10, map[string]int64{path: 4}, true, []uint32{1}, []string{"TRUNCATE " + path}},
		{"blocks complete, not yet cut", 8, 10, nil, true, []uint32{1}, []string{"TRUNCATE " + path}},
		{"blocks copied, not cut, and the source has grown back", 9, 9, nil, false, []uint32{1, 6}, []string{"NONE " + path + " 1+1 6+1"}},
		{"untouched", 10, 10, nil, false, []uint32{1, 2}, []string{"NONE " + path + " 1+2"}},
	} {
		in := Input{TablespaceDir: "PG_15_202209061", SegSize: 16 << 20, FirstDivergedSeg: 5, Blocks: noted{path: c.noted}}
		for _, side := range []struct {
			blocks int64
			list   *[]pg.Entry
		}{{c.source, &in.Source}, {c.target, &in.Target}} {
			if side.blocks >= 0 {
				*side.list = []pg.Entry{file(path, side.blocks*block)}
			}
		}
		in.Original = func(p string) (int64, bool) {
			n, ok := c.original[p]
			if n > 0 {
				n *= block
			}
			return n, ok
		}
		in.Copied = func(string, int64) bool { return c.copied }
		p, err := Make(in)
		if err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if got := describe(p); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.rule, got, c.want)
		}
	}

	// A WAL segment before the divergence that an interrupted run was copying has its full size early.
	in := Input{
		SegSize: 16 << 20, FirstDivergedSeg: 5,
		Source: []pg.Entry{file(seg, 16<<20)}, Target: []pg.Entry{file(seg, 16<<20)},
		Original: func(p string) (int64, bool) { return -1, p == seg },
	}
	p, err := Make(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Actions) != 1 || p.Actions[0].Kind != Copy || p.Actions[0].Path != seg {
		t.Errorf("a half-copied WAL segment: %q", describe(p))
	}
}

// describe is a plan with spans counted in blocks.
func describe(p *Plan) []string {
	var out []string
	for i := range p.Actions {
		a := &p.Actions[i]
		line := a.Kind.String() + " " + a.Path
		for _, s := range a.CopySpans() {
			line += fmt.Sprintf(" %d+%d", s.Offset/block, s.Length/block)
		}
		out = append(out, line)
	}
	return out
}
