package survival

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// ownFiles gives a stopped server files that are not like the other's: three that PostgreSQL knows nothing about, and settings.
func (s *stage) ownFiles(c *pgtest.Cluster, whose string) {
	for _, name := range []string{"site.txt", "more.txt", "notes.txt"} {
		s.env.WriteFile(c.Path(name), fmt.Appendln(nil, name, whose), 0o600)
	}
	c.AppendConf("# " + whose)
}

// keepsOwn kills rewinds half-way that keep files of the target's own, or do not, and goes on with other options. What earlier
// ones may have overwritten cannot be kept any more: that is refused, and changes nothing.
func (s *stage) keepsOwn(w *way) {
	for _, tt := range []struct {
		what    string
		first   []string   // the options of the run that is killed
		refused [][]string // of those that come then
		last    []string   // of the one that finishes
		own     []string   // what the target keeps
	}{
		{
			what:    "asked for too late",
			refused: [][]string{{"--keep-config"}, {"--keep=site.txt"}, {"--exclude=site.txt"}, {"--keep-config", "--dry-run"}},
		},
		{
			what:    "the same again",
			first:   []string{"--keep-config", "--keep=site.txt", "--exclude=more.txt"},
			refused: [][]string{{"--keep-config", "--keep=site.txt", "--exclude=more.txt", "--keep=notes.txt"}, {"--exclude=site.txt"}},
			last:    []string{"--keep-config", "--keep=site.txt", "--exclude=more.txt"},
			own:     []string{"site.txt", "more.txt", "postgresql.conf", "postgresql.auto.conf"},
		},
		{
			what:    "less than before",
			first:   []string{"--keep=site.txt", "--keep=more.txt"},
			refused: [][]string{{"--keep-config", "--keep=more.txt"}},
			last:    []string{"--keep=more.txt"},
			own:     []string{"more.txt"},
		},
	} {
		target, h := s.holdAt(w, changing, tt.first...)
		h.Kill()
		before := target.Copy(target.Name + "-before")
		for _, args := range tt.refused {
			s.ends(s.rewind(w, target, args...), nil, exitResumable, "any more: the interrupted rewind was begun without that")
			pgtest.SameTrees(s, target, before)
		}
		before.Remove()
		s.refused(w, target)
		s.goOn(w, target, tt.last...)
		s.asExpectedBut(w, target, tt.own)
		if s.Failed() {
			s.Fatalf("%s", tt.what)
		}
		if tt.what == "the same again" {
			s.sound(w, target)
			if w.live {
				s.uninterrupted(w)
			}
		}
		target.Remove()
	}
}

// asExpectedBut is asExpected but for files that are the target's own, and are not what the source has.
func (s *stage) asExpectedBut(w *way, target *pgtest.Cluster, own []string) {
	s.Helper()
	allow := pgtest.RewindDifferences(w.live)
	for _, name := range own {
		allow = append(allow, pgtest.AllowPath(name, "the target's own"))
	}
	seen := pgtest.SameTrees(s, target, w.expected, allow...)
	for _, name := range own {
		now, err := os.ReadFile(target.Path(name))
		if err != nil {
			s.Fatalf("%v", err)
		}
		was, err := os.ReadFile(s.template.Path(name))
		if err != nil {
			s.Fatalf("%v", err)
		}
		differs := slices.ContainsFunc(seen, func(d pgtest.Difference) bool { return d.Path == name })
		if !bytes.Equal(now, was) || !differs {
			s.Errorf("%s was\n%sand is\n%sand is what the source has: %v", name, was, now, !differs)
		}
	}
}
