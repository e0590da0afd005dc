package main

import (
	"fmt"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// manyFiles is about so many files at full scale, of which one in a hundred is changed, with little WAL: tables of a row with
// their indexes, in databases that are copies of one. Listing both sides and looking at each file is the work.
func manyFiles(full int) *fixture {
	return &fixture{
		name:      fmt.Sprintf("%d files", full),
		littleWAL: true,
		load:      func(p *pgtest.Cluster, s scale) { filesAt(full, s).make(p) },
		diverge: func(old, promoted *pgtest.Cluster, s scale) {
			f := filesAt(full, s)
			f.change(old, 0)
			f.change(promoted, 1)
		},
	}
}

// files is how many files there are, and in how many databases.
type files struct{ databases, tables int } // in each database; each table is two files: itself and its index

// A new database has so many files of its own: its catalogs.
const catalogFiles = 300

// filesAt is the shape of a cluster of so many files at full scale. Real clusters that large have many databases.
func filesAt(full int, s scale) files {
	const tables = 1000
	n := int(float64(full) * s.partOfFull())
	f := files{databases: n / (2*tables + catalogFiles), tables: tables}
	if f.databases < 2 {
		f = files{databases: 2, tables: max(50, (n/2-catalogFiles)/2)}
	}
	return f
}

// make makes one database and copies it, file by file: no WAL for each page. Before 15 there was no other way.
func (f files) make(p *pgtest.Cluster) {
	p.SQL("postgres", "CREATE DATABASE d0")
	p.SQL("d0", fmt.Sprintf(`
DO $$
BEGIN
	FOR i IN 0..%d LOOP
		EXECUTE format('CREATE TABLE t%%s (id int PRIMARY KEY, v int)', i);
		EXECUTE format('INSERT INTO t%%s VALUES (1, 0)', i);
		IF i %% 500 = 0 THEN
			COMMIT; -- each table needs locks until then
		END IF;
	END LOOP;
END $$;
CHECKPOINT;`, f.tables-1))
	strategy := ""
	if p.Env().Major >= 15 {
		strategy = "STRATEGY file_copy"
	}
	for i := 1; i < f.databases; i++ {
		p.SQL("postgres", fmt.Sprintf("CREATE DATABASE d%d TEMPLATE d0 %s", i, strategy))
	}
}

// change updates the row of every hundredth table, beginning with one of them: a page of the table, and one of the index,
// where the new version is another entry since its key changes, too.
func (f files) change(c *pgtest.Cluster, first int) {
	for i := range f.databases {
		c.SQL(fmt.Sprintf("d%d", i), fmt.Sprintf(`
DO $$
BEGIN
	FOR i IN %d..%d BY 100 LOOP
		EXECUTE format('UPDATE t%%s SET id = id + 1, v = v + 1', i);
	END LOOP;
END $$;`, first, f.tables-1))
	}
	c.Checkpoint()
}
