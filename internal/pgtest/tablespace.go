package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// privateFD is the descriptor as which every program that works on a cluster inherits the cluster's own directory of
// tablespaces.
const privateFD = 3

// privatePrefix begins the location of a private tablespace.
var privatePrefix = fmt.Sprintf("/proc/self/fd/%d/", privateFD)

// tsDir is where the directories of the cluster's tablespaces are.
func (c *Cluster) tsDir() string { return filepath.Join(c.env.Root, c.Name, "ts") }

// Tablespace creates a tablespace in a directory of the cluster's own. Standby and Copy give their clusters other
// directories and re-point the links, so the tablespace must exist before; a standby that replays its creation, or a
// rewind that creates the link in its target, would share the directory. For those cases see PrivateTablespace.
func (c *Cluster) Tablespace(name string) {
	c.env.tb.Helper()
	dir := filepath.Join(c.tsDir(), name)
	c.env.mkdir(dir)
	c.SQL("postgres", fmt.Sprintf("CREATE TABLESPACE %s LOCATION '%s'", name, dir))
}

// PrivateTablespace creates a tablespace whose location is the same text on every cluster and yet another directory
// for each: it lies below a descriptor that pgtest hands to every server, and to every program it runs with a Cmd.Cluster
// or by Cluster.Rewind. It stands in for machines of their own, each with /srv/ts: create it while standbys replay, or
// on a source after the divergence. The directory is made here in all the clusters named.
//
// A rewind whose source is a directory sees its target's tablespaces under that path, also when it reads its source: as
// on a real machine, tablespaces created after the divergence work only with a source server.
func (c *Cluster) PrivateTablespace(name string, others ...*Cluster) {
	c.env.tb.Helper()
	for _, cluster := range append([]*Cluster{c}, others...) {
		c.env.mkdir(filepath.Join(cluster.tsDir(), name))
	}
	c.SQL("postgres", fmt.Sprintf("CREATE TABLESPACE %s LOCATION '%s'", name, privatePrefix+name))
}

// sharedTablespaces are the link targets in pg_tblspc that are directories of c's alone.
func (c *Cluster) sharedTablespaces() []string {
	c.env.tb.Helper()
	var targets []string
	for _, t := range c.tablespaceLinks() {
		if !strings.HasPrefix(t, privatePrefix) {
			targets = append(targets, t)
		}
	}
	return targets
}

// tablespaceLinks maps the names in pg_tblspc to the targets of the links; what is a directory there is part of the data
// directory.
func (c *Cluster) tablespaceLinks() map[string]string {
	c.env.tb.Helper()
	entries, err := os.ReadDir(c.Path("pg_tblspc"))
	if err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	links := map[string]string{}
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		target, err := os.Readlink(c.Path("pg_tblspc", entry.Name()))
		if err != nil {
			c.env.tb.Fatalf("pgtest: %v", err)
		}
		links[entry.Name()] = target
	}
	return links
}
