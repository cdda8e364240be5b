package full

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math/bits"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"portsentry/internal/detect"
)

// things is how many of what a source turned to are told apart one by one. The test
// needs five that failed; the rest is for what weighs less.
const things = 16

// ways is the number of boards in a bucket.
const ways = 4

// few is how many of them a board has room for by itself. Of forged sources hardly one
// is seen more often.
const few = 2

// board is what is known of a source that turns to one network: 112 bytes, and without a
// pointer. Only one that has turned to more than a few things has a deck besides.
type board struct {
	who         [16]byte // the address that was seen first: IPv4 as IPv4-mapped
	first, last int64

	score, verified float32
	failed          services // as Memory.Ports
	run             uint64
	days            uint32
	deck            uint32 // its number in decks; 0: it has none
	thing           [few]thing
	before          sent

	n    uint8 // things in use
	tool detect.Tool
	has  marks
}

type marks uint8

const (
	known   marks = 1 << iota // before is
	decided                   // the source scans this network
	// recalled: Past knew the source; what counted then does not count again.
	recalled
	sweeping // it is for one service, wherever that is looked for
)

func (m marks) is(one marks) bool { return m&one != 0 }

// thing is what a source turned to: from the lowest bit, port (16), protocol (8),
// kind (5), whether nobody was there (1), and a hash of the address (34).
type thing uint64

const goneBit thing = 1 << 29

func thingOf(c *detect.Contact, kind detect.Kind, addr uint64) thing {
	t := thing(c.DstPort) | thing(c.Proto)<<16 | thing(kind)<<24 | thing(addr)>>30<<30
	if c.Outcome != detect.Answered {
		t |= goneBit
	}
	return t
}

func (t thing) port() uint16      { return uint16(t) }
func (t thing) service() uint32   { return uint32(t & 0xffffff) } // protocol and port
func (t thing) kind() detect.Kind { return detect.Kind(t >> 24 & 31) }
func (t thing) addr() uint64      { return uint64(t >> 30) }
func (t thing) gone() bool        { return t&goneBit != 0 }

// note reports whether t is new: the source has not turned to this port of this
// address in this way before, with this outcome. Failures and successes are kept
// apart, so that who does much that is good is not forgiven what he does for the
// first time.
func (e *Engine) note(b *board, t thing) bool {
	if slices.Contains(e.things(b), t) {
		return false
	}
	if b.deck == 0 && b.n < few {
		b.thing[b.n] = t
		b.n++
		return true
	}
	d := e.decks.of(b)
	if d.seen(t) && b.n == things {
		return false
	}
	d.keep(b, t)
	return true
}

// things are those that b tells apart.
func (e *Engine) things(b *board) []thing {
	if b.deck == 0 {
		return b.thing[:b.n]
	}
	return e.decks.of(b).thing[:b.n]
}

// tail reports whether c comes from quite another port than the packet before it: the
// ends of connections do, each from its own, and scanners send from one or count.
func (b *board) tail(c *detect.Contact) bool {
	const counting = 2
	apart := int(c.SrcPort) - int(b.before.sport)
	return b.has.is(known) && max(apart, -apart) > counting
}

// add moves the scores by a contact that began at t, never below the floor: what was
// found open does not buy what is tried afterwards (Mell and Harang 2013). Once it has
// decided, the test is over (Wald): what a scanner then finds open belongs to his scan.
func (e *Engine) add(b *board, w weight, t int64, service uint16) {
	least := floor
	if b.has.is(decided) {
		least = max(floor, min(Threshold, b.score))
	}
	if b.deck != 0 {
		d := e.decks.of(b)
		if below := least - (b.score + w.score); w.score < 0 && below > 0 {
			d.spare(below, t)
		} else if w.score > 0 {
			w.score -= d.spend(w.score, t)
		}
	}
	b.score = max(least, b.score+w.score)
	b.verified += w.verified
	if w.score > 0 {
		b.failed.add(service)
	}
}

// touch takes note that the source was there at t, in unix nanoseconds.
func (b *board) touch(t int64) {
	const day = int64(24 * time.Hour)
	if passed := t/day - b.last/day; passed > 0 {
		b.days <<= min(passed, 32)
	}
	b.days |= 1
	b.first, b.last = min(b.first, t), max(b.last, t)
}

// sent is what is kept of a packet for a Labeler.
type sent struct {
	seq, ipid, dst           uint32 // dst: IPv4
	sport, dport, win, flags uint16
	ttl                      uint8
}

