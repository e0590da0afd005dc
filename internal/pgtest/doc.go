// Package pgtest is a PostgreSQL cluster's life in a few calls, for tests, benchmarks and the demo:
//
//	env := pgtest.New(t)
//	primary := env.Init("primary", pgtest.InitOptions{Checksums: true})
//	primary.Start()
//	standby := primary.Standby("standby")
//	standby.Start()
//	primary.Pgbench("-i", "-s", "10")
//	primary.WaitReplay(standby)
//	standby.Promote()
//	primary.Pgbench("-T", "5")
//	primary.Stop(pgtest.Fast)
//	res := primary.StockRewind(pgtest.FromServer(standby))
//
// Nothing returns an error: what fails ends the test, with the tails of the servers' logs. All servers, and everything
// on disk, are gone when the test ends, even if the test process is killed (a watchdog holds the other end of a pipe).
// As root, every PostgreSQL program and every rewind runs as the user postgres.
//
// Each cluster lives in a directory of its own: <root>/<name>/data, <root>/<name>/ts for its tablespaces, and
// <root>/<name>/log. What identifies a server (port, socket directory, cluster_name) is given on its command line and
// not in its configuration files, because a rewind copies the source's configuration over the target's.
//
// Calls that can fail must come from the test's own goroutine, as with testing.TB's Fatal. The package never imports
// testing, so that programs can use it: see Run.
//
//	env.go         Env: where clusters live, which PostgreSQL; TB and Run
//	bin.go         which majors there are, and finding their programs
//	exec.go        running programs as the right user; Result
//	watchdog.go    nothing survives a killed test process
//	cluster.go     Cluster: init, configuration, identity
//	process.go     programs that a test starts and does not wait for
//	server.go      start, stop, kill -9, freeze single server processes
//	standby.go     base backup, promotion, following, waiting
//	copydir.go     identical copies of a stopped cluster
//	tablespace.go  tablespaces that clusters on one machine do not share
//	sql.go         psql, pgbench, pg_amcheck, pg_checksums
//	rewind.go      stock pg_rewind and ours
//	build.go       building fastrewind for tests
//	control.go     the fields of pg_control tests look at
//	trees.go       two data directories compared byte for byte
//	allow.go       which differences between two rewinds are expected, and why
//	data.go        two servers' data compared
package pgtest
