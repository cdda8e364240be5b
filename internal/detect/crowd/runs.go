package crowd

import (
	"fmt"
	"time"
)

// The key of a run is a number of so many bits that some tools let slip. Among n
// sources of other people's runs within runWindow some two have the same key of b bits
// with a probability of n^2/2^(b+1): a hundred sources and nmap's 16 bits, 7 per cent;
// a thousand, several pairs. So a key of less than 32 bits needs that the source ports
// are close, too: nmap adds the number of the attempt to one port of the run's out of
// some 31,000. With sourcePorts around it that is one in 60: 0.13 per cent for a hundred
// sources, 13 for a thousand, who never came to one host within ten minutes; and the
// runs must look at the same targets. With 32 bits (unicornscan, naabu), a thousand make
// 10^-4. Where the key is the source port itself (masscan: one of 20,000), it says
// nothing more, and the sources must be neighbours, in one /16 or /48.
const (
	runWindow   = 10 * time.Minute
	sourcePorts = 256
)

type ran struct {
	key     uint64 // 0: free
	last    int64
	targets uint64 // a bit for each /24 or /64 that was looked at
	first   [16]byte
	group   uint64
	slot    uint16
	port    uint16 // source port of the first contact
}

type runs struct {
	buckets [][ways]ran
	shift   uint
}

func (t *runs) init(n int) { t.buckets, t.shift = buckets[[ways]ran](n) }

// sameRun looks whether another source belongs to the run of the contact's.
func (c *Crowd) sameRun(a *about) {
	if a.run == 0 || a.tool == 0 {
		return
	}
	key := c.keys.mix(a.run, uint64(a.tool)) | 1
	target := uint64(1) << (c.targets(a) & 63)
	e := c.runs.at(key)
	g := c.groups.of(a.s)
	if e.key != key || !within(e.last, a.ct.Time, runWindow) {
		*e = ran{key: key, last: a.ct.Time, targets: target, first: a.addr, port: a.ct.SrcPort}
		if g != nil && g.tool == a.tool && (g.what == Run || g.what == Decoys) {
			// The next phase, or the next hosts, of a run that is known: nmap takes a
			// new key for each.
			e.group, e.slot = g.id, g.slot
		}
		return
	}
	e.last = max(e.last, a.ct.Time)
	if e.first == a.addr {
		e.targets |= target
		return
	}
	if g != nil || e.targets&target == 0 {
		return
	}
	if c.o.KeyBits(a.tool) < 32 {
		if d := a.ct.SrcPort - e.port; min(d, -d) > sourcePorts {
			return
		}
		if uint16(a.run) == a.ct.SrcPort && c.keys.around(a.addr) != c.keys.around(e.first) {
			return
		}
	}
	r := &c.groups.all[e.slot]
	if e.group == 0 || r.id != e.group {
		r = nil
		if first := c.sources.find(&e.first); first != nil {
			r = c.groups.of(first)
		}
		if r == nil {
			r = c.groups.begin(Run, a.tool, a.ct.Time, fmt.Sprintf("the probes of all of them come from one run of one tool (key %#x)", a.run), &c.stats)
			c.joinAll(r, [][16]byte{e.first})
		}
		e.group, e.slot = r.id, r.slot
	}
	c.groups.join(r, a.s, a.addr, &c.stats)
}

// at is the entry for key: its own, a free one, or the one that was silent the longest.
func (t *runs) at(key uint64) *ran {
	b := &t.buckets[key>>t.shift]
	old := &b[0]
	for i := range b {
		if b[i].key == key {
			return &b[i]
		}
		if b[i].key == 0 || old.key != 0 && b[i].last < old.last {
			old = &b[i]
		}
	}
	return old
}
