package fetch

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// BenchmarkServerFetch fetches 256 MiB of a relation in ranges of one size, 8 MiB a call, and reports beside the rate
// the CPU time both sides need for a GiB. The file is in the page cache.
func BenchmarkServerFetch(b *testing.B) {
	const total, perCall = 256 << 20, 8 << 20
	p := pgtest.New(b).Init("source", pgtest.InitOptions{})
	p.Start()
	p.SQL("postgres", grants)
	p.SQL("postgres", `CREATE TABLE big AS SELECT repeat(md5(g::text), 60) AS x FROM generate_series(1, 140000) AS g`)
	p.Checkpoint()
	file := p.Query("postgres", "SELECT pg_relation_filepath('big')")

	for _, network := range []string{"socket", "tcp"} {
		conn := p.ConnStringAs("rewinder")
		if network == "socket" {
			conn = p.SocketConnString() + " user=rewinder"
		}
		for _, conns := range []int{1, 2} {
			for _, size := range []int64{8 << 10, 64 << 10, MaxChunk} {
				b.Run(fmt.Sprintf("%s/conns=%d/size=%d", network, conns, size), func(b *testing.B) {
					s, err := Connect(b.Context(), conn, Options{Conns: conns})
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
					b.SetBytes(total)
					b.ReportAllocs()
					before := ownCPU()
					for b.Loop() {
						var got atomic.Int64
						g, ctx := errgroup.WithContext(b.Context())
						g.SetLimit(conns)
						for off := int64(0); off < total; off += perCall {
							g.Go(func() error {
								ranges := make([]pg.FileRange, perCall/size)
								for i := range ranges {
									ranges[i] = pg.FileRange{Path: file, Offset: off + int64(i)*size, Length: size}
								}
								return s.Fetch(ctx, ranges, func(_ int, c pg.FileChunk) error {
									got.Add(int64(len(c.Data)))
									return nil
								})
							})
						}
						if err := g.Wait(); err != nil {
							b.Fatal(err)
						}
						if got.Load() != total {
							b.Fatalf("%d bytes of %d", got.Load(), total)
						}
					}
					gib := float64(b.N) * total / (1 << 30)
					b.ReportMetric((ownCPU()-before).Seconds()/gib, "client-cpu-s/GiB")
					var server time.Duration
					for _, sess := range s.pool.idle {
						server += backendCPU(b, sess.conn.PID())
					}
					b.ReportMetric(server.Seconds()/gib, "server-cpu-s/GiB")
				})
			}
		}
	}
}

func ownCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// backendCPU is what a backend has used since it started: fields 14 and 15 of /proc/PID/stat, in hundredths of a second.
func backendCPU(b *testing.B, pid uint32) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
