package crashtest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// The control files decode, say what they should, and the WAL they point to is there.
func TestControlFiles(t *testing.T) {
	for seed := range uint64(4) {
		p := New(seed)
		for side, tree := range map[string]crashfs.Tree{"source": p.Source, "target": p.Target} {
			c, err := pg.DecodeControl(tree[controlFile].Data)
			if err != nil {
				t.Fatalf("seed %d, %s: %v", seed, side, err)
			}
			if !c.State.CleanlyShutDown() || c.SegSize != segSize || !c.WALLogHints || c.ChecksumVersion != 1 || c.Version.Major != 15 {
				t.Errorf("seed %d, %s: %+v", seed, side, c)
			}
			name := pg.SegmentName(c.TLI, c.CheckPoint.Seg(segSize), segSize)
			if n := tree[DataDir+"/pg_wal/"+name]; len(n.Data) != segSize {
				t.Errorf("seed %d, %s: %s has %d bytes", seed, side, name, len(n.Data))
			}
			if c.CheckPoint <= p.Divergence {
				t.Errorf("seed %d, %s: no WAL of its own", seed, side)
			}
			history, err := pg.ParseHistory(tree[DataDir+"/pg_wal/"+pg.HistoryName(c.TLI)].Data, c.TLI)
			if err != nil || c.TLI > 1 && history[0].End != p.Divergence {
				t.Errorf("seed %d, %s: %v, %v", seed, side, history, err)
			}
			if err := Startable(tree); err != nil {
				t.Errorf("seed %d, %s: %v", seed, side, err)
			}
		}
	}
}

// Nothing the target wrote is left after a rewind, and everything but blocks that replay brings is the source's.
func TestRewoundTree(t *testing.T) {
	for seed := range uint64(4) {
		p := New(seed)
		lines := func(tree crashfs.Tree, who string) (n int) {
			for _, node := range tree {
				n += bytes.Count(node.Data, []byte(who+" "))
			}
			return n
		}
		if n := lines(p.Rewound, byTarget); n > 0 {
			t.Errorf("seed %d: %d lines of the target's are left", seed, n)
		}
		if lines(p.Target, byTarget) == 0 || lines(p.Source, bySource) == 0 || lines(p.Rewound, bySource) == 0 || lines(p.Source, byTarget) > 0 {
			t.Errorf("seed %d: nothing to do", seed)
		}
		if again := New(seed); again.Source.Diff(p.Source) != nil || again.Target.Diff(p.Target) != nil || again.Rewound.Diff(p.Rewound) != nil {
			t.Errorf("seed %d does not give the same pair again", seed)
		}
	}
}

// finished is a rewound tree, as far as the judges look.
func finished(p *Pair) crashfs.Tree {
	t := crashfs.Tree{}
	for name, n := range p.Rewound {
		t[name] = n
	}
	label := pg.BackupLabel{Redo: 2 * segSize, Checkpoint: 2 * segSize, TLI: 1, SegSize: segSize, Method: "x", From: "y"}
	t[labelFile] = crashfs.Node{Mode: 0o600, Data: label.Encode()}
	t[controlFile] = p.Source[controlFile]
	return t
}

func TestJudges(t *testing.T) {
	p := New(0)
	rewound := finished(p)
	if d := p.CheckRewound(rewound); d != nil {
		t.Errorf("CheckRewound: %q", d)
	}
	if d := p.CheckRewound(p.Target); d == nil {
		t.Error("the target as it was is taken for a rewound one")
	}
	edit := func(tree crashfs.Tree, name string, n *crashfs.Node) crashfs.Tree {
		tree = WithoutOwn(tree) // a copy
		if n == nil {
			delete(tree, name)
		} else {
			tree[name] = *n
		}
		return tree
	}
	half := edit(p.Target, DataDir+"/base/5/16384", &crashfs.Node{Mode: 0o600, Data: p.Source[DataDir+"/base/5/16384"].Data})
	guarded := append([]byte(nil), p.Target[controlFile].Data...)
	guarded[11] ^= 0x3b
	notALabel := crashfs.Node{Mode: 0o600, Data: []byte("half rewound\n")}
	for what, c := range map[string]struct {
		tree crashfs.Tree
		good bool
	}{
		"untouched":             {p.Target, true},
		"with a journal":        {edit(p.Target, DataDir+"/fastrewind.journal", &notALabel), true},
		"finished":              {rewound, true},
		"with a temporary file": {edit(rewound, controlFile+".fastrewind.tmp", &notALabel), true},
		"half":                  {half, false},
		"no control file":       {edit(half, controlFile, nil), true},
		"guarded control file":  {edit(half, controlFile, &crashfs.Node{Mode: 0o600, Data: guarded}), true},
		"guarding label":        {edit(half, labelFile, &notALabel), true},
		"real label":            {edit(half, labelFile, &crashfs.Node{Mode: 0o600, Data: rewound[labelFile].Data}), false},
		"label missing":         {edit(rewound, labelFile, nil), false},
		"control file too late": {edit(rewound, DataDir+"/postgresql.conf", nil), false},
	} {
		if d := p.CheckGuard(c.tree, rewound); (d == nil) != c.good {
			t.Errorf("%s: %q", what, d)
		}
	}
}

// Only times may differ.
func TestTimeless(t *testing.T) {
	p := New(0)
	a := finished(p)
	c, err := pg.DecodeControl(a[controlFile].Data)
	if err != nil {
		t.Fatal(err)
	}
	later := func(change func(*pg.Control), label func(string) string) []string {
		b, d := WithoutOwn(a), *c
		change(&d)
		b[controlFile] = crashfs.Node{Mode: 0o600, Data: d.Encode()}
		b[labelFile] = crashfs.Node{Mode: 0o600, Data: []byte(label(string(a[labelFile].Data)))}
		return Timeless(b).Diff(Timeless(a))
	}
	same := func(s string) string { return s }
	if d := later(func(c *pg.Control) { c.Time = c.Time.Add(1 << 40) }, func(s string) string {
		return s[:strings.Index(s, "START TIME")] + "START TIME: some other\n"
	}); d != nil {
		t.Errorf("times: %q", d)
	}
	if d := later(func(c *pg.Control) { c.MinRecoveryPoint++ }, same); len(d) != 1 {
		t.Errorf("minRecoveryPoint: %q", d)
	}
	if d := later(func(*pg.Control) {}, func(s string) string { return strings.Replace(s, "x", "z", 1) }); len(d) != 1 {
		t.Errorf("method: %q", d)
	}
	broken := WithoutOwn(a)
	data := slices.Clone(a[controlFile].Data)
	data[offTime]++
	broken[controlFile] = crashfs.Node{Mode: 0o600, Data: data}
	if err := Startable(broken); err == nil || errors.Unwrap(err) == nil {
		t.Errorf("Startable: %v", err)
	}
	if d := Timeless(broken).Diff(Timeless(a)); len(d) != 1 {
		t.Errorf("a wrong checksum: %q", d)
	}
}
