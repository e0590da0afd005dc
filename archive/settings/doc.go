// Package settings finds the WAL archives that a user has already configured for the tools they archive with, so that
// nothing needs to be typed again.
//
//	url.go         --wal-archive: an address
//	auto.go        --wal-archive auto: restore_command first, then what the tools would find by themselves
//	env.go         the world outside: environment, files
//	vars.go        the variables that one command sees, with those of envdir directories
//	command.go     restore_command: the simple commands in it, through any wrapping
//	wrappers.go    sudo, env, timeout and their like
//	aws.go         what S3 tools have in common; aws-cli
//	barman.go      barman-cloud-wal-restore
//	plain.go       cp, gunzip and their like
//	walg.go        WAL-G: environment and configuration files
//	wale.go        WAL-E
//	pgbackrest.go  pgBackRest: configuration files, environment, options
//	ini.go         the form of pgBackRest's configuration files
//
// What is not understood is explained, and never guessed: a wrong archive would be worse than none. Nothing is connected
// to here, and nothing is run.
package settings
