package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// piped is a proxy's two ends without a network, in a bubble of fake time.
func piped(p *proxy) (client, server net.Conn) {
	client, near := net.Pipe()
	far, server := net.Pipe()
	p.running.Go(func() { p.join(near, far) })
	return client, server
}

// TestProxyRoundTrip: a byte there and a byte back take a round trip to the nanosecond, after one for the handshake.
func TestProxyRoundTrip(t *testing.T) {
	for _, rtt := range []time.Duration{0, 1, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p := newProxy(link{rtt: rtt}, time.Sleep)
			start := time.Now()
			client, server := piped(p)
			go func() { _, _ = io.Copy(server, server) }() // ends with close
			for round := range 3 {
				if _, err := client.Write([]byte{byte(round)}); err != nil {
					t.Fatal(err)
				}
				var got [1]byte
				if _, err := io.ReadFull(client, got[:]); err != nil || got[0] != byte(round) {
					t.Fatalf("byte %d came back as %v, %v", round, got, err)
				}
				if took, want := time.Since(start), rtt*time.Duration(round+2); took != want {
					t.Errorf("round trip of %s: %d and a handshake took %s, want %s", rtt, round+1, took, want)
				}
			}
			if n := p.roundTrips(); n != 4 {
				t.Errorf("%d round trips, want 4 with the handshake", n)
			}
			if n := p.roundTrips(); n != 0 {
				t.Errorf("%d round trips since", n)
			}
			p.close()
			_ = server.Close()
		})
	}
}

// TestProxyDelayIsNoLimit sends much through a long link: it takes no longer than a byte.
func TestProxyDelayIsNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 20 * time.Millisecond
		p := newProxy(link{rtt: rtt}, time.Sleep)
		client, server := piped(p)
		time.Sleep(rtt) // the handshake
		data := make([]byte, inFlight-pieceSize)
		fillRandom(data)
		start := time.Now()
		go func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(100_000))
				if _, err := server.Write(rest[:n]); err != nil {
					t.Error(err)
				}
				rest = rest[n:]
			}
			_ = server.Close()
		}()
		got, err := io.ReadAll(client)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes came, or others: %v", len(got), len(data), err)
		}
		if took := time.Since(start); took != rtt/2 {
			t.Errorf("%d bytes took %s, want %s", len(data), took, rtt/2)
		}
		p.close()
		_ = client.Close()
	})
}

// TestProxyRate: two connections together are as fast as the link.
func TestProxyRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, each, rtt = 1 << 20, 2 << 20, 10 * time.Millisecond
		p := newProxy(link{rate: rate, rtt: rtt}, time.Sleep)
		start := time.Now()
		done := make(chan int, 2)
		for range cap(done) {
			client, server := piped(p)
			go func() {
				_, _ = server.Write(make([]byte, each))
				_ = server.Close()
			}()
			go func() {
				got, _ := io.ReadAll(client)
				_ = client.Close()
				done <- len(got)
			}()
		}
		for range cap(done) {
			if n := <-done; n != each {
				t.Errorf("%d bytes came, want %d", n, each)
			}
		}
		// A handshake, the bytes of both one after the other, and half a round trip for the last of them; rounding of each piece.
		want := rtt + 2*each*time.Second/rate + rtt/2
		if took := time.Since(start); took < want-time.Microsecond || took > want+time.Microsecond {
			t.Errorf("took %s, want %s", took, want)
		}
		p.close()
	})
}

// TestProxyBound: where nobody reads, the proxy stops reading, too; and close ends all of it.
func TestProxyBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(link{rtt: time.Millisecond}, time.Sleep)
		client, server := piped(p)
		sent := make(chan int)
		go func() {
			n, err := server.Write(make([]byte, 2*inFlight))
			if err == nil {
				t.Error("all of it was taken")
			}
			sent <- n
		}()
		time.Sleep(time.Hour) // until everybody waits
		p.close()
		if n := <-sent; n != inFlight {
			t.Errorf("%d bytes were taken, want %d", n, inFlight)
		}
		_ = client.Close()
	})
}

// TestProxyClosedClient: a client that goes away ends the server's connection, whatever it is doing.
func TestProxyClosedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(link{rtt: time.Millisecond}, time.Sleep)
		client, server := piped(p)
		go func() {
			time.Sleep(time.Second)
			_ = client.Close()
		}()
		if n, err := server.Write(make([]byte, 2*inFlight)); err == nil {
			t.Errorf("%d bytes were sent to nobody", n)
		}
		p.running.Wait()
		if len(p.conns) != 0 {
			t.Errorf("%d connections are left", len(p.conns))
		}
	})
}

// TestProxyTCP passes much both ways over real connections, with ends that close one side first.
func TestProxyTCP(t *testing.T) {
	defer goleak.VerifyNone(t)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener; each server, with its client
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	p, err := startProxy(t.Context(), link{rtt: 2 * time.Millisecond, rate: 2e9}, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	results := make(chan error, 4)
	for range cap(results) {
		go func() { results <- echo(p.listener.Addr().String()) }()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// echo sends 20 MB through a proxy to a server that sends them back, and compares.
func echo(addr string) error {
	conn, err := net.Dial("tcp", addr) //nolint:noctx // ends with the proxy
	if err != nil {
		return err
	}
	defer conn.Close()
	data := make([]byte, 20<<20)
	fillRandom(data)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	hash := sha256.New()
	n, err := io.Copy(hash, conn)
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if want := sha256.Sum256(data); err == nil && (n != int64(len(data)) || !bytes.Equal(hash.Sum(nil), want[:])) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func fillRandom(p []byte) {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.IntN(256))
	}
	_, _ = rand.NewChaCha8(seed).Read(p) // never fails
}
