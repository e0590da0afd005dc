package trouble

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// pageSize is BLCKSZ.
const pageSize = 8192

// relations are the files of pages with LSNs: main forks, visibility maps, init forks.
var relations = regexp.MustCompile(`^(base|global)/([0-9]+/)?[0-9]+(_vm|_init)?(\.[0-9]+)?$`)

// newerPages calls f for each page of a cluster's files that is newer than an LSN.
func (s *stage) newerPages(c *pgtest.Cluster, lsn uint64, f func(path string, block int, page []byte)) {
	s.t.Helper()
	root := c.DataDir()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || !relations.MatchString(rel) {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for block := 0; (block+1)*pageSize <= len(data); block++ {
			page := data[block*pageSize:][:pageSize]
			// pd_lsn (bufpage.h): the high half, then the low one
			if uint64(binary.LittleEndian.Uint32(page))<<32|uint64(binary.LittleEndian.Uint32(page[4:])) > lsn {
				f(rel, block, page)
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// countNewer is how many pages newer than an LSN have been put into the target. The program may be writing them.
//
// The target's own may be newer, too: the LSNs of two timelines overlap.
func (s *stage) countNewer(lsn uint64) int {
	s.t.Helper()
	n := 0
	s.newerPages(s.target, lsn, func(path string, block int, page []byte) {
		if own, err := readPage(s.old.Path(path), block); err != nil || !bytes.Equal(page, own) {
			n++
		}
	})
	return n
}

func readPage(path string, block int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	page := make([]byte, pageSize)
	_, err = f.ReadAt(page, int64(block)*pageSize)
	return page, err
}

// noLostPages checks that each page of the target that is newer than the fork is what the new source has there, which must
// be idle since a checkpoint.
func (s *stage) noLostPages(source *pgtest.Cluster, fork uint64) {
	s.t.Helper()
	lost := 0
	s.newerPages(s.target, fork, func(path string, block int, page []byte) {
		theirs, err := readPage(source.Path(path), block)
		if err != nil || !bytes.Equal(page, theirs) {
			if lost++; lost < 10 {
				s.t.Errorf("%s, block %d: a page of the lost branch (%v)", path, block, err)
			}
		}
	})
	if lost > 0 {
		s.t.Errorf("%d pages of the lost branch", lost)
	}
}
