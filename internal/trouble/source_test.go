package trouble

import (
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestSource lets the source die, stall, or be cut off while it is copied.
func TestSource(t *testing.T) {
	h := newTheatre(t)
	h.run("killed and started again", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{})
		p := s.launchBraked(k, conninfo(k))
		p.untilCopying(k)
		s.source.Kill9()
		s.source.Start()
		k.release()
		p.wait(exitDone)
		s.judge(s.source)
	})
	h.run("stopped for good", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{})
		p := s.launchBraked(k, conninfo(k), "--retry-for", "1s")
		p.untilCopying(k)
		s.source.Stop(pgtest.Immediate)
		res := p.wait(exitSourceLost)
		if !strings.Contains(res.Stderr, "Run the same command again") {
			t.Errorf("it does not say what to do: %s", res.Stderr)
		}
		s.mustNotStart()
		first := k.passed.Load()
		s.launch(conninfo(k), "--retry-for", "0s").wait(exitResumable) // still nobody there
		s.source.Start()
		k.release()
		s.launch(conninfo(k)).wait(exitDone)
		t.Logf("%d kB until the source was lost, %d kB afterwards", first>>10, (k.passed.Load()-first)>>10)
		s.judge(s.source)
	})
	h.run("connection cut in the middle of a row, once", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "cut", after: 3_000_001, times: 2})
		s.launch(conninfo(k)).wait(exitDone)
		s.judge(s.source)
	})
	h.run("each connection cut in the middle of a row", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "cut", after: 2_200_001, times: 1 << 40})
		s.launch(conninfo(k)).wait(exitDone)
		s.judge(s.source)
	})
	h.run("stalled", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "stall", after: 3_000_001, times: 2})
		s.launch(conninfo(k), "--stall-timeout", "1s").wait(exitDone)
		s.judge(s.source)
	})
	h.run("stalled for good", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{how: "stall", after: 200_000, times: 1 << 40})
		whole := newLink(t, s.source, trouble{})
		p := s.launchBraked(whole, conninfo(whole))
		p.untilCopying(whole)
		p.kill()
		s.launch(conninfo(k), "--stall-timeout", "500ms", "--retry-for", "1s").wait(exitSourceLost)
		s.mustNotStart()
		whole.release()
		s.launch(conninfo(whole)).wait(exitDone)
		s.judge(s.source)
	})
	h.run("spared by --max-rate", func(t *testing.T) { limitedRate(t, h.stage(t)) })
	h.run("tables and a database vanish", func(t *testing.T) {
		s := h.stage(t)
		k := newLink(t, s.source, trouble{})
		p := s.launchBraked(k, conninfo(k))
		p.untilCopying(k)
		s.source.SQL("postgres", "DROP TABLE t2, t5, t10; VACUUM FULL t6; TRUNCATE t7; DELETE FROM t8 WHERE id > 10; VACUUM t8; DROP DATABASE other; CHECKPOINT")
		k.release()
		p.wait(exitDone)
		s.judge(s.source)
	})
}
