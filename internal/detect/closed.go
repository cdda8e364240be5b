package detect

import "portsentry/internal/decode"

// Types of packets that ask for something: ICMP (RFC 792, RFC 950), ICMPv6 (RFC
// 4443) and chunks of SCTP (RFC 9260 section 3.2).
const (
	icmpEcho       = 8
	icmpTimestamp  = 13
	icmpMask       = 17
	icmp6Echo      = 128
	sctpInit       = 1
	sctpCookieEcho = 10
)

// Contact looks at one Probe that is for no trap. If it begins something where
// nobody is, or asks whether somebody is, Contact fills c and reports true. What may
// be an answer, or the tail of a connection, is none; of one packet it cannot be
// told apart. It keeps neither p nor c.
func (d *Detector) Contact(p *decode.Probe, c *Contact) bool {
	if d.o.Strangers == nil || p.Accepted || d.isTrap(p) {
		return false
	}
	kind := begins(p)
	switch {
	case kind == KindNone, p.Marks&(decode.BadChecksum|decode.BadIPChecksum|decode.BadLength) != 0:
		return false
	case (p.Proto == decode.ProtoTCP && kind != KindSYN || kind == KindUDP) && d.o.Strangers.Ephemeral(p.DstPort):
		return false
	case !d.o.Strangers.Own(p.Dst):
		return false
	}
	outcome := Refused
	switch kind {
	case KindEcho, KindStamp:
		outcome = Answered // by the IP stack itself
	case KindMask:
		outcome = Silent // who is no authority on it does not answer: RFC 1122 section 3.2.2.9
	case KindINIT, KindCookie, KindProto:
	default:
		if use := d.o.Strangers.Use(p, kind == KindSYN); use != Free {
			if use == Unsure {
				d.contactUnsure.Add(1)
			}
			return false
		}
	}
	d.contacts.Add(1)
	fill(c, p, kind, outcome)
	return true
}

// Hit makes c the Contact of a hit on a trap: s, which Observe made of p.
func Hit(p *decode.Probe, s *Sighting, c *Contact) {
	fill(c, p, s.Kind, Refused)
	c.Trap, c.Verified = true, s.Verified
}

func fill(c *Contact, p *decode.Probe, kind Kind, outcome Outcome) {
	*c = Contact{
		Time: p.Time, Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort,
		Proto: p.Proto, Kind: kind, Outcome: outcome, Head: HeaderOf(p),
	}
}

func (d *Detector) isTrap(p *decode.Probe) bool {
	r := d.rules.Load()
	switch p.Proto {
	case decode.ProtoTCP:
		return r.TCP.Has(p.DstPort)
	case decode.ProtoUDP:
		return r.UDP.Has(p.DstPort)
	}
	return false
}

// begins names a packet, of which no connection is known, by what it may begin.
func begins(p *decode.Probe) Kind {
	switch p.Proto {
	case decode.ProtoTCP:
		if p.Flags&(decode.ACK|decode.RST) != 0 {
			return KindNone
		}
		return Classify(p.Flags)
	case decode.ProtoUDP:
		if isDHCP(p) {
			return KindNone
		}
		return KindUDP
	case decode.ProtoSCTP:
		switch p.SCTPChunk {
		case sctpInit:
			return KindINIT
		case sctpCookieEcho:
			return KindCookie
		}
		return KindNone
	}
	if p.Proto == decode.ProtoICMPv6 && p.IsIPv6() {
		if p.ICMPType == icmp6Echo {
			return KindEcho
		}
		return KindNone
	}
	if p.Proto == decode.ProtoICMP && !p.IsIPv6() {
		switch p.ICMPType {
		case icmpEcho:
			return KindEcho
		case icmpTimestamp:
			return KindStamp
		case icmpMask:
			return KindMask
		}
		return KindNone
	}
	if spoken(p.Proto) {
		return KindNone
	}
	return KindProto
}

// isDHCP reports whether p is a server's (RFC 2131, RFC 8415): its client takes
// packets below the sockets.
func isDHCP(p *decode.Probe) bool {
	if p.IsIPv6() {
		return p.SrcPort == 547 && p.DstPort == 546
	}
	return p.SrcPort == 67 && p.DstPort == 68
}

// spoken: IP protocols (IANA) in which stacks, tunnels and routing daemons may have
// something to say to a host. XDP (xdp_closed.h) and AF_PACKET leave out the same.
func spoken(proto uint8) bool {
	switch proto {
	case 2, 4, 33, 41, 46, 47, 50, 51, // IGMP, IP, DCCP, IPv6, RSVP, GRE, ESP, AH
		59, 88, 89, 94, 97, // no next header, EIGRP, OSPF, IPIP, EtherIP
		103, 108, 112, 115, 136, 137, 139, 140: // PIM, IPComp, VRRP, L2TP, UDP-Lite, MPLS, HIP, Shim6
		return true
	}
	return false
}
