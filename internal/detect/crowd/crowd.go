// Package crowd sees what many sources do together, which no look at one source
// shows: the decoys of one scan, the sources of one run, a sweep that a network or a
// botnet shares out, a port that a worm asks for, a flood in forged names, the answers
// to a flood that somebody else suffers in our name (backscatter), and somebody who
// uses this host as the zombie of an idle scan. In come every detect.Contact, with tool
// and run as a detect.Labeler tells them, and every packet that answers nothing; out
// come Groups (campaigns) and Notices.
//
// All of it is E1 at most: it names and groups, and proves nobody's address. Groups
// may be called scanners of Direction Distributed; notices are no scans.
//
// What cannot be told: at the target of an idle scan the zombie is the scanner, as far
// as any packet shows: its SYNs are forged, its RSTs to our SYN-ACKs are its own, and
// both are what a raw scan of the zombie's would look like. Only at the zombie there is
// something to see (zombie.go). A flood on random ports and a sweep shared out among
// thousands of sources that send one packet each are the same packets; it is called a
// flood, because then nothing is done to anybody; while a flood on many ports goes on, no
// sweep is found. Forged SYNs can make a sweep that nobody shares out, too, one packet a
// name: a group says what belongs together, and is no evidence against a member beyond
// the member's own contacts.
//
// Time comes from the packets; contacts may come some seconds late and out of order,
// as silence needs time to be known. Everything is bounded and keyed; a Crowd belongs
// to one goroutine.
package crowd

