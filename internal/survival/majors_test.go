package survival

import (
	"fmt"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestGuardOnMajors tries to start the server of every major on a half-rewound target, at each border, and on the rewound one.
func TestGuardOnMajors(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, major := range pgtest.Majors(t) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := newStage(t, major)
			w := s.smallSeparation()
			s.uninterrupted(w)
			for _, b := range []state{labelled, changing, unlabelled} {
				target, h := s.holdAt(w, b)
				s.refused(w, target)
				s.controlIsReadable(target)
				h.Kill()
				s.goOn(w, target)
				s.asExpected(w, target)
				if b == unlabelled {
					s.starts(w, target)
				}
				target.Remove()
			}
		})
	}
}

// smallSeparation is a failover with next to nothing in it.
func (s *stage) smallSeparation() *way {
	old := s.env.Init("old", pgtest.InitOptions{SegSizeMB: 1, Checksums: true})
	old.Start()
	old.SQL("postgres", "CREATE TABLE after_rewind (i int); CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i")
	source := old.Standby("source")
	source.Start()
	old.WaitReplay(source)
	source.Promote()
	old.SQL("postgres", "UPDATE t SET md5 = 'old' WHERE i % 2 = 0; CREATE TABLE made_by_old AS SELECT 1")
	old.Stop(pgtest.Fast)
	source.SQL("postgres", "UPDATE t SET md5 = 'source' WHERE i % 3 = 0; CREATE TABLE made_by_source AS SELECT 1")
	source.Quiesce()
	s.template = old
	return &way{name: "server", from: pgtest.FromServer(source), source: source, primary: source, live: true}
}

// starts holds that the server starts on a rewound target and streams.
func (s *stage) starts(w *way, target *pgtest.Cluster) {
	target.Follow(w.primary)
	target.Start()
	w.primary.SQL("postgres", "INSERT INTO after_rewind VALUES (1)")
	w.primary.WaitReplay(target)
	pgtest.SameData(s, target, w.primary)
	target.Stop(pgtest.Fast)
}
