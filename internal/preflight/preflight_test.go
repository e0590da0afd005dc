package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

func TestNothingToSay(t *testing.T) {
	dir := cluster(t, "base/5/1", "base/5/2", "base/5/3", "old/x", "postgresql.auto.conf")
	problems := check(t, Input{
		TargetDir: dir, TablespaceDir: spcDir, SourceDir: cluster(t, "base/5/1", "base/5/2", "base/5/3", "base/6/9"),
		Plan: actions(
			plan.Action{Path: "base/6", Kind: plan.Create, Type: pg.Directory},
			plan.Action{Path: "base/6/9", Kind: plan.Copy, SourceSize: 8192}, overwrite("base/5/1"), blocks("base/5/2"),
			plan.Action{Path: "base/5/3", Kind: plan.Truncate, TargetSize: 8192}, removal("old/x", pg.RegularFile), removal("old", pg.Directory),
			overwrite("vanished"),
		),
		Replaced: []string{"global/pg_control", "backup_label", "standby.signal", "postgresql.auto.conf"}, Appended: []string{"postgresql.auto.conf"},
		Needs: []Need{{Dir: filepath.Join(dir, "pg_wal"), Bytes: 1 << 20, What: "WAL"}, {Dir: filepath.Join(dir, "../undo"), Bytes: 1 << 20, What: "the undo", AtMost: true}},
	})
	expect(t, lines(problems))
	if err := Join(problems); err != nil {
		t.Error(err)
	}
}

