package main

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"
)

// stockName is the name under which the program behaves as pg_rewind does.
const stockName = "pg_rewind"

// program is the name the program was called by.
type program struct {
	path  string // argv[0] as found; getopt's complaints start with it
	name  string // its last component; every other message starts with it
	stock bool   // it is pg_rewind: say what stock says and no more
}

func thisProgram(argv []string) program {
	path := "fastrewind"
	if len(argv) > 0 && argv[0] != "" {
		path = argv[0]
	}
	name := filepath.Base(path)
	return program{path: path, name: name, stock: name == stockName}
}

// theProcess is the real one.
func theProcess(run runFunc) *process {
	stderr := int(os.Stderr.Fd())
	tty := term.IsTerminal(stderr)
	return &process{
		args:   os.Args,
		env:    os.LookupEnv,
		names:  variableNames,
		euid:   os.Geteuid(),
		etc:    systemConfDir,
		stdout: os.Stdout,
		stderr: os.Stderr,
		tty:    tty,
		width: func() int {
			if kind := os.Getenv("TERM"); !tty || kind == "" || kind == "dumb" {
				return 0
			}
			if width, _, err := term.GetSize(stderr); err == nil && width > 0 {
				return width
			}
			return 80
		},
		now: time.Now,
		run: run,
	}
}
