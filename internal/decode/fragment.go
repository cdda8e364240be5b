package decode

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"time"
)

// Bounds of the fragment table.
const (
	fragSlots = 128  // datagrams held
	fragHead  = 64   // bytes of each that are kept: the longest TCP header is 60
	fragUnits = 8192 // 8-octet units in the longest datagram

	// How long Linux waits for the rest of a datagram. Ours must not differ: a
	// shorter wait could be sat out, a longer one mixes datagrams.
	fragWait4 = int64(30 * time.Second) // net.ipv4.ipfrag_time
	fragWait6 = int64(60 * time.Second) // net.ipv6.ip6frag_time, RFC 8200 section 4.5
)

// piece is one fragment of a datagram.
type piece struct {
	b    []byte // captured bytes
	n    int    // bytes as the IP length says
	off  int    // where in the datagram they belong, bytes
	more bool
	next uint8 // protocol, or next header, that the datagram begins with
}

// fragKey tells datagrams apart. In IPv6 the next header is no part of it (RFC
// 8200 section 4.5): only the first fragment's counts. Fragments with a wrong
// IPv4 header checksum, which no host takes, are gathered apart, so that they
// cannot shadow real ones.
type fragKey struct {
	addrs [32]byte // source and destination, 8 or 32 bytes
	id    uint32
	proto uint8
	v6    bool
	bad   bool
}

// datagram is one that came in fragments.
type datagram struct {
	key   fragKey
	began int64 // frame time of its first fragment to come, unix nanoseconds

	seen  [fragUnits / 64]uint64 // which 8-octet units have come
	units int                    // how many
	end   int                    // highest end so far, bytes; with last the length of the datagram
	last  bool                   // the last fragment has come

	head     [fragHead]byte // the first bytes, as far as they have come
	have     uint64         // which of them
	firstLen int            // bytes in the first fragment, as the IP length says
	next     uint8          // what head begins with, from the first fragment

	done       bool // answered: later fragments are of no interest
	overlapped bool
	options    bool // a fragment with IPv4 options was among them
}

// fragTable holds the datagrams begun last. They take their slots in turn, so
// that slot next is always the oldest.
type fragTable struct {
	tags  [fragSlots]uint32 // hash of the key; 0: free
	next  int
	slots [fragSlots]datagram
}

// fragment takes in one fragment. The answer is Complete once per datagram:
// with the fragment that makes its transport header whole, usually the first.
//
// Fragments that overlap are handled as Linux does in both families, and RFC
// 5722 wants for IPv6: one that brings nothing new is passed over, so that the
// bytes that came first count; one that reaches into earlier ones, or is empty,
// makes everything be forgotten, itself included. Whatever is named under the
// same key afterwards is marked Overlapping, since other systems choose other
// bytes (RFC 1858, RFC 3128). A datagram of which all fragments have come is
// forgotten too: the next one may use its identification.
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
	key := fragKey{id: p.IPID, v6: p.IsIPv6(), bad: p.Marks&BadIPChecksum != 0}
	copy(key.addrs[:], addrs)
	if !key.v6 {
		key.proto = p.Proto
	}
	i := d.find(&key, p.Time)
	g := &d.frags.slots[i]
	if g.units == 0 {
		g.began = p.Time
	}
	switch fresh, clash := g.take(f); {
	case clash:
		d.overlaps.Add(1)
		g.reset()
		g.overlapped = true
		return Fragment
	case !fresh:
		if !g.done && g.differs(f) {
			d.overlaps.Add(1)
			g.overlapped = true
		}
		return Fragment
	}
	g.keep(f)
	g.options = g.options || p.IPOptions == Yes
	whole := g.whole()
	st := Fragment
	if !g.done {
		st = g.answer(p, f, whole)
		g.done = st != Fragment
	}
	if whole {
		d.frags.tags[i] = 0
	}
	return st
}

// find returns the slot of key's datagram, a new one if need be.
func (d *Decoder) find(key *fragKey, now int64) int {
	t := &d.frags
	tag := key.tag()
	for i := range t.tags {
		if t.tags[i] == tag && t.slots[i].key == *key {
			if !t.slots[i].old(now) {
				return i
			}
			d.forget(i, now)
		}
	}
	i := t.next
	t.next = (i + 1) % fragSlots
	d.forget(i, now)
	g := &t.slots[i]
	g.reset()
	g.key, g.overlapped, g.options = *key, false, false
	t.tags[i] = tag
	return i
}

