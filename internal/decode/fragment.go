package decode

import (
	"bytes"
	"math/bits"
)

// piece is one fragment of a datagram.
type piece struct {
	b    []byte // captured bytes
	n    int    // bytes as the IP length says
	off  int    // where in the datagram they belong, bytes
	more bool
	next uint8 // protocol, or next header, that the datagram begins with
}

// datagram is one that came in fragments.
type datagram struct {
	key   fragKey
	began int64 // frame time of its first fragment to come, unix nanoseconds

	seen  unitSet // 8-octet units that have come
	runs  unitSet // those of them with which a run begins, see take
	units int     // how many have come
	end   int     // highest end so far, bytes; with last the length of the datagram
	last  bool    // the last fragment has come

	head     [fragHead]byte // the first bytes, as far as they have come
	have     uint64         // which of them
	firstLen int            // bytes in the first fragment, as the IP length says
	next     uint8          // what head begins with, from the first fragment

	done       bool // answered: later fragments are of no interest
	overlapped bool
	options    bool // a fragment with IPv4 options was among them
}

// fragment takes in one fragment. The answer is Complete with the fragment that
// makes the fixed transport header whole, usually the first, and once per
// datagram. TCP options that are still to come are not waited for: a host that
// follows RFC 8200 section 4.5 does not ask for them in the first fragment.
//
// Fragments that overlap are handled as Linux does in both families, and RFC
// 5722 wants for IPv6: one that brings nothing new is passed over, so that the
// bytes that came first count; one that reaches into earlier ones, or is empty,
// makes everything be forgotten, itself included. A datagram of which all
// fragments have come is forgotten too: the next one may use its
// identification.
//
// Other systems choose other bytes (RFC 1858, RFC 3128), and Linux since 5.11
// ignores an IPv6 first fragment without the whole header (RFC 8200 section
// 4.5), which older ones take. So whatever is named after a contradiction is
// marked Overlapping, and a first fragment that holds the whole header is
// always answered, unless the same bytes were before.
func (d *Decoder) fragment(p *Probe, addrs []byte, f piece) Status {
	d.fragments.Add(1)
	if f.more && f.n%8 != 0 {
		if p.IsIPv6() {
			return Malformed
		}
		f.n &^= 7 // as Linux does
		f.b = f.b[:min(len(f.b), f.n)]
	}
	if f.off+f.n > 65535 {
		return Malformed
	}
	alone := false // f needs no other fragment, or gets none
	if f.off == 0 && f.n > 0 {
		_, _, alone, _ = p.header(f.next, f.b)
		alone = alone || len(f.b) < f.n
	}
	g, i := d.find(p, addrs)
	switch fresh, clash := g.take(f); {
	case clash:
		d.overlaps.Add(1)
		g.reset()
		g.overlapped = true
		if !alone {
			return Fragment
		}
		g.take(f)
	case !fresh:
		if !g.differs(f) {
			return Fragment
		}
		d.overlaps.Add(1)
		g.overlapped = true
		if !alone {
			return Fragment
		}
		g.done = false
	}
	g.keep(f)
	g.options = g.options || p.IPOptions == Yes
	whole := g.whole()
	st := Fragment
	if !g.done {
		st = g.answer(p, f, alone, whole)
		g.done = st != Fragment
	}
	if whole {
		d.frags.tags[i] = 0
	}
	return st
}

// reset forgets all fragments, but not of which datagram and that they
// contradicted each other.
func (g *datagram) reset() {
	g.seen, g.runs = unitSet{}, unitSet{}
	g.units, g.end, g.last, g.have, g.firstLen = 0, 0, false, 0, 0
	g.done = false
}

// whole reports whether every fragment has come.
func (g *datagram) whole() bool { return g.last && g.units == (g.end+7)/8 }

// take notes the units of f as seen. fresh: none of them was; clash: f makes
// Linux drop the datagram, because some were seen and others not, because f is
// empty or because it contradicts the end of the datagram. Neither: f brings
// nothing new. Linux (inet_frag_queue_insert) joins fragments to a run only
// where one continues the last of all, and takes a fragment for a duplicate
// only where it lies within one run.
func (g *datagram) take(f piece) (fresh, clash bool) {
	end := f.off + f.n
	switch {
	case f.n == 0,
		!f.more && (end < g.end || g.last && end != g.end),
		f.more && g.last && end > g.end:
		return false, true
	case !f.more:
		g.last = true
	}
	lo, hi := f.off/8, (end+7)/8
	if before := g.seen.count(lo, hi); before > 0 {
		return false, before < hi-lo || g.runs.count(lo+1, hi) > 0
	}
	g.seen.add(lo, hi)
	if g.units == 0 || f.off != g.end {
		g.runs.add(lo, lo+1)
	}
	g.units += hi - lo
	g.end = max(g.end, end)
	return true, false
}

// headPart is the part of f that belongs into head, and which bytes of head it
// fills.
func (f piece) headPart() (b []byte, mask uint64) {
	if f.off >= fragHead {
		return nil, 0
	}
	b = f.b[:min(len(f.b), fragHead-f.off)]
	return b, (1<<len(b) - 1) << f.off
}

// keep stores the bytes of f that belong to the head.
func (g *datagram) keep(f piece) {
	b, mask := f.headPart()
	copy(g.head[min(f.off, fragHead):], b)
	g.have |= mask
	if f.off == 0 {
		g.next, g.firstLen = f.next, f.n
	}
}

// differs reports whether f has other bytes than those kept.
func (g *datagram) differs(f piece) bool {
	b, mask := f.headPart()
	return g.have&mask == mask && mask != 0 && !bytes.Equal(b, g.head[f.off:f.off+len(b)])
}

// answer reads the transport header as far as it has come; f came last.
// Fragment means that more is needed. IPv6 extension headers behind the
// fragment header may lie in several fragments too, as far as head goes.
func (g *datagram) answer(p *Probe, f piece, alone, whole bool) Status {
	if g.firstLen == 0 {
		return Fragment // the first fragment is yet to come
	}
	b := g.head[:bits.TrailingZeros64(^g.have)]
	if alone {
		b = f.b
	}
	off, fixed, enough, st := p.header(g.next, b)
	if !enough && !whole && !alone {
		return Fragment
	}
	if st != Complete {
		return st
	}
	p.Marks |= Fragmented
	if g.firstLen < off+fixed {
		p.Marks |= TinyFragment
	}
	if g.overlapped {
		p.Marks |= Overlapping
	}
	if g.options {
		p.IPOptions = Yes
	}
	return transport(p, segment{b: b[off:], n: g.end - off, open: !whole})
}

// header finds the transport header of a datagram that begins with next and,
// as far as is known, b: its offset and length without options. enough: b holds
// it, or more bytes would not change the answer.
func (p *Probe) header(next uint8, b []byte) (off, fixed int, enough bool, st Status) {
	c := chain{next: next}
	if p.IsIPv6() {
		if c, st = walk(p, b, c); st != Complete {
			return 0, 0, st != Truncated, st
		}
		if c.next == extFragment {
			return 0, 0, true, Malformed // one a packet
		}
	}
	p.Proto = c.next
	fixed = p.headerLen()
	return c.off, fixed, len(b)-c.off >= fixed, Complete
}
