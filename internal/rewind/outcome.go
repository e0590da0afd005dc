package rewind

import "errors"

// Outcome says what an error of Run means for the target and for whoever called.
type Outcome uint8

// The outcomes of a run that has not succeeded.
const (
	Failed        Outcome = iota // the target is as it was
	Interrupted                  // stopped on request or by --timeout after the point of no return: the same command goes on
	Resumable                    // failed after the point of no return: mend what the error says, the same command goes on
	Refused                      // something that would have failed later was found before anything was touched
	SourceLost                   // the source does not answer any more; if that was after the point of no return, the same command goes on
	NotRewindable                // no rewind can help: take a new base backup
)

// outcomeError carries an Outcome in an error's chain, and says nothing of its own.
type outcomeError struct {
	outcome Outcome
	err     error
}

func (e *outcomeError) Error() string { return e.err.Error() }
func (e *outcomeError) Unwrap() error { return e.err }

// Of marks err with an outcome, unless it has one already. nil stays nil.
func (o Outcome) Of(err error) error {
	if have := (*outcomeError)(nil); err == nil || errors.As(err, &have) {
		return err
	}
	return &outcomeError{o, err}
}

// OutcomeOf is what an error of Run means.
func OutcomeOf(err error) Outcome {
	if e := (*outcomeError)(nil); errors.As(err, &e) {
		return e.outcome
	}
	return Failed
}
