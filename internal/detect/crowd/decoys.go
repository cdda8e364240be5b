package crowd

import (
	"cmp"
	"math/bits"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// A decoy scan (nmap -D) sends each probe once in each name, within milliseconds, all
// with the same IP ID, sequence, source and destination port. Two programs do so by
// accident once in 2^16 x 2^32 x 2^14 pairs of probes of the same port (IPv4 TCP), or
// 2^16 x 2^14 (UDP, SCTP): ten thousand probes within decoyWindow make 5 x 10^7 pairs.
//
// What does so by design is a router that translates addresses, seen on both of its
// sides: the same packet in two names. Then the difference of the two TTLs is always
// the same, and not zero; nmap draws a TTL for each packet, and with a fixed one the
// difference is zero. Four names at once are no chain of translations. A system's own
// stack sends more options than the MSS with its SYN and is not looked at at all, and
// a tool that writes the same number into all of its packets shows by more sources than
// nmap takes decoys (128).
const (
	decoyWindow = int64(time.Second)
	decoyNames  = 4
)

// sent is a probe that was sent in one name or several.
type sent struct {
	key   uint64 // 0: free
	time  int64
	seen  uint64 // a bit for each source
	names [decoyNames][16]byte
	n     uint8
	ttl   uint8 // of the first
	group uint64
	slot  uint16
}

// couple is two sources that shared a probe.
type couple struct {
	key   uint64
	probe uint64 // the one that they shared last
	diff  int16  // the difference of the TTLs then, the smaller hash less the greater
}

type probes struct {
	buckets [][2]sent
	shift   uint
	couples [1 << 10]couple
}

func (t *probes) init(n int) { t.buckets, t.shift = buckets[[2]sent](n * ways / 2) }

// decoys looks whether the contact's probe was sent in another name too.
func (c *Crowd) decoys(a *about) {
	h := &a.ct.Head
	var field uint64 // what is the same in all names, without ports
	switch a.ct.Proto {
	case decode.ProtoTCP:
		// nmap's ACK and FIN+ACK have their number in the acknowledgment.
		number := cmp.Or(h.Seq, h.Ack)
		if h.OptionsLen > 4 || number == 0 || a.ct.Kind == detect.KindConnect {
			return
		}
		field = uint64(h.IPID)<<32 | uint64(number)
	case decode.ProtoUDP, decode.ProtoSCTP:
		if h.IPID == 0 || h.DF {
			return
		}
		field = uint64(h.IPID)<<32 | uint64(h.PayloadLen)
	default:
		return // nmap draws an IP ID for each name
	}
	key := c.keys.mix(a.pair^uint64(a.ct.SrcPort)<<32, field) | 1
	b := &c.probes.buckets[key>>c.probes.shift]
	e := &b[0]
	switch {
	case e.key == key:
	case b[1].key == key || b[1].time < e.time:
		e = &b[1]
	}
	if e.key != key || !within(e.time, a.ct.Time, time.Duration(decoyWindow)) {
		*e = sent{key: key, time: a.ct.Time, seen: 1 << (a.src & 63), n: 1, ttl: h.TTL}
		e.names[0] = a.addr
		return
	}
	c.sameProbe(a, e)
}

// sameProbe takes one more source of a probe.
func (c *Crowd) sameProbe(a *about, e *sent) {
	for i := range e.n {
		if e.names[i] == a.addr {
			return // a retransmission
		}
	}
	e.seen |= 1 << (a.src & 63)
	if e.seen == ^uint64(0) {
		c.tooMany(e)
		return
	}
	if e.n < decoyNames {
		e.names[e.n] = a.addr
		e.n++
	}
	if e.group != 0 {
		if g := &c.groups.all[e.slot]; g.id == e.group && c.groups.of(a.s) == nil {
			c.groups.join(g, a.s, a.addr, &c.stats)
		}
		return
	}
	if first := c.sources.find(&e.names[0]); first != nil {
		if g := c.groups.of(first); g != nil && g.what == Decoys {
			e.group, e.slot = g.id, g.slot
			c.joinAll(g, e.names[:e.n])
			return
		}
	}
	if e.n == decoyNames && bits.OnesCount64(e.seen) >= decoyNames-1 || e.n == 2 && c.notTranslated(a, e) {
		c.foundDecoys(a, e)
	}
}

// notTranslated reports whether the two sources of the probe shared another one before,
// with a difference of their TTLs that no router explains.
func (c *Crowd) notTranslated(a *about, e *sent) bool {
	x, y := c.keys.addr(&e.names[0]), a.src
	diff := int16(a.ct.Head.TTL) - int16(e.ttl)
	if x > y {
		x, y, diff = y, x, -diff
	}
	key := c.keys.mix(x, y)
	p := &c.probes.couples[key>>54]
	known := p.key == key && p.probe != e.key
	old := p.diff
	*p = couple{key: key, probe: e.key, diff: diff}
	return known && (diff == 0 && old == 0 || diff != old)
}

// foundDecoys makes a group of the sources of a probe, or says of the group that they
// have why they are one.
func (c *Crowd) foundDecoys(a *about, e *sent) {
	const reason = "the same probes in several names within milliseconds: one of them scans, the others are decoys"
	var g *group
	for i := range e.n {
		if s := c.sources.find(&e.names[i]); s != nil {
			if g = c.groups.of(s); g != nil {
				break
			}
		}
	}
	if g == nil {
		g = c.groups.begin(Decoys, a.tool, e.time, reason, &c.stats)
	}
	g.what, g.reason, g.dirty = Decoys, reason, true
	e.group, e.slot = g.id, g.slot
	if c.groups.of(a.s) == nil {
		c.groups.join(g, a.s, a.addr, &c.stats)
	}
	c.joinAll(g, e.names[:e.n])
}

// tooMany says of a group that it is none of decoys: hundreds of sources sent the very
// same packet.
func (c *Crowd) tooMany(e *sent) {
	if g := &c.groups.all[e.slot]; e.group != 0 && g.id == e.group && g.what == Decoys {
		g.what, g.dirty = Run, true
		g.reason = "one tool sends the very same packet in hundreds of names"
	}
}