// TestPermissions is run by a user whom permissions stop. What is fixable is fixed, and put back.
func TestPermissions(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	dir := cluster(t, "base/5/1", "base/5/2", "base/5/3", "base/6/1", "base/7/1", "base/8/1", "gone/x", "postgresql.auto.conf")
	source := cluster(t, "base/5/1", "base/5/2", "base/5/3", "base/6/1", "base/7/1", "base/8/1")
	modes := map[string]fs.FileMode{"base/5/1": 0o400, "base/5/2": 0, "base/5/3": 0o444, "base/6": 0o500, "base/7": 0, "base/8": 0o500, "gone": 0o500, "global": 0o500, "postgresql.auto.conf": 0o200}
	for name, mode := range modes {
		must(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	must(t, os.Chmod(filepath.Join(source, "base/8/1"), 0))
	defer func() { // so that it can be removed
		for _, name := range []string{"base/6", "base/7", "base/8", "gone", "global"} {
			must(t, os.Chmod(filepath.Join(dir, name), 0o700))
		}
	}()
	in := Input{
		TargetDir: dir, SourceDir: source, TablespaceDir: spcDir,
		Plan: actions(overwrite("base/5/1"), blocks("base/5/2"), overwrite("base/6/1"), blocks("base/7/1"), blocks("base/8/1"),
			plan.Action{Path: "base/5/3", Kind: plan.Truncate, SourceSize: 0, TargetSize: 8192}, removal("gone/x", pg.RegularFile)),
		Replaced: []string{"global/pg_control", "postgresql.auto.conf"}, Appended: []string{"postgresql.auto.conf"},
	}
	problems := check(t, in)
	expect(t, lines(problems, dir, source),
		`permissions, fixable: could not write to directory "T/base/6": Permission denied`,
		`permissions, fixable: could not open directory "T/base/7": Permission denied`,
		`permissions, fixable: could not write to directory "T/global": Permission denied`,
		`permissions, fixable: could not write to directory "T/gone": Permission denied`,
		`permissions, fixable: could not open target file "T/base/5/1": Permission denied`,
		`permissions, fixable: could not open target file "T/base/5/2": Permission denied`,
		`owners: could not open source file "S/base/8/1": Permission denied`,
		`permissions, fixable: could not open file "T/base/5/3" for truncation: Permission denied`,
		`permissions, fixable: could not open file "T/postgresql.auto.conf" for reading: Permission denied`,
	)
	for name, mode := range modes {
		if got := modeOf(t, filepath.Join(dir, name)); got != mode {
			t.Errorf("Check made %s %v", name, got)
		}
	}
	changed, err := FixPermissions(dir, problems)
	must(t, err)
	if len(changed) != 8 {
		t.Errorf("changed %+v", changed)
	}
	if got := modeOf(t, filepath.Join(dir, "base/5/3")); got != 0o644 {
		t.Errorf("base/5/3 became %v", got)
	}
	expect(t, lines(check(t, in), dir, source), `owners: could not open source file "S/base/8/1": Permission denied`)
	must(t, RestorePermissions(dir, changed))
	for name, mode := range modes {
		if got := modeOf(t, filepath.Join(dir, name)); got != mode {
			t.Errorf("RestorePermissions made %s %v, it was %v", name, got, mode)
		}
	}

	// The data directory itself, and links that are followed.
	wal := filepath.Join(t.TempDir(), "wal")
	fill(t, wal, "000000010000000000000001")
	must(t, os.Remove(filepath.Join(dir, "pg_wal")))
	fill(t, dir, "pg_wal->"+wal)
	must(t, os.Chmod(wal, 0o500))
	must(t, os.Chmod(filepath.Join(wal, "000000010000000000000001"), 0o400))
	must(t, os.Chmod(dir, 0o500))
	in = Input{TargetDir: dir, Plan: actions(overwrite("pg_wal/000000010000000000000001"))}
	problems = check(t, in)
	expect(t, lines(problems, dir),
		`permissions, fixable: could not write to directory "T": Permission denied`,
		`permissions, fixable: could not write to directory "T/pg_wal": Permission denied`,
		`permissions, fixable: could not open target file "T/pg_wal/000000010000000000000001": Permission denied`)
	changed, err = FixPermissions(dir, problems)
	must(t, err)
	if modeOf(t, wal) != 0o700 || modeOf(t, dir) != 0o700 {
		t.Errorf("changed %+v", changed)
	}
	expect(t, lines(check(t, in)))

	must(t, os.Chmod(wal, 0))
	expect(t, lines(check(t, in), dir, wal), `permissions: could not open directory "S": Permission denied`)
	must(t, os.Chmod(wal, 0o700))

	// Files of root. Nothing can be fixed there.
	in = Input{TargetDir: "/", Plan: actions(overwrite("etc/passwd"), removal("etc/hostname", pg.RegularFile))}
	problems = check(t, in)
	expect(t, lines(problems),
		`owners: could not write to directory "/": Permission denied`,
		`owners: could not write to directory "/etc": Permission denied`,
		`owners: could not open target file "/etc/passwd": Permission denied`)
	if changed, err := FixPermissions("/", problems); err != nil || changed != nil {
		t.Errorf("FixPermissions = %v, %v", changed, err)
	}
}

// TestFixPermissionsStaysInside: a link, planted after the check, does not lead it out.
func TestFixPermissionsStaysInside(t *testing.T) {
	dir, out := cluster(t), t.TempDir()
	fill(t, out, "file", "sub/file")
	must(t, os.Chmod(filepath.Join(out, "file"), 0o400))
	must(t, os.Chmod(filepath.Join(out, "sub/file"), 0o400))
	fill(t, dir, "base/5/1->"+filepath.Join(out, "file"), "base/6->"+filepath.Join(out, "sub"))
	for _, rel := range []string{"base/5/1", "base/6/file", "../x", "/etc/passwd"} {
		if _, err := FixPermissions(dir, []Problem{{Kind: Permission, Fixable: true, rel: rel}}); err == nil {
			t.Errorf("%s was fixed", rel)
		}
		if err := RestorePermissions(dir, []ModeChange{{Path: rel, Old: 0o777}}); err == nil {
			t.Errorf("%s was restored", rel)
		}
	}
	for _, name := range []string{"file", "sub/file"} {
		if got := modeOf(t, filepath.Join(out, name)); got != 0o400 {
			t.Errorf("%s is %v", name, got)
		}
	}
}

// TestMounts: a small disk, one without inodes, a read-only one, and one that is mounted where a directory has to go.
func TestMounts(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	dir := cluster(t, "old/")
	small, few, undo := filepath.Join(t.TempDir(), "small"), filepath.Join(t.TempDir(), "few"), filepath.Join(t.TempDir(), "undo")
	mount(t, small, "size=8m")
	mount(t, few, "size=64m,nr_inodes=60")
	mount(t, undo, "size=16m")
	mount(t, filepath.Join(dir, "old"), "size=1m")
	mount(t, filepath.Join(dir, "ro"), "size=1m")
	fill(t, dir, "ro/file", "pg_tblspc/1->"+small, "pg_tblspc/2->"+few, "pg_tblspc/1/"+spcDir+"/", "pg_tblspc/2/"+spcDir+"/")
	must(t, unix.Mount("", filepath.Join(dir, "ro"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))

	grow := func(name string, by int64) plan.Action {
		return plan.Action{Path: name, Kind: plan.CopyTail, Type: pg.RegularFile, SourceSize: 8192 + by, TargetSize: 8192}
	}
	in := Input{TargetDir: dir, TablespaceDir: spcDir, Plan: actions(
		grow("pg_tblspc/1/"+spcDir+"/a", 3<<20), grow("pg_tblspc/1/"+spcDir+"/b", 2<<20),
	)}
	for i := range 30 {
		in.Plan.Actions = append(in.Plan.Actions, plan.Action{Path: "pg_tblspc/2/" + spcDir + "/" + string(rune('a'+i)), Kind: plan.Copy, SourceSize: 1})
	}
	in.Needs = []Need{{Dir: undo, Bytes: 10 << 20, What: "the undo", AtMost: true}}
	expect(t, lines(check(t, in), dir))

	in.Plan.Actions = append(in.Plan.Actions, grow("pg_tblspc/1/"+spcDir+"/c", 2<<20), removal("pg_tblspc/1/"+spcDir+"/d", pg.RegularFile))
	in.Plan.Actions[len(in.Plan.Actions)-1].TargetSize = 100 << 20 // comes too late
	for i := range 30 {
		in.Plan.Actions = append(in.Plan.Actions, plan.Action{Path: "pg_tblspc/2/" + spcDir + "/" + string(rune('A'+i)), Kind: plan.Copy, SourceSize: 1})
	}
	in.Plan.Actions = append(in.Plan.Actions, overwrite("ro/file"), removal("ro/other", pg.RegularFile), removal("old", pg.Directory))
	in.Needs = []Need{{Dir: filepath.Join(undo, "not/yet/there"), Bytes: 20 << 20, What: "the undo", AtMost: true}}
	var left unix.Statfs_t
	must(t, unix.Statfs(few, &left))
	problems := check(t, in)
	expect(t, lines(problems, dir, filepath.Dir(small), undo),
		`read-only file systems: could not write to directory "T/ro": Read-only file system`,
		`read-only file systems: could not open target file "T/ro/file": Read-only file system`,
		`mount points: could not remove directory "T/old": Device or resource busy`,
		`free space: not enough free space for "T/pg_tblspc/1/PG_15_202209061": 9440 kB needed, 8192 kB free`,
		`free space: not enough free inodes for "T/pg_tblspc/2/PG_15_202209061": 60 files and directories will be made, `+fmt.Sprint(left.Ffree)+` inodes are free`,
		`free space, warning: free space for "X" may not be enough: up to 22 MB needed, 16 MB free`)
	err := Join(problems)
	if !errors.Is(err, unix.ENOSPC) || !errors.Is(err, unix.EROFS) {
		t.Errorf("the causes are not in %v", err)
	}

	// A tablespace that is yet to be made is on the file system that its link will lead to.
	must(t, os.Remove(filepath.Join(dir, "pg_tblspc/1")))
	must(t, os.Remove(filepath.Join(small, spcDir)))
	expect(t, lines(check(t, Input{TargetDir: dir, TablespaceDir: spcDir, Plan: actions(
		plan.Action{Path: "pg_tblspc/1", Kind: plan.Create, Type: pg.SymbolicLink, LinkTarget: small},
		plan.Action{Path: "pg_tblspc/1/" + spcDir, Kind: plan.Create, Type: pg.Directory},
		plan.Action{Path: "pg_tblspc/1/" + spcDir + "/x", Kind: plan.Copy, Type: pg.RegularFile, SourceSize: 9 << 20},
	)}), dir, small), `free space: not enough free space for "S": 11 MB needed, 8192 kB free`)
}

// TestClaims: what a listing claims may be any number.
func TestClaims(t *testing.T) {
	dir := cluster(t)
	huge := plan.Action{Path: "base/5/1", Kind: plan.Copy, Type: pg.RegularFile, SourceSize: math.MaxInt64}
	other := huge
	other.Path = "base/5/2"
	problems := check(t, Input{TargetDir: dir, Plan: actions(huge, other), Needs: []Need{{Dir: dir, Bytes: math.MaxInt64, What: "WAL"}}})
	if len(problems) != 1 || problems[0].Kind != Space || problems[0].Warning {
		t.Errorf("%+v", problems)
	}
	problems = check(t, Input{TargetDir: dir, Plan: actions(huge, other)})
	if len(problems) != 1 || problems[0].Kind != Space {
		t.Errorf("%+v", problems)
	}
	long := strings.Repeat("x", 256)
	deep := strings.Repeat("d/", 510) + "f"
	problems = check(t, Input{TargetDir: dir, Plan: actions(overwrite("../x"), overwrite("/etc/passwd"), overwrite("base/../../x"), overwrite(""), overwrite("base/"+long), overwrite(deep))})
	expect(t, lines(problems, dir, long, deep),
		`unsafe paths: target file path is unsafe for open: "../x"`,
		`unsafe paths: target file path is unsafe for open: "/etc/passwd"`,
		`unsafe paths: target file path is unsafe for open: "base/../../x"`,
		`unsafe paths: target file path is unsafe for open: ""`,
		`unsafe paths: could not open target file "T/base/S": File name too long`,
		`unsafe paths: could not open target file "T/X": File name too long`)
}

// TestImmutable needs root and a file system that knows the attribute; what is said about it is tested for all.
func TestImmutable(t *testing.T) {
	dir := cluster(t, "base/5/1", "base/5/2", "base/5/3", "base/5/4", "base/5/5", "base/6/1", "standby.signal")
	in := Input{TargetDir: dir, Replaced: []string{"standby.signal"}, Plan: actions(
		overwrite("base/5/1"), blocks("base/5/2"), overwrite("base/5/5"), overwrite("base/6/2"), removal("base/5/3", pg.RegularFile), removal("base/5/4", pg.RegularFile))}
	if os.Geteuid() == 0 && setFlags(t, filepath.Join(dir, "base/5/1"), unix.STATX_ATTR_IMMUTABLE) {
		for name, flag := range map[string]int{"base/5/2": unix.STATX_ATTR_APPEND, "base/5/3": unix.STATX_ATTR_IMMUTABLE, "base/5/4": unix.STATX_ATTR_APPEND,
			"base/6": unix.STATX_ATTR_IMMUTABLE, "standby.signal": unix.STATX_ATTR_IMMUTABLE} {
			setFlags(t, filepath.Join(dir, name), flag)
		}
		expect(t, lines(check(t, in), dir),
			`immutable files: could not write to directory "T/base/6": Operation not permitted`,
			`immutable files: could not open target file "T/base/5/1": Operation not permitted`,
			`immutable files: could not open target file "T/base/5/2": Operation not permitted`,
			`immutable files: could not remove file "T/base/5/3": Operation not permitted`,
			`immutable files: could not remove file "T/base/5/4": Operation not permitted`,
			`immutable files: could not open target file "T/standby.signal": Operation not permitted`)
	}
	c := &checker{Input: in}
	for flag, st := range map[string]attrs{"chattr -i": {immutable: true, uid: uint32(os.Geteuid())}, "chattr -a": {append: true, uid: uint32(os.Geteuid()), mode: unix.S_IFREG}} {
		p := c.refused(unix.EPERM, "could not open target file \"%s\": %s", "base/5/1", st, true)
		if p.Kind != Immutable || p.Fixable || !strings.Contains(p.Advice, flag) {
			t.Errorf("%s: %+v", flag, p)
		}
	}
}

// setFlags sets an inode flag, whose numbers are those of statx, until the test ends.
func setFlags(t *testing.T, name string, flag int) bool {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	old, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, old|flag)
	}
	if err != nil {
		t.Logf("this file system has no such flags: %v", err)
		return false
	}
	t.Cleanup(func() { must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, old)) })
	return true
}

