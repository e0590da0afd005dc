package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// surviveClosedPipes keeps the program alive when nobody reads its messages any more: a rewind must not stop half-way
// because the terminal's pager or the log shipper behind it went away. The signal is caught and not ignored, since
// ignoring would be inherited by restore_command and by postgres.
func surviveClosedPipes() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// stopSignal is the cause of a context cancelled by a signal.
type stopSignal struct{ name string }

func (s stopSignal) Error() string { return "stopped by " + s.name }

// untilSignal returns a context that ends with the first SIGINT, SIGTERM or SIGHUP; told is called with its name. From
// then on these signals have their default effect: a second one ends the program at once. A signal that the parent
// asked to be ignored (nohup, background jobs of a plain shell) stays ignored. The caller must call stop, which waits.
func untilSignal(parent context.Context, told func(name string)) (ctx context.Context, stop func()) {
	var watched []os.Signal
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			watched = append(watched, s)
		}
	}
	ctx, cancel := context.WithCancelCause(parent)
	if len(watched) == 0 { // Notify without a list would catch every signal
		return ctx, func() { cancel(nil) }
	}
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, watched...)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case s := <-arrived:
			signal.Stop(arrived)
			name := signalName(s)
			cancel(stopSignal{name})
			told(name)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(arrived)
		cancel(nil)
		<-finished
	}
}

func signalName(s os.Signal) string {
	if number, ok := s.(syscall.Signal); ok {
		if name := unix.SignalName(number); name != "" {
			return name
		}
	}
	return fmt.Sprint(s)
}

// interruption says that a run failed because it was told to stop, if it was. What the run itself says is kept: the
// state of the target and what to do next, and the error, unless it only says that the context has ended.
func interruption(ctx context.Context, err error) error {
	var stopped stopSignal
	if err == nil || !errors.As(context.Cause(ctx), &stopped) {
		return err
	}
	said := fault.Because(err, "%s", stopped.Error()).Ours() // stock dies without a word
	if !errors.Is(err, context.Canceled) && !errors.As(err, new(stopSignal)) {
		said.Detail = err.Error()
	}
	if inner := (*fault.Error)(nil); errors.As(err, &inner) {
		said.Hint, said.Advice = inner.Hint, inner.Advice
	}
	return said
}
