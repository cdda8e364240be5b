package decode

import (
	"testing"

	"portsentry/internal/capture"
)

// icmp4 and icmp6 are ICMP messages about the packet of the quoted bytes.
func icmp4(typ, code byte, quoted []byte) []byte {
	return v4{proto: ProtoICMP, payload: cat([]byte{typ, code, 0, 0, 0, 0, 0, 0}, quoted)}.bytes()
}

func icmp6(typ, code byte, quoted []byte) []byte {
	return v6{next: ProtoICMPv6, payload: cat([]byte{typ, code, 0, 0, 0, 0, 0, 0}, quoted)}.bytes()
}

// quotes are frames and what Quote is to say of them; the zero Quoted: nothing.
func quotes() map[string]struct {
	f    *capture.Frame
	want Quoted
} {
	type c = struct {
		f    *capture.Frame
		want Quoted
	}
	udp := udpSeg(40000, 53, []byte("question"))
	of4 := func(proto uint8, sp, dp uint16) Quoted {
		return Quoted{Src: src4, Dst: dst4, Proto: proto, SrcPort: sp, DstPort: dp}
	}
	of6 := func(proto uint8, sp, dp uint16) Quoted {
		return Quoted{Src: src6, Dst: dst6, Proto: proto, SrcPort: sp, DstPort: dp}
	}
	udp4 := v4{proto: ProtoUDP, payload: udp}.bytes()
	udp6 := v6{next: ProtoUDP, payload: udp}.bytes()
	echo4, echo6 := of4(ProtoICMP, 0, 0), of6(ProtoICMPv6, 0, 0)
	echo4.ICMPType, echo6.ICMPType = 8, 128
	return map[string]c{
		"port unreachable":        {net4(icmp4(3, 3, udp4)), of4(ProtoUDP, 40000, 53)},
		"admin prohibited":        {net4(icmp4(3, 13, syn4())), of4(ProtoTCP, 40000, 11)},
		"eight bytes":             {net4(icmp4(3, 1, syn4()[:28])), of4(ProtoTCP, 40000, 11)},
		"four bytes":              {net4(icmp4(11, 0, syn4()[:24])), of4(ProtoTCP, 40000, 11)},
		"three bytes":             {f: net4(icmp4(11, 0, syn4()[:23]))},
		"padding is no port":      {f: net4(cat(icmp4(3, 3, syn4()[:20]), make([]byte, 8)))},
		"no header":               {f: net4(icmp4(11, 0, syn4()[:19]))},
		"nothing":                 {f: net4(icmp4(3, 3, nil))},
		"options":                 {net4(icmp4(12, 0, v4{proto: ProtoUDP, opts: make([]byte, 8), payload: udp}.bytes())), of4(ProtoUDP, 40000, 53)},
		"protocol unreachable":    {net4(icmp4(3, 2, v4{proto: 77}.bytes())), of4(77, 0, 0)},
		"echo":                    {net4(icmp4(3, 1, v4{proto: ProtoICMP, payload: []byte{8, 0, 0, 0}}.bytes())), echo4},
		"first fragment":          {net4(icmp4(3, 3, v4{proto: ProtoUDP, frag: 0x2000, payload: udp}.bytes())), of4(ProtoUDP, 40000, 53)},
		"later fragment":          {f: net4(icmp4(3, 1, v4{proto: ProtoUDP, frag: 7, payload: udp}.bytes()))},
		"fragmentation needed":    {f: net4(icmp4(3, 4, udp4))},
		"redirect":                {f: net4(icmp4(5, 1, udp4))},
		"echo reply":              {f: net4(icmp4(0, 0, udp4))},
		"IPv6 in IPv4's":          {f: net4(icmp4(3, 3, udp6))},
		"IPv4 in IPv6's":          {f: net6(icmp6(1, 4, udp4))},
		"Ethernet and VLAN":       {&capture.Frame{Link: capture.LinkEthernet, Data: cat(macs, []byte{0x81, 0, 0, 9, 8, 0}, icmp4(3, 3, udp4))}, of4(ProtoUDP, 40000, 53)},
		"6: port unreachable":     {net6(icmp6(1, 4, udp6)), of6(ProtoUDP, 40000, 53)},
		"6: hop limit":            {net6(icmp6(3, 0, syn6())), of6(ProtoTCP, 40000, 11)},
		"6: next header":          {net6(icmp6(4, 1, v6{next: 77}.bytes())), of6(77, 0, 0)},
		"6: echo":                 {net6(icmp6(1, 3, v6{next: ProtoICMPv6, payload: []byte{128, 0, 0, 0}}.bytes())), echo6},
		"6: too big":              {f: net6(icmp6(2, 0, udp6))},
		"6: neighbour":            {f: net6(icmp6(135, 0, udp6))},
		"6: extension headers":    {net6(icmp6(1, 4, v6{next: extDestOpts, payload: cat(ext(ProtoUDP, 16), udp)}.bytes())), of6(ProtoUDP, 40000, 53)},
		"6: outer headers":        {net6(v6{next: extHopByHop, payload: cat(ext(extDestOpts, 8), ext(ProtoICMPv6, 24), []byte{1, 4, 0, 0, 0, 0, 0, 0}, udp6)}.bytes()), of6(ProtoUDP, 40000, 53)},
		"6: outer atomic":         {net6(v6{next: extFragment, payload: cat(fragHdr(ProtoICMPv6, 0, false, 1), []byte{1, 4, 0, 0, 0, 0, 0, 0}, udp6)}.bytes()), of6(ProtoUDP, 40000, 53)},
		"6: first fragment":       {net6(icmp6(1, 4, v6{next: extFragment, payload: cat(fragHdr(ProtoUDP, 0, true, 1), udp)}.bytes())), of6(ProtoUDP, 40000, 53)},
		"6: later fragment":       {f: net6(icmp6(1, 4, v6{next: extFragment, payload: cat(fragHdr(ProtoUDP, 8, true, 1), udp)}.bytes()))},
		"6: two fragment headers": {f: net6(icmp6(1, 4, v6{next: extFragment, payload: cat(fragHdr(extFragment, 0, true, 1), fragHdr(ProtoUDP, 0, true, 1), udp)}.bytes()))},
	}
}