func TestTablespaces(t *testing.T) {
	dir, spaces := cluster(t), t.TempDir()
	fill(t, spaces, "free/", "used/"+spcDir+"/", "file", "other/PG_14_202107181/")
	link := func(oid, to string) []plan.Action {
		return []plan.Action{
			{Path: "pg_tblspc/" + oid, Kind: plan.Create, Type: pg.SymbolicLink, LinkTarget: to},
			{Path: "pg_tblspc/" + oid + "/" + spcDir, Kind: plan.Create, Type: pg.Directory},
		}
	}
	var p plan.Plan
	for oid, to := range []string{"free", "used", "file", "none", "other"} {
		p.Actions = append(p.Actions, link(string(rune('0'+oid)), filepath.Join(spaces, to))...)
	}
	p.Actions = append(p.Actions, link("5", "relative/path")...)
	expect(t, lines(check(t, Input{TargetDir: dir, TablespaceDir: spcDir, Plan: &p}), dir, spaces),
		`tablespaces: could not create directory "T/pg_tblspc/1/PG_15_202209061": File exists`,
		`tablespaces: could not create directory "T/pg_tblspc/2/PG_15_202209061": Not a directory`,
		`tablespaces: could not create directory "T/pg_tblspc/3/PG_15_202209061": No such file or directory`,
		`tablespaces: target symlink path is unsafe for creation: "pg_tblspc/5"`)
}

