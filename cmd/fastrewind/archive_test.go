package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/ulikunitz/xz"

	"github.com/fastrewind/fastrewind/internal/crashtest"
	"github.com/fastrewind/fastrewind/internal/rewind"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

const (
	seg10 = "000000010000000000000010"
	seg13 = "000000010000000000000013"
)

// walArchives unpacks archives that the real tools wrote.
func walArchives(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := walFixtures()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "bucket")
}

var walFixtures = sync.OnceValues(func() (map[string][]byte, error) {
	f, err := os.Open("../../archive/codec/testdata/wal-archives.tar.xz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	x, err := xz.NewReader(f)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for in := tar.NewReader(x); ; {
		h, err := in.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if files[filepath.Clean(h.Name)], err = io.ReadAll(in); err != nil {
				return nil, err
			}
		}
	}
})

// archiveCall runs "fastrewind archive" in the test.
func archiveCall(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	_, got := inProcess(t, env, append([]string{"fastrewind", "archive"}, args...)...)
	return got
}

func TestArchiveLs(t *testing.T) {
	dir := filepath.Join(walArchives(t), "plain", "zst")
	want := fmt.Sprintf(`plain archive %s: from --wal-archive
PostgreSQL 15, system identifier 7710433884157629511, WAL segments of 1 MB
timeline 1
  000000010000000000000010 to 000000010000000000000013  4 segments, 1947 bytes, zstd
  000000010000000000000012.00000028.backup  label of a base backup, 196 bytes, zstd
  000000010000000000000013.partial  partial segment, 189 bytes, zstd
timeline 2, forked off timeline 1 at 0/13000F0
  000000020000000000000013  1 segment, 352 bytes, zstd
5 segments on 2 timelines; 8 objects, 2738 bytes
`, dir)
	said := fmt.Sprintf("fastrewind: WAL is looked for in plain archive %s: from --wal-archive\n", dir)
	got := archiveCall(t, nil, "ls", "--wal-archive="+dir)
	if got != (result{want, said, 0}) {
		t.Errorf("got %+v\nwant %s", got, want)
	}
	if byEnv := archiveCall(t, map[string]string{"FASTREWIND_WAL_ARCHIVE": dir}, "ls"); byEnv != got {
		t.Errorf("by the environment: %+v", byEnv)
	}
	if err := os.Remove(filepath.Join(dir, "000000010000000000000011.zst")); err != nil {
		t.Fatal(err)
	}
	got = archiveCall(t, nil, "ls", "--wal-archive="+dir)
	if !strings.Contains(got.stdout, "\n  missing: 000000010000000000000011  1 segment\n") || !strings.Contains(got.stdout, "timelines, 1 missing in between;") {
		t.Errorf("a gap: %+v", got)
	}
	got = archiveCall(t, nil, "ls", "--long", "--wal-archive="+dir)
	if n := strings.Count(got.stdout, "\n"); n != 7 || !strings.Contains(got.stdout, "zstd         "+dir+"/00000002.history.zst\n") {
		t.Errorf("long: %+v", got)
	}
	for _, flag := range []string{"--json", "--log-format=json"} {
		got = archiveCall(t, map[string]string{"FASTREWIND_LOG_FORMAT": "text"}, "ls", flag, "--wal-archive="+dir)
		var kinds []string
		for line := range strings.Lines(got.stdout) {
			var o struct{ Type, First string }
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			kinds = append(kinds, o.Type)
		}
		want := []string{"archive", "timeline", "range", "gap", "range", "backup", "partial", "timeline", "range", "total"}
		if !slices.Equal(kinds, want) || !strings.HasPrefix(got.stderr, "{") {
			t.Errorf("%s: %q, %s", flag, kinds, got.stderr)
		}
	}
}

// TestArchiveLsWithoutKey: what cannot be decrypted is listed all the same.
func TestArchiveLsWithoutKey(t *testing.T) {
	dir := filepath.Join(walArchives(t), "walg", "sodium")
	got := archiveCall(t, nil, "ls", "--wal-archive="+dir, "--wal-segsize=1")
	if got.status != 0 || !strings.Contains(got.stdout, seg10+" to "+seg13) || !strings.Contains(got.stdout, "its history cannot be read") {
		t.Errorf("%+v", got)
	}
	got = archiveCall(t, nil, "ls", "--wal-archive="+dir)
	if got.status != 0 || !strings.Contains(got.stderr, "16 MB are assumed") {
		t.Errorf("%+v", got)
	}
}

