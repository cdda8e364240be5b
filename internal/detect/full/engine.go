// Package full finds scans whether they touch a trap or not: detect.Contacts in,
// detect.Scans out. For each source it runs Wald's sequential test over what the
// source turned to for the first time and what became of that (Jung, Paxson, Berger
// and Balakrishnan, Fast Portscan Detection Using Sequential Hypothesis Testing,
// IEEE S&P 2004): a benign source mostly finds somebody there, a scanner hardly ever.
// weigh.go has the numbers and where they come from.
//
// An Engine belongs to one worker and is not safe for concurrent use, but for Stats.
package full

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"net/netip"
	"sync/atomic"
	"time"

	"portsentry/internal/detect"
)

// DefaultSources is how many pairs of a source and a network are looked at at once:
// the hot tier. It takes 7 MiB, and up to 13 more while all of them turn to more than a
// few things.
const DefaultSources = 1 << 16

// Options are what an Engine is built from.
type Options struct {
	Sources int // 0: DefaultSources
	Scans   int // findings that are kept, in whole: 0: 1,024
	// Local reports whether an address is ours, or of a network that is: those are one
	// target to whoever sweeps them. nil: none is, and a target is a /24 or a /64.
	Local  func(netip.Addr) bool
	Labels detect.Labeler // nil: programs are not named
	Past   detect.Past    // nil: what the hot tier forgets is gone
	Crowd  Crowd          // nil: each source is looked at alone
	Key    uint64         // secret, and the same as long as what is in Past is
}

// Crowd sees what many sources do together.
type Crowd interface {
	// Contact is told of every contact, with what the source seems to use. It gives
	// the number of the campaign that the source belongs to by now, 0: none.
	Contact(c *detect.Contact, t detect.Tool, run uint64) (campaign uint64)
	// Flooded reports whether a contact with that port is part of a flood of it in
	// forged names, and so says nothing about its source. Flooding reports whether a
	// flood at many ports goes on: a name may come up in it more than once by chance.
	Flooded(proto uint8, port uint16) bool
	Flooding() bool
	// Tick is called about once a second, in the time of the packets.
	Tick(now int64)
}

// Stats are counters, which only grow.
type Stats struct {
	Contacts uint64 // looked at
	Found    uint64 // scans: a source, by one kind of probe
	Evicted  uint64 // pushed out of the hot tier
	Frozen   uint64 // contacts that were not scored, as part of a flood
	Full     uint64 // findings for which there was no room
}

// Engine finds scans.
type Engine struct {
	o      Options
	seed   maphash.Seed
	boards boards
	decks  decks
	found  findings
	ticked int64
	scan   detect.Scan   // what Contact hands out
	before detect.Header // what a Labeler is shown, which would be allocated each time

	contacts, scans, unscored, full atomic.Uint64
}

// New makes an Engine.
func New(o Options) *Engine {
	if o.Sources == 0 {
		o.Sources = DefaultSources
	}
	if o.Scans == 0 {
		o.Scans = 1024
	}
	return &Engine{o: o, seed: maphash.MakeSeed(), boards: newBoards(o.Sources), found: newFindings(o.Scans)}
}

// Contact looks at one contact. It gives a scan that is found by it, and again
// whenever the scan has doubled since; else nil. The scan is good until the next call.
func (e *Engine) Contact(c *detect.Contact) *detect.Scan {
	e.contacts.Add(1)
	src := sourceOf(c.Src)
	flooded := e.flooded(c)
	b := e.board(src, c, e.network(c.Dst))
	tail := b.tail(c)
	tool := e.label(b, &c.Head)
	b.touch(c.Time)
	t := thingOf(c, kindOf(c, tool, e.found.has(src)), e.hash(c.Dst))
	switch {
	case !e.note(b, t) || b.has.is(recalled) && t.gone() && b.failed.has(e.print(t)):
	case flooded:
		e.unscored.Add(1)
	default:
		e.add(b, e.weigh(b, c, t, tail), c.Time, e.print(t))
	}
	campaign := e.crowd(c, b.tool, b.run)
	if !e.decides(src, b) {
		if b = e.sweep(src, c, t, b.tool, flooded); b == nil || !e.decides(src, b) {
			return nil
		}
	}
	b.has |= decided
	return e.goesOn(src, b, c, t, campaign)
}

// decides reports whether what b has is enough.
func (e *Engine) decides(src netip.Addr, b *board) bool {
	return b.verified >= Threshold || b.score >= Threshold && b.score >= e.threshold(src)
}

