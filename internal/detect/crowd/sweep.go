package crowd

import (
	"fmt"
	"math"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// A sweep that is shared out shows in no member: each tries less than what decides
// about one source. So the area, a network or all who send the same header, is tested as
// if it were one source, by the sequential test of single sources (Jung et al. 2004): each
// first contact moves a score, and it decides at ln(.99/10^-6) = 13.8.
//
// What one source does not have is company. Three things tell members of one sweep from
// people who live in one network:
//
//   - Whether anybody ever was there for them. People fail now and then, and succeed;
//     who has succeeded once is not looked at any more, and counts against his area by
//     ln(.01/.95) = -4.6, once. So it takes an address of its own to buy off one failure.
//   - Whether they try the same. Independent people fail at the same few things (a service
//     that moved, an old printer): half of their failures at least repeat somebody's
//     of the area. Who shares out a sweep repeats next to nothing, or he would not share:
//     one in twenty. A repeated pair of address and port counts ln(.05/.5) = -2.3.
//   - Whether others try it. A failure counts 1/(1+n) of its step where n sources tried
//     the port lately, and nothing where more than seven did: independent sources choose
//     ports by how popular they are.
//
// The step of a failure is that of the single test in a network, ln(.99/.05) = 3.0:
// five different dead ports. A header signature is shared by half the world, and only
// those are looked at who fail, so failing says nothing, only not repeating does:
// ln(.95/.5) = 0.64, that is 22 sources more than repeat anything.
//
// A member counts for two failures at most, so that no one decides about others, and a
// network needs five members. Neither can be met by one port alone, whatever the number
// of its addresses: the weights of sources 1 to 8 make 4.3 failures. (A single port that
// many sources ask for is what the notice of a worm is about.) All failures that count are aimed at one network of
// targets (/16 or /48): hosts of one office that look for peers all over the world are
// no sweep. UDP counts only where it was refused: nobody answers much of what is sent one
// way only. The score fades by half in a day (networks) or an hour (signatures): a sweep
// is found if its probes come on average at least once in .35 (networks) or .068
// (signatures) of that, 8 hours or 4 minutes: step/(1-2^(-p/half)) = 13.8.
//
// That is enough to say that they belong together. To call each of them a scanner takes
// more, for that people repeat each other is what we know of people, and no law: twice the
// score, one chance in 10^12, and what along says of all that they try.
type rule struct {
	what    What
	fails   float64 // step of a failure that nobody of the area had before
	members int     // at least
	half    time.Duration
}

var (
	stepSuccess = math.Log(.01 / .95)
	stepRepeat  = math.Log(.05 / .5)
	decide      = math.Log(.99 / 1e-6)

	networkRule = rule{what: Network, fails: math.Log(.99 / .05), members: 5, half: 24 * time.Hour}
	headerRule  = rule{what: Sweep, fails: math.Log(.95 / .5), members: 22, half: time.Hour}
)

// share is how many failures of one member count, and named how many members are kept
// until there is a group.
const (
	share = 2
	named = 24
)

// area is one network or signature.
type area struct {
	key    uint64 // 0: free
	last   int64
	score  float64
	target uint64 // the network of targets that its sweep is aimed at
	group  uint64
	slot   uint16
	n      uint8 // members that are kept
	along  along
	fails  [named]uint8
	who    [named][16]byte
}

// along is what a sweep goes along. Whatever it sweeps, ports of some addresses or some
// ports of addresses, lies in lines: two things of it have an address or a port in common
// on average. The peers of a file sharing network that are gone, each at a port and an
// address of its own, are scattered: that is company, and no sweep. Nor is it one when a
// host's services are gone and all their clients go on asking, which repeats nothing at
// first. Of S services that are asked for alike, T were tried when T^2/2S have been
// repeated: so with T of swept and a repetition in eight at most, S is a hundred.
type along struct {
	addresses, ports uint64 // a bit for each, by its hash
	things           uint8  // addresses with ports, counted once each, as far as the bits can tell
	repeated         uint8
}

// swept is how many things a sweep has at least of which all members are called scanners.
const swept = 24

func (l *along) add(a *about) {
	l.addresses |= 1 << (a.dst & 63)
	l.ports |= 1 << (uint32(a.ct.DstPort) * 0x9e3779b9 >> 26)
	l.things += uint8(1) &^ (l.things >> 7) // up to 128
}

func (l *along) again() { l.repeated += uint8(1) &^ (l.repeated >> 7) }

// sweep reports whether it is one.
func (l *along) sweep() bool {
	return l.things >= swept && l.things < 128 && l.repeated <= l.things/8 &&
		2*min(estimate(l.addresses), estimate(l.ports)) <= int(l.things)
}

type areas struct {
	buckets [][2]area
	shift   uint
	rule    rule
}

func (t *areas) init(n int, r rule) {
	t.buckets, t.shift = buckets[[2]area](n * ways / 2)
	t.rule = r
}

// find is the area with that key; nil: there is none.
func (t *areas) find(key uint64) *area {
	b := &t.buckets[key>>t.shift]
	for i := range b {
		if b[i].key == key {
			return &b[i]
		}
	}
	return nil
}

// at is the area with that key, faded by t. A new one takes the place of the one with
// the lower score.
func (t *areas) at(key uint64, now int64) *area {
	e := t.find(key)
	if e == nil {
		b := &t.buckets[key>>t.shift]
		e = &b[0]
		if t.faded(&b[1], now) < t.faded(e, now) {
			e = &b[1]
		}
		*e = area{key: key, last: now}
	}
	e.score = t.faded(e, now)
	if e.score < .1 && now-e.last > int64(t.rule.half) {
		*e = area{key: key} // a new story
	}
	e.last = max(e.last, now)
	return e
}

func (t *areas) faded(e *area, now int64) float64 {
	if now <= e.last {
		return e.score
	}
	return e.score * math.Exp2(-float64(now-e.last)/float64(t.rule.half))
}

// sweeps moves the scores of the areas of the source. popular is how many sources tried
// the port lately.
func (c *Crowd) sweeps(a *about, popular int) {
	if a.s.answered || !a.failed && !a.success {
		return // the usual case: somebody who is known to be no member
	}
	ct := a.ct
	if ct.Proto == decode.ProtoTCP || ct.Proto == decode.ProtoSCTP {
		if !opens(ct.Kind) {
			return
		}
	} else if ct.Proto != decode.ProtoUDP || a.failed && (ct.Outcome != detect.Refused || c.o.Ephemeral(ct.DstPort)) {
		return
	}
	if g := c.groups.of(a.s); g != nil && g.what <= Run {
		return // it is known what it belongs to
	}
	if ct.Proto == decode.ProtoUDP && prior(ct.Proto, ct.SrcPort) > 0 {
		return // the late answer of a service that has many addresses
	}
	if c.flood.at(ct.Proto, ct.DstPort) || a.failed && a.port != nil && a.port.isServed() {
		return
	}
	if ct.Src.Is4() {
		c.area(&c.networks, c.keys.net(a.addr, 120), a, popular)
	} else {
		c.area(&c.networks, c.keys.net(a.addr, 64), a, popular)
		c.area(&c.networks, c.keys.net(a.addr, 48), a, popular)
	}
	if ct.Proto == decode.ProtoTCP {
		c.area(&c.headers, c.signature(a), a, popular)
	}
}

// signature is the hash of what a program or a system writes into its headers, with
// the TTL that it began with, as far as can be told.
func (c *Crowd) signature(a *about) uint64 {
	h := &a.ct.Head
	began := uint64(255)
	for _, t := range [...]uint8{32, 64, 128} {
		if h.TTL <= t {
			began = uint64(t)
			break
		}
	}
	f := uint64(h.Window)<<48 | uint64(h.MSS)<<32 | uint64(h.OptionsLen)<<24 | began<<16 | uint64(a.tool)<<8 | uint64(a.ct.Kind)<<1
	if h.DF {
		f |= 1
	}
	return c.keys.mix(f, uint64(h.Flags))
}

// area moves the score of one area.
func (c *Crowd) area(t *areas, key uint64, a *about, popular int) {
	key |= 1
	if !a.failed {
		if e := t.find(key); e != nil {
			e.score = max(0, t.faded(e, a.ct.Time)+stepSuccess)
			e.last = max(e.last, a.ct.Time)
			e.forget(a.addr)
		}
		return
	}
	if popular > 7 {
		return
	}
	e := t.at(key, a.ct.Time)
	target := c.keys.around(a.ct.Dst.As16())
	switch {
	case e.target == 0 || e.target != target && e.score < t.rule.fails/2:
		e.target, e.score, e.n, e.along = target, 0, 0, along{}
	case e.target != target:
		return
	}
	switch c.pairs.note(c.keys.mix(key, a.pair), a.src, a.ct.Time) {
	case same:
		return
	case others:
		e.along.again()
		e.score = max(0, e.score+stepRepeat)
		return
	}
	if !e.member(a.addr) {
		return
	}
	e.along.add(a)
	weight := 1 / float64(1+popular)
	was := e.score
	e.score = min(2*decide, was+t.rule.fails*weight)
	g := &c.groups.all[e.slot]
	if e.group != 0 && (g.id != e.group || was < decide/2) {
		e.group, e.n, e.along = 0, 0, along{} // forgotten, or over: who comes now begins something new
		e.member(a.addr)
		e.along.add(a)
	}
	if e.group == 0 {
		if e.score < decide || int(e.n) < t.rule.members {
			return
		}
		g = c.foundSweep(t, e, a)
		if g == nil {
			return
		}
	}
	// Who sends the same header may be anywhere, and be named by one who forges them all.
	if !g.shared && t.rule.what == Network && e.score >= 2*decide && e.along.sweep() {
		g.shared, g.dirty = true, true
	}
	if weight >= .5 && c.groups.of(a.s) == nil {
		c.groups.join(g, a.s, a.addr, &c.stats)
	}
}

// member counts a failure of the source and reports whether it counts for the area: up
// to share of them do. Members whom there is no room for are new ones each time.
func (e *area) member(addr [16]byte) bool {
	for i := range e.n {
		if e.who[i] == addr {
			e.fails[i]++
			if e.fails[i] > share {
				e.fails[i] = share
				return false
			}
			return true
		}
	}
	if e.n < named {
		e.who[e.n], e.fails[e.n] = addr, 1
		e.n++
	}
	return true
}

// forget takes somebody off the members for whom somebody was there.
func (e *area) forget(addr [16]byte) {
	for i := range e.n {
		if e.who[i] == addr {
			e.n--
			e.who[i], e.fails[i] = e.who[e.n], e.fails[e.n]
			return
		}
	}
}

// foundSweep makes a group of the area, unless most of its members belong elsewhere.
func (c *Crowd) foundSweep(t *areas, e *area, a *about) *group {
	alone := 0
	for i := range e.n {
		if s := c.sources.find(&e.who[i]); s == nil || c.groups.of(s) == nil {
			alone++
		}
	}
	if alone < t.rule.members {
		return nil
	}
	reason := fmt.Sprintf("%d sources with one header signature share out a sweep: each fails at what no other tries", e.n)
	if t.rule.what == Network {
		reason = fmt.Sprintf("%d sources of one network share out a sweep: each fails at what no other tries", e.n)
	}
	g := c.groups.begin(t.rule.what, a.tool, a.ct.Time, reason, &c.stats)
	e.group, e.slot = g.id, g.slot
	c.joinAll(g, e.who[:e.n])
	return g
}
