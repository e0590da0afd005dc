package plan

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

const (
	spcDir  = "PG_15_202209061"
	segSize = 16 << 20
	block   = pg.BlockSize
)

// noted is a block map written by hand: path to block numbers.
type noted map[string][]uint32

func (n noted) Blocks(f pg.RelFile) iter.Seq[uint32] {
	return slices.Values(n[f.Path(spcDir)])
}

func file(path string, size int64) pg.Entry {
	return pg.Entry{Path: path, Type: pg.RegularFile, Size: size}
}
func dir(path string) pg.Entry { return pg.Entry{Path: path, Type: pg.Directory} }
func link(path, to string) pg.Entry {
	return pg.Entry{Path: path, Type: pg.SymbolicLink, LinkTarget: to}
}

func list(entries ...pg.Entry) []pg.Entry { return entries }

// show writes a plan as one line for each action, in order: "KIND path spans", then what was left out and why.
func show(p *Plan) []string {
	var out []string
	for _, a := range p.Actions {
		line := fmt.Sprintf("%s %s", a.Kind, a.Path)
		if a.LinkTarget != "" {
			line += " -> " + a.LinkTarget
		}
		for _, s := range a.CopySpans() {
			line += fmt.Sprintf(" %d+%d", s.Offset, s.Length)
		}
		out = append(out, line)
	}
	for _, p := range p.KeptWAL {
		out = append(out, "kept "+p)
	}
	for _, p := range p.SkippedWAL {
		out = append(out, "skipped "+p)
	}
	for _, p := range p.Excluded {
		out = append(out, "excluded "+p)
	}
	return out
}

