package s3test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// watchdog is a small shell, the server's parent, that waits for the end of its input, which comes when the process that
// started it ends in whatever way (go test's timeout and kill -9 included), and then kills the server and removes its
// directory.
type watchdog struct {
	dir  string
	pipe io.Closer
	cmd  *exec.Cmd
}

// watchdogScript: $1 is the directory, the rest the server's command.
const watchdogScript = `
trap "" INT TERM HUP
dir=$1
shift
"$@" </dev/null >"$dir/log" 2>&1 &
pid=$!
echo $pid >"$dir/pid"
cat >/dev/null
kill -KILL $pid
wait $pid
rm -rf "$dir"
`

// startWatchdog runs a command. If it fails, dir is left to the caller.
func startWatchdog(dir string, env []string, command ...string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", append([]string{"-c", watchdogScript, "watchdog", dir}, command...)...)
	cmd.Dir = "/"
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &watchdog{dir: dir, pipe: pipe, cmd: cmd}, nil
}

// ended reports that the server has ended by itself: it is a zombie then, since its parent is busy with waiting for us.
func (w *watchdog) ended() bool {
	pid, err := os.ReadFile(filepath.Join(w.dir, "pid"))
	if err != nil || len(pid) == 0 {
		return false // not yet
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", strings.TrimSpace(string(pid))))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

// log is the end of what the server printed.
func (w *watchdog) log() string {
	data, err := os.ReadFile(filepath.Join(w.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

// release lets the watchdog do its work now, and waits for it.
func (w *watchdog) release() {
	_ = w.pipe.Close()
	_ = w.cmd.Wait() // what it could not remove is in /tmp; no test result hangs on it
}
