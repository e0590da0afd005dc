package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// sessionTime is how long one run of the program may take.
const sessionTime = 3 * time.Minute

// exit statuses, as the program's help has them.
const (
	exitDone        = 0
	exitInterrupted = 3
	bySignal        = -1
)

// rewind rewinds a target, with interruptions, and judges the outcome.
func (r *round) rewind(target *pgtest.Cluster, from source) {
	r.done.rewinds++
	clean := target.Control().State == 1
	undo := ""
	var before *pgtest.Cluster
	if clean && r.oneIn(4) {
		undo = filepath.Join(r.env.Dir(r.name("undo")), "undo")
		before = target.Copy(r.name("before"))
	}
	fixed := []string{"--retry-for", "20s"}
	if r.archive != "" {
		fixed = append(fixed, "--restore-target-wal")
	}
	from = r.sessions(target, from, slices.Concat(fixed, keepUndo(undo)), r.interruptions())
	if undo != "" && r.oneIn(2) {
		r.undo(target, before, undo)
		from = r.sessions(target, from, fixed, r.rng.IntN(2))
	}
	r.judge(target, from)
}

func keepUndo(dir string) []string {
	if dir == "" {
		return nil
	}
	return []string{"--keep-undo", dir}
}

// interruptions is how many times a rewind is interrupted, if it lasts.
func (r *round) interruptions() int { return oneOf(r, 0, 1, 1, 2, 3, 5) }

// sessions runs the program until it has done its work; it gives where that came from in the end.
func (r *round) sessions(target *pgtest.Cluster, from source, fixed []string, interruptions int) source {
	for n := 0; ; n++ {
		last := n >= interruptions
		if last && from.change != nil || n > 0 && from.change != nil && r.oneIn(3) {
			if n > 0 { // else nothing has been copied yet, and the first source is as good as any
				from = from.change()
			}
		}
		args := slices.Concat([]string{"--target-pgdata", target.DataDir()}, from.arg, fixed, r.options(n))
		delay := time.Duration(-1)
		if !last {
			delay = r.delay()
		}
		var loaded <-chan struct{}
		if from.server != nil && r.frozen == nil && r.oneIn(3) {
			loaded = meanwhile(from.primary, "UPDATE t3 SET n = n + 1; INSERT INTO t4 (word, n) SELECT md5(j::text), j FROM generate_series(1, 5000) j; VACUUM t3; CHECKPOINT")
		}
		res := r.run(target, args, delay, oneOf(r, signals...))
		if loaded != nil {
			<-loaded
		}
		switch {
		case res.ExitCode == exitDone:
			r.mustBeDone(target, res)
			return from
		case last, res.ExitCode != bySignal && res.ExitCode != exitInterrupted:
			r.Fatalf("session %d: %s", n+1, res)
		}
		r.done.kills++
		r.between(target, from)
	}
}

// options are what a session may do in its own way.
func (r *round) options(n int) []string {
	args := []string{"--jobs", fmt.Sprint(1 + r.rng.IntN(4))}
	if n > 0 && r.oneIn(6) {
		args = append(args, "--restart")
	}
	switch r.rng.IntN(6) {
	case 0:
		args = append(args, "--no-sync")
	case 1:
		args = append(args, "--sync-method", "syncfs")
	}
	return args
}

// delay is how long a session may work until it is interrupted: any moment of a run on a small cluster, and mostly the
// middle.
func (r *round) delay() time.Duration {
	most := oneOf(r, 50, 200, 200, 500, 1000)
	return time.Duration(r.rng.IntN(most*1000)) * time.Microsecond
}

// between does what may happen between two sessions: somebody tries to start the target, the source goes on, or dies.
func (r *round) between(target *pgtest.Cluster, from source) {
	if label, err := os.ReadFile(target.Path("backup_label")); err == nil && strings.HasPrefix(string(label), "This data directory is half rewound") && r.oneIn(2) {
		if err := target.TryStart(); err == nil {
			r.Fatalf("a server could be started on a half-rewound target")
		}
	}
	r.thaw()
	if from.server == nil {
		return
	}
	switch r.rng.IntN(6) {
	case 0:
		r.loads(from.primary, 1+r.rng.IntN(2))
	case 1:
		from.primary.Checkpoint()
	case 2:
		from.server.Kill9()
		from.server.Start()
		r.say("source crashed")
	}
}

// run runs the program once. A delay of 0 or more ends it by a signal, if it has not ended before.
func (r *round) run(target *pgtest.Cluster, args []string, delay time.Duration, sig syscall.Signal) *pgtest.Result {
	r.done.sessions++
	pid := filepath.Join(r.env.Root, r.name(".pid"))
	r.env.WriteFile(pid, nil, 0o600)
	ended := make(chan struct{})
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		if delay >= 0 {
			interrupt(pid, delay, sig, ended)
		}
	}()
	res := r.env.Exec(pgtest.Cmd{
		Path: "/bin/sh", Args: slices.Concat([]string{"-c", `echo $$ >"$0" && exec "$@"`, pid, r.program}, args),
		Cluster: target, Timeout: sessionTime,
	})
	close(ended)
	<-killed
	return res
}

// interrupt sends a signal to the process whose number appears in a file, some time afterwards.
func interrupt(pidFile string, delay time.Duration, sig syscall.Signal, ended <-chan struct{}) {
	for {
		data, err := os.ReadFile(pidFile)
		if text, whole := strings.CutSuffix(string(data), "\n"); err == nil && whole {
			pid, err := strconv.Atoi(text)
			if err != nil {
				return
			}
			p, err := os.FindProcess(pid) // holds on to this very process, whoever gets its number later
			if err != nil {
				return
			}
			select {
			case <-time.After(delay):
				_ = p.Signal(sig) // it may have ended meanwhile
			case <-ended:
			}
			_ = p.Release() // nothing waits for it here
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ended:
			return
		}
	}
}
