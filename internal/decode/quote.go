package decode

import (
	"net/netip"

	"portsentry/internal/capture"
)

// Quoted is what an ICMP error says of the packet that it is about.
type Quoted struct {
	Src, Dst         netip.Addr
	Proto            uint8 // behind extension headers
	SrcPort, DstPort uint16
	ICMPType         uint8 // where Proto is the ICMP of the family
}

// Types of the ICMP errors that tell why a packet did not get there (RFC 792,
// RFC 4443). A packet too big for the path is not one of them: its sender goes on.
const (
	icmpUnreachable    = 3
	icmpTimeExceeded   = 11
	icmpParameter      = 12
	icmpFragmentNeeded = 4 // a code of icmpUnreachable
	icmp6Unreachable   = 1
	icmp6TimeExceeded  = 3
	icmp6Parameter     = 4
	quotedPorts        = 4 // bytes; RFC 792 promises 8
)

// Undelivered reports whether p is an ICMP error that says that a packet did not
// get there; expired, that its hop limit was the reason.
func (p *Probe) Undelivered() (yes, expired bool) {
	switch {
	case p.Proto == ProtoICMP && !p.IsIPv6():
		switch p.ICMPType {
		case icmpUnreachable:
			return p.ICMPCode != icmpFragmentNeeded, false
		case icmpTimeExceeded:
			return true, p.ICMPCode == 0 // 1: in reassembly
		case icmpParameter:
			return true, false
		}
	case p.Proto == ProtoICMPv6 && p.IsIPv6():
		switch p.ICMPType {
		case icmp6Unreachable, icmp6Parameter:
			return true, false
		case icmp6TimeExceeded:
			return true, p.ICMPCode == 0
		}
	}
	return false, false
}

// Quote reads the packet that is quoted in the ICMP error p, which Decode made of
// f. It reports false where p is none of those that Undelivered knows, came in
// fragments, or quotes too little to say what it is about. It allocates nothing.
func Quote(f *capture.Frame, p *Probe) (q Quoted, ok bool) {
	if yes, _ := p.Undelivered(); !yes || p.Marks&Fragmented != 0 {
		return q, false
	}
	var scratch Probe // what it says of the outer packet is in p already
	etherType, b, st := link(f, &scratch)
	if st != Complete {
		return q, false
	}
	var h []byte
	var proto uint8
	if etherType == etherIPv4 {
		if b, _, _, ok = open4(b); !ok || len(b) < icmpLen {
			return q, false
		}
		b, h, proto, ok = open4(p.quote(b))
		if !ok || be16(h[6:])&0x1fff != 0 { // a later fragment has no ports
			return q, false
		}
		q.Src, q.Dst = netip.AddrFrom4([4]byte(h[12:16])), netip.AddrFrom4([4]byte(h[16:20]))
		ok = q.transport(b, proto, ProtoICMP)
		return q, ok
	}
	if b, _, _, ok = open6(b, &scratch); !ok || len(b) < icmpLen {
		return q, false
	}
	if b, h, proto, ok = open6(p.quote(b), &scratch); !ok {
		return q, false
	}
	q.Src, q.Dst = netip.AddrFrom16([16]byte(h[8:24])), netip.AddrFrom16([16]byte(h[24:40]))
	ok = q.transport(b, proto, ProtoICMPv6)
	return q, ok
}

// quote is what the ICMP message b quotes, without link padding.
func (p *Probe) quote(b []byte) []byte {
	return b[icmpLen:][:min(len(b)-icmpLen, p.PayloadLen)]
}

// open4 takes the IPv4 header h off b. A quoted packet is cut off, so its total
// length says nothing.
func open4(b []byte) (rest, h []byte, proto uint8, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return nil, nil, 0, false
	}
	hlen := int(b[0]&0x0f) * 4
	if hlen < 20 || hlen > len(b) {
		return nil, nil, 0, false
	}
	return b[hlen:], b[:hlen], b[9], true
}

// open6 takes the IPv6 header h and extension headers off b.
func open6(b []byte, scratch *Probe) (rest, h []byte, proto uint8, ok bool) {
	if len(b) < ipv6FixedLen || b[0]>>4 != 6 {
		return nil, nil, 0, false
	}
	rest, h = b[ipv6FixedLen:], b[:ipv6FixedLen]
	c, st := walk(scratch, rest, chain{next: h[6], first: true})
	if st == Complete && c.next == extFragment {
		fh := rest[c.off:]
		if len(fh) < fragmentLen || be16(fh[2:])&^7 != 0 {
			return nil, nil, 0, false
		}
		c.next, c.off, c.first = fh[0], c.off+fragmentLen, false
		c, st = walk(scratch, rest, c)
	}
	if st != Complete || c.next == extFragment {
		return nil, nil, 0, false
	}
	return rest[c.off:], h, c.next, true
}

// transport reads what is needed of the quoted transport header.
func (q *Quoted) transport(b []byte, proto, icmp uint8) bool {
	q.Proto = proto
	switch proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		if len(b) < quotedPorts {
			return false
		}
		q.SrcPort, q.DstPort = be16(b), be16(b[2:])
	case icmp:
		if len(b) < 1 {
			return false
		}
		q.ICMPType = b[0]
	}
	return true
}