// label names the program that sends, by the newest packet of its that shows it, and
// gives the one that now shows: 0 for none.
func (e *Engine) label(b *board, now *detect.Header) detect.Tool {
	l := e.o.Labels
	if l == nil {
		return 0
	}
	var before *detect.Header
	if b.has.is(known) {
		o := &b.before
		before = &e.before
		*before = detect.Header{
			Proto: now.Proto, Seq: o.seq, IPID: o.ipid, SrcPort: o.sport, DstPort: o.dport, Window: o.win, Flags: o.flags, TTL: o.ttl,
		}
		if o.dst != 0 {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], o.dst)
			before.Dst = netip.AddrFrom4(a)
		}
	}
	t, run := l.Label(before, now)
	if t != 0 && (t != b.tool || run != 0) {
		b.tool, b.run = t, run
	}
	b.before = sent{seq: now.Seq, ipid: now.IPID, sport: now.SrcPort, dport: now.DstPort, win: now.Window, flags: now.Flags, ttl: now.TTL}
	if now.Dst.Is4() {
		a := now.Dst.As4()
		b.before.dst = binary.BigEndian.Uint32(a[:])
	}
	b.has |= known
	return t
}

// address is that of the source which was seen first, source who counts as one.
func (b *board) address() netip.Addr { return netip.AddrFrom16(b.who).Unmap() }
func (b *board) source() netip.Addr  { return sourceOf(b.address()) }

// lasts reports whether it is worth to be remembered.
func (b *board) lasts() bool { return b.score > 0 && !b.has.is(sweeping) }

func (b *board) memory() detect.Memory {
	return detect.Memory{First: b.first, Last: b.last, Score: b.score, Verified: b.verified, Ports: uint64(b.failed), Days: b.days}
}

func (b *board) recall(m detect.Memory) {
	b.first, b.score, b.verified, b.failed, b.days = m.First, m.Score, m.Verified, services(m.Ports), m.Days
	b.has |= recalled
}

// boards is the hot tier. A board lives in the one bucket that its keyed hash names.
// Where that is full the weaker of two random ones makes room, never the oldest as
// such: a flood of forged sources pushes out its own kind.
type boards struct {
	buckets [][ways]board
	tags    [][ways]uint32 // 0: free; looked at first, so that a look-up touches one board
	shift   uint
	rng     uint64
	evicted atomic.Uint64
}

func newBoards(n int) boards {
	logN := bits.Len(uint(max(1, n/ways) - 1)) // next power of two
	return boards{
		buckets: make([][ways]board, 1<<logN), tags: make([][ways]uint32, 1<<logN), shift: uint(64 - logN),
		rng: maphash.Bytes(maphash.MakeSeed(), nil) | 1,
	}
}

// get gives the board of src, for the network that its keyed hash h stands for. old: it
// was there; else the board is what was kept of another source, which makes room, or
// empty, and the caller's to fill. Two networks of one source have the same bucket and
// tag once in 2^31 times the number of buckets.
func (t *boards) get(h uint64, src netip.Addr) (b *board, old bool) {
	i, tag := h>>t.shift, uint32(h)|1
	bucket, tags := &t.buckets[i], &t.tags[i]
	free := -1
	for j := range bucket {
		if tags[j] == tag && bucket[j].source() == src {
			return &bucket[j], true
		}
		if tags[j] == 0 && free < 0 {
			free = j
		}
	}
	if free < 0 {
		free = t.victim(bucket)
		t.evicted.Add(1)
	}
	tags[free] = tag
	return &bucket[free], false
}

// all are the boards in use.
func (t *boards) all() iter.Seq[*board] {
	return func(yield func(*board) bool) {
		for i := range t.tags {
			for j, tag := range t.tags[i] {
				if tag != 0 && !yield(&t.buckets[i][j]) {
					return
				}
			}
		}
	}
}

// victim picks two at random and names the weaker: the one with the lower score, of
// equals the one that was silent longer.
func (t *boards) victim(b *[ways]board) int {
	t.rng ^= t.rng << 13
	t.rng ^= t.rng >> 7
	t.rng ^= t.rng << 17
	i, j := int(t.rng%ways), int(t.rng>>8%(ways-1))
	if j >= i {
		j++
	}
	x, y := &b[i], &b[j]
	if x.score+x.verified < y.score+y.verified || x.score+x.verified == y.score+y.verified && x.last < y.last {
		return i
	}
	return j
}
