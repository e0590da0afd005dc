package pgtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CompareData compares what two running servers hold, and returns the differences in words: databases, and in each of
// them every table, catalog, materialised view and sequence with its number of rows and a hash over them that does not
// depend on their order; large objects are the catalogs pg_largeobject and pg_largeobject_metadata. Temporary tables are
// left out, and unlogged ones if one of the servers is a standby, which cannot read them. Wait for replay first.
func CompareData(a, b *Cluster) []string {
	a.env.tb.Helper()
	var differences []string
	dbsA, dbsB := a.Databases(), b.Databases()
	if !slices.Equal(dbsA, dbsB) {
		differences = append(differences, fmt.Sprintf("databases: %s has %v, %s has %v", a.Name, dbsA, b.Name, dbsB))
	}
	unlogged := !a.InRecovery() && !b.InRecovery()
	for _, db := range dbsA {
		if !slices.Contains(dbsB, db) {
			continue
		}
		sumsA, sumsB := a.tableSums(db, unlogged), b.tableSums(db, unlogged)
		for _, table := range slices.Sorted(maps.Keys(sumsA)) {
			if other, ok := sumsB[table]; !ok {
				differences = append(differences, fmt.Sprintf("database %s: %s has table %s, %s has not", db, a.Name, table, b.Name))
			} else if other != sumsA[table] {
				differences = append(differences, fmt.Sprintf("database %s: table %s: %s has (rows, hashes) %s, %s has %s",
					db, table, a.Name, sumsA[table], b.Name, other))
			}
		}
		for _, table := range slices.Sorted(maps.Keys(sumsB)) {
			if _, ok := sumsA[table]; !ok {
				differences = append(differences, fmt.Sprintf("database %s: %s has table %s, %s has not", db, b.Name, table, a.Name))
			}
		}
	}
	return differences
}

// SameData fails the test (by Errorf) for every difference CompareData finds.
func SameData(tb TB, a, b *Cluster) {
	tb.Helper()
	for _, d := range CompareData(a, b) {
		tb.Errorf("different data: %s", d)
	}
}

// sumsQuery writes one query per relation, which \gexec runs. The sums of two 64-bit hashes of the rows' text need
// neither a sort nor memory, whatever the table's size. The sub-select makes rows of sequences, too, which have no row
// type; of them it takes what is in the WAL: nextval logs up to 32 values ahead (log_cnt, SEQ_LOG_VALS), and a standby
// knows only that. %s is the list of relpersistence to read.
const sumsQuery = `
SELECT format('SELECT %%L, count(*), coalesce(sum(hashtextextended(pgtest_row::text, 0)::numeric), 0), coalesce(sum(hashtextextended(pgtest_row::text, 1)::numeric), 0) FROM (SELECT %%s FROM ONLY %%I.%%I) AS pgtest_row',
              n.nspname || '.' || c.relname,
              CASE WHEN c.relkind = 'S' THEN format('last_value + log_cnt * %%s, is_called', s.seqincrement) ELSE '*' END,
              n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_sequence s ON s.seqrelid = c.oid
WHERE c.relkind IN ('r', 'm', 'S') AND c.relpersistence IN (%s) AND (c.relkind <> 'm' OR c.relispopulated)
ORDER BY 1
\gexec
`

// tableSums maps each relation of a database to "rows|hash|hash".
func (c *Cluster) tableSums(db string, unlogged bool) map[string]string {
	c.env.tb.Helper()
	persistence := "'p'"
	if unlogged {
		persistence = "'p', 'u'"
	}
	sums := map[string]string{}
	for line := range strings.Lines(c.Query(db, fmt.Sprintf(sumsQuery, persistence))) {
		// From the right: a table's name may hold anything, even our separator.
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(fields) < 4 {
			c.env.tb.Fatalf("pgtest: unexpected line %q while hashing the tables of %s", line, c.Name)
		}
		n := len(fields) - 3
		sums[strings.Join(fields[:n], "|")] = strings.Join(fields[n:], "|")
	}
	return sums
}
