package replay_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/app"
	"portsentry/internal/pktgen"
)

// mixed is n packets of a network: visits and questions of 2,000 clients, half of
// them by IPv6, echo requests, scans by SYN and UDP, and backscatter.
func mixed(t testing.TB, n int) *tape {
	d := newTape(t)
	for i := 0; len(d.records) < n; i++ {
		c := netip.AddrFrom4([4]byte{198, 51, byte(i % 8), byte(i / 8 % 250)})
		s := netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 40)})
		if i%2 == 1 {
			c6, s6 := netip.MustParseAddr("2001:db8::").As16(), netip.MustParseAddr("2001:db8:1::").As16()
			c6[14], c6[15], s6[15] = byte(i%8), byte(i/8%250), byte(i%40)
			c, s = netip.AddrFrom16(c6), netip.AddrFrom16(s6)
		}
		d.visit(c, s, 443)
		d.question(c, s, 53)
		switch i % 5 {
		case 0:
			d.probe(few, scanner, server, uint16(1+i%60000))
		case 1:
			d.udp(few, netip.AddrPortFrom(scanner, 53), netip.AddrPortFrom(server, uint16(1+i%60000)))
		case 2:
			d.send(few, &pktgen.Packet{Src: client, Dst: server, Proto: pktgen.ProtoICMP, SrcPort: 1, Seq: uint32(i)})
			d.send(few, &pktgen.Packet{Src: scanner, Dst: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Proto: pktgen.ProtoICMP, SrcPort: 1, Seq: uint32(i)})
		case 3:
			from := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
			d.tcp(few, netip.AddrPortFrom(from, 80), netip.AddrPortFrom(server, uint16(i)), pktgen.SYN|pktgen.ACK)
		}
	}
	d.records = d.records[:n]
	return d
}

// One operation is the replay of a capture of 1,000,000 packets, from the file to
// the lines. On a machine that does other things too, packets/CPU-s says what one
// core could do.
func BenchmarkReplay(b *testing.B) {
	const n = 1_000_000
	d := mixed(b, n)
	paths := []struct{ name, path string }{
		{"pcap", file(b, "mixed.pcap", d.pcap(binary.LittleEndian, false))},
		{"pcapng", file(b, "mixed.pcapng", d.pcapng(binary.LittleEndian))},
		{"gzip", file(b, "mixed.pcap.gz", zipped(b, d.pcap(binary.LittleEndian, false)))},
	}
	d.records = nil // it is no part of this
	runtime.GC()
	for _, capture := range paths {
		for _, how := range []string{"full", "traps"} {
			b.Run(capture.name+"/"+how, func(b *testing.B) {
				began := cpuTime(b)
				for b.Loop() {
					var out, errs bytes.Buffer
					if code := app.Main(b.Context(), app.Build{}, []string{"replay", "--json", "--detect", how, capture.path}, &out, &errs); code != 0 {
						b.Fatal(code, errs.String())
					}
					if !bytes.Contains(out.Bytes(), fmt.Appendf(nil, `"source":%q`, scanner)) {
						b.Fatal("the scanner was not found: ", out.String())
					}
				}
				packets := float64(n) * float64(b.N)
				b.ReportMetric(packets/b.Elapsed().Seconds(), "packets/s")
				b.ReportMetric(packets/(cpuTime(b)-began).Seconds(), "packets/CPU-s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// cpuTime is what this process has used of the CPU.
func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