func TestTablespaceOfAnother(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	dir := cluster(t)
	expect(t, lines(check(t, Input{TargetDir: dir, TablespaceDir: spcDir, Plan: actions(
		plan.Action{Path: "pg_tblspc/1", Kind: plan.Create, Type: pg.SymbolicLink, LinkTarget: "/etc"},
		plan.Action{Path: "pg_tblspc/1/" + spcDir, Kind: plan.Create, Type: pg.Directory},
	)}), dir), `tablespaces: could not create directory "T/pg_tblspc/1/PG_15_202209061": Permission denied`)
}

func TestSharedDirectories(t *testing.T) {
	spaces := t.TempDir()
	fill(t, spaces, "wal/", "own/"+spcDir+"/", "shared/"+spcDir+"/")
	dir, source := cluster(t), cluster(t)
	for _, d := range []string{dir, source} {
		must(t, os.Remove(filepath.Join(d, "pg_wal")))
		fill(t, d, "pg_wal->"+filepath.Join(spaces, "wal"), "pg_tblspc/1->"+filepath.Join(spaces, "shared"))
	}
	fill(t, dir, "pg_tblspc/2->"+filepath.Join(spaces, "own"))
	list := func(d string) []pg.Entry {
		entries, err := datadir.List(t.Context(), d, 1, nil)
		must(t, err)
		return entries
	}
	in := Input{TargetDir: dir, SourceDir: source, TablespaceDir: spcDir, Target: list(dir), Source: list(source)}
	expect(t, lines(check(t, in), dir, source),
		`directories of both clusters: source and target use the same directory: "S/pg_wal" and "T/pg_wal"`,
		`directories of both clusters: source and target use the same directory: "S/pg_tblspc/1/PG_15_202209061" and "T/pg_tblspc/1/PG_15_202209061"`)
	way := filepath.Join(t.TempDir(), "way")
	must(t, os.Symlink(dir, way))
	expect(t, lines(check(t, Input{TargetDir: dir, SourceDir: way}), dir, way),
		`directories of both clusters: source and target use the same directory: "S" and "T"`)
	fill(t, dir, "inner/global/")
	expect(t, lines(check(t, Input{TargetDir: dir, SourceDir: filepath.Join(way, "inner")}), dir, way),
		`directories of both clusters: directory "S/inner" lies inside "T"`)
	expect(t, lines(check(t, Input{TargetDir: filepath.Join(way, "inner"), SourceDir: dir}), dir, way),
		`directories of both clusters: directory "S/inner" lies inside "T"`)
}

