package decode

import (
	"net/netip"

	"portsentry/internal/capture"
)

// ipv4 reads an IPv4 header (RFC 791) and what is behind it.
func (d *Decoder) ipv4(f *capture.Frame, p *Probe, b []byte) Status {
	if len(b) < 20 {
		return Truncated
	}
	hlen, total := int(b[0]&0x0f)*4, int(be16(b[2:]))
	if total == 0 {
		// Segments bigger than the field, before the card cuts them up.
		total = len(b) + missing(f)
	}
	switch {
	case b[0]>>4 != 4, hlen < 20, total < hlen:
		return Malformed
	case len(b) < hlen:
		return Truncated
	}
	p.Src = netip.AddrFrom4([4]byte(b[12:16]))
	p.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	p.Proto, p.TTL, p.IPID = b[9], b[8], uint32(be16(b[4:]))
	p.IPOptions = No
	if hlen > 20 {
		p.IPOptions = Yes
	}
	if !sumOK(sum(b[:hlen], 0)) {
		p.Marks |= BadIPChecksum
	}
	s := p.cut(f, b[hlen:], total-hlen)

	const df, mf, offset = 0x4000, 0x2000, 0x1fff
	frag := be16(b[6:])
	p.DF = frag&df != 0
	if frag&(mf|offset) != 0 {
		if s.lies(f) {
			return Truncated
		}
		return d.fragment(p, b[12:20], piece{
			b: s.b, n: s.n, off: int(frag&offset) * 8, more: frag&mf != 0, next: p.Proto,
		})
	}
	if len(s.b) == s.n && !f.ChecksumPartial {
		s.pseudo = b[12:20]
	}
	return transport(p, s)
}

// cut makes the segment of n bytes that b begins with: link padding goes, and
// missing bytes are marked.
func (p *Probe) cut(f *capture.Frame, b []byte, n int) segment {
	s := segment{b: b[:min(len(b), n)], n: n}
	if len(b) < n {
		p.Marks |= ShortPayload
	}
	if s.lies(f) {
		p.Marks |= BadLength
	}
	return s
}

// missing is how many bytes of the frame were not captured.
func missing(f *capture.Frame) int { return max(0, f.WireLen-len(f.Data)) }

// lies reports whether the packet, not the capture, ends before its IP length
// says. Linux takes no such packet; as a fragment it must not stand in for a real
// one.
func (s segment) lies(f *capture.Frame) bool { return len(s.b) < s.n && missing(f) == 0 }
