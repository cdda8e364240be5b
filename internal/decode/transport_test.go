package decode

import (
	"math/rand/v2"
	"testing"
)

func is(sport, dport uint16, payload int) func(*testing.T, *Probe) {
	return func(t *testing.T, p *Probe) {
		t.Helper()
		if p.SrcPort != sport || p.DstPort != dport || p.PayloadLen != payload {
			t.Errorf("ports %d, %d, payload %d; want %d, %d, %d", p.SrcPort, p.DstPort, p.PayloadLen, sport, dport, payload)
		}
	}
}

func isMSS(mss uint16, options uint8) func(*testing.T, *Probe) {
	return func(t *testing.T, p *Probe) {
		t.Helper()
		if p.MSS != mss || p.TCPOptionsLen != options {
			t.Errorf("MSS %d, options %d; want %d, %d", p.MSS, p.TCPOptionsLen, mss, options)
		}
	}
}

func isICMP(typ, code uint8, payload int) func(*testing.T, *Probe) {
	return func(t *testing.T, p *Probe) {
		t.Helper()
		if p.ICMPType != typ || p.ICMPCode != code || p.PayloadLen != payload || p.SrcPort != 0 {
			t.Errorf("%+v", *p)
		}
	}
}

func transportPackets() []packet {
	tcp4 := func(opts, data []byte) []byte {
		return v4{proto: 6, payload: sum4(6, 16, tcpSeg(1, 2, SYN, opts, data))}.bytes()
	}
	udp4 := func(seg []byte) []byte { return v4{proto: 17, payload: sum4(17, 6, seg)}.bytes() }
	udp6 := func(seg []byte) []byte { return v6{17, sum6(17, 6, seg)}.bytes() }
	data := []byte("odd")
	echo := sumAt(nil, 2, []byte{8, 0, 0, 0, 1, 2, 3, 4, 'x'})
	echo6 := sum6(58, 2, []byte{128, 0, 0, 0, 1, 2, 3, 4, 'x'})
	longUDP := with(sum6(17, 6, with(udpSeg(9, 10, data), 4, 0, 0)), 4, 0, 0)
	rows := []packet{
		{name: "TCP all nine flags", b: v4{proto: 6, payload: sum4(6, 16, tcpSeg(1, 2, 0x1ff, nil, data))}.bytes(), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.Flags != FIN|SYN|RST|PSH|ACK|URG|ECE|CWR|AE || p.PayloadLen != 3 {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "TCP bad checksum", b: with(syn4(), 36, 0xba, 0xad), want: Complete, marks: BadChecksum},
		{name: "TCP/IPv6 bad checksum", b: with(syn6(), 56, 0xba, 0xad), v6: true, want: Complete, marks: BadChecksum},
		{name: "TCP no options", b: tcp4(nil, data), want: Complete, check: isMSS(0, 0)},
		{name: "TCP MSS last", b: tcp4(cat([]byte{1, 1, 3, 3, 7, 4, 2}, []byte{8, 10}, make([]byte, 8), mss1460, []byte{0, 0, 0}), nil), want: Complete, check: isMSS(1460, 24)},
		{name: "TCP MSS behind the end", b: tcp4(cat([]byte{0, 1, 1, 1}, mss1460), nil), want: Complete, check: isMSS(0, 8)},
		{name: "TCP option of length 0", b: tcp4(cat([]byte{9, 0, 1, 1}, mss1460), nil), want: Complete, check: isMSS(0, 8)},
		{name: "TCP option of length 1", b: tcp4(cat([]byte{9, 1, 1, 1}, mss1460), nil), want: Complete, check: isMSS(0, 8)},
		{name: "TCP option beyond the header", b: tcp4(cat([]byte{9, 5, 1, 1}), mss1460), want: Complete, check: isMSS(0, 4)},
		{name: "TCP MSS cut", b: tcp4([]byte{1, 1, 2, 4}, []byte{5, 0xb4}), want: Complete, check: isMSS(0, 4)},
		{name: "TCP option kind alone", b: tcp4([]byte{1, 1, 1, 2}, []byte{4, 5, 0xb4}), want: Complete, check: isMSS(0, 4)},
		{name: "TCP MSS of odd length", b: tcp4([]byte{2, 3, 9, 2, 4, 5, 0xb4, 0}, nil), want: Complete, check: isMSS(0x05b4, 8)},
		{name: "TCP header beyond the packet", b: v4{proto: 6, payload: sum4(6, 16, with(tcpSeg(1, 2, SYN, mss1460, nil), 12, 0xf0))}.bytes(), want: Complete, marks: BadLength, check: isMSS(1460, 40)},
		{name: "UDP", b: udp4(udpSeg(5353, 69, data)), want: Complete, check: is(5353, 69, 3)},
		{name: "UDP/IPv6", v6: true, b: udp6(udpSeg(5353, 69, data)), want: Complete, check: is(5353, 69, 3)},
		{name: "UDP bad checksum", b: with(udp4(udpSeg(1, 2, data)), 30, 'O'), want: Complete, marks: BadChecksum, check: is(1, 2, 3)},
		{name: "UDP no checksum", b: v4{proto: 17, payload: udpSeg(1, 2, data)}.bytes(), want: Complete, check: is(1, 2, 3)},
		{name: "UDP/IPv6 no checksum", v6: true, b: v6{17, udpSeg(1, 2, data)}.bytes(), want: Complete, marks: BadChecksum, check: is(1, 2, 3)},
		{name: "UDP length 0", b: v4{proto: 17, payload: with(udpSeg(1, 2, data), 4, 0, 0)}.bytes(), want: Complete, marks: BadLength, check: is(1, 2, 3)},
		{name: "UDP/IPv6 length 0, which Linux takes", v6: true, b: v6{17, longUDP}.bytes(), want: Complete, check: is(9, 10, 3)},
		{name: "UDP length beyond the packet", b: v4{proto: 17, payload: with(udpSeg(1, 2, data), 4, 0, 12)}.bytes(), want: Complete, marks: BadLength, check: is(1, 2, 3)},
		{name: "UDP shorter than the packet", b: v4{proto: 17, payload: cat(sum4(17, 6, udpSeg(1, 2, data)), data)}.bytes(), want: Complete, check: is(1, 2, 6)},
		{name: "UDP of 7 bytes", b: v4{proto: 17, payload: udpSeg(1, 2, nil)[:7]}.bytes(), want: Truncated},
		{name: "ICMP echo", b: v4{proto: 1, payload: echo}.bytes(), want: Complete, check: isICMP(8, 0, 1)},
		{name: "ICMP bad checksum", b: v4{proto: 1, payload: with(echo, 8, 'y')}.bytes(), want: Complete, marks: BadChecksum, check: isICMP(8, 0, 1)},
		{name: "ICMPv6 echo", v6: true, b: v6{58, echo6}.bytes(), want: Complete, check: isICMP(128, 0, 1)},
		{name: "ICMPv6 without pseudo-header", v6: true, b: v6{58, sumAt(nil, 2, echo6)}.bytes(), want: Complete, marks: BadChecksum, check: isICMP(128, 0, 1)},
		{name: "ICMP of 7 bytes", b: v4{proto: 1, payload: echo[:7]}.bytes(), want: Truncated},
		{name: "ICMPv6 in IPv4", b: v4{proto: 58, payload: echo6}.bytes(), want: Complete, check: isICMP(0, 0, 9)},
		{name: "ICMP in IPv6", v6: true, b: v6{1, echo}.bytes(), want: Complete, check: isICMP(0, 0, 9)},
		{name: "SCTP INIT", b: v4{proto: 132, payload: sctpSeg(36412, 38412, 1)}.bytes(), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.SrcPort != 36412 || p.DstPort != 38412 || p.SCTPChunk != 1 || p.PayloadLen != 4 {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "SCTP COOKIE-ECHO", v6: true, b: v6{132, sctpSeg(1, 2, 10)}.bytes(), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.SCTPChunk != 10 || p.DstPort != 2 {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "SCTP bad checksum", b: v4{proto: 132, payload: with(sctpSeg(1, 2, 1), 8, 0, 0, 0, 0)}.bytes(), want: Complete, marks: BadChecksum, check: is(1, 2, 4)},
		{name: "SCTP of 11 bytes", b: v4{proto: 132, payload: sctpSeg(1, 2, 1)[:11]}.bytes(), want: Truncated},
		{name: "GRE", b: v4{proto: 47, payload: tcpSeg(1, 2, SYN, nil, nil)}.bytes(), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.Proto != 47 || p.SrcPort != 0 || p.Flags != 0 || p.PayloadLen != 20 {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "ESP in IPv4", b: v4{proto: 50}.bytes(), want: Complete, check: is(0, 0, 0)},
	}
	return rows
}

func TestTransport(t *testing.T) { run(t, transportPackets()) }

func TestChecksumLeftToTheCard(t *testing.T) {
	for _, r := range []packet{
		{b: with(syn4(), 36, 1, 1)},
		{b: with(syn6(), 56, 1, 1), v6: true},
		{b: v6{17, with(udpSeg(1, 2, nil), 6, 1, 1)}.bytes(), v6: true},
		{b: v6{17, udpSeg(1, 2, nil)}.bytes(), v6: true, marks: BadChecksum}, // that there is none, Linux sees all the same
		{b: v4{proto: 132, payload: make([]byte, 16)}.bytes()},
		{b: v4{proto: 1, payload: make([]byte, 16)}.bytes()},
	} {
		f := r.frame()
		f.ChecksumPartial = true
		if p, st := decodeOne(f); st != Complete || p.Marks != r.marks {
			t.Errorf("%x: status %d, marks %#x", r.b, st, p.Marks)
		}
	}
}

func TestSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		for range 20 {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(rng.Uint32())
				if rng.IntN(3) == 0 {
					b[i] = 0xff // carries
				}
			}
			want := slowSum(b)
			with := cat(b, make([]byte, n&1), u16(int(want)))
			if !sumOK(sum(with, 0)) {
				t.Fatalf("%x: right sum %#x refused", b, want)
			}
			with[len(with)-1] ^= 1
			if sumOK(sum(with, 0)) {
				t.Fatalf("%x: wrong sum accepted", b)
			}
		}
	}
	if sumOK(sum(make([]byte, 20), 0)) {
		t.Error("all zero accepted")
	}
	if !sumOK(sum([]byte{0xff, 0xff, 0xff, 0xff}, ^uint64(0))) {
		t.Error("all ones refused")
	}
}
