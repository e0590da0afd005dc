package survival

import (
	"os"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// What a server says that finds one of the two locks.
const (
	lockedControl = "database files are incompatible with server"
	lockedLabel   = `invalid data in file "backup_label"`
)

// guarded holds rewinds at each border at which the target is half rewound, and tries to use it.
func (s *stage) guarded(w *way) {
	for _, b := range borders {
		if !b.halfRewound() {
			continue
		}
		target, h := s.holdAt(w, b)
		s.refused(w, target)
		if b != labelled { // the control file is still that of the target
			s.stockRefuses(w, target)
		}
		s.controlIsReadable(target)
		h.release()
		if res := h.Wait(); res.ExitCode != 0 {
			s.Fatalf("held when it was %v, and let go on: %s\n%s", b, res, h.ear)
		}
		s.asExpected(w, target)
		target.Remove()
	}
	s.meddled(w)
}

// meddled does to half-rewound targets what HA managers and people in need do.
func (s *stage) meddled(w *way) {
	control, err := os.ReadFile(s.template.Path("global", "pg_control"))
	if err != nil {
		s.Fatalf("%v", err)
	}
	for _, m := range []struct {
		what    string
		do      func(*pgtest.Cluster)
		message string
	}{
		{"the old pg_control is put back", func(c *pgtest.Cluster) {
			s.env.WriteFile(c.Path("global", "pg_control"), control, 0o600)
		}, lockedLabel},
		{"backup_label is removed", func(c *pgtest.Cluster) {
			if err := os.Remove(c.Path(labelName)); err != nil {
				s.Fatalf("%v", err)
			}
		}, lockedControl},
	} {
		target, h := s.holdAt(w, changing)
		h.Kill()
		m.do(target)
		s.noStart(target, m.message)
		s.loseDivergedWAL(target)
		s.goOn(w, target)
		s.asExpected(w, target)
		s.sound(w, target)
		if w.live {
			s.uninterrupted(w)
		}
		target.Remove()
	}
}

// refused holds that no server starts on a half-rewound target, by the lock that is on.
func (s *stage) refused(w *way, target *pgtest.Cluster) {
	s.Helper()
	message := lockedControl
	if s.look(w, target) == labelled {
		message = lockedLabel
	}
	s.noStart(target, message)
}

// triedToStart is what an attempt changes that gets as far as reading backup_label: the postmaster has written down how it
// was called.
var triedToStart = []pgtest.Allow{
	pgtest.AllowPath("postmaster.opts", "the command line of the postmaster"),
}

// noStart holds that no server starts on a target, in any way, that it says why, and that the attempt changes nothing.
func (s *stage) noStart(target *pgtest.Cluster, message string) {
	s.Helper()
	before := target.Copy(target.Name + "-before")
	defer before.Remove()
	said := func(what, text string) {
		if !strings.Contains(text, message) {
			s.Errorf("%s does not say %q:\n%s", what, message, text)
		}
	}
	single := s.env.Exec(pgtest.Cmd{
		Path: "postgres", Args: []string{"--single", "-D", target.DataDir(), "postgres"}, Cluster: target, Stdin: strings.NewReader(""),
	})
	if single.ExitCode == 0 {
		s.Errorf("single-user mode: %s", single)
	}
	said("single-user mode", single.Stderr)

	log := target.LogFile()
	ctl := s.env.Exec(pgtest.Cmd{Path: "pg_ctl", Cluster: target, Args: []string{
		"start", "-w", "-t", "20", "-s", "-D", target.DataDir(), "-l", log, "-o", "-c listen_addresses='' -k " + target.SocketDir(),
	}})
	if ctl.ExitCode == 0 {
		s.Errorf("pg_ctl start: %s", ctl)
		s.env.MustExec(pgtest.Cmd{Path: "pg_ctl", Args: []string{"stop", "-m", "immediate", "-D", target.DataDir()}})
	}
	written, err := os.ReadFile(log)
	if err != nil {
		s.Fatalf("%v", err)
	}
	said("pg_ctl start", string(written))
	var allow []pgtest.Allow
	if message == lockedLabel {
		allow = triedToStart
	}
	pgtest.SameTrees(s, target, before, allow...)
}

// stockRefuses holds that stock pg_rewind leaves a half-rewound target alone.
func (s *stage) stockRefuses(w *way, target *pgtest.Cluster) {
	s.Helper()
	if !s.env.HasStock() {
		return
	}
	before := target.Copy(target.Name + "-before")
	defer before.Remove()
	if res := target.Rewind(s.env.Bin("pg_rewind"), w.from); res.ExitCode == 0 || res.Stderr == "" {
		s.Errorf("stock pg_rewind: %s", res)
	}
	pgtest.SameTrees(s, target, before)
}

// controlIsReadable holds that whoever asks pg_controldata for the state and the timeline, as HA managers do before they
// rewind again, gets what he got before.
func (s *stage) controlIsReadable(target *pgtest.Cluster) {
	s.Helper()
	now, before := s.controlData(target), s.controlData(s.template)
	for _, field := range []string{"Database cluster state", "Latest checkpoint's TimeLineID", "Database system identifier", "Latest checkpoint location"} {
		if before[field] == "" || now[field] != before[field] {
			s.Errorf("pg_controldata says of %q: %q, before it was %q", field, now[field], before[field])
		}
	}
}

func (s *stage) controlData(c *pgtest.Cluster) map[string]string {
	s.Helper()
	fields := map[string]string{}
	for line := range strings.Lines(s.env.MustExec(pgtest.Cmd{Path: "pg_controldata", Args: []string{c.DataDir()}}).Stdout) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}
