package rewind

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// TestVerdict: past the point of no return every error says how to go on, under the name pg_rewind, too, whose own errors say
// nothing of that. Before it, stock's errors remain stock's.
func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		what      string
		err       error
		committed bool
		outcome   Outcome
		goesOn    bool
	}{
		{"before", fault.New("could not write"), false, Failed, false},
		{"after", fault.New("could not write").Advise("Free space."), true, Resumable, true},
		{"no error of ours", errors.New("could not write"), true, Resumable, true},
		{"not by the same command", fault.Because(plan.ErrLate, "cannot leave alone"), true, Resumable, false},
		{"as stock's tests want it", fault.Because(fault.ErrSourceSize, "size of source file changed"), true, Resumable, true},
		{"not at all", NotRewindable.Of(fault.New("could not find common ancestor")), true, NotRewindable, false},
	} {
		r := &run{committed: tt.committed}
		err := r.verdict(t.Context(), tt.err)
		var f *fault.Error
		own := errors.As(err, &f) && f.Own
		if OutcomeOf(err) != tt.outcome || own != (tt.goesOn && !errors.Is(tt.err, fault.ErrSourceSize)) || (f != nil && strings.Contains(f.Advice, halfRewound)) != tt.goesOn {
			t.Errorf("%s: outcome %d, %+v", tt.what, OutcomeOf(err), f)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	var f *fault.Error
	if err := (&run{}).verdict(ctx, context.DeadlineExceeded); !errors.As(err, &f) || !f.Own || OutcomeOf(err) != Interrupted {
		t.Errorf("too late: %+v", err)
	}
}
