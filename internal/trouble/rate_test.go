package trouble

import (
	"regexp"
	"testing"
	"time"
)

// limitedRate copies from a source that is to be spared, while it writes: what comes over all connections together, with all
// that the protocol adds, is no more than was allowed.
func limitedRate(t *testing.T, s *stage) {
	const rate = 8 << 20
	k := newLink(t, s.source, trouble{})
	began := time.Now()
	p := s.launch(conninfo(k), "--max-rate", "8M", "--progress")
	s.until("the copying", func() bool { return k.passed.Load() > 3<<20 })
	p.mustRun()
	s.source.SQL("postgres", "UPDATE t1 SET n = n + 5; UPDATE t20 SET n = n + 5; CREATE TABLE late AS SELECT generate_series(1, 9000) i; CHECKPOINT")
	s.source.FlushWAL() // a second pass is needed for this
	res := p.wait(exitDone)
	took, passed := time.Since(began), k.passed.Load()
	if allowed := int64(1.05 * rate * took.Seconds()); passed > allowed || passed < 2*rate {
		t.Errorf("%d kB came over the network in %v; %d at most are allowed, and %d at least expected",
			passed>>10, took, allowed>>10, 2*rate>>10)
	}
	note := regexp.MustCompile(`read \d+ MB from the source in .* per second`).FindString(res.Stderr)
	if note == "" {
		t.Errorf("it does not say at what rate it has read: %s", res)
	}
	t.Logf("%d kB in %v; %s", passed>>10, took, note)
	s.judge(s.source)
}
