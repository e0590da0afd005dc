package integration

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestStandardErrorInSource appends what the program says to a file in the source directory, as pg_rewind's own test
// 009_growing_files does. With --debug the plan is told between the listing and the copying, so the file grows, and the run
// must fail with it: under stock's name in stock's words, beside stock. No server starts on what it leaves, and the same
// command goes on once its standard error is elsewhere: the target is what a run leaves that was not disturbed.
func TestStandardErrorInSource(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, major := range pgtest.Majors(t) {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t, scenario{init: pgtest.InitOptions{SegSizeMB: 1}, major: major})
			target, source := r.pair()
			source.Promote()
			target.SQL("postgres", "CREATE TABLE of_the_target AS SELECT generate_series(1, 1000)")
			target.Stop(pgtest.Fast)
			source.SQL("postgres", "CREATE TABLE of_the_source AS SELECT generate_series(1, 1000)")
			source.Stop(pgtest.Fast)
			for _, c := range []*pgtest.Cluster{target, source} {
				r.env.WriteFile(c.Path(growing), []byte("as it was\n"), 0o600)
			}
			r.growingSource(target, source)
		})
	}
}

// growing is a file of both sides that PostgreSQL knows nothing about.
const growing = "growing.txt"

func (r *rehearsal) growingSource(target, source *pgtest.Cluster) {
	complaint := `pg_rewind: error: size of source file "` + source.Path(growing) + `" changed concurrently: N bytes expected, N copied`
	if r.major < 15 {
		complaint = strings.Replace(complaint, "error", "fatal", 1)
	}
	if r.env.HasStock() && r.major >= 15 { // older ones copy what they have listed, and do not look whether there is more
		r.step("stock")
		stock := target.Copy("stock")
		status, said, _ := r.rewindInto(source, stock, r.env.Bin("pg_rewind"))
		if status != 1 || lastLine(said) != complaint {
			r.Errorf("stock ends with exit status %d and not with %q:\n%s", status, complaint, said)
		}
		r.remove(stock)
	}

	r.step("undisturbed")
	undisturbed := target.Copy("undisturbed")
	undisturbed.MustRewind(r.bin.Fastrewind, pgtest.FromDir(source), "--debug")

	const exitResumable = 4
	for _, run := range []struct {
		name, program string
		status        int
	}{
		{"pg_rewind", r.bin.PgRewind, 1},
		{"fastrewind", r.bin.Fastrewind, exitResumable},
	} {
		r.step("%s", run.name)
		ours := target.Copy("ours-" + run.name)
		status, said, copied := r.rewindInto(source, ours, run.program)
		if status != run.status || !strings.Contains(copied, growing+" (COPY)\n") {
			r.Errorf("it ends with exit status %d, not %d, or has told the plan too late to copy it; it has said\n%sand copied\n%s",
				status, run.status, said, copied)
		}
		if run.name == "pg_rewind" && lastLine(said) != complaint {
			r.Errorf("it does not end with %q:\n%s", complaint, said)
		}

		r.step("%s, half rewound", run.name)
		if err := ours.TryStart(); err == nil {
			r.Fatalf("a server could be started on a half-rewound target")
		}
		res := ours.MustRewind(run.program, pgtest.FromDir(source), "--debug")
		if run.name == "fastrewind" && !strings.Contains(res.Stderr, "going on with it") {
			r.Errorf("it does not go on: %s", res)
		}
		r.nothingBeside(ours)
		r.step("%s, same trees", run.name)
		pgtest.SameTrees(r, ours, undisturbed, append(pgtest.RewindDifferences(false), pgtest.AllowPath(growing, "it has grown"))...)
		r.remove(ours)
	}
}

// rewindInto rewinds with standard error at the end of the source's file. It returns what has come there, without numbers of
// bytes, and how much of the file was there when it was copied, by the number in the complaint.
func (r *rehearsal) rewindInto(source, target *pgtest.Cluster, program string) (status int, said, copied string) {
	path := source.Path(growing)
	before := len(read(r, path))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer func() { _ = file.Close() }() // nothing was written through it here
	args := []string{"--target-pgdata", target.DataDir(), "--source-pgdata", source.DataDir(), "--debug"}
	res := r.env.Exec(pgtest.Cmd{Path: program, Args: args, Cluster: target, Stderr: file})
	now := string(read(r, path))
	if number := bytesCopied.FindStringSubmatch(now[before:]); number != nil {
		if n, err := strconv.Atoi(number[2]); err == nil && n <= len(now) {
			copied = now[min(n, before):n]
		}
	}
	return res.ExitCode, bytesCopied.ReplaceAllString(now[before:], "N bytes expected, N copied"), copied
}

var bytesCopied = regexp.MustCompile(`(\d+) bytes expected, (\d+) copied`)

func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
