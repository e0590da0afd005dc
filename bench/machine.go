package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what the numbers were measured on.
type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"` // that this process may use
	MemoryMB   int64  `json:"memory_mb"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // type, device and options of the clusters'
	Go         string `json:"go"`
}

// describeMachine names the machine and the file system of a directory. What cannot be found out stays empty.
func describeMachine(dir string) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), FileSystem: fileSystem(dir)}
	m.CPU = procLine("/proc/cpuinfo", "model name")
	_, _ = fmt.Sscan(procLine("/proc/meminfo", "MemTotal"), &m.MemoryMB) // in kB
	m.MemoryMB >>= 10
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Sysname[:]) + " " + unix.ByteSliceToString(uts.Release[:]) + " " +
			unix.ByteSliceToString(uts.Machine[:])
	}
	return m
}

// procLine is the value of the first line "key : value" of a file.
func procLine(path, key string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystem finds the mount of a directory: of all mount points above it, the longest one (proc(5), mountinfo).
func fileSystem(dir string) string {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	best, text := -1, ""
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		fields, device := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 6 || len(device) < 3 {
			continue
		}
		at := fields[4]
		if at != "/" && dir != at && !strings.HasPrefix(dir, at+"/") || len(at) < best {
			continue
		}
		best, text = len(at), fmt.Sprintf("%s on %s (%s)", device[0], device[1], device[2])
	}
	return text
}
