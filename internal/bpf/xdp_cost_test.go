package bpf_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// What a packet costs that is for no trap, by the kernel's own clock, without and
// with what Rules.Scans asks for: such as belong to something, which must cost the
// same, and such as begin something. The best of several runs: the rest is what
// else the machine had to do.
func BenchmarkPass(b *testing.B) {
	data := tcp(from4, 443, ack|psh)
	data.Payload = make([]byte, 1000)
	for _, c := range []struct {
		name string
		p    pktgen.Packet
	}{
		{"data", data},
		{"data over IPv6", tcp(from6, 443, ack)},
		{"FIN of a connection", tcp(from4, 443, fin|ack)},
		{"datagram to an ephemeral port", udp(from4, latePort+1)},
		{"datagram to a service", udp(from4, 443)},
		{"datagram to a service over IPv6", udp(from6, 443)},
		{"SYN to a service", tcp(from4, 443, syn)},
		{"SYN to nobody", tcp(from4, noTrap, syn)},
		{"SYN to a trap", tcp(from4, trap, syn)},
		{"datagram to nobody", udp(from4, noTrap)},
	} {
		for scans, name := range []string{"traps", "full"} {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				r := newRig(b, bpf.SensorOptions{}, bpf.Rules{Sense: true, Scans: scans == 1})
				bpf.Listening(b, "tcp", ":443", 0)
				datagrams, err := net.ListenPacket("udp", ":443")
				r.must(err)
				defer datagrams.Close()
				frame := frame(b, c.p)
				best := time.Hour
				for b.Loop() {
					_, took, err := r.Program().Benchmark(frame, 100_000, nil)
					r.must(err)
					best = min(best, took)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(best.Nanoseconds()), "kernel-ns/packet")
			})
		}
	}
}

// What a packet of somebody banned costs: one that is dropped, and one of a network
// that is.
func BenchmarkDrop(b *testing.B) {
	for _, c := range []struct {
		name     string
		src      netip.Addr
		of       netip.Prefix
		strength bpf.Strength
	}{
		{"full", from4, prefix(from4), bpf.Full},
		{"full over IPv6", from6, netip.PrefixFrom(from6, 64).Masked(), bpf.Full},
		{"soft", from4, prefix(from4), bpf.Soft},
		{"limited", from4, prefix(from4), bpf.Limited},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, bpf.SensorOptions{}, bpf.Rules{})
			r.ban(c.of, c.strength, bpf.BanAll)
			frame := frame(b, tcp(c.src, noTrap, syn))
			best := time.Hour
			for b.Loop() {
				verdict, took, err := r.Program().Benchmark(frame, 100_000, nil)
				r.must(err)
				if verdict != 1 { // XDP_DROP
					b.Fatalf("verdict %d", verdict)
				}
				best = min(best, took)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(best.Nanoseconds()), "kernel-ns/packet")
		})
	}
}
