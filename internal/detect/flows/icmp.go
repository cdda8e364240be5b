package flows

import (
	"net/netip"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// query is the key and kind of an ICMP query from src to dst, or of the answer to
// it, by type (RFC 792, RFC 950, RFC 4443).
func query(p *decode.Probe) (c class, kind detect.Kind, answer, ok bool) {
	if p.IsIPv6() {
		switch p.ICMPType {
		case 128, 129:
			return classEcho, detect.KindEcho, p.ICMPType == 129, true
		}
		return 0, 0, false, false
	}
	switch p.ICMPType {
	case 8, 0:
		return classEcho, detect.KindEcho, p.ICMPType == 0, true
	case 13, 14:
		return classStamp, detect.KindStamp, p.ICMPType == 14, true
	case 17, 18:
		return classMask, detect.KindMask, p.ICMPType == 18, true
	}
	return 0, 0, false, false
}

// icmpOf is the ICMP that belongs to the family of a. The other family's is a
// protocol like any that nobody speaks.
func icmpOf(a netip.Addr) uint8 {
	if a.Is4() {
		return decode.ProtoICMP
	}
	return decode.ProtoICMPv6
}

// icmp follows queries, and lets conversations know of errors.
func (t *Tracker) icmp(p *decode.Probe, f *capture.Frame) {
	if yes, expired := p.Undelivered(); yes {
		if f != nil {
			t.undelivered(p, f, expired)
		}
		return
	}
	c, kind, answer, ok := query(p)
	if !ok {
		return
	}
	if answer {
		k := makeKey(c, p.Dst, p.Src, 0, 0)
		switch i, _ := t.find(&k, t.place(&k)); {
		case i == none:
			t.stats.Backscatter++
		case t.entries[i].state == asked:
			t.delay.sample(t.now - t.entries[i].start)
			t.finish(i, detect.Answered)
		}
		return
	}
	if toAll(p, f) || p.Src.IsUnspecified() {
		return
	}
	k := makeKey(c, p.Src, p.Dst, 0, 0)
	at := t.place(&k)
	if i, _ := t.find(&k, at); i == none {
		if i = t.insert(&k, at); i != none {
			t.begin(i, p, first, asked, kind)
		}
	}
}

// undelivered is an ICMP error about a packet of some conversation.
func (t *Tracker) undelivered(p *decode.Probe, f *capture.Frame, expired bool) {
	q, ok := decode.Quote(f, p)
	if !ok {
		return
	}
	var k key
	from := first
	switch q.Proto {
	case decode.ProtoTCP:
		k, from = pair(classTCP, q.Src, q.Dst, q.SrcPort, q.DstPort)
	case decode.ProtoUDP:
		k, from = pair(classUDP, q.Src, q.Dst, q.SrcPort, q.DstPort)
	case decode.ProtoSCTP:
		k, from = pair(classSCTP, q.Src, q.Dst, q.SrcPort, q.DstPort)
	case icmpOf(q.Src):
		c, _, _, ok := query(&decode.Probe{Src: q.Src, Proto: q.Proto, ICMPType: q.ICMPType})
		if !ok {
			return
		}
		k = makeKey(c, q.Src, q.Dst, 0, 0)
	default:
		k, from = pair(classProto, q.Src, q.Dst, uint16(q.Proto), uint16(q.Proto))
	}
	i := t.at(&k, t.place(&k))
	if i == none {
		t.stats.Backscatter++
		return
	}
	e := &t.entries[i]
	switch {
	case from != e.src:
	case expired && e.head.ttl < lowTTL && (e.state == asked || e.state == doubtful || e.state == stray):
		t.drop(i) // a route is being traced, nobody's port
	case e.state == asked, e.state == stray:
		t.finish(i, detect.Refused)
	case e.state == doubtful:
		t.decide(i, detect.Refused)
	}
}
