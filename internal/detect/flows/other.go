package flows

import (
	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// carries reports whether proto carries other traffic or belongs to routers: it
// lives without questions and answers, often in one direction only (IANA).
func carries(proto uint8, six bool) bool {
	switch proto {
	case 0, 43, 44, 59, 60: // IPv6 extension headers, and no next header
		return six
	case
		2, 4, 33, 41, 46, 47, // IGMP, IPv4, DCCP, IPv6, RSVP, GRE
		50, 51, 88, 89, 94, // ESP, AH, EIGRP, OSPF, IPIP
		97, 98, 103, 108, // EtherIP, ENCAP, PIM, IPComp
		112, 115, 124, 136, // VRRP, L2TP, IS-IS, UDP-Lite
		137, 139, 140: // MPLS, HIP, Shim6
		return true
	}
	return false
}

// other follows the IP protocols without ports.
func (t *Tracker) other(p *decode.Probe, f *capture.Frame) {
	if carries(p.Proto, p.IsIPv6()) || toAll(p, f) || p.Src.IsUnspecified() {
		return
	}
	k, from := pair(classProto, p.Src, p.Dst, uint16(p.Proto), uint16(p.Proto))
	at := t.place(&k)
	i, _ := t.find(&k, at)
	if i == none {
		if i = t.insert(&k, at); i != none {
			t.begin(i, p, from, asked, detect.KindProto)
		}
		return
	}
	if e := &t.entries[i]; e.state == asked && from != e.src {
		t.finish(i, detect.Answered)
	}
}
