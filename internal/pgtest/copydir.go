package pgtest

import (
	"os"
	"path/filepath"
	"strings"
)

// Copy makes an identical copy of the stopped cluster: same system identifier, same everything, except that links to
// tablespaces point to the copy's own directories. A postmaster.pid left by Kill9 is copied, too.
func (c *Cluster) Copy(name string) *Cluster {
	c.env.tb.Helper()
	if c.Running() {
		c.env.tb.Fatalf("pgtest: cannot copy %s while it runs", c.Name)
	}
	copied := c.env.newCluster(name)
	// -a keeps modes, times and links; clones instead of copies where the file system can.
	c.env.MustExec(Cmd{Path: "/bin/cp", Args: []string{"-a", "--reflink=auto", "--", c.DataDir(), copied.DataDir()}})
	c.env.MustExec(Cmd{Path: "/bin/cp", Args: []string{"-a", "--reflink=auto", "--", c.tsDir() + "/.", copied.tsDir()}})
	for oid, target := range copied.tablespaceLinks() {
		if strings.HasPrefix(target, privatePrefix) {
			continue // the same text means the copy's own directory already
		}
		rel, err := filepath.Rel(c.tsDir(), target)
		if err != nil || strings.HasPrefix(rel, "..") {
			c.env.tb.Fatalf("pgtest: tablespace %s of %s is at %s, which is not below %s", oid, c.Name, target, c.tsDir())
		}
		link := copied.Path("pg_tblspc", oid)
		err = os.Remove(link)
		if err == nil {
			err = os.Symlink(filepath.Join(copied.tsDir(), rel), link)
		}
		if err == nil {
			err = c.env.own(link)
		}
		if err != nil {
			c.env.tb.Fatalf("pgtest: %v", err)
		}
	}
	return copied
}