func TestArchiveGet(t *testing.T) {
	dir := filepath.Join(walArchives(t), "walg", "lz4")
	to := filepath.Join(t.TempDir(), "segment")
	got := archiveCall(t, nil, "get", "--wal-archive="+dir, seg10, to)
	data, err := os.ReadFile(to)
	if err != nil || got.status != 0 || len(data) != 1<<20 || !strings.Contains(got.stderr, "wrote \""+to+"\", 1048576 bytes, from "+dir) {
		t.Errorf("%+v, %d bytes, %v", got, len(data), err)
	}
	out := archiveCall(t, nil, "get", "--wal-archive="+dir, seg10, "-")
	if out.status != 0 || out.stdout != string(data) {
		t.Errorf("%d bytes, %s", len(out.stdout), out.stderr)
	}
	if again := archiveCall(t, nil, "get", "--wal-archive="+dir, seg10, to); again.status != 1 || !strings.Contains(again.stderr, "is there already") {
		t.Errorf("%+v", again)
	}
	if again := archiveCall(t, nil, "get", "--force", "--wal-archive="+dir, seg10, filepath.Dir(to)); again.status != 0 {
		t.Errorf("%+v", again)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(to), seg10)); err != nil {
		t.Error(err)
	}
}

func TestArchiveCheck(t *testing.T) {
	dir := filepath.Join(walArchives(t), "barman", "gz")
	got := archiveCall(t, nil, "check", "--wal-archive="+dir, seg10, "000000020000000000000013")
	want := "000000010000000000000010 to 000000020000000000000013, 4 segments\n" +
		"PostgreSQL 15, system identifier 7710433884157629511, WAL segments of 1 MB\n" +
		"4 segments read, 4096 kB, 60 records; 0 problems\n"
	if got.status != 0 || got.stdout != want {
		t.Errorf("%+v", got)
	}
	if got := archiveCall(t, nil, "check", "-P", "--archive-jobs=3", "--wal-archive="+dir, seg10, seg13); !strings.Contains(got.stderr, "fetching WAL: 4096 kB in ") {
		t.Errorf("progress: %+v", got)
	}
	got = archiveCall(t, nil, "check", "--wal-archive="+dir, "--system-id=7", seg10, seg13)
	if got.status != 1 || strings.Count(got.stdout, "different database system") != 4 {
		t.Errorf("another system: %+v", got)
	}
	got = archiveCall(t, nil, "check", "--wal-archive="+dir, "00000001000000000000000E", "000000010000000000000014", "--log-format=json")
	var problems []string
	for line := range strings.Lines(got.stdout) {
		var o struct{ Type, Kind, First, Last string }
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if o.Type == "problem" {
			problems = append(problems, o.Kind+" "+o.First+" "+o.Last)
		}
	}
	if want := []string{
		"missing 00000001000000000000000E 00000001000000000000000F", "missing 000000010000000000000014 000000010000000000000014",
	}; got.status != 1 || !slices.Equal(problems, want) {
		t.Errorf("missing: %q, %+v", problems, got)
	}
	for line := range strings.Lines(got.stderr) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

// TestArchiveCheckTarget: with -D alone, the range is that of a rewind.
func TestArchiveCheckTarget(t *testing.T) {
	pair := crashtest.New(2)
	dir, archive := t.TempDir(), t.TempDir()
	if err := pair.Target.Write(dir); err != nil {
		t.Fatal(err)
	}
	for path, node := range pair.Source {
		if name := filepath.Base(path); strings.HasSuffix(name, ".history") {
			if err := os.WriteFile(filepath.Join(archive, name), node.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	target := filepath.Join(dir, crashtest.DataDir)
	got := archiveCall(t, nil, "check", "--wal-archive="+archive, "--wal-archive-layout=plain", "-D", target)
	if got.status != 0 || !strings.Contains(got.stdout, "forked off at "+pair.Divergence.String()) || !strings.Contains(got.stdout, "from pg_wal") {
		t.Errorf("%+v", got)
	}
}

// TestArchiveS3: the three commands against a real server, and that no secret is said.
func TestArchiveS3(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	server := s3test.Start(t, s3test.Options{TLS: true})
	server.NewBucket("wal")
	server.CopyTree("wal", "pgbr", filepath.Join(walArchives(t), "pgbackrest", "zst"))
	server.CopyTree("wal", "walg", filepath.Join(walArchives(t), "walg", "lz4"))
	for _, v := range server.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	for _, prefix := range []string{"pgbr", "walg"} {
		args := []string{
			"--wal-archive=s3://wal/" + prefix, "--s3-endpoint=" + server.URL, "--s3-region=" + server.Region, "--s3-path-style",
			"--s3-ca-file=" + server.CAFile,
		}
		ls := archiveCall(t, nil, append([]string{"ls"}, args...)...)
		if ls.status != 0 || !strings.Contains(ls.stdout, "5 segments on 2 timelines; 8 objects") {
			t.Errorf("%s: %+v", prefix, ls)
		}
		long := archiveCall(t, nil, append([]string{"ls", "--long"}, args...)...)
		if strings.Count(long.stdout, "s3://wal/"+prefix+"/") != 8 {
			t.Errorf("%s: %+v", prefix, long)
		}
		if get := archiveCall(t, nil, append([]string{"get", seg10, "-"}, args...)...); get.status != 0 || len(get.stdout) != 1<<20 {
			t.Errorf("%s: %d bytes, %s", prefix, len(get.stdout), get.stderr)
		}
		check := archiveCall(t, nil, append([]string{"check", seg10, "000000020000000000000013"}, args...)...)
		if check.status != 0 || !strings.Contains(check.stdout, "4 segments read, 4096 kB, 60 records; 0 problems") {
			t.Errorf("%s: %+v", prefix, check)
		}
		t.Setenv("AWS_SECRET_ACCESS_KEY", "WRONGSECRET")
		wrong := archiveCall(t, nil, append([]string{"ls", "--debug"}, args...)...)
		if wrong.status != 1 || !strings.Contains(wrong.stderr, "error: ") || strings.Contains(wrong.stderr, "WRONGSECRET") {
			t.Errorf("%s, wrong secret: %+v", prefix, wrong)
		}
		t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	}
}

func TestArchiveMistakes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ line, want string }{
		{"", "error: no command specified\n"},
		{"rm", "error: there is no command \"archive rm\"\n"},
		{"ls", "error: no archive specified (--wal-archive)\n"},
		{"ls x --wal-archive=" + dir, "error: "},
		{"ls --bogus", "error: unknown flag: --bogus\nfastrewind: hint: Try \"fastrewind archive ls --help\""},
		{"ls --wal-segsize=3", "error: argument of --wal-segsize must be a power of two"},
		{"ls --system-id=0", "error: invalid system identifier \"0\""},
		{"ls --archive-jobs=0", "error: --archive-jobs must be in range"},
		{"ls --log-format=xml", "error: unrecognized log format: xml\n"},
		{"get --wal-archive=" + dir, "error: expected are the name of a WAL file"},
		{"check --wal-archive=" + dir + " x", "error: expected are the first and the last segment"},
		{"check --wal-archive=" + dir + " --timeline=0 x y", "error: invalid timeline"},
		{"ls --wal-archive=" + dir + "/none", "error: "},
	} {
		got := archiveCall(t, nil, strings.Fields(c.line)...)
		if got.status != 1 || !strings.Contains(got.stderr, "fastrewind: "+c.want) || strings.Count(got.stderr, "error: ") != 1 || got.stdout != "" {
			t.Errorf("%s: %+v", c.line, got)
		}
	}
}

// TestArchiveHelp: the help and the flags are the same list, in lines of at most 95 columns.
func TestArchiveHelp(t *testing.T) {
	p := &process{
		stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), now: time.Now,
		run: func(context.Context, rewind.Config, rewind.Reporter) error { return nil },
	}
	root := p.archiveCommand(program{path: "fastrewind", name: "fastrewind"})
	for _, c := range append([]*cobra.Command{root}, root.Commands()...) {
		if c.Hidden {
			continue
		}
		args := []string{c.Name(), "--help"}
		if c == root {
			args = []string{"--help"}
		}
		got := archiveCall(t, nil, args...)
		if got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, "fastrewind archive ") {
			t.Errorf("%s: %+v", c.Name(), got)
		}
		for line := range strings.Lines(got.stdout) {
			if len(line) > 96 || strings.Contains(line, "%!") {
				t.Errorf("%s: %s", c.Name(), line)
			}
		}
		if c == root {
			continue
		}
		in := map[string]bool{}
		for line := range strings.Lines(got.stdout) {
			if rest := strings.TrimPrefix(line, "  "); len(rest) > 6 && rest[4:6] == "--" {
				name, _, _ := strings.Cut(rest[6:], " ")
				name, _, _ = strings.Cut(strings.TrimSpace(name), "=")
				in[name] = true
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !in[f.Name] && f.Name != "archive-jobs" {
				t.Errorf("%s: --%s is not in the help", c.Name(), f.Name)
			}
			delete(in, f.Name)
		})
		if len(in) > 0 {
			t.Errorf("%s: the help has %v", c.Name(), in)
		}
	}
}