// forget frees slot i and counts what was lost by it.
func (d *Decoder) forget(i int, now int64) {
	g := &d.frags.slots[i]
	if d.frags.tags[i] != 0 && !g.done && g.units > 0 {
		if g.old(now) {
			d.expired.Add(1)
		} else {
			d.evicted.Add(1)
		}
	}
	d.frags.tags[i] = 0
}

// tag is a hash of the key, never 0. It only saves comparisons: whoever makes
// tags collide gains nothing.
func (k *fragKey) tag() uint32 {
	h := uint64(k.id)<<8 | uint64(k.proto)
	for n := 0; n < len(k.addrs); n += 8 {
		h = (h ^ binary.LittleEndian.Uint64(k.addrs[n:])) * 0x9e3779b97f4a7c15
		h ^= h >> 32
		if !k.v6 {
			break
		}
	}
	return uint32(h) | 1
}

// old reports whether the host has given the datagram up. Capture files may
// jump back in time: that far is another day.
func (g *datagram) old(now int64) bool {
	wait := fragWait4
	if g.key.v6 {
		wait = fragWait6
	}
	age := now - g.began
	return age > wait || age < -wait
}

// reset forgets all fragments, but not of which datagram and that they
// contradicted each other.
func (g *datagram) reset() {
	g.seen = [fragUnits / 64]uint64{}
	g.units, g.end, g.last, g.have, g.firstLen = 0, 0, false, 0, 0
	g.done = false
}

// whole reports whether every fragment has come.
func (g *datagram) whole() bool { return g.last && g.units == (g.end+7)/8 }

// take notes the units of f as seen. fresh: none of them was; clash: some were
// and others not, or f contradicts the end of the datagram or is empty.
func (g *datagram) take(f piece) (fresh, clash bool) {
	end := f.off + f.n
	switch {
	case f.n == 0:
		return false, true
	case !f.more && (end < g.end || g.last && end != g.end), f.more && g.last && end > g.end:
		return false, true
	case !f.more:
		g.last = true
	}
	g.end = max(g.end, end)
	lo, hi := f.off/8, (end+7)/8
	before := 0
	for w := lo / 64; w <= (hi-1)/64; w++ {
		m := ^uint64(0)
		if w == lo/64 {
			m <<= lo % 64
		}
		if w == (hi-1)/64 {
			m &= ^uint64(0) >> (63 - (hi-1)%64)
		}
		before += bits.OnesCount64(g.seen[w] & m)
		g.seen[w] |= m
	}
	g.units += hi - lo - before
	return before == 0, before != 0 && before != hi-lo
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

// keep stores the bytes of f that belong to the head. None of them is there.
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
// Fragment means that more is needed. Extension headers behind the fragment
// header may lie in several fragments too, within head: hosts that follow RFC
// 8200 section 4.5 discard such packets anyway.
func (g *datagram) answer(p *Probe, f piece, whole bool) Status {
	if g.firstLen == 0 {
		return Fragment // the first fragment is yet to come
	}
	b, cut := g.head[:bits.TrailingZeros64(^g.have)], false
	if f.off == 0 && len(f.b) >= len(b) {
		b, cut = f.b, len(f.b) < f.n
	}
	c := chain{next: g.next}
	if p.IsIPv6() {
		var st Status
		if c, st = walk(p, b, c); st == Truncated && !whole && !cut {
			return Fragment
		} else if st != Complete {
			return st
		}
		if c.next == extFragment {
			return Malformed // one a packet
		}
	}
	p.Proto = c.next
	fixed, want := p.headerLen(b[c.off:])
	if len(b)-c.off < want && !whole && !cut {
		return Fragment
	}
	p.Marks |= Fragmented
	if g.firstLen < c.off+fixed {
		p.Marks |= TinyFragment
	}
	if g.overlapped {
		p.Marks |= Overlapping
	}
	if g.options {
		p.IPOptions = Yes
	}
	return transport(p, segment{b: b[c.off:], n: g.end - c.off, open: !whole})
}