// TestRules has a row for every rule of filemap.c's decision, and for ours.
func TestRules(t *testing.T) {
	const rel = "base/5/16384"
	seg := func(tli pg.TLI, n pg.SegNo) string { return "pg_wal/" + pg.SegmentName(tli, n, segSize) }
	tests := []struct {
		rule           string
		source, target []pg.Entry
		blocks         noted
		keep           string
		gap            int
		want           []string
		err            string
	}{
		{rule: "the control file is left to the end", source: list(file("global/pg_control", 8192)), target: list(file("global/pg_control", 8192))},
		{rule: "the control file is left even if the target has none", source: list(file("global/pg_control", 8192))},
		{rule: "Finder's files are left alone in the source", source: list(file("base/.DS_Store", 9))},
		{rule: "Finder's files are left alone in the target", target: list(file("base/x.DS_Store.y/z", 9))},
		{rule: "Finder's files are left alone even if of two types", source: list(dir(".DS_Store")), target: list(file(".DS_Store", 1))},

		{rule: "an excluded file in the source is not copied", source: list(file("postmaster.pid", 5)), want: []string{"excluded postmaster.pid"}},
		{rule: "an excluded file in the target is removed", target: list(file("postmaster.opts", 5)), want: []string{"REMOVE postmaster.opts", "excluded postmaster.opts"}},
		{rule: "an excluded file in both is removed", source: list(file("tablespace_map", 5)), target: list(file("tablespace_map", 5)), want: []string{"REMOVE tablespace_map", "excluded tablespace_map"}},
		{rule: "backup_label is left to its own procedure", source: list(file("backup_label", 5)), target: list(file("backup_label", 6)), want: []string{"excluded backup_label"}},
		{rule: "but not under another directory", target: list(dir("x"), file("x/backup_label", 6)), want: []string{"REMOVE x/backup_label", "REMOVE x", "excluded x/backup_label"}},
		{rule: "the journal is left alone", source: list(file("fastrewind.journal", 5)), target: list(file("fastrewind.journal", 6))},
		{rule: "what a run was writing is removed and not copied", source: list(file("fastrewind.journal.tmp", 5), file("global/pg_control.fastrewind.tmp", 5)), target: list(file("postgresql.auto.conf.fastrewind.tmp", 6)),
			want: []string{"REMOVE postgresql.auto.conf.fastrewind.tmp", "excluded fastrewind.journal.tmp", "excluded global/pg_control.fastrewind.tmp", "excluded postgresql.auto.conf.fastrewind.tmp"}},
		{rule: "exclusion goes by the last component, in any directory", source: list(file("a/backup_manifest", 5), file("b/tablespace_map", 1), file("current_logfiles.tmp", 1), file("postgresql.auto.conf.tmp", 1)),
			want: []string{"excluded a/backup_manifest", "excluded b/tablespace_map", "excluded current_logfiles.tmp", "excluded postgresql.auto.conf.tmp"}},
		{rule: "exclusion wants the whole name", source: list(file("backup_label.old", 5), file("current_logfiles", 1), file("postmaster.pid.x", 1)),
			want: []string{"COPY backup_label.old 0+5", "COPY current_logfiles 0+1", "COPY postmaster.pid.x 0+1"}},
		{rule: "relation cache files are excluded by prefix", source: list(file("base/5/pg_internal.init", 5), file("base/5/pg_internal.init.123", 5), file("base/5/xpg_internal.init", 5)),
			want: []string{"COPY base/5/xpg_internal.init 0+5", "excluded base/5/pg_internal.init", "excluded base/5/pg_internal.init.123"}},
		{rule: "an excluded directory's contents go, itself stays", source: list(dir("pg_replslot"), file("pg_replslot/a", 1)), target: list(dir("pg_replslot"), dir("pg_replslot/s"), file("pg_replslot/s/state", 1)),
			want: []string{"REMOVE pg_replslot/s/state", "REMOVE pg_replslot/s", "excluded pg_replslot/a", "excluded pg_replslot/s", "excluded pg_replslot/s/state"}},
		{rule: "an excluded directory missing in the target is created", source: list(dir("pg_stat_tmp")), want: []string{"CREATE pg_stat_tmp"}},
		{rule: "all seven excluded directories", source: list(file("pg_dynshmem/a", 1), file("pg_notify/a", 1), file("pg_replslot/a", 1), file("pg_serial/a", 1), file("pg_snapshots/a", 1), file("pg_stat_tmp/a", 1), file("pg_subtrans/a", 1)),
			want: []string{"excluded pg_dynshmem/a", "excluded pg_notify/a", "excluded pg_replslot/a", "excluded pg_serial/a", "excluded pg_snapshots/a", "excluded pg_stat_tmp/a", "excluded pg_subtrans/a"}},
		{rule: "an excluded directory's name deeper down means nothing", source: list(file("base/pg_subtrans/0000", 3)), want: []string{"COPY base/pg_subtrans/0000 0+3"}},
		{rule: "temporary files of the source are not copied, in silence", source: list(dir("base/pgsql_tmp"), file("base/pgsql_tmp/pgsql_tmp1.0", 3))},
		{rule: "temporary files of the target are removed, their directory too", target: list(dir("base/pgsql_tmp"), file("base/pgsql_tmp/pgsql_tmp1.0", 3)),
			want: []string{"REMOVE base/pgsql_tmp/pgsql_tmp1.0", "REMOVE base/pgsql_tmp"}},
		{rule: "a temporary name without a directory is a file like any other", source: list(file("pgsql_tmp", 1)), want: []string{"COPY pgsql_tmp 0+1"}},
		{rule: "an excluded file may be of two types", source: list(dir("postmaster.opts")), target: list(file("postmaster.opts", 1)), want: []string{"REMOVE postmaster.opts", "excluded postmaster.opts"}},

		{rule: "only in the source: a directory is created", source: list(dir("base/7")), want: []string{"CREATE base/7"}},
		{rule: "only in the source: a link is created", source: list(link("pg_tblspc/16400", "/srv/ts")), want: []string{"CREATE pg_tblspc/16400 -> /srv/ts"}},
		{rule: "only in the source: a file is copied whole, blocks or not", source: list(file(rel, 2*block)), blocks: noted{rel: {0}}, want: []string{"COPY base/5/16384 0+16384"}},
		{rule: "only in the source: an empty file is copied too", source: list(file("x", 0)), want: []string{"COPY x"}},
		{rule: "only in the target: removed, blocks or not", target: list(file(rel, 2*block)), blocks: noted{rel: {0}}, want: []string{"REMOVE base/5/16384"}},
		{rule: "only in the target: a link is removed", target: list(link("pg_tblspc/16400", "/srv/ts")), want: []string{"REMOVE pg_tblspc/16400"}},
		{rule: "only in the target: WAL that recovery needs is kept", target: list(file(seg(1, 4), segSize), file(seg(1, 5), segSize)), keep: pg.SegmentName(1, 4, segSize),
			want: []string{"REMOVE " + seg(1, 5), "kept " + seg(1, 4)}},
		{rule: "in both: WAL that recovery needs is copied like any other", source: list(file(seg(1, 11), segSize)), target: list(file(seg(1, 11), segSize)), keep: pg.SegmentName(1, 11, segSize),
			want: []string{fmt.Sprintf("COPY %s 0+%d", seg(1, 11), segSize)}},
		{rule: "a needed segment's name elsewhere is not kept", target: list(file("old/"+pg.SegmentName(1, 4, segSize), segSize)), keep: pg.SegmentName(1, 4, segSize),
			want: []string{"REMOVE old/" + pg.SegmentName(1, 4, segSize)}},

		{rule: "two types", source: list(dir("x")), target: list(file("x", 1)), err: `file "x" is of different type in source and target`},
		{rule: "two types: tablespace in place here, linked there", source: list(dir("pg_tblspc/16400")), target: list(link("pg_tblspc/16400", "/srv")), err: `file "pg_tblspc/16400" is of different type in source and target`},
		{rule: "two types: a version file", source: list(dir("PG_VERSION")), target: list(file("PG_VERSION", 3)), err: `file "PG_VERSION" is of different type in source and target`},
		{rule: "in both: a version file is left", source: list(file("base/5/PG_VERSION", 3)), target: list(file("base/5/PG_VERSION", 4))},
		{rule: "only in the source: a version file is copied", source: list(file("base/5/PG_VERSION", 3)), want: []string{"COPY base/5/PG_VERSION 0+3"}},
		{rule: "in both: a directory is left", source: list(dir("base")), target: list(dir("base"))},
		{rule: "in both: a link is left wherever it points", source: list(link("pg_tblspc/1", "/a")), target: list(link("pg_tblspc/1", "/b"))},
		{rule: "in both: a tablespace in place is a directory like any other", source: list(dir("pg_tblspc/1")), target: list(dir("pg_tblspc/1"))},
		{rule: "pg_wal may be a link on either side: source", source: list(link("pg_wal", "/w")), target: list(dir("pg_wal"))},
		{rule: "pg_wal may be a link on either side: target", source: list(dir("pg_wal")), target: list(link("pg_wal", "/w"))},
		{rule: "pg_wal may be a link on both sides", source: list(link("pg_wal", "/v")), target: list(link("pg_wal", "/w"))},
		{rule: "pg_wal that the target lacks becomes a directory", source: list(link("pg_wal", "/v")), want: []string{"CREATE pg_wal"}},
		{rule: "pg_wal as a file is of another type", source: list(link("pg_wal", "/v")), target: list(file("pg_wal", 1)), err: `file "pg_wal" is of different type in source and target`},

		{rule: "in both: other files are copied whole, whatever their sizes", source: list(file("base/5/16384_fsm", 100), file("global/pg_filenode.map", 524), file("pg_xact/0000", 8192)),
			target: list(file("base/5/16384_fsm", 300), file("global/pg_filenode.map", 524), file("pg_xact/0000", 8192)),
			want:   []string{"COPY base/5/16384_fsm 0+100", "COPY global/pg_filenode.map 0+524", "COPY pg_xact/0000 0+8192"}},
		{rule: "names no server would make are other files", source: list(file("base/5/016384", 8192), file("base/5/16384.0", 8192)), target: list(file("base/5/016384", 8192), file("base/5/16384.0", 8192)),
			want: []string{"COPY base/5/016384 0+8192", "COPY base/5/16384.0 0+8192"}},
		{rule: "a tablespace directory of another major is another cluster's", source: list(file("pg_tblspc/1/PG_14_202107181/5/7", 8192)), target: list(file("pg_tblspc/1/PG_14_202107181/5/7", 8192)),
			want: []string{"excluded pg_tblspc/1/PG_14_202107181/5/7"}},

		{rule: "relation: equal size, no blocks: nothing", source: list(file(rel, 9*block)), target: list(file(rel, 9*block))},
		{rule: "relation: equal size: the blocks", source: list(file(rel, 9*block)), target: list(file(rel, 9*block)), blocks: noted{rel: {1, 3, 4, 8}},
			want: []string{"NONE base/5/16384 8192+8192 24576+16384 65536+8192"}},
		{rule: "relation: shared, in a tablespace, in a later segment file", source: list(file("global/1262", block), file("pg_tblspc/16400/"+spcDir+"/5/7.2", block)), target: list(file("global/1262", block), file("pg_tblspc/16400/"+spcDir+"/5/7.2", block)),
			blocks: noted{"global/1262": {0}, "pg_tblspc/16400/" + spcDir + "/5/7.2": {0}},
			want:   []string{"NONE global/1262 0+8192", "NONE pg_tblspc/16400/" + spcDir + "/5/7.2 0+8192"}},
		{rule: "relation: smaller in the target: the tail", source: list(file(rel, 9*block)), target: list(file(rel, 4*block)), want: []string{"COPY_TAIL base/5/16384 32768+40960"}},
		{rule: "relation: blocks and the tail, apart and adjacent", source: list(file("base/5/1", 9*block), file("base/5/2", 9*block)), target: list(file("base/5/1", 4*block), file("base/5/2", 4*block)),
			blocks: noted{"base/5/1": {0}, "base/5/2": {2, 3, 4, 5}}, want: []string{"COPY_TAIL base/5/1 0+8192 32768+40960", "COPY_TAIL base/5/2 16384+57344"}},
		{rule: "relation: a block torn by the target's end comes with the tail", source: list(file(rel, 3*block)), target: list(file(rel, block+100)), blocks: noted{rel: {0, 1}},
			want: []string{"COPY_TAIL base/5/16384 0+24576"}},
		{rule: "relation: all of a block torn by the target's end comes", source: list(file(rel, 3*block)), target: list(file(rel, 2*block-1)),
			want: []string{"COPY_TAIL base/5/16384 8192+16384"}},
		{rule: "relation: made anew by the target: all segments whole", source: list(file(rel, 3*block), file(rel+".1", block), file("base/5/16385", block)), target: list(file(rel, 4*block), file(rel+".1", block), file("base/5/16385", block)),
			blocks: noted{rel: {1}, rel + ".32767": {0}}, want: []string{"COPY base/5/16384 0+24576", "COPY base/5/16384.1 0+8192"}},
		{rule: "relation: in a database put there anew by the target", source: list(file(rel, block), file("base/6/7", block)), target: list(file(rel, block), file("base/6/7", block)),
			blocks: noted{"base/5/0": {0}}, want: []string{"COPY base/5/16384 0+8192"}},
		{rule: "relation: larger in the target: cut, with the blocks that stay", source: list(file(rel, 2*block)), target: list(file(rel, 4*block)), blocks: noted{rel: {1, 2, 3}},
			want: []string{"TRUNCATE base/5/16384 8192+8192"}},
		{rule: "relation: a block torn by the source's end is cut", source: list(file(rel, 2*block-1)), target: list(file(rel, 4*block)), blocks: noted{rel: {0, 1}},
			want: []string{"TRUNCATE base/5/16384 0+8192"}},
		{rule: "relation: blocks beyond both ends are dropped", source: list(file(rel, block)), target: list(file(rel, block)), blocks: noted{rel: {1, 131071}}},
		{rule: "relation: gaps are read through if asked", source: list(file(rel, 90*block)), target: list(file(rel, 90*block)), blocks: noted{rel: {0, 3, 7}}, gap: 2,
			want: []string{"NONE base/5/16384 0+32768 57344+8192"}},
		{rule: "relation: gaps never reach beyond the end", source: list(file(rel, 3*block)), target: list(file(rel, 9*block)), blocks: noted{rel: {0, 3}}, gap: 9,
			want: []string{"TRUNCATE base/5/16384 0+8192"}},
		{rule: "blocks of a file neither side has are dropped", blocks: noted{rel: {0}}},
		{rule: "a relation in the source must be a file", source: list(dir(rel)), err: `data file "base/5/16384" in source is not a regular file`},
		{rule: "blocks of what is no file in the target", target: list(dir(rel)), blocks: noted{rel: {0}}, err: `unexpected page modification for non-regular file "base/5/16384"`},
		{rule: "no blocks: what is no file in the target is only removed", target: list(dir(rel)), want: []string{"REMOVE base/5/16384"}},
		{rule: "a relation's name as a directory in the target only", source: list(file(rel, block)), target: list(dir(rel)), err: `file "base/5/16384" is of different type in source and target`},

		{rule: "WAL before the divergence is not copied, on any timeline", source: list(file(seg(1, 9), segSize), file(seg(2, 9), segSize)), target: list(file(seg(1, 9), segSize), file(seg(2, 9), segSize)),
			want: []string{"skipped " + seg(1, 9), "skipped " + seg(2, 9)}},
		{rule: "WAL from the divergence on is copied", source: list(file(seg(1, 10), segSize), file(seg(1, 11), segSize)), target: list(file(seg(1, 10), segSize), file(seg(1, 11), segSize)),
			want: []string{fmt.Sprintf("COPY %s 0+%d", seg(1, 10), segSize), fmt.Sprintf("COPY %s 0+%d", seg(1, 11), segSize)}},
		{rule: "WAL of another size is copied", source: list(file(seg(1, 9), segSize)), target: list(file(seg(1, 9), 100)), want: []string{fmt.Sprintf("COPY %s 0+%d", seg(1, 9), segSize)}},
		{rule: "WAL only in the source is copied, however old", source: list(file(seg(1, 9), segSize)), want: []string{fmt.Sprintf("COPY %s 0+%d", seg(1, 9), segSize)}},
		{rule: "what is no segment's name is copied", source: list(file("pg_wal/00000001.history", 9), file("pg_wal/"+pg.SegmentName(1, 9, segSize)+".partial", 9), file("pg_wal/0000000100000000FFFFFFFF", 9), file("pg_wal/archive_status/"+pg.SegmentName(1, 9, segSize), 9)),
			target: list(file("pg_wal/00000001.history", 9), file("pg_wal/"+pg.SegmentName(1, 9, segSize)+".partial", 9), file("pg_wal/0000000100000000FFFFFFFF", 9), file("pg_wal/archive_status/"+pg.SegmentName(1, 9, segSize), 9)),
			want: []string{"COPY pg_wal/00000001.history 0+9", "COPY pg_wal/000000010000000000000009.partial 0+9",
				"COPY pg_wal/0000000100000000FFFFFFFF 0+9", "COPY pg_wal/archive_status/000000010000000000000009 0+9"}},

		{rule: "twice in the source", source: list(file("a", 1), file("a", 2)), err: `duplicate source file "a"`},
		{rule: "twice in the target", target: list(file("a", 1), file("a", 2)), err: `duplicate source file "a"`},
		{rule: "a listing out of order", source: list(file("b", 1), file("a", 2)), err: `listing of the source is not sorted: "a" comes after "b"`},
		{rule: "a size that cannot be", source: list(file("b", -1)), err: `listing of the source gives file "b" a size of -1 bytes`},
		{rule: "a type that cannot be, in one", source: list(pg.Entry{Path: "b"}), err: `unknown file type for "b"`},
		{rule: "a type that cannot be, in both", source: list(pg.Entry{Path: "b"}), target: list(pg.Entry{Path: "b"}), err: `unknown file type for "b"`},

		{rule: "the order: create, copy, copy tail, none, truncate, remove; ascending, removals descending",
			source: list(file("a", 1), file("base/5/1", 2*block), file("base/5/2", block), file("base/5/3", block), dir("base/6"), file("base/6/1", 0), dir("new"), file("z", 1)),
			target: list(file("b", 1), file("base/5/1", block), file("base/5/2", block), file("base/5/3", 2*block), dir("old"), file("old/x", 1), file("old.x", 1)),
			blocks: noted{"base/5/2": {0}}, err: `listing of the target is not sorted: "old.x" comes after "old/x"`},
		{rule: "the order again, sorted",
			source: list(file("a", 1), file("base/5/1", 2*block), file("base/5/2", block), file("base/5/3", block), dir("base/6"), file("base/6/1", 0), dir("new"), file("z", 1)),
			target: list(file("b", 1), file("base/5/1", block), file("base/5/2", block), file("base/5/3", 2*block), dir("old"), file("old.x", 1), file("old/x", 1)),
			blocks: noted{"base/5/2": {0}},
			want: []string{"CREATE base/6", "CREATE new", "COPY a 0+1", "COPY base/6/1", "COPY z 0+1", "COPY_TAIL base/5/1 8192+8192", "NONE base/5/2 0+8192", "TRUNCATE base/5/3",
				"REMOVE old/x", "REMOVE old.x", "REMOVE old", "REMOVE b"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			in := Input{Source: tt.source, Target: tt.target, Blocks: tt.blocks, FirstDivergedSeg: 10, SegSize: segSize, TablespaceDir: spcDir, MaxGapBlocks: tt.gap}
			if tt.keep != "" {
				in.KeepWAL = func(name string) bool { return name == tt.keep }
			}
			p, err := Make(in)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := show(p); !slices.Equal(got, tt.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
		})
	}
}

func TestActionFields(t *testing.T) {
	p, err := Make(Input{
		Source:        list(file("base/5/1", 2*block), link("pg_tblspc/9", "/x")),
		Target:        list(file("base/5/1", block), link("old", "/y"), file("old2", 77)),
		TablespaceDir: spcDir, SegSize: segSize,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Action{
		{Path: "pg_tblspc/9", Kind: Create, Type: pg.SymbolicLink, LinkTarget: "/x"},
		{Path: "base/5/1", Kind: CopyTail, Type: pg.RegularFile, SourceSize: 2 * block, TargetSize: block, PresentSize: block},
		{Path: "old2", Kind: Remove, Type: pg.RegularFile, TargetSize: 77, PresentSize: 77},
		{Path: "old", Kind: Remove, Type: pg.SymbolicLink},
	}
	if !reflect.DeepEqual(p.Actions, want) {
		t.Errorf("got  %+v\nwant %+v", p.Actions, want)
	}
}

func TestTotals(t *testing.T) {
	// As calculate_totals counts: every regular file of the source, excluded or not, into the total; whole files, tails
	// and single blocks into what is copied.
	p, err := Make(Input{
		Source:        list(dir("base"), file("base/5/1", 10*block), file("base/5/2", 2*block), file("base/5/3", 100), file("global/pg_control", 8192), file("postmaster.pid", 50)),
		Target:        list(dir("base"), file("base/5/1", 4*block), file("base/5/2", 4*block), file("global/pg_control", 8192), file("gone", 12345)),
		Blocks:        noted{"base/5/1": {0, 3, 7}, "base/5/2": {1, 2}},
		TablespaceDir: spcDir, SegSize: segSize,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(12*block + 100 + 8192 + 50); p.TotalBytes != want {
		t.Errorf("total %d, want %d", p.TotalBytes, want)
	}
	if want := int64(6*block + 2*block + block + 100); p.CopyBytes != want {
		t.Errorf("to copy %d, want %d", p.CopyBytes, want)
	}
}

func TestDebug(t *testing.T) {
	wal := "pg_wal/" + pg.SegmentName(1, 3, segSize)
	kept := "pg_wal/" + pg.SegmentName(1, 4, segSize)
	p, err := Make(Input{
		Source:  list(file("backup_label", 1), file("base/5/1", 3*block), file("base/5/2", block), file("base/5/3", block), file(wal, segSize)),
		Target:  list(file("base/5/1", 3*block), file("base/5/2", 2*block), file("base/5/3", block), file(wal, segSize), file(kept, segSize), file("x", 1)),
		Blocks:  noted{"base/5/1": {0, 1}, "base/5/2": {0}},
		KeepWAL: func(string) bool { return true }, FirstDivergedSeg: 5,
		TablespaceDir: spcDir, SegSize: segSize,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	p.Debug(func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) })
	want := []string{
		`entry "backup_label" excluded from source file list`,
		`Not removing file "` + kept + `" because it is required for recovery`,
		"base/5/1 (NONE)", "block 0", "block 1",
		wal + " (NONE)",
		"base/5/2 (TRUNCATE)", "block 0",
		"x (REMOVE)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
