package rewind

import "io"

// Phase names one of the long stretches of a run, for progress and for the phase times of the final report.
type Phase string

// The phases, in the order of a run.
const (
	PhaseRecovery Phase = "crash recovery"
	PhaseListing  Phase = "listing files"
	PhaseScan     Phase = "scanning WAL"
	PhaseArchive  Phase = "fetching WAL"
	PhaseCopy     Phase = "copying"
	PhaseSync     Phase = "syncing"
	PhaseUndo     Phase = "putting back"
)

// Unit is what a Meter counts.
type Unit uint8

// The units of progress.
const (
	Bytes Unit = iota + 1
	Files
	None // only time passes
)

// Reporter receives everything a run has to say. All methods may be called from several goroutines at once.
// Errors are not reported here: they are returned.
type Reporter interface {
	// Info is a message stock prints always.
	Info(format string, args ...any)
	// Progress is a message stock prints only with --progress.
	Progress(format string, args ...any)
	// Note is a message that only fastrewind has; not printed under the name pg_rewind.
	Note(format string, args ...any)
	// Warn is a warning; advice (may be empty) is ours.
	Warn(text, advice string)
	// Debug is printed with --debug. DebugEnabled lets callers skip the work of making many lines.
	Debug(format string, args ...any)
	DebugEnabled() bool
	// Output is where a program that the run starts may write; done is called when it has ended.
	Output() (w io.Writer, done func())
	// Start begins a phase whose total is known (>0) or not (0). The Meter is done with by Done, exactly once.
	Start(phase Phase, total int64, unit Unit) Meter
}

// Meter counts one phase's progress. Safe for concurrent use.
type Meter interface {
	Add(n int64)
	SetTotal(n int64)
	Done()
}