import (
	"iter"
	"net/netip"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// Options are the sizes of what is remembered, and what the caller knows. Zero values
// mean the defaults.
type Options struct {
	Sources int // sources of late, 32 bytes each; 65,536
	Probes  int // packets of late that might have decoys beside them, 112 bytes each; 8,192
	Runs    int // runs of tools, 64 bytes each; 4,096
	Areas   int // networks with failures in them, 0.5 KiB each; 2,048
	Pairs   int // what areas tried, 8 bytes each; 131,072
	Groups  int // groups at a time, up to 24 KiB each; 256
	Members int // sources that a group names; 256 (it counts the others)

	// KeyBits says how many bits the run key of a tool has; nil: 16, as nmap's.
	KeyBits func(detect.Tool) int
	// Ephemeral: answers to this host's own packets arrive at this port; nil: Linux's
	// default, 32768 to 60999.
	Ephemeral func(port uint16) bool
}

func (o *Options) defaults() {
	for _, f := range []struct {
		n *int
		d int
	}{
		{&o.Sources, detect.DefaultSources}, {&o.Probes, 1 << 13}, {&o.Runs, 1 << 12}, {&o.Areas, 1 << 11},
		{&o.Pairs, 1 << 17}, {&o.Groups, 256}, {&o.Members, 256},
	} {
		if *f.n <= 0 {
			*f.n = f.d
		}
	}
	if o.KeyBits == nil {
		o.KeyBits = func(detect.Tool) int { return 16 }
	}
	if o.Ephemeral == nil {
		o.Ephemeral = func(p uint16) bool { return p >= 32768 && p <= 60999 }
	}
}

// Stats counts what there was no room for. All only grow.
type Stats struct {
	Evicted uint64 // sources forgotten to make room
	Groups  uint64 // groups forgotten to make room
	Members uint64 // sources of groups that were counted but not named
	Notices uint64 // notices that nobody fetched in time, or that there was no room to watch for
}

// Crowd is what is known of all sources together.
type Crowd struct {
	o     Options
	keys  keys
	now   int64 // unix nanoseconds of the packets
	stats Stats

	sources  sources
	ports    ports
	probes   probes
	runs     runs
	networks areas // a /24, /64 or /48 of sources
	headers  areas // sources with one header signature
	pairs    pairs
	groups   groups
	flood    flood
	storm    storm
	watchers watchers
	notices  notices
}

// New builds a Crowd.
func New(o Options) *Crowd {
	o.defaults()
	c := &Crowd{o: o, keys: newKeys()}
	c.sources.init(o.Sources, &c.keys)
	c.probes.init(o.Probes)
	c.runs.init(o.Runs)
	c.networks.init(o.Areas, networkRule)
	c.headers.init(o.Areas/4, headerRule)
	c.pairs.init(o.Pairs)
	c.groups.init(o.Groups, o.Members)
	c.watchers.init()
	return c
}

// about is one contact with what several rules want to know of it, worked out once.
type about struct {
	ct   *detect.Contact
	tool detect.Tool
	run  uint64

	addr     [16]byte // ct.Src
	src, dst uint64   // keyed hashes of the addresses
	pair     uint64   // keyed hash of destination, port and protocol
	s        *source
	port     *port
	fresh    bool // nothing was known of the source
	again    bool // its last contact was with the same thing
	failed   bool // nobody was there
	success  bool // somebody was, and not only for a raw SYN, as far as can be seen
}

// Contact takes one contact, with what it is made with and the run that it belongs to
// (0: none). It returns the number of the campaign that the source belongs to by now,
// 0: none. It keeps nothing of ct and does not allocate unless a group grows.
func (c *Crowd) Contact(ct *detect.Contact, tool detect.Tool, run uint64) (campaign uint64) {
	c.now = max(c.now, ct.Time)
	a := about{ct: ct, tool: tool, run: run, addr: ct.Src.As16(), failed: ct.Outcome != detect.Answered}
	a.src = c.keys.addr(&a.addr)
	a.dst = c.keys.dst(ct.Dst)
	a.pair = c.keys.mix(a.dst, uint64(ct.Proto)<<16|uint64(ct.DstPort))
	a.s, a.fresh = c.sources.at(&a, &c.stats)
	s := a.s
	a.again = !a.fresh && s.pair == uint32(a.pair)
	c.flood.shook = c.flood.shook || ct.Verified
	a.success = !a.failed && (ct.Verified || ct.Proto != decode.ProtoTCP || !c.flood.shook)
	popular := c.ports.note(c, &a)

	c.flooding(&a)
	if s.group != 0 {
		if g := c.groups.of(s); g == nil || ct.Time-g.last > int64(groupIdle) {
			s.group = 0 // it was forgotten, or is over
		}
	}
	c.decoys(&a)
	c.sameRun(&a)
	c.sweeps(&a, popular)
	if g := c.groups.of(s); g != nil {
		g.note(&a)
		campaign = g.id
	}

	s.pair, s.last = uint32(a.pair), max(s.last, uint32(ct.Time/1e9))
	s.contacts += uint16(1) &^ (s.contacts >> 15) // up to 32,768
	s.answered = s.answered || a.success
	s.verified = s.verified || ct.Verified
	return campaign
}

// Backscatter takes one packet that answers nothing that was sent from here: a SYN-ACK,
// a RST or an ICMP error.
func (c *Crowd) Backscatter(p *decode.Probe) {
	c.now = max(c.now, p.Time)
	a := p.Src.As16()
	h := c.keys.addr(&a)
	c.storm.note(c, p, h)
	c.watched(p, h)
}

// Tick says what time it is by the packets, about once a second. Without it what is
// over is not noticed to be over.
func (c *Crowd) Tick(now int64) {
	if now > c.now || c.now-now > int64(time.Hour) {
		c.now = now
	}
	c.flood.tick(c)
	c.storm.tick(c)
	c.ports.tick(c)
	c.watchers.tick(c)
}

// Finish ends what goes on: the packets are at their end.
func (c *Crowd) Finish() {
	c.flood.stop(c)
	c.storm.stop(c)
	c.ports.stop(c)
	c.watchers.stop(c)
}

// Flooding reports whether a flood in forged names goes on that is not at one port: any
// name may come up in it more than once by chance.
func (c *Crowd) Flooding() bool { return c.flood.on && !c.flood.one }

// Flooded reports whether a contact with that port is part of what floods one port, and
// so is no evidence against whom it names. A real scan of other ports is judged as ever.
func (c *Crowd) Flooded(proto uint8, port uint16) bool { return c.flood.at(proto, port) }

// Groups hands out the groups that are new or have changed since it was last called.
func (c *Crowd) Groups() iter.Seq[Group] { return c.groups.changed }

// Notices hands out what began or ended since it was last called.
func (c *Crowd) Notices() iter.Seq[Notice] { return c.notices.fetch }

// Stats is what there was no room for.
func (c *Crowd) Stats() Stats { return c.stats }

func unmap(a [16]byte) netip.Addr { return netip.AddrFrom16(a).Unmap() }

// within reports whether two times are no more than d apart, whichever is first.
func within(a, b int64, d time.Duration) bool {
	return a-b <= int64(d) && b-a <= int64(d)
}
