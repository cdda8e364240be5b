package flows

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// traffic makes packets at a million a second: of 4,096 connections at a time, each
// of twenty packets with data both ways, and one packet in scan a SYN to another
// port or address that nobody answers.
type traffic struct {
	scan  int
	i     int
	steps [4096]uint8
}

func (g *traffic) next(p *decode.Probe) {
	addr := func(net byte, i int) netip.Addr {
		b := [4]byte{net}
		binary.BigEndian.PutUint16(b[2:], uint16(i))
		return netip.AddrFrom4(b)
	}
	i := g.i
	g.i++
	*p = decode.Probe{Time: start + int64(i)*1000, Proto: decode.ProtoTCP, TTL: 60}
	if i%g.scan == 0 {
		n := i / g.scan
		p.Src, p.Dst = addr(203, 7), addr(10, n>>16)
		p.SrcPort, p.DstPort, p.Flags = 40000, uint16(n), decode.SYN
		return
	}
	c := (i * 2654435761 >> 7) & (len(g.steps) - 1)
	step := g.steps[c]
	g.steps[c] = (step + 1) % 20
	p.Src, p.Dst, p.SrcPort, p.DstPort = addr(198, c), addr(10, c%200), uint16(32768+c), 443
	switch {
	case step == 0:
		p.Flags = decode.SYN
	case step == 19:
		p.Flags = decode.FIN | decode.ACK
	case step == 2:
		p.Flags, p.Ack = decode.ACK, 1
	case step%2 == 1:
		p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
		p.Flags, p.PayloadLen = decode.ACK, 1000
		if step == 1 {
			p.Flags, p.Ack, p.PayloadLen = decode.SYN|decode.ACK, 1, 0
		}
	default:
		p.Flags, p.PayloadLen = decode.ACK|decode.PSH, 300
	}
}

func benchmark(b *testing.B, scan int) {
	g := &traffic{scan: scan}
	tr := New(Options{}, func(*detect.Contact) {})
	var p decode.Probe
	b.ReportAllocs()
	for b.Loop() {
		g.next(&p)
		tr.Packet(&p, nil)
	}
}

// BenchmarkTraffic: one packet in fifty is a scan's.
func BenchmarkTraffic(b *testing.B) { benchmark(b, 50) }

// BenchmarkScan: every second packet begins a contact that nobody answers.
func BenchmarkScan(b *testing.B) { benchmark(b, 2) }

// BenchmarkGenerator is what of the others is the making of packets.
func BenchmarkGenerator(b *testing.B) {
	g := &traffic{scan: 50}
	var p decode.Probe
	for b.Loop() {
		g.next(&p)
	}
}
