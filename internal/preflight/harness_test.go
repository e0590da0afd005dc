package preflight

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// again names the variable that is set in a process which again started.
const again = "PREFLIGHT_TEST_AGAIN"

// isAgain reports whether this process was started for the test that is running. If not, it runs that test, and only it,
// in a process of its own with the attributes given, and waits for it.
func isAgain(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(again) == t.Name() {
		return true
	}
	dir, err := os.MkdirTemp("", "preflight")
	must(t, err)
	defer os.RemoveAll(dir)
	if attr.Credential != nil {
		must(t, os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)))
	}
	var out bytes.Buffer
	// Under this name the child may start the program even if it may not enter the directory that it lies in.
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = "/", &out, &out, attr
	cmd.Env = append(os.Environ(), again+"="+t.Name(), "TMPDIR="+dir)
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("in a process of its own: %v\n%s", err, out.String())
	}
	return false
}

// unprivileged makes sure that the test is not run by root, whom no permission stops.
func unprivileged(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	name := os.Getenv("PGTEST_USER")
	if name == "" {
		name = "postgres"
	}
	u, err := user.Lookup(name)
	must(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	must(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	must(t, err)
	return isAgain(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}})
}

// ownMounts makes sure that the test may mount, and that nobody else sees it.
func ownMounts(t *testing.T) bool {
	t.Helper()
	attr := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	return isAgain(t, attr)
}

func mount(t *testing.T, dir, options string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

const spcDir = "PG_15_202209061"

// cluster is a directory with some files, whose names end with '/' for directories and have "->" for links.
func cluster(t *testing.T, names ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	fill(t, dir, append([]string{"global/", "base/5/", "pg_tblspc/", "pg_wal/", "global/pg_control"}, names...)...)
	return dir
}

func fill(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		name, to, isLink := strings.Cut(name, "->")
		full := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(full, 0o700))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(full), 0o700))
		if isLink {
			must(t, os.Symlink(to, full))
		} else {
			must(t, os.WriteFile(full, make([]byte, 8192), 0o600))
		}
	}
}

func check(t *testing.T, in Input) []Problem {
	t.Helper()
	problems, err := Check(t.Context(), in)
	must(t, err)
	return problems
}

// lines are the problems as "kind[ warning][ fixable]: text", with the directories' names taken out.
func lines(problems []Problem, dirs ...string) []string {
	var out []string
	for _, p := range problems {
		line := p.Kind.String()
		if p.Warning {
			line += ", warning"
		}
		if p.Fixable {
			line += ", fixable"
		}
		line += ": " + p.Text
		for i, dir := range dirs {
			line = strings.ReplaceAll(line, dir, []string{"T", "S", "X"}[i])
		}
		out = append(out, line)
	}
	return out
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("found\n\t%s\nexpected\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func overwrite(name string) plan.Action {
	return plan.Action{Path: name, Kind: plan.Copy, Type: pg.RegularFile, SourceSize: 8192, TargetSize: 8192}
}

func blocks(name string) plan.Action {
	return plan.Action{Path: name, Kind: plan.None, Type: pg.RegularFile, SourceSize: 8192, TargetSize: 8192, Blocks: []plan.Span{{Offset: 0, Length: 8192}}}
}

func removal(name string, kind pg.EntryType) plan.Action {
	return plan.Action{Path: name, Kind: plan.Remove, Type: kind}
}

func actions(a ...plan.Action) *plan.Plan { return &plan.Plan{Actions: a} }

func advice(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Text + "\n" + f.Advice
	}
	return fmt.Sprint(err)
}

func modeOf(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(name)
	must(t, err)
	return info.Mode().Perm()
}
