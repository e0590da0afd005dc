// Package s3test runs real S3 servers for tests, and breaks what they answer:
//
//	server := s3test.Start(t, s3test.Options{TLS: true})
//	server.NewBucket("wal")
//	server.Put("wal", "prefix/000000010000000000000001.lz4", data)
//	proxy := s3test.NewProxy(t, server)
//	proxy.Inject(func(r s3test.Request) *s3test.Fault { return s3test.SlowDown() })
//
// The server is versitygw, whose version is pinned in tools/s3servers; with FASTREWIND_TEST_S3=minio it is MinIO (pinned in
// tools/s3servers/minio). "make s3server" and "make test-minio" build them; what is missing is built when it is first
// needed. They check signatures, listen on 127.0.0.1 only, run as whatever user the test is, and end with the test, even if the test process
// is killed. Clients must bring their own settings: Server.Env has them for other programs.
//
// Nothing returns an error: what fails ends the test. The package speaks S3 without an SDK, so that tests of one do not
// rest on it, and it never imports testing, so that programs can use it.
//
//	binary.go     finding and building the servers' programs
//	server.go     Server: start, addresses, end
//	watchdog.go   nothing survives a killed test process
//	client.go     buckets and objects put there by signed requests
//	ca.go         certificates
//	proxy.go      Proxy: passes requests on, and breaks some
//	fault.go      the ways to break them
package s3test
