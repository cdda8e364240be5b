package crowd

import (
	"fmt"
	"math/bits"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// port is what was asked of one port lately, by whom: two hours' worth, the last whole
// one and this one.
type port struct {
	now, before uint64 // a bit for each source (linear counting)
	contacts    uint32 // failed ones of this hour
	again       uint16 // of total: the same source once more
	watched     uint8  // 1 + place among the worms; 0: none
	since       uint32 // second of the first contact that is counted
	total       uint32 // failed ones of this hour and the one before
	hour        uint32 // since 1970, of now, from 1
	served      uint32 // hour in which somebody was there for the last time
}

// worms is how many ports may have a notice at a time.
const worms = 16

// wormSources is from how many sources in two hours on, that try a port once each, it
// is asked for by a worm or a botnet: one in two minutes. A port that nobody has served
// within a day, so that nobody's clients miss it.
const wormSources = 64

// wormTime is how many seconds they must take at least: faster ones may be a flood,
// which shows within seconds.
const wormTime = 600

// servedFor is how long (hours) a port counts as a service of ours, though nobody is
// there any more: who fails then is a client.
const servedFor = 24

// ports are in pages of 256, 10 KiB, which are made when one of them is asked for: 5 MiB
// when all are.
type ports struct {
	tcp, udp [256]*[256]port
	worms    [worms]worm
}

type worm struct {
	notice Notice
	port   *port // nil: free
}

// at is a port; TCP and SCTP have the same.
func (t *ports) at(proto uint8, n uint16) *port {
	pages := &t.tcp
	if proto == decode.ProtoUDP {
		pages = &t.udp
	}
	page := &pages[n>>8]
	if *page == nil {
		*page = new([256]port)
	}
	return &(*page)[n&255]
}

func hourOf(t int64) uint32 { return uint32(t/int64(time.Hour)) + 1 }

// note counts the contact at its port, and says how many sources tried it before, lately.
func (t *ports) note(c *Crowd, a *about) (popular int) {
	switch a.ct.Proto {
	case decode.ProtoTCP, decode.ProtoSCTP, decode.ProtoUDP:
	default:
		return 0
	}
	p := t.at(a.ct.Proto, a.ct.DstPort)
	a.port = p
	switch h := hourOf(a.ct.Time); {
	case h == p.hour+1:
		p.again = uint16(uint64(p.again) * uint64(p.contacts) / uint64(max(1, p.total)))
		p.before, p.total, p.hour = p.now, p.contacts, h
		p.now, p.contacts = 0, 0
	case h > p.hour, h+1 < p.hour: // the clock may be set back
		*p = port{hour: h, since: uint32(a.ct.Time / 1e9), served: p.served, watched: p.watched}
	}
	popular = estimate(p.now | p.before)
	p.now |= 1 << (a.src & 63)
	if !a.failed {
		p.served = p.hour
		return popular
	}
	p.contacts++
	p.total++
	if a.again && p.again < 1<<15 {
		p.again++
	}
	if p.watched != 0 {
		w := &t.worms[p.watched-1]
		w.notice.Packets++
		w.notice.Last = max(w.notice.Last, a.ct.Time)
		if !a.again {
			w.notice.Sources++
		}
	} else if bits.OnesCount64(p.now|p.before) >= 41 {
		t.suspect(c, a)
	}
	return max(popular, prior(a.ct.Proto, a.ct.DstPort))
}

// isServed reports whether somebody was there within the day.
func (p *port) isServed() bool { return p.served != 0 && p.hour-p.served < servedFor }

// suspect begins a notice when many sources ask for the port once each. (41 of 64 bits
// are what 64 sources set.) Clients of something that moved away come again and again: a
// tenth of the contacts from those who had just come is too much for a worm. Answers to
// this host's own packets and a flood are something else.
func (t *ports) suspect(c *Crowd, a *about) {
	p := a.port
	if p.isServed() || uint32(p.again)*10 > p.total || p.total < wormSources || c.flood.on {
		return
	}
	if a.ct.Proto == decode.ProtoTCP && !opens(a.ct.Kind) || a.ct.Proto == decode.ProtoUDP && c.o.Ephemeral(a.ct.DstPort) {
		return // late packets, answers
	}
	if a.ct.Time/1e9-int64(p.since) < wormTime {
		return
	}
	for i := range t.worms {
		w := &t.worms[i]
		if w.port != nil {
			continue
		}
		n := min(estimate(p.now|p.before), int(p.total)) // each came with a packet
		*w = worm{port: p, notice: Notice{What: Worm, First: a.ct.Time, Last: a.ct.Time, Packets: uint64(p.total), Sources: n,
			Proto: a.ct.Proto, Port: a.ct.DstPort,
			Reason: fmt.Sprintf("a worm or a botnet asks for port %d: %d sources within two hours, once each", a.ct.DstPort, n)}}
		c.notices.begin(&w.notice, &c.stats)
		p.watched = uint8(i + 1)
		return
	}
}

// forget forgets who asked for a port: a flood did.
func (t *ports) forget(proto uint8, n uint16) {
	p := t.at(proto, n)
	*p = port{served: p.served, watched: p.watched}
}

// tick ends the notices of ports that were not asked for within two hours.
func (t *ports) tick(c *Crowd) {
	for i := range t.worms {
		if w := &t.worms[i]; w.port != nil && c.now-w.notice.Last > int64(2*time.Hour) {
			w.end(c)
		}
	}
}

func (t *ports) stop(c *Crowd) {
	for i := range t.worms {
		if w := &t.worms[i]; w.port != nil {
			w.end(c)
		}
	}
}

func (w *worm) end(c *Crowd) {
	c.notices.end(&w.notice, &c.stats)
	w.port.watched = 0
	*w = worm{}
}

// prior is how many sources may be taken to have tried a port before anything was
// learned: what everybody receives (the noise of worms), and what everybody asks for
// (services, which fail for those who see only half of the packets).
func prior(proto uint8, port uint16) int {
	if proto == decode.ProtoUDP {
		switch port {
		case 53, 123, 137, 138, 161, 389, 443, 500, 1900, 5060, 5353, 5355, 11211:
			return 15
		}
		return 0
	}
	switch port {
	case 21, 22, 23, 25, 53, 80, 110, 139, 143, 389, 443, 445, 465, 587, 853, 993, 995, 2323,
		1433, 3306, 3389, 5060, 5222, 5228, 5555, 6379, 8080, 8443, 9100:
		return 15
	}
	return 0
}

// opens reports whether such a packet asks for something new: the others may be late
// packets of what is over.
func opens(k detect.Kind) bool {
	switch k {
	case detect.KindSYN, detect.KindConnect, detect.KindVersion, detect.KindOS, detect.KindINIT, detect.KindNULL, detect.KindXMAS, detect.KindOdd, detect.KindWorm:
		return true
	}
	return false
}
