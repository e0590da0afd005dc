package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// mustBeDone checks what success means by itself: nothing of the rewind is left.
func (r *round) mustBeDone(target *pgtest.Cluster, res *pgtest.Result) {
	if _, err := os.Lstat(target.Path("fastrewind.journal")); !errors.Is(err, fs.ErrNotExist) {
		r.Fatalf("a journal is left (%v): %s", err, res)
	}
}

// judge starts the rewound target as a standby of the primary, compares their data, and leaves both running.
func (r *round) judge(target *pgtest.Cluster, from source) {
	primary := from.primary
	if from.dir {
		primary.Start()
		if r.spare != nil {
			r.spare.Start()
		}
	}
	r.thaw()
	target.Follow(primary)
	if err := target.TryStart(); err != nil {
		r.Fatalf("the rewound server does not start: %v", err)
	}
	r.loads(primary, r.rng.IntN(2))
	primary.FlushWAL()
	primary.WaitStreaming(target)
	primary.WaitReplay(target)
	for _, d := range pgtest.CompareData(primary, target) {
		r.Errorf("different data: %s", d)
	}
	if r.Failed() {
		r.Fatalf("the rewound server has other data")
	}
	if r.oneIn(3) {
		target.AmCheck()
	}
	target.Stop(pgtest.Fast)
	if r.checksums {
		target.Checksums()
	}
	if s := r.spare; s != nil {
		if !s.Running() {
			s.Start()
		}
		s.SQL("postgres", "SELECT pg_wal_replay_resume()")
	}
	target.Start()
	primary.WaitReplay(target)
	r.primary, r.standby = primary, target
}

// undo puts a target back as it was.
func (r *round) undo(target, before *pgtest.Cluster, dir string) {
	r.done.undone++
	r.say("undone")
	r.env.MustExec(pgtest.Cmd{
		Path: r.program, Args: []string{"undo", "--target-pgdata", target.DataDir(), "--from", dir}, Cluster: target, Timeout: sessionTime,
	})
	pgtest.SameTrees(r, before, target)
	if r.Failed() {
		r.Fatalf("undo has not put the target back")
	}
}
