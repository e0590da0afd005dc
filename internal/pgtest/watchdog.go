package pgtest

import (
	"io"
	"os/exec"
	"syscall"
)

// watchdog is a small shell that waits for the end of its input, which comes when the process that started it ends in
// whatever way (go test's timeout and kill -9 included), and then ends the servers below a directory and removes it.
type watchdog struct {
	pipe io.Closer
	cmd  *exec.Cmd
}

// watchdogScript: $1 is the directory, $2 is "keep" or empty. A process is only killed if its working directory proves
// that it is the server of that data directory.
const watchdogScript = `
trap "" INT TERM HUP
cat >/dev/null
killed=
for f in "$1"/*/data/postmaster.pid; do
	[ -f "$f" ] || continue
	read -r pid <"$f" || continue
	[ "$(readlink "/proc/$pid/cwd")" = "${f%/postmaster.pid}" ] || continue
	kill -QUIT "$pid" && killed=yes
done
[ -z "$killed" ] || sleep 2
[ "$2" = keep ] || rm -rf "$1" || { sleep 2; rm -rf "$1"; }
`

func startWatchdog(dir string, keep bool) (*watchdog, error) {
	mode := ""
	if keep {
		mode = "keep"
	}
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "watchdog", dir, mode)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &watchdog{pipe: pipe, cmd: cmd}, nil
}

// release lets the watchdog do its work now, and waits for it.
func (w *watchdog) release() {
	_ = w.pipe.Close()
	_ = w.cmd.Wait() // what it could not remove is in /tmp; no test result hangs on it
}
