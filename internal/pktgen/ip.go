package pktgen

import "encoding/binary"

const ipv4HeaderLen = 20 // without options (RFC 791)

func (p *Packet) appendDatagram(b []byte, l *Link, body []byte, fr *fragment) ([]byte, error) {
	b = p.appendLink(b, l)
	if p.Src.Is4() {
		return p.appendIPv4(b, body, fr)
	}
	return p.appendIPv6(b, body, fr)
}

func (p *Packet) appendLink(b []byte, l *Link) []byte {
	if l == nil {
		return b
	}
	b = append(b, l.Dst...)
	b = append(b, l.Src...)
	for i, tci := range p.VLANs {
		tpid := uint16(0x8100) // 802.1Q
		if p.QinQ && i == 0 {
			tpid = 0x88a8 // 802.1ad
		}
		b = binary.BigEndian.AppendUint16(b, tpid)
		b = binary.BigEndian.AppendUint16(b, tci)
	}
	return binary.BigEndian.AppendUint16(b, p.etherType())
}

func (p *Packet) etherType() uint16 {
	if p.Src.Is4() {
		return 0x0800
	}
	return 0x86dd
}

func (p *Packet) ttl() uint8 {
	if p.TTL == 0 {
		return 64
	}
	return p.TTL
}

func (p *Packet) appendIPv4(b, body []byte, fr *fragment) ([]byte, error) {
	start := len(b)
	opts := pad4(p.IPOptions)
	headerLen := ipv4HeaderLen + len(opts)
	if headerLen+len(body) > maxDatagramLen {
		return b, errTooLong(headerLen + len(body))
	}
	var frag uint16
	if p.DF {
		frag |= 0x4000
	}
	if fr != nil {
		frag |= uint16(fr.off / 8)
		if fr.more {
			frag |= 0x2000
		}
	}
	b = append(b, 0x40|uint8(headerLen/4), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(headerLen+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(p.IPID))
	b = binary.BigEndian.AppendUint16(b, frag)
	b = append(b, p.ttl(), p.Proto, 0, 0)
	b = append(b, p.Src.AsSlice()...)
	b = append(b, p.Dst.AsSlice()...)
	b = append(b, opts...)
	c := checksum(sum(b[start:], 0))
	if p.BadIPChecksum {
		c ^= 0x1234
	}
	binary.BigEndian.PutUint16(b[start+10:], c)
	return append(b, body...), nil
}

func (p *Packet) appendIPv6(b, body []byte, fr *fragment) ([]byte, error) {
	headers, after := p.ExtHeaders, p.Proto
	if fr != nil {
		headers, after = fr.per, FragmentHdr
	}
	ext := p.appendExt(nil, headers, after)
	if fr != nil {
		off := uint16(fr.off)
		if fr.more {
			off |= 1
		}
		ext = append(ext, fr.first, 0)
		ext = binary.BigEndian.AppendUint16(ext, off)
		ext = binary.BigEndian.AppendUint32(ext, p.IPID)
	}
	if len(ext)+len(body) > maxDatagramLen {
		return b, errTooLong(len(ext) + len(body))
	}
	next := after
	if len(headers) > 0 {
		next = headers[0].Type
	}
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(ext)+len(body)))
	b = append(b, next, p.ttl())
	b = append(b, p.Src.AsSlice()...)
	b = append(b, p.Dst.AsSlice()...)
	b = append(b, ext...)
	return append(b, body...), nil
}

// appendExt appends a chain of extension headers whose last one names after.
func (p *Packet) appendExt(b []byte, headers []ExtHeader, after uint8) []byte {
	for i, h := range headers {
		next := after
		if i+1 < len(headers) {
			next = headers[i+1].Type
		}
		start := len(b)
		b = append(b, make([]byte, h.Len)...)
		x := b[start:]
		x[0] = next
		switch h.Type {
		case FragmentHdr:
			binary.BigEndian.PutUint32(x[4:], p.IPID)
		case AuthHdr:
			x[1] = uint8(h.Len/4 - 2) // the one length in units of 4 (RFC 4302 section 2.2)
		case HopByHop, DestOptions:
			x[1] = uint8(h.Len/8 - 1)
			padN(x[2:])
		case Routing:
			x[1] = uint8(h.Len/8 - 1)
			x[2] = 253 // experimental (RFC 3692): ignored while no segment is left
		default:
			x[1] = uint8(h.Len/8 - 1)
		}
	}
	return b
}

// padN fills b with PadN options, each of at most 257 bytes (RFC 8200 section
// 4.2). What is left at the end is never a single byte of another kind: a zero
// is Pad1.
func padN(b []byte) {
	for len(b) >= 2 {
		n := min(len(b), 257)
		b[0], b[1] = 1, uint8(n-2)
		b = b[n:]
	}
}
