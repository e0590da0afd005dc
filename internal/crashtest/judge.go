package crashtest

import (
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
	"github.com/fastrewind/fastrewind/internal/pg"
)

const (
	controlFile = DataDir + "/global/pg_control"
	labelFile   = DataDir + "/" + pg.BackupLabelName
)

var startTime = regexp.MustCompile(`(?m)^START TIME: .*$`)

// Timeless gives the tree with what says when a rewind ran taken out: pg_control's time, and the checksum over it, and
// backup_label's START TIME. In nothing else may two rewinds of the same pair differ.
func Timeless(t crashfs.Tree) crashfs.Tree {
	t = maps.Clone(t)
	if n, there := t[controlFile]; there && len(n.Data) == pg.ControlSize {
		if _, err := pg.DecodeControl(n.Data); err == nil { // the checksum is right: it need not be compared
			b := append([]byte(nil), n.Data...)
			clear(b[offTime : offTime+8])
			clear(b[offCRC : offCRC+4])
			n.Data = b
			t[controlFile] = n
		}
	}
	if n, there := t[labelFile]; there {
		n.Data = startTime.ReplaceAll(n.Data, []byte("START TIME: -"))
		t[labelFile] = n
	}
	return t
}

// OwnFile reports whether a path is one of those that fastrewind makes for itself, and no server looks at.
func OwnFile(name string) bool {
	return strings.HasPrefix(name, DataDir+"/fastrewind.") || strings.HasSuffix(name, ".fastrewind.tmp")
}

// WithoutOwn leaves out what fastrewind makes for itself.
func WithoutOwn(t crashfs.Tree) crashfs.Tree {
	t = maps.Clone(t)
	maps.DeleteFunc(t, func(name string, _ crashfs.Node) bool { return OwnFile(name) })
	return t
}

// CheckRewound says in what the tree is not what a rewind of the pair has to leave. Whether control file and label say the
// right things is not looked at, only that they are there and can be read.
func (p *Pair) CheckRewound(t crashfs.Tree) []string {
	want := maps.Clone(p.Rewound)
	for _, name := range []string{controlFile, labelFile} {
		want[name] = t[name]
	}
	found := t.Diff(want)
	if err := Startable(t); err != nil {
		found = append(found, err.Error())
	}
	if _, there := t[labelFile]; !there {
		found = append(found, labelFile+": is missing")
	}
	return found
}

// Startable says why a server would not start on the tree: nil if it would try. It is what a server looks at first: the
// control file (ReadControlFile, xlog.c) and, if there is one, backup_label (read_backup_label, xlogrecovery.c).
func Startable(t crashfs.Tree) error {
	n, there := t[controlFile]
	if !there {
		return fmt.Errorf("%s is missing", controlFile)
	}
	if _, err := pg.DecodeControl(n.Data); err != nil {
		return fmt.Errorf("%s: %w", controlFile, err)
	}
	if n, there := t[labelFile]; there {
		if _, err := pg.ParseBackupLabel(n.Data, segSize); err != nil {
			return err
		}
	}
	return nil
}

// CheckGuard says what is wrong with what a crash has left of the pair's target: a server that would start on it must
// find either the cluster that was there before the rewind or the one that is there after it, whole. rewound is what the
// rewind leaves.
func (p *Pair) CheckGuard(t, rewound crashfs.Tree) []string {
	if Startable(t) != nil {
		return nil
	}
	t = Timeless(WithoutOwn(t))
	before := t.Diff(Timeless(p.Target))
	if before == nil {
		return nil
	}
	after := t.Diff(Timeless(rewound))
	if after == nil {
		return nil
	}
	return append([]string{fmt.Sprintf("a server would start on it; but of the old cluster %d paths differ, of the new one %d",
		len(before), len(after))}, before[0], after[0])
}
