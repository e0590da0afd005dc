package archivelive

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

// damaged is the byte of an object in which a bit flips: within the compressed data of every segment, and within a record
// of one that is not compressed, which the server's own checksum of the object tells.
const damaged = 30000

// testFlips damages one segment in the archive, for each codec. With a restore_command behind, that gives it; without, the
// rewind ends before it touches anything, and names segment and archive.
func (w *world) testFlips(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what, prefix string
		nth          int // of the missing segments: its number decides on the codec
	}{
		{"zst", "plain", 0},
		{"lz4", "plain", 1},
		{"no codec", "barman/" + server, 0},
		{"gz", "barman/" + server, 1},
		{"bz2", "barman/" + server, 2},
		{"pgBackRest, gz", "pgbackrest", 0},
		{"pgBackRest, lz4", "pgbackrest", 1},
		{"pgBackRest, zst", "pgbackrest", 2},
		{"pgBackRest, encrypted gz", "encrypted", 0},
		{"pgBackRest, encrypted lz4", "encrypted", 1},
		{"pgBackRest, encrypted zst", "encrypted", 2},
	} {
		name := w.missing[tt.nth]
		c := w.copy("flip")
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			proxy := w.broken(t, func(r s3test.Request, _ int) *s3test.Fault {
				if r.Get() && strings.Contains(r.Key, "/"+name) && !strings.Contains(r.Key, ".partial") {
					return s3test.Flip(damaged)
				}
				return nil
			})
			env, args := w.through(proxy, tt.prefix)
			w.mustFail(t, c, env, args, name)
			w.mustUse(t, c, env, args)
			remove(t, c)
		})
	}
}

// mustUse rewinds with a restore_command behind an archive that is damaged.
func (w *world) mustUse(t *testing.T, c *pgtest.Cluster, env, args []string) {
	t.Helper()
	w.setRestoreCommand(c, fmt.Sprintf(`cp %s/%%f "%%p"`, w.orig))
	res := w.rewind(t, c, env, append(args, "--restore-target-wal")...)
	if res.ExitCode != 0 {
		t.Fatalf("%s", res)
	}
	w.sameAsReference(t, c)
}

// testWrongSegments puts a whole, valid segment into the archive under the name of another.
func (w *world) testWrongSegments(t *testing.T) {
	t.Parallel()
	other := w.env.Init("other", pgtest.InitOptions{SegSizeMB: segSize >> 20})
	segment := func(name string) []byte { return read(t, filepath.Join(w.orig, name)) }
	at := w.missing[1]
	tests := []struct {
		what string
		name string // whose place it takes
		data []byte
	}{
		{"another system", at, otherSystem(t, segment(at), other)},
		{"another timeline", w.missing[3], segment("00000002" + w.missing[3][8:])},
		{"another position", at, segment(w.missing[2])},
		{"the position before", w.missing[2], segment(at)},
		{"zeros", at, make([]byte, segSize)},
		{"half", at, segment(at)[:segSize/2]},
		{"twice", at, append(segment(at), segment(at)...)},
		{"nothing", at, []byte{}},
	}
	for i, tt := range tests {
		c := w.copy("wrong")
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			prefix := fmt.Sprintf("wrong-%d", i)
			w.s3.CopyTree(bucket, prefix, w.orig)
			w.s3.Delete(bucket, prefix+"/"+tt.name)
			w.s3.Put(bucket, prefix+"/"+tt.name, tt.data)
			env, args := w.explicit(prefix)
			w.mustFail(t, c, env, args, tt.name)
			w.mustUse(t, c, env, args)
			remove(t, c)
		})
	}
	w.testContents(t, segment)
	w.testWrongNeeded(t, segment, other)
}

// testContents puts segments into the archive whose first page is right, and whose records are not: that is found when they
// are read, and before anything is touched.
func (w *world) testContents(t *testing.T, segment func(string) []byte) {
	flipped := segment(w.missing[1])
	flipped[damaged] ^= 0x10
	for i, tt := range []struct {
		what, name string
		data       []byte
		want       string
	}{
		// As an archiver leaves it that overwrites what is there.
		{"the end of the standby's", w.fork, segment(w.fork + ".partial"), "could not find previous WAL record"},
		{"a bit that flipped before the server made its checksum", w.missing[1], flipped, "checksum"},
	} {
		c := w.copy("contents")
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			prefix := fmt.Sprintf("contents-%d", i)
			w.s3.CopyTree(bucket, prefix, w.orig)
			w.s3.Delete(bucket, prefix+"/"+tt.name)
			w.s3.Put(bucket, prefix+"/"+tt.name, tt.data)
			env, args := w.explicit(prefix)
			w.mustFail(t, c, env, args, tt.want)
			remove(t, c)
		})
	}
}

// testWrongNeeded does the same to a segment that the target never had, and that the rewound server will replay: it is
// missing afterwards, with a warning that names it, and no other is in its place.
func (w *world) testWrongNeeded(t *testing.T, segment func(string) []byte, other *pgtest.Cluster) {
	at := w.needed[1]
	flipped := segment(at)
	flipped[damaged] ^= 0x10
	for i, tt := range []struct {
		what string
		data []byte
	}{
		{"another system", otherSystem(t, segment(at), other)},
		{"another position", segment(w.needed[2])},
		{"half", segment(at)[:segSize/2]},
		{"a flipped bit", flipped},
	} {
		c := w.copy("needed")
		t.Run("needed later: "+tt.what, func(t *testing.T) {
			t.Parallel()
			prefix := fmt.Sprintf("needed-%d", i)
			w.s3.CopyTree(bucket, prefix, w.orig)
			w.s3.Delete(bucket, prefix+"/"+at)
			w.s3.Put(bucket, prefix+"/"+at, tt.data)
			env, args := w.explicit(prefix)
			res := w.rewind(t, c, env, args...)
			if res.ExitCode != 0 || !strings.Contains(complaints(res.Stderr), at) {
				t.Errorf("a warning that names %s was expected: %s", at, res)
			}
			if exists(c.Path("pg_wal", at)) {
				t.Errorf("%s was taken", at)
			}
			remove(t, c)
		})
	}
}

// otherSystem is a segment as it would be of another cluster: the identifier is in the first page's header, at offset 24
// (xlog_internal.h), and no checksum is over it.
func otherSystem(t *testing.T, data []byte, other *pgtest.Cluster) []byte {
	t.Helper()
	control, err := os.ReadFile(other.Path("global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	copy(data[24:32], control[:8]) // pg_control begins with it
	return data
}