func TestLinks(t *testing.T) {
	out := t.TempDir()
	fill(t, out, "conf", "dir/file")
	dir := cluster(t, "log->"+out, "old->"+out, "postgresql.auto.conf->/dev/null", "standby.signal->"+filepath.Join(out, "conf"),
		"conf.d->"+filepath.Join(out, "dir"), "base/5/1->"+filepath.Join(out, "conf"), "global/pg_control.d/")
	source := cluster(t, "log/today", "base/5/1")
	list := func(d string) []pg.Entry {
		entries, err := datadir.List(t.Context(), d, 1, nil)
		must(t, err)
		return entries
	}
	conf := Input{
		TargetDir: dir, Source: list(source), Target: list(dir),
		Plan:     actions(overwrite("base/5/1"), overwrite("conf.d/file"), removal("old", pg.SymbolicLink)),
		Replaced: []string{"postgresql.auto.conf", "standby.signal", "global/pg_control.d"}, Appended: []string{"postgresql.auto.conf"},
	}
	problems := check(t, conf)
	expect(t, lines(problems, dir),
		`symbolic links: symbolic link leads out of the target: "T/conf.d"`,
		`symbolic links: could not open target file "T/base/5/1": Too many levels of symbolic links`,
		`symbolic links: could not open file "T/postgresql.auto.conf" for reading: it is a symbolic link to "/dev/null"`,
		`symbolic links, warning: symbolic link "T/standby.signal" will be replaced by a file`,
		`types of files: could not rename file "T/global/pg_control.d.fastrewind.tmp" to "T/global/pg_control.d": Is a directory`,
		`symbolic links, warning: symbolic link "T/old" will be removed: the source has nothing of that name`)
	if n := len(Warnings(problems)); n != 2 {
		t.Errorf("%d warnings", n)
	}
	must(t, os.Remove(filepath.Join(dir, "postgresql.auto.conf")))
	fill(t, dir, "postgresql.auto.conf->"+filepath.Join(out, "conf"))
	conf.Plan, conf.Replaced = nil, []string{"postgresql.auto.conf"}
	problems = check(t, conf)
	if len(problems) < 2 || !strings.Contains(problems[1].Advice, "symbolic link to \""+out+"\", in the source a directory") {
		t.Errorf("%+v", problems)
	}
	expect(t, lines(problems, dir),
		`types of files: file "base/5/1" is of different type in source and target`,
		`types of files: file "log" is of different type in source and target`,
		`symbolic links, warning: symbolic link "T/postgresql.auto.conf" will be replaced by a file`)
}

