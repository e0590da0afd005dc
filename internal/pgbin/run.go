package pgbin

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pgbin/proc"
)

// stopGrace is how long a server gets to follow SIGTERM. A single-user server deep in recovery does not look at it until
// recovery is over; then SIGKILL is as good as the crash that recovery was started for.
const stopGrace = 10 * time.Second

// RecoverSingleUser lets the target's server recover from its crash and shut down, in single-user mode and without
// fsync: what it writes is synced at the end of the rewind or not needed (ensureCleanShutdown, pg_rewind.c). configFile
// may be empty. Both outputs of the server go to output; *os.File is handed on as it is.
//
// If ctx is done, the server is stopped before RecoverSingleUser returns; the target then is as it was, not cleanly shut
// down, and can be recovered again. The error has stock's text; its cause is context.Cause(ctx).
//
// The caller announces it, as stock: executing "<Path>" for target server to complete crash recovery.
func (p *Postgres) RecoverSingleUser(ctx context.Context, dataDir, configFile string, output io.Writer) error {
	args := append([]string{"--single", "-F", "-D", dataDir}, configArgs(configFile)...)
	cmd := exec.Command(p.Path, append(args, "template1")...)
	cmd.Stdout, cmd.Stderr = output, output
	err := proc.Run(ctx, cmd, stopGrace)
	if err == nil {
		return nil
	}
	fail := fault.Because(err, "postgres single-user mode in target cluster failed").
		WithDetail("Command was: %s --single -F -D %s%s template1 < /dev/null", shellWord(p.Path), shellWord(dataDir), configWords(configFile))
	if ctx.Err() != nil {
		return fail.Advise("It was stopped on request. The target is not changed otherwise; run the same command again.")
	}
	return fail.Advise("It ended thus: %s. Its own messages above say why. Once the cause is gone, run the same command again; "+
		"or start and stop the target yourself, and use --no-ensure-shutdown.", proc.Failure(err))
}

// maxCommandBytes bounds restore_command; stock cuts it at 1023 bytes.
const maxCommandBytes = 64 << 10

// RestoreCommand asks the target's server for its restore_command, so that includes, ALTER SYSTEM and a configuration
// file elsewhere are understood as the server does (getRestoreCommand, pg_rewind.c). What the server says besides goes to
// stderr. An empty command is an error: it was asked for because it is needed.
func (p *Postgres) RestoreCommand(ctx context.Context, dataDir, configFile string, stderr io.Writer) (string, error) {
	args := append([]string{"-D", dataDir}, configArgs(configFile)...)
	cmd := exec.Command(p.Path, append(args, "-C", "restore_command")...)
	out := head{limit: maxCommandBytes + 1}
	cmd.Stdout, cmd.Stderr = &out, stderr
	err := proc.Run(ctx, cmd, stopGrace)
	words := shellWord(p.Path) + " -D " + shellWord(dataDir) + configWords(configFile) + " -C restore_command"
	switch {
	case ctx.Err() != nil:
		return "", fault.Because(context.Cause(ctx), "could not read restore_command from target cluster")
	case err != nil && out.buf.Len() > 0:
		return "", fault.Because(err, "%s", proc.Failure(err)).WithDetail("Command was: %s", words)
	case err != nil || out.buf.Len() == 0:
		fail := fault.New("no data was returned by command \"%s\"", words)
		fail.Err = err
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return "", fail.Advise("It could not be started: %s.", fault.M(err))
		}
		return "", fail.Advise("The server program could not read the target's configuration; its own messages above say why. " +
			"If postgresql.conf is not in the data directory, name it with --config-file.")
	}
	command := strings.TrimRight(out.line(), "\r\n")
	if len(command) > maxCommandBytes {
		return "", fault.New("restore_command of the target cluster is longer than %d bytes", maxCommandBytes)
	}
	if command == "" {
		return "", fault.New("restore_command is not set in the target cluster").
			Advise("Asked by: %s. Set it in postgresql.conf or, if that lies elsewhere, name the file with --config-file.", words)
	}
	return command, nil
}
