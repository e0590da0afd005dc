// Package crashtest makes pairs of clusters for tests that need many of them, and judges what was left of one: a source and
// a target that have diverged, small, made in milliseconds without a server. No server would start on them, since they have
// no catalogs; but control files, histories and WAL are right, and every line of every file says who wrote it.
//
//	pair.go     which files the two have, and what a rewind has to make of them
//	writer.go   the files' bytes, for three trees at once
//	log.go      control files, histories and WAL
//	judge.go    whether a tree is a rewound one, and whether a server would start on it
package crashtest

import (
	"fmt"
	"math/rand/v2"

	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// DataDir is where the data directory is in each tree. Its tablespaces are beside it.
const DataDir = "data"

// Pair is a source and a target that have diverged. Both were shut down cleanly. They are of PostgreSQL 15, with WAL
// segments of 1 MiB.
type Pair struct {
	Source, Target crashfs.Tree
	// Rewound is what the target has to be afterwards, but for global/pg_control and backup_label, which are not in it.
	Rewound crashfs.Tree
	// Divergence is the end of the last record both have.
	Divergence pg.LSN
}

// New makes the pair of a seed. All have one of everything a rewind does; how much of it, how large, and on which blocks,
// is the seed's affair. If the seed is odd, the target was promoted, too.
func New(seed uint64) *Pair {
	w := &writer{rng: rand.New(rand.NewPCG(seed, 4)), version: version15()}
	w.source, w.target, w.rewound = crashfs.Tree{}, crashfs.Tree{}, crashfs.Tree{}
	w.everything()
	w.some()
	log := w.log(seed%2 == 1)
	return &Pair{Source: w.source, Target: w.target, Rewound: w.rewound, Divergence: log.divergence}
}

// everything is what all pairs have.
func (w *writer) everything() {
	for _, tree := range w.trees() {
		w.mkdir(tree, "global")
		w.mkdir(tree, "pg_wal/archive_status")
		w.mkdir(tree, "pg_replslot")
		w.mkdir(tree, "pg_stat_tmp")
		w.mkdir(tree, "pg_tblspc")
		w.file(tree, "PG_VERSION", []byte("15\n"))
		w.file(tree, "base/5/PG_VERSION", []byte("15\n"))
	}

	// Relations, one for each thing that can happen.
	w.relation(relation{number: 16384, source: 40, target: 40, touched: []pg.BlockNo{0, 1, 5, 17, 18, 39}, ahead: []pg.BlockNo{5, 6, 38}})
	w.relation(relation{number: 16385, source: 70, target: 10, touched: []pg.BlockNo{2, 9}, ahead: []pg.BlockNo{1}})
	w.relation(relation{number: 16386, source: 7, target: 20, touched: []pg.BlockNo{3, 6, 15}})
	w.relation(relation{number: 16387, source: 3, target: 3, before: []pg.BlockNo{1}})
	w.relation(relation{number: 16388, source: 4, target: 4})                           // nobody changed it
	w.relation(relation{number: 16389, source: 160})                                    // only in the source, in more than one piece
	w.relation(relation{number: 16390, target: 12, touched: []pg.BlockNo{0, 1, 2, 11}}) // only in the target
	w.relation(relation{number: 16391, source: 0, target: 9, exists: true, touched: []pg.BlockNo{8}})
	w.relation(relation{number: 16392, source: 2, target: 0, exists: true})
	w.relation(relation{tablespace: pg.GlobalTablespace, number: 1262, source: 2, target: 2, touched: []pg.BlockNo{1}})

	// A database that only the source has; one that only the target has; and tablespaces, that both have and that only the
	// target has. One that only the source has would have to be at the same path on both machines, and this is one.
	w.relation(relation{database: 16401, number: 1259, source: 33})
	w.both("base/16401/PG_VERSION", 1, 0)
	w.both("base/16401/1259_fsm", 3*pg.BlockSize, 0)
	w.relation(relation{database: 16402, number: 1259, target: 5, touched: []pg.BlockNo{4}})
	w.both("base/16402/PG_VERSION", 0, 1)
	w.tablespace(16500, true, true)
	w.relation(relation{tablespace: 16500, number: 16600, source: 12, target: 12, touched: []pg.BlockNo{0, 7}})
	w.relation(relation{tablespace: 16500, number: 16601, source: 3})
	w.tablespace(16502, false, true)
	w.relation(relation{tablespace: 16502, number: 16603, target: 2, touched: []pg.BlockNo{1}})

	// What is copied whole: longer, shorter, of the same size, new; removed; more than one piece of a copier's.
	w.both("base/5/16384_fsm", 3*pg.BlockSize, 5*pg.BlockSize)
	w.both("base/5/16384_vm", pg.BlockSize, pg.BlockSize)
	w.both("base/5/16389_init", pg.BlockSize, 0)
	w.both("base/5/16390_fsm", 0, 3*pg.BlockSize)
	w.both("pg_xact/0000", 2*pg.BlockSize, pg.BlockSize)
	w.both("pg_multixact/offsets/0000", pg.BlockSize, pg.BlockSize)
	w.both("pg_multixact/members/0000", pg.BlockSize, 2*pg.BlockSize)
	w.both("postgresql.conf", 900, 700)
	w.both("postgresql.auto.conf", 88, 99)
	w.both("conf.d/site/one.conf", 10, 20)
	w.both("conf.d/site/north/two.conf", 20, 0)
	w.both("conf.d/site/south/three.conf", 0, 30)
	w.both("pg_stat/big.stat", 1<<20+300<<10, 400<<10)
	for _, tree := range []crashfs.Tree{w.source, w.rewound} {
		w.file(tree, "empty", nil)
	}
	w.file(w.target, "empty", w.text(byTarget, "empty", 5))

	// What is never copied, and removed where the target has it.
	w.file(w.source, "pg_stat_tmp/global.stat", w.text(bySource, "pg_stat_tmp/global.stat", 100))
	w.file(w.target, "pg_stat_tmp/db_5.stat", w.text(byTarget, "pg_stat_tmp/db_5.stat", 100))
	w.file(w.source, "base/5/pg_internal.init", w.text(bySource, "base/5/pg_internal.init", 100))
	w.file(w.target, "base/5/pg_internal.init", w.text(byTarget, "base/5/pg_internal.init", 100))
	w.file(w.target, "base/5/pgsql_tmp/pgsql_tmp7.0", w.text(byTarget, "pgsql_tmp7.0", 9))
	w.file(w.source, "postmaster.opts", w.text(bySource, "postmaster.opts", 60))
	w.file(w.target, "postmaster.opts", w.text(byTarget, "postmaster.opts", 60))
	w.file(w.source, "pg_replslot/north/state", w.text(bySource, "pg_replslot/north/state", 200))
}

// some is what differs from seed to seed.
func (w *writer) some() {
	pick := func(n pg.BlockNo) (blocks []pg.BlockNo) {
		for b := range n {
			if w.rng.IntN(5) == 0 {
				blocks = append(blocks, b)
			}
		}
		return blocks
	}
	for i := range 2 + w.rng.IntN(4) {
		r := relation{
			number: pg.RelNumber(17000 + i), exists: true,
			source: pg.BlockNo(w.rng.IntN(50)), target: pg.BlockNo(w.rng.IntN(50)),
		}
		switch w.rng.IntN(4) {
		case 0:
			r.target = r.source
		case 1:
			r.tablespace = 16500
		}
		r.touched, r.ahead, r.before = pick(r.target), pick(r.source), pick(min(r.source, r.target)/2)
		w.relation(r)
	}
	for i := range w.rng.IntN(4) {
		size := func() int { return w.rng.IntN(3) * w.rng.IntN(40000) }
		w.both(fmt.Sprintf("dir%d/dir%d/file%d", w.rng.IntN(2), w.rng.IntN(2), i), size(), size())
	}
}
