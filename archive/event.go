package archive

import "time"

// EventKind is what an Event tells.
type EventKind uint8

// What happens to segments on their way.
const (
	// Opened: a reader got a segment that was fetched; Path is the file, Bytes its size.
	Opened EventKind = iota + 1
	// Fetched: a segment arrived from Place and was verified; Bytes is its size, Duration what the fetch took.
	Fetched
	// Retried: attempt number Attempt at Place failed with Err, and after a pause there will be another.
	Retried
	// Refused: Place gave a copy that is not the segment, or failed with Err, but another place had the segment.
	Refused
	// Dropped: a segment was fetched ahead of need, nobody has asked for it yet, and the fetch failed with Err. It will be
	// fetched again if it is asked for.
	Dropped
	// Evicted: the file of a segment was removed to make room; Bytes is its size.
	Evicted
)

// Event is something that happened to one segment. Events come from several goroutines at once.
type Event struct {
	Kind     EventKind
	Segment  string // file name
	Place    string // the Fetcher's name
	Path     string
	Bytes    int64
	Duration time.Duration
	Attempt  int
	Err      error
}

// listener is told of events; nil drops them.
type listener func(Event)

func (l listener) tell(e Event) {
	if l != nil {
		l(e)
	}
}
