package afpacket

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

// What Run costs on a ring that the kernel has filled: cold memory, real
// blocks, a handler that does nothing. Filling is in ns/op, not in ns/handled.
func BenchmarkRunFullRing(b *testing.B) {
	n := newTestNet(b)
	var busy time.Duration
	for left := b.N; left > 0; left -= 20000 {
		ring := n.open(Config{TCP: someTCP})
		watch(b, ring, n.recv)
		sent := min(left, 20000)
		flood(n, sent)
		w := ring.Workers()[0]
		eventually(b, "the last block", func() bool { return inRing(w) == sent })
		ctx, cancel := context.WithCancel(context.Background())
		seen := 0
		start := time.Now()
		if err := w.Run(ctx, func(*capture.Frame) {
			if seen++; seen == sent {
				cancel()
			}
		}); err != nil {
			b.Fatal(err)
		}
		busy += time.Since(start)
		cancel()
		if err := ring.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(busy.Nanoseconds())/float64(b.N), "ns/handled")
}

// inRing is how many packets wait in blocks that the kernel has handed over.
func inRing(w *Worker) (n int) {
	for at := 0; at < len(w.ring); at += blockSize {
		if b := block(w.ring[at : at+blockSize]); b.ready() {
			n += int(b.packets())
		}
	}
	return n
}

// As many packets as one sender gets through a cable, with Run at the other end
// of it.
func BenchmarkFlood(b *testing.B) {
	n := newTestNet(b)
	ring := n.open(Config{TCP: someTCP})
	watch(b, ring, n.recv)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { done <- ring.Workers()[0].Run(ctx, func(*capture.Frame) {}) }()
	b.ReportAllocs()
	b.ResetTimer()
	flood(n, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
	eventually(b, "all to be accounted for", func() bool {
		s := total(ring)
		return s.Frames+s.Dropped == uint64(b.N)
	})
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(100*float64(total(ring).Dropped)/float64(b.N), "%lost")
}

func flood(n *testNet, count int) {
	packet := ethernet(macRecv, unix.ETH_P_IP, ipv4(netip.MustParseAddr("10.0.0.1"), tcpProto, 0, nil, tcp(11, syn)))
	for range count {
		n.transmit(n.send, packet)
	}
}