// threshold is where the score of what anybody can forge decides about src. In a flood
// at many ports twice as much is asked for: one innocent in 1e12 instead of one in 1e6,
// for so many names come up. What has been counted stays.
func (e *Engine) threshold(src netip.Addr) float32 {
	if e.o.Crowd != nil && e.o.Crowd.Flooding() && !e.found.has(src) {
		return 2 * Threshold
	}
	return Threshold
}

// flooded: what a flood in forged names is made of says nothing about anybody.
func (e *Engine) flooded(c *detect.Contact) bool {
	return e.o.Crowd != nil && !c.Verified && e.o.Crowd.Flooded(c.Proto, c.DstPort)
}

// Together tells the crowd of a contact whose source is decided on by other means.
func (e *Engine) Together(c *detect.Contact) {
	var t detect.Tool
	var run uint64
	if e.o.Labels != nil {
		t, run = e.o.Labels.Label(nil, &c.Head)
	}
	e.crowd(c, t, run)
}

// crowd tells of c, and gives the campaign that its source belongs to.
func (e *Engine) crowd(c *detect.Contact, t detect.Tool, run uint64) uint64 {
	if e.o.Crowd == nil {
		return 0
	}
	// What is silent is known some seconds late, and its time with it: that is no step
	// back. An hour is: another capture, or a clock that was set.
	if ahead := c.Time - e.ticked; ahead >= int64(time.Second) || ahead < -int64(time.Hour) {
		e.ticked = c.Time
		e.o.Crowd.Tick(c.Time)
	}
	return e.o.Crowd.Contact(c, t, run)
}

// board is that of the source of c for the network that it turns to, or for a sweep.
// What is remembered of the source from before is taken up again.
func (e *Engine) board(src netip.Addr, c *detect.Contact, of uint64) *board {
	var key [24]byte
	who := src.As16()
	copy(key[:], who[:])
	binary.NativeEndian.PutUint64(key[16:], of)
	b, old := e.boards.get(maphash.Bytes(e.seed, key[:]), src)
	if old {
		return b
	}
	if e.o.Past != nil && b.lasts() { // it was another's
		e.o.Past.Keep(b.source(), b.memory())
	}
	e.decks.drop(b)
	*b = board{who: c.Src.As16(), first: c.Time, last: c.Time}
	if isSweep(of) {
		b.has |= sweeping
	} else if e.o.Past != nil {
		if m, ok := e.o.Past.Recall(src, c.Time); ok {
			b.recall(m)
		}
	}
	return b
}

// sourceOf is who counts as one source, by the first address of his.
func sourceOf(a netip.Addr) netip.Addr { return detect.OneHost(a).Addr() }

// What a board is for: ours, a network by its hash, or a service by its number.
const (
	ours    = 1
	network = 2
)

func isSweep(of uint64) bool { return of&network == 0 && of != ours }

func (e *Engine) local(a netip.Addr) bool { return e.o.Local != nil && e.o.Local(a) }

// network is what is swept as one: ours, or a network as small as they are routed.
// That those whom a client cannot reach lie scattered, and those of a sweep side by
// side, is what tells the two apart.
func (e *Engine) network(a netip.Addr) uint64 {
	if e.local(a) {
		return ours
	}
	bits := 24
	if !a.Is4() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return e.hash(p.Addr()) | network
}

func (e *Engine) hash(a netip.Addr) uint64 {
	key := a.As16()
	return maphash.Bytes(e.seed, key[:])
}

// print is that of the protocol and port of t in services.
func (e *Engine) print(t thing) uint16 {
	return uint16((uint64(t.service()) ^ e.o.Key) * 0x9e3779b97f4a7c15 >> (64 - printLen))
}

// Remember hands what is known of all sources that have a score to Past, for the end.
func (e *Engine) Remember() {
	if e.o.Past == nil {
		return
	}
	for b := range e.boards.all() {
		if b.lasts() {
			e.o.Past.Keep(b.source(), b.memory())
		}
	}
}

// Scans are all findings as they stand, in the order in which they began.
func (e *Engine) Scans() iter.Seq[*detect.Scan] {
	return func(yield func(*detect.Scan) bool) {
		for _, f := range e.found.list {
			if !f.told {
				continue
			}
			f.fill(&e.scan, e.o.Labels)
			if !yield(&e.scan) {
				return
			}
		}
	}
}

// Stats is a snapshot of the counters; any goroutine may ask.
func (e *Engine) Stats() Stats {
	return Stats{Contacts: e.contacts.Load(), Found: e.scans.Load(), Evicted: e.boards.evicted.Load(), Frozen: e.unscored.Load(), Full: e.full.Load()}
}
