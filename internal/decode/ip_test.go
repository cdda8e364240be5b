package decode

import (
	"net/netip"
	"testing"

	"portsentry/internal/capture"
)

// packet is a named packet and what must come of it.
type packet struct {
	name  string
	b     []byte
	v6    bool
	want  Status
	marks Marks
	check func(t *testing.T, p *Probe) // nil: as syn4 and syn6 build it
}

func (r packet) frame() *capture.Frame {
	if r.v6 {
		return net6(r.b)
	}
	return net4(r.b)
}

func run(t *testing.T, rows []packet) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p, st := decodeOne(r.frame())
			if st != r.want {
				t.Fatalf("status %d, want %d", st, r.want)
			}
			if st != Complete {
				return
			}
			if p.Marks != r.marks {
				t.Errorf("marks %#x, want %#x", p.Marks, r.marks)
			}
			if r.check != nil {
				r.check(t, &p)
				return
			}
			p.Marks = 0
			checkSYN(t, &p, r.v6)
		})
	}
}

func with(b []byte, at int, v ...byte) []byte {
	b = cat(b)
	copy(b[at:], v)
	return b
}

func ipv4Packets() []packet {
	syn := sum4(6, 16, tcpSeg(40000, 11, SYN, mss1460, nil))
	noOptions := func(want Tri) func(*testing.T, *Probe) {
		return func(t *testing.T, p *Probe) {
			if p.IPOptions != want || p.DstPort != 11 || p.Flags != SYN {
				t.Errorf("%+v", *p)
			}
		}
	}
	return []packet{
		{name: "plain", b: syn4(), want: Complete},
		{name: "plain has no IP options", b: syn4(), want: Complete, check: noOptions(No)},
		{name: "record route", b: v4{proto: 6, opts: with(make([]byte, 40), 0, 7, 39, 4), payload: syn}.bytes(), want: Complete, check: noOptions(Yes)},
		{name: "TTL, id, DF", b: v4{proto: 6, id: 54321, frag: 0x4000, payload: syn}.bytes(), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.TTL != 64 || p.IPID != 54321 || !p.DF {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "link padding", b: cat(syn4(), make([]byte, 6)), want: Complete},
		{name: "length 0, as before segmentation", b: v4{proto: 6, total: 65536, payload: syn}.bytes(), want: Complete},
		{name: "shorter than it says", b: v4{proto: 6, total: 1500, payload: syn}.bytes(), want: Complete, marks: ShortPayload | BadLength, check: func(t *testing.T, p *Probe) {
			if p.PayloadLen != 1500-44 || p.MSS != 1460 {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "version 5", b: with(syn4(), 0, 0x55), want: Malformed},
		{name: "version 6", b: with(syn4(), 0, 0x65), want: Malformed},
		{name: "total length below header", b: v4{proto: 6, total: 19, payload: syn}.bytes(), want: Malformed},
		{name: "header beyond the total length", b: with(syn4(), 0, 0x4f), want: Malformed},
		{name: "header beyond the capture", b: with(syn4(), 0, 0x4f, 0, 1, 0), want: Truncated},
		{name: "packet ends inside TCP", b: v4{proto: 6, payload: syn[:19]}.bytes(), want: Truncated},
		{name: "padding is no TCP", b: cat(v4{proto: 6, payload: syn[:8]}.bytes(), syn[8:]), want: Truncated},
		// COMPAT 4.3
		{name: "IHL 4", b: with(syn4(), 0, 0x44), want: Malformed},
		{name: "bad IP checksum", b: with(syn4(), 10, 0xde, 0xad), want: Complete, marks: BadIPChecksum},
		{name: "TCP data offset 1", b: v4{proto: 6, payload: sum4(6, 16, with(syn, 12, 0x10))}.bytes(), want: Complete, marks: BadLength, check: noOptions(No)},
		{name: "UDP length 4", b: v4{proto: 17, payload: with(udpSeg(53, 7, nil), 4, 0, 4)}.bytes(), want: Complete, marks: BadLength, check: func(t *testing.T, p *Probe) {
			if p.SrcPort != 53 || p.DstPort != 7 || p.PayloadLen != 0 {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "non-first fragment that looks like a SYN", b: v4{proto: 6, frag: 3, payload: syn}.bytes(), want: Fragment},
		{name: "the same with more to come", b: v4{proto: 6, frag: 0x2003, payload: syn}.bytes(), want: Fragment},
		{name: "SYN+ACK", b: v4{proto: 6, payload: sum4(6, 16, tcpSeg(1, 2, SYN|ACK, nil, nil))}.bytes(), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.Flags != SYN|ACK {
				t.Errorf("flags %#x", p.Flags)
			}
		}},
	}
}

func TestIPv4(t *testing.T) { run(t, ipv4Packets()) }

func TestTotalLengthZeroOfALongPacket(t *testing.T) {
	f := net4(v4{proto: 6, total: 65536, payload: sum4(6, 16, tcpSeg(1, 11, PSH|ACK, nil, make([]byte, 100)))}.bytes())
	f.WireLen = 70000
	p, st := decodeOne(f)
	if st != Complete || p.PayloadLen != 70000-40 || p.Marks != ShortPayload {
		t.Errorf("status %d, payload %d, marks %#x", st, p.PayloadLen, p.Marks)
	}
}

func ipv6Packets() []packet {
	syn := sum6(6, 16, tcpSeg(40000, 11, SYN, mss1460, nil))
	mapped := src4.As16()
	const x = HasExtHeaders
	rows := []packet{
		{name: "plain", b: syn6(), want: Complete},
		{name: "link padding", b: cat(syn6(), []byte("xx")), want: Complete},
		{name: "hop-by-hop 8", b: v6{0, cat(ext(6, 8), syn)}.bytes(), want: Complete, marks: x},
		{name: "destination options 8", b: v6{60, cat(ext(6, 8), syn)}.bytes(), want: Complete, marks: x},
		{name: "destination options 16", b: v6{60, cat(ext(6, 16), syn)}.bytes(), want: Complete, marks: x},
		{name: "destination options 2048", b: v6{60, cat(ext(6, 2048), syn)}.bytes(), want: Complete, marks: x},
		{name: "routing, arrived", b: v6{43, cat(routing(6, 0), syn)}.bytes(), want: Complete, marks: x},
		{name: "routing, arrived, bad checksum", b: v6{43, cat(routing(6, 0), with(syn, 16, 1, 1))}.bytes(), want: Complete, marks: x | BadChecksum},
		{name: "routing, under way: checksum is for elsewhere", b: v6{43, cat(routing(6, 1), with(syn, 16, 1, 1))}.bytes(), want: Complete, marks: x},
		{name: "AH 12", b: v6{51, cat([]byte{6, 1}, make([]byte, 10), syn)}.bytes(), want: Complete, marks: x},
		{name: "AH 24", b: v6{51, cat([]byte{6, 4}, make([]byte, 22), syn)}.bytes(), want: Complete, marks: x},
		{name: "AH of length 0", b: v6{51, cat([]byte{6, 0}, make([]byte, 6), syn)}.bytes(), want: Complete, marks: x},
		{name: "mobility", b: v6{135, cat(ext(6, 8), syn)}.bytes(), want: Complete, marks: x},
		{name: "HIP", b: v6{139, cat(ext(6, 40), syn)}.bytes(), want: Complete, marks: x},
		{name: "shim6", b: v6{140, cat(ext(6, 8), syn)}.bytes(), want: Complete, marks: x},
		{name: "all of them", b: v6{0, cat(ext(60, 8), ext(43, 8), routing(51, 0), []byte{60, 1}, make([]byte, 10),
			ext(135, 24), ext(139, 8), ext(140, 8), ext(6, 16), syn)}.bytes(), want: Complete, marks: x},
		{name: "a hundred", b: v6{60, cat(repeat(ext(60, 8), 99), ext(6, 8), syn)}.bytes(), want: Complete, marks: x},
		{name: "from an IPv4-mapped address", b: with(v6{6, sumAt(cat(mapped[:], dst6.AsSlice(), []byte{0, 0, 0, byte(len(syn)), 0, 0, 0, 6}), 16, syn)}.bytes(), 8, mapped[:]...), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.Src != netip.AddrFrom16(mapped) {
				t.Errorf("source %v", p.Src)
			}
		}},
		{name: "hop-by-hop not first", b: v6{60, cat(ext(0, 8), ext(6, 8), syn)}.bytes(), want: Malformed},
		{name: "header longer than the packet", b: v6{60, cat(with(ext(6, 8), 1, 200), syn)}.bytes(), want: Truncated},
		{name: "chain without end", b: v6{60, repeat(ext(60, 8), 9)}.bytes(), want: Truncated},
		{name: "ESP", b: v6{50, syn}.bytes(), want: Unknown},
		{name: "ESP behind another", b: v6{60, cat(ext(50, 8), syn)}.bytes(), want: Unknown},
		{name: "length 0 and hop-by-hop, which Linux takes", b: with(v6{0, cat(ext(6, 8), syn)}.bytes(), 4, 0, 0), want: Complete, marks: x},
		{name: "payload length 0", b: with(syn6(), 4, 0, 0), want: Truncated},
		{name: "version 4", b: with(syn6(), 0, 0x45), want: Malformed},
		{name: "packet ends inside TCP", b: v6{6, syn[:19]}.bytes(), want: Truncated},
		{name: "atomic fragment", b: v6{44, cat(fragHdr(6, 0, false, 99), syn)}.bytes(), want: Complete, marks: x},
		{name: "atomic fragment, reserved bits", b: v6{44, cat(with(fragHdr(6, 0, false, 99), 1, 0xff, 0, 6), syn)}.bytes(), want: Complete, marks: x},
		{name: "atomic fragment between headers", b: v6{60, cat(ext(44, 8), fragHdr(60, 0, false, 99), ext(6, 8), syn)}.bytes(), want: Complete, marks: x},
		{name: "two fragment headers", b: v6{44, cat(fragHdr(44, 0, false, 1), fragHdr(6, 0, false, 2), syn)}.bytes(), want: Malformed},
		{name: "two fragment headers, first of several", b: v6{44, cat(fragHdr(44, 0, true, 1), fragHdr(6, 0, false, 2), syn)}.bytes(), want: Malformed},
		{name: "packet ends inside the fragment header", b: v6{44, fragHdr(6, 0, false, 1)[:7]}.bytes(), want: Truncated},
		{name: "non-first fragment that looks like a SYN", b: v6{44, cat(fragHdr(6, 64, false, 1), syn)}.bytes(), want: Fragment},
		{name: "no next header", b: v6{60, cat(ext(59, 8), syn)}.bytes(), want: Complete, marks: x, check: func(t *testing.T, p *Probe) {
			if p.Proto != 59 || p.DstPort != 0 || p.PayloadLen != len(syn) {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "nothing at all", b: v6{59, nil}.bytes(), want: Complete, check: func(t *testing.T, p *Probe) {
			if p.Proto != 59 || p.PayloadLen != 0 {
				t.Errorf("%+v", *p)
			}
		}},
		{name: "hop limit, id of the fragment header, no word on options", b: v6{44, cat(fragHdr(6, 0, false, 0xdeadbeef), syn)}.bytes(), want: Complete, marks: x, check: func(t *testing.T, p *Probe) {
			if p.TTL != 55 || p.IPID != 0xdeadbeef || p.IPOptions != NotKnown || p.DF {
				t.Errorf("%+v", *p)
			}
		}},
	}
	for i := range rows {
		rows[i].v6 = true
	}
	return rows
}

func repeat(b []byte, n int) []byte {
	var out []byte
	for range n {
		out = append(out, b...)
	}
	return out
}

func TestIPv6(t *testing.T) { run(t, ipv6Packets()) }

func TestMappedAddressStaysIPv6(t *testing.T) {
	b := syn6()
	copy(b[8:], unhex(t, "00000000 00000000 0000ffff 7f000001"))
	p, st := decodeOne(net6(b))
	if st != Complete || !p.IsIPv6() || !p.Src.Is4In6() || p.Src.Zone() != "" {
		t.Errorf("status %d, source %v", st, p.Src)
	}
}
