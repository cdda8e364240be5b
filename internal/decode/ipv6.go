package decode

import (
	"net/netip"

	"portsentry/internal/capture"
)

// Next header numbers of extension headers (IANA).
const (
	extHopByHop  = 0
	extRouting   = 43
	extFragment  = 44
	extESP       = 50
	extAH        = 51
	extNone      = 59
	extDestOpts  = 60
	extMobility  = 135
	extHIP       = 139
	extShim6     = 140
	fragmentLen  = 8
	ipv6FixedLen = 40
)

// ipv6 reads an IPv6 header (RFC 8200), its extension headers and what is
// behind them.
func (d *Decoder) ipv6(f *capture.Frame, p *Probe, b []byte) Status {
	if len(b) < 1 {
		return Truncated
	}
	if b[0]>>4 != 6 {
		return Malformed
	}
	if len(b) < ipv6FixedLen {
		return Truncated
	}
	n, next := int(be16(b[4:])), b[6]
	if n == 0 && next == extHopByHop {
		// A jumbogram (RFC 2675), or so it seems: Linux takes the packet as
		// long as the frame, even without the option.
		n = len(b) - ipv6FixedLen + missing(f)
	}
	p.Src = netip.AddrFrom16([16]byte(b[8:24]))
	p.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	p.TTL = b[7]
	s := p.cut(f, b[ipv6FixedLen:], n)

	c, st := walk(p, s.b, chain{next: next, first: true})
	if st == Complete && c.next == extFragment {
		h := s.b[c.off:]
		if len(h) < fragmentLen {
			return Truncated
		}
		p.Marks |= HasExtHeaders
		p.IPID = be32(h[4:])
		at := be16(h[2:])
		c.next, c.off, c.first = h[0], c.off+fragmentLen, false
		if at&^6 != 0 { // not an atomic fragment, which is an ordinary packet (RFC 6946)
			if s.lies(f) {
				return Truncated
			}
			return d.fragment(p, b[8:40], piece{
				b: s.b[c.off:], n: s.n - c.off, off: int(at &^ 7), more: at&1 != 0, next: c.next,
			})
		}
		if c, st = walk(p, s.b, c); c.next == extFragment {
			return Malformed // one a packet
		}
	}
	if st != Complete {
		return st
	}
	p.Proto = c.next
	s.b, s.n = s.b[c.off:], s.n-c.off
	if len(s.b) == s.n && !f.ChecksumPartial && !c.enRoute {
		s.pseudo = b[8:40]
	}
	return transport(p, s)
}

// chain is a place in a chain of extension headers.
type chain struct {
	next    uint8 // what begins at off
	off     int
	first   bool // off is right behind the IPv6 header
	enRoute bool // a routing header names further stops: the destination is not yet the final one
}

// walk follows extension headers from c to the transport header or a fragment
// header. Every header takes at least 8 bytes of b: it ends with them. A c.off
// that it returns with Complete lies within b or at its end.
func walk(p *Probe, b []byte, c chain) (chain, Status) {
	for {
		unit, extra := 8, 1 // RFC 8200: 8-octet units, not counting the first
		switch c.next {
		case extHopByHop:
			if !c.first {
				return c, Malformed // RFC 8200 section 4.1
			}
		case extRouting, extDestOpts, extMobility, extHIP, extShim6:
		case extAH:
			unit, extra = 4, 2 // RFC 4302 section 2.2
		case extESP:
			return c, Unknown
		default:
			return c, Complete
		}
		h := b[c.off:]
		if len(h) < 8 {
			return c, Truncated
		}
		p.Marks |= HasExtHeaders
		size := (int(h[1]) + extra) * unit
		if size > len(h) {
			return c, Truncated
		}
		if c.next == extRouting && h[3] != 0 {
			c.enRoute = true
		}
		c.next, c.off, c.first = h[0], c.off+size, false
	}
}