func TestLabel(t *testing.T) {
	dir := cluster(t, "backup_label")
	expect(t, lines(check(t, Input{TargetDir: dir})), `backup_label: target data directory contains "backup_label"`)
	expect(t, lines(check(t, Input{TargetDir: dir, Resuming: true})))
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Check(ctx, Input{TargetDir: cluster(t), Plan: actions(overwrite("x"))}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestJoin(t *testing.T) {
	if err := Join([]Problem{New(Link, "a link").Warn()}); err != nil {
		t.Errorf("of warnings only: %v", err)
	}
	one := Join([]Problem{New(Grant, "permission denied for function %s", "f").At("f").Advise("GRANT it.")})
	if got := advice(one); got != "permission denied for function f\nGRANT it. Nothing was changed." {
		t.Errorf("%q", got)
	}
	problems := []Problem{New(WAL, "no WAL"), New(Link, "x").Warn(), Of(Setting, fault.New("full_page_writes is off").Advise("Turn it on."))}
	for i := range 13 {
		problems = append(problems, New(Owner, "file %d", i).Advise("chown"))
	}
	problems = append(problems, New(Permission, "the first").because(fs.ErrPermission))
	err := Join(problems)
	want := `the first
16 problems were found, and nothing was changed:
permissions:
  the first
owners:
  file 0
  file 1
  file 2
  file 3
  file 4
  file 5
  file 6
  file 7
  file 8
  file 9
  and 3 more
  → chown
settings:
  full_page_writes is off
  → Turn it on.
WAL:
  no WAL`
	if got := advice(err); got != want {
		t.Errorf("%s", got)
	}
	var all *Error
	if !errors.As(err, &all) || len(all.Problems) != 16 || !errors.Is(err, fs.ErrPermission) || !strings.Contains(all.Error(), "16 problems") {
		t.Errorf("%+v", err)
	}
	for k := Permission; k <= Other+1; k++ {
		if k.String() == "" || k < Other && k.String() == Other.String() {
			t.Errorf("kind %d is called %q", k, k)
		}
	}
}