func TestQuote(t *testing.T) {
	for name, c := range quotes() {
		c.f.WireLen = max(c.f.WireLen, len(c.f.Data))
		p, st := decodeOne(c.f)
		if st != Complete {
			t.Errorf("%s: status %d", name, st)
			continue
		}
		q, ok := Quote(c.f, &p)
		if ok != c.want.Src.IsValid() || ok && q != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, q, ok, c.want)
		}
	}
}

func TestUndelivered(t *testing.T) {
	for _, c := range []struct {
		f            *capture.Frame
		yes, expired bool
	}{
		{f: net4(icmp4(3, 3, nil)), yes: true},
		{f: net4(icmp4(3, 4, nil))},
		{f: net4(icmp4(11, 0, nil)), yes: true, expired: true},
		{f: net4(icmp4(11, 1, nil)), yes: true},
		{f: net4(icmp4(8, 0, nil))},
		{f: net6(icmp6(3, 0, nil)), yes: true, expired: true},
		{f: net6(icmp6(3, 1, nil)), yes: true},
		{f: net6(icmp6(2, 0, nil))},
		{f: net6(v6{next: ProtoICMP, payload: []byte{3, 3, 0, 0, 0, 0, 0, 0}}.bytes())},
		{f: net4(syn4())},
	} {
		p, _ := decodeOne(c.f)
		if yes, expired := p.Undelivered(); yes != c.yes || expired != c.expired {
			t.Errorf("type %d code %d: %v, %v", p.ICMPType, p.ICMPCode, yes, expired)
		}
	}
}

func TestQuoteAllocations(t *testing.T) {
	for name, c := range quotes() {
		p, _ := decodeOne(c.f)
		if n := testing.AllocsPerRun(10, func() { Quote(c.f, &p) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzQuote: whatever the bytes, Quote does not panic, speaks only of errors of
// its own family, and says of a packet that was cut shorter what it says of the
// whole, or nothing.
func FuzzQuote(f *testing.F) {
	for _, c := range quotes() {
		f.Add(c.f.Data, uint8(c.f.Link), c.f.EtherType, uint16(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, link uint8, etherType, cut uint16) {
		fr := capture.Frame{Data: data, WireLen: len(data), Link: capture.Link(link % 9), EtherType: etherType}
		var p Probe
		if empty().Decode(&fr, &p) != Complete {
			return
		}
		q, ok := Quote(&fr, &p)
		yes, _ := p.Undelivered()
		if ok && (!yes || q.Src.Is4() != p.Src.Is4() || q.Dst.Is4() != p.Dst.Is4()) {
			t.Fatalf("%+v quoted by %+v", q, p)
		}
		fr.Data = data[:len(data)-int(cut)%(len(data)+1)]
		var short Probe
		if empty().Decode(&fr, &short) == Complete {
			if q2, ok2 := Quote(&fr, &short); ok2 && (!ok || q2 != q) {
				t.Fatalf("cut to %d: %+v; whole: %+v, %v", len(fr.Data), q2, q, ok)
			}
		}
	})
}
