package decode

// Lengths of transport headers without options, bytes.
const (
	tcpLen  = 20
	udpLen  = 8
	icmpLen = 8
	sctpLen = 12
)

// segment is what the network layer hands up.
type segment struct {
	b []byte // captured bytes, none of them beyond the IP length
	n int    // bytes as the IP length says
	// open: n is what has come so far, more fragments follow. Nothing can be
	// said about a length beyond it.
	open bool
	// pseudo are the source and destination address as in the IP header, for
	// the pseudo-header. nil: the checksum cannot or need not be verified.
	pseudo []byte
}

// transport reads the transport header of p.Proto.
func transport(p *Probe, s segment) Status {
	switch p.Proto {
	case ProtoTCP:
		return tcp(p, s)
	case ProtoUDP:
		return udp(p, s)
	case ProtoSCTP:
		return sctp(p, s)
	}
	if p.isICMP() {
		return icmp(p, s)
	}
	p.PayloadLen = s.n
	return Complete
}

// isICMP reports whether the packet is the ICMP of its own family; the other
// family's number is a protocol that no host speaks.
func (p *Probe) isICMP() bool {
	if p.IsIPv6() {
		return p.Proto == ProtoICMPv6
	}
	return p.Proto == ProtoICMP
}

// headerLen is the length of p's transport header without options.
func (p *Probe) headerLen() int {
	switch p.Proto {
	case ProtoTCP:
		return tcpLen
	case ProtoUDP:
		return udpLen
	case ProtoSCTP:
		return sctpLen
	}
	if p.isICMP() {
		return icmpLen
	}
	return 0
}

// tcp reads a TCP header, RFC 9293 section 3.1.
func tcp(p *Probe, s segment) Status {
	b := s.b
	if len(b) < tcpLen {
		return Truncated
	}
	p.SrcPort, p.DstPort = be16(b), be16(b[2:])
	p.Seq, p.Ack = be32(b[4:]), be32(b[8:])
	p.Flags = be16(b[12:]) & 0x1ff
	p.Window, p.Urgent = be16(b[14:]), be16(b[18:])
	hlen := int(b[12]>>4) * 4
	if hlen < tcpLen || hlen > s.n && !s.open {
		p.Marks |= BadLength
	}
	if hlen > tcpLen {
		p.TCPOptionsLen = uint8(hlen - tcpLen)
		p.MSS = mss(b[tcpLen:min(hlen, len(b))])
	}
	p.PayloadLen = max(0, s.n-max(hlen, tcpLen))
	p.verify(s, s.n)
	return Complete
}

// mss finds the maximum segment size among TCP options; 0 when there is none.
func mss(o []byte) uint16 {
	for len(o) > 0 {
		switch o[0] {
		case 0: // end of list
			return 0
		case 1: // no operation
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return 0
		}
		if o[0] == 2 && o[1] == 4 {
			return be16(o[2:])
		}
		o = o[o[1]:]
	}
	return 0
}

// udp reads a UDP header, RFC 768.
func udp(p *Probe, s segment) Status {
	b := s.b
	if len(b) < udpLen {
		return Truncated
	}
	p.SrcPort, p.DstPort = be16(b), be16(b[2:])
	p.PayloadLen = s.n - udpLen
	length := int(be16(b[4:]))
	if length == 0 && p.IsIPv6() {
		length = s.n // RFC 2675 says so for jumbograms; Linux takes it in any packet
	}
	switch {
	case length < udpLen, length > s.n && !s.open:
		p.Marks |= BadLength
	case be16(b[6:]) != 0:
		p.verify(s, length)
	case p.IsIPv6() && p.Marks&Fragmented == 0:
		// Not optional there (RFC 8200 section 8.1): Linux drops it before it asks
		// who was to compute it. Of fragments we may have the wrong one.
		p.Marks |= BadChecksum
	}
	return Complete
}

// icmp reads the part that all ICMP and ICMPv6 messages share.
func icmp(p *Probe, s segment) Status {
	b := s.b
	if len(b) < icmpLen {
		return Truncated
	}
	p.ICMPType, p.ICMPCode = b[0], b[1]
	p.PayloadLen = s.n - icmpLen
	if p.IsIPv6() {
		p.verify(s, s.n)
	} else if s.pseudo != nil && !sumOK(sum(b, 0)) {
		p.Marks |= BadChecksum // ICMP has no pseudo-header
	}
	return Complete
}

// sctp reads the common header and the type of the first chunk, RFC 9260
// section 3.
func sctp(p *Probe, s segment) Status {
	b := s.b
	if len(b) < sctpLen {
		return Truncated
	}
	p.SrcPort, p.DstPort = be16(b), be16(b[2:])
	if len(b) > sctpLen {
		p.SCTPChunk = b[sctpLen]
	}
	p.PayloadLen = s.n - sctpLen
	if s.pseudo != nil && !sctpOK(b) {
		p.Marks |= BadChecksum
	}
	return Complete
}

// verify marks p if the checksum over the pseudo-header and the first length
// bytes of s is wrong.
func (p *Probe) verify(s segment, length int) {
	if s.pseudo == nil {
		return
	}
	if !sumOK(sum(s.b[:length], sum(s.pseudo, swapped(uint64(length)+uint64(p.Proto))))) {
		p.Marks |= BadChecksum
	}
}
