// Package pgbin finds and runs the server program of the target cluster: postgres, of the target's own major. Two things
// need it, both before anything is rewound: crash recovery of a target that was not shut down cleanly, and reading
// restore_command with all of the server's rules about configuration files. It also tells whether a server is running on
// a data directory.
//
//	find.go     which postgres to run, and what to say if there is none
//	places.go   where it is looked for, in order
//	major.go    which major a data directory is of
//	run.go      single-user recovery, restore_command
//	running.go  is somebody using this data directory?
//	shell.go    the words of a command as stock prints them
//	proc/       one program in a process group of its own
package pgbin
