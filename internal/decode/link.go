package decode

import (
	"encoding/binary"

	"portsentry/internal/capture"
)

// EtherTypes (IEEE 802 numbers). Below etherMin the field is an 802.3 length;
// the kernel's stand-in for LLC frames, ETH_P_802_2, lies there too.
const (
	etherMin   = 0x0600
	etherIPv4  = 0x0800
	etherVLAN  = 0x8100
	etherIPv6  = 0x86dd
	etherPPPoE = 0x8864
	etherQinQ  = 0x88a8
	etherQinQ1 = 0x9100 // before 802.1ad had a number
)

// ARP hardware types (linux/if_arp.h) whose cooked protocol field is no
// EtherType.
const (
	arphrdFrad     = 770
	arphrdRadiotap = 803
	arphrdNetlink  = 824
)

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// link takes the link header off f. With Complete, etherType is IPv4's or
// IPv6's and b begins with the IP header; link padding may follow the packet.
func link(f *capture.Frame, p *Probe) (etherType uint16, b []byte, st Status) {
	b = f.Data
	switch f.Link {
	case capture.LinkNetwork:
		if f.HasVLAN {
			p.tag(f.VLAN)
		}
		return network(p, f.EtherType, b)
	case capture.LinkEthernet:
		if len(b) < 14 {
			return 0, nil, Truncated
		}
		return network(p, be16(b[12:]), b[14:])
	case capture.LinkSLL:
		return cooked1(p, b)
	case capture.LinkSLL2:
		return cooked2(p, b)
	case capture.LinkRaw:
		return raw(b)
	case capture.LinkNull, capture.LinkLoop:
		return loopback(b, f.Link == capture.LinkNull)
	case capture.LinkPPP:
		if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 { // address and control, RFC 1662
			b = b[2:]
		}
		return ppp(b)
	}
	return 0, nil, Unknown
}

// network peels VLAN tags, LLC/SNAP and PPPoE until IP is reached.
func network(p *Probe, etherType uint16, b []byte) (uint16, []byte, Status) {
	for {
		switch etherType {
		case etherIPv4, etherIPv6:
			return etherType, b, Complete
		case etherVLAN, etherQinQ, etherQinQ1:
			if len(b) < 4 {
				return 0, nil, Truncated
			}
			if !p.tag(be16(b)) {
				return 0, nil, Unknown
			}
			etherType, b = be16(b[2:]), b[4:]
		case etherPPPoE:
			return pppoe(b)
		default:
			if etherType >= etherMin {
				return 0, nil, Unknown
			}
			var st Status
			if etherType, b, st = snap(b); st != Complete {
				return 0, nil, st
			}
		}
	}
}

// tag notes a VLAN tag. It reports false for a third one, which Probe has no
// room for.
func (p *Probe) tag(tci uint16) bool {
	if int(p.VLANs) == len(p.VLAN) {
		return false
	}
	p.VLAN[p.VLANs] = tci & 0x0fff
	p.VLANs++
	return true
}

// snap reads LLC and SNAP with an EtherType behind them (RFC 1042).
func snap(b []byte) (uint16, []byte, Status) {
	if len(b) >= 3 && (b[0] != 0xaa || b[1] != 0xaa || b[2] != 0x03) {
		return 0, nil, Unknown
	}
	if len(b) < 8 {
		return 0, nil, Truncated
	}
	etherType := be16(b[6:])
	if b[3] != 0 || b[4] != 0 || b[5] != 0 || etherType < etherMin {
		return 0, nil, Unknown
	}
	return etherType, b[8:], Complete
}

// pppoe reads a PPPoE session header (RFC 2516).
func pppoe(b []byte) (uint16, []byte, Status) {
	if len(b) < 6 {
		return 0, nil, Truncated
	}
	if b[0] != 0x11 || b[1] != 0 {
		return 0, nil, Unknown
	}
	return ppp(b[6:])
}

// ppp reads the PPP protocol field: an odd first byte means that it was
// compressed to one byte (RFC 1661 section 6.5).
func ppp(b []byte) (uint16, []byte, Status) {
	if len(b) < 1 {
		return 0, nil, Truncated
	}
	proto := uint16(b[0])
	if proto&1 == 1 {
		b = b[1:]
	} else {
		if len(b) < 2 {
			return 0, nil, Truncated
		}
		proto, b = be16(b), b[2:]
	}
	switch proto {
	case 0x21:
		return etherIPv4, b, Complete
	case 0x57:
		return etherIPv6, b, Complete
	}
	return 0, nil, Unknown
}

// cooked1 reads a LINKTYPE_LINUX_SLL header.
func cooked1(p *Probe, b []byte) (uint16, []byte, Status) {
	if len(b) < 16 {
		return 0, nil, Truncated
	}
	p.cookedType(be16(b))
	return cooked(p, be16(b[2:]), be16(b[14:]), b[16:])
}

// cooked2 reads a LINKTYPE_LINUX_SLL2 header, which knows the interface.
func cooked2(p *Probe, b []byte) (uint16, []byte, Status) {
	if len(b) < 20 {
		return 0, nil, Truncated
	}
	if p.IfIndex == 0 {
		p.IfIndex = int32(be32(b[4:]))
	}
	p.cookedType(uint16(b[10]))
	return cooked(p, be16(b[8:]), be16(b), b[20:])
}

func cooked(p *Probe, hardware, protocol uint16, b []byte) (uint16, []byte, Status) {
	switch hardware {
	case arphrdFrad, arphrdRadiotap, arphrdNetlink:
		return 0, nil, Unknown
	}
	return network(p, protocol, b)
}

// cookedType notes the packet type of a cooked header: 0 to 4 are to us,
// broadcast, multicast, to somebody else, from us.
func (p *Probe) cookedType(t uint16) {
	if t <= 4 {
		p.PacketType = uint8(capture.PacketHost) + uint8(t)
	}
}

// raw tells the family by the version.
func raw(b []byte) (uint16, []byte, Status) {
	if len(b) < 1 {
		return 0, nil, Truncated
	}
	switch b[0] >> 4 {
	case 4:
		return etherIPv4, b, Complete
	case 6:
		return etherIPv6, b, Complete
	}
	return 0, nil, Unknown
}

// loopback reads the address family of DLT_NULL (byte order of the writer,
// told by which half is zero) and DLT_LOOP (network byte order).
func loopback(b []byte, anyOrder bool) (uint16, []byte, Status) {
	if len(b) < 4 {
		return 0, nil, Truncated
	}
	family := be32(b)
	if anyOrder && family > 0xffff {
		family = binary.LittleEndian.Uint32(b)
	}
	switch family {
	case 2:
		return etherIPv4, b[4:], Complete
	case 10, 24, 28, 30: // AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS
		return etherIPv6, b[4:], Complete
	}
	return 0, nil, Unknown
}
