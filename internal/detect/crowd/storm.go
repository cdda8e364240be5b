package crowd

import (
	"fmt"
	"net/netip"

	"portsentry/internal/decode"
)

// Backscatter is what somebody answers who was sent packets in our name: SYN-ACKs and
// RSTs of the victim of a flood, ICMP errors from routers on the way. It says nothing
// against who sends it. From stormRate packets a second on, and eight times what is
// usual, it is a storm and has one notice; the late packets of one's own conversations
// come more slowly.
const stormRate = 10

type storm struct {
	rate    rate
	on      bool
	notice  Notice
	hosts   spread
	answer  most   // whose packets they are
	counted uint64 // packets since it was found out
	names   [64]struct {
		key uint64
		who netip.Addr
	}
	kinds [3]uint64 // SYN-ACK, RST, ICMP
}

// note counts the packet of the source with hash h.
func (s *storm) note(c *Crowd, p *decode.Probe, h uint64) {
	n := int64(max(1, p.Times))
	s.rate.add(p.Time, n)
	if !s.on {
		if s.rate.sum < s.rate.limit(stormRate) {
			return
		}
		s.on = true
		s.hosts, s.answer, s.counted, s.kinds = spread{}, most{}, 0, [3]uint64{}
		s.notice = Notice{What: Backscatter, First: min(s.rate.oldest(), p.Time), Packets: uint64(s.rate.sum - n),
			Reason: "answers to packets that others send in our name: backscatter, no scan"}
		c.notices.begin(&s.notice, &c.stats)
	}
	s.notice.Packets += uint64(n)
	s.notice.Last = max(s.notice.Last, p.Time)
	s.hosts.add(h)
	s.answer.add(h, uint64(n))
	s.counted += uint64(n)
	s.names[h&63].key, s.names[h&63].who = h, p.Src
	switch {
	case p.Proto != decode.ProtoTCP:
		s.kinds[2] += uint64(n)
	case p.Flags&decode.RST != 0:
		s.kinds[1] += uint64(n)
	default:
		s.kinds[0] += uint64(n)
	}
}

func (s *storm) tick(c *Crowd) {
	s.rate.tick(c.now, !s.on)
	if s.on && s.rate.sum < s.rate.limit(stormRate)/2 {
		s.stop(c)
	}
}

func (s *storm) stop(c *Crowd) {
	if !s.on {
		return
	}
	n := &s.notice
	n.Sources = max(1, s.hosts.count())
	who := fmt.Sprintf("from about %d hosts", n.Sources)
	if key, k := s.answer.top(); 2*k > s.counted {
		if e := &s.names[key&63]; e.key == key {
			n.Victim = e.who
			who = fmt.Sprintf("most of them from %s, the victim of it or a router on the way", n.Victim)
		}
	}
	n.Reason = fmt.Sprintf("answers to packets that others sent in our name, %s (since it was found out: %d SYN-ACK, %d RST, %d ICMP): backscatter, no scan",
		who, s.kinds[0], s.kinds[1], s.kinds[2])
	c.notices.end(n, &c.stats)
	s.on = false
}
