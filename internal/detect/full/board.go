package full

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"

	"portsentry/internal/detect"
)

// things is how many of what a source turned to are told apart one by one. The test
// needs five that failed; the rest is for what weighs less.
const things = 16

// ways is the number of boards in a bucket.
const ways = 4

type boardKey struct {
	src [16]byte // IPv4 as IPv4-mapped, IPv6 up to the /64
	net uint64   // see Engine.network
}

// board is what is known of a source that turns to one network: some 300 bytes.
type board struct {
	key         boardKey
	low         [8]byte // IPv6: behind the /64, of the address that was seen first
	first, last int64

	score, verified float32
	contacts        uint32

	n, next uint8 // of thing: in use, and the oldest that failed when all are
	tool    detect.Tool
	known   bool // before is
	decided bool // the source scans this network
	// recalled: Past knew the source; what counted then does not count again.
	recalled bool
	run      uint64
	before   sent

	thing [things]thing
	bad   [8]uint64 // a Bloom filter of all that failed: what thing has forgotten is not new
	good  uint64    // a bit for each success, by its hash
	ports uint64    // as Memory.Ports
	days  uint32
}

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
func (b *board) note(t thing) bool {
	for _, o := range b.thing[:b.n] {
		if o == t {
			return false
		}
	}
	h := uint64(t) * 0x9e3779b97f4a7c15
	if !t.gone() {
		bit := uint64(1) << (h >> 58)
		seen := b.good&bit != 0
		if b.good |= bit; bits.OnesCount64(b.good) > 48 {
			b.good = 0 // who finds so much may find it again: a scanner never gets here
		}
		if seen && int(b.n) == things {
			return false
		}
		b.keep(t)
		return true
	}
	seen := true
	for range 3 {
		h = bits.RotateLeft64(h, 9)
		word, bit := &b.bad[h>>6&7], uint64(1)<<(h&63)
		seen = seen && *word&bit != 0
		*word |= bit
	}
	if seen && int(b.n) == things {
		return false
	}
	b.keep(t)
	return true
}

// keep puts t among the things that are told apart. What succeeded is there for the
// count of a scan that is found later, and makes room for what failed.
func (b *board) keep(t thing) {
	if int(b.n) < things {
		b.thing[b.n] = t
		b.n++
		return
	}
	if !t.gone() {
		return
	}
	for i, o := range b.thing {
		if !o.gone() {
			b.thing[i] = t
			return
		}
	}
	b.thing[b.next] = t
	b.next = (b.next + 1) % things
}

// elsewhere reports whether the source has turned to the port of t at another address,
// where nobody was there.
func (b *board) elsewhere(t thing) bool {
	for _, o := range b.thing[:b.n] {
		if o.gone() && o.service() == t.service() && o.addr() != t.addr() {
			return true
		}
	}
	return false
}

// add moves the scores, never below the floor: what was found open does not buy
// what is tried afterwards (Mell and Harang 2013). Once it has decided, the test is
// over (Wald): what a scanner then finds open belongs to his scan.
func (b *board) add(w weight, bit uint8) {
	least := floor
	if b.decided {
		least = max(floor, min(Threshold, b.score))
	}
	b.score = max(least, b.score+w.score)
	b.verified += w.verified
	if w.score > 0 {
		b.ports |= 1 << (bit & 63)
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

// label names the program that sends, by the newest packet of its that shows it.
func (b *board) label(l detect.Labeler, now *detect.Header) {
	if l == nil {
		return
	}
	var before *detect.Header
	if b.known {
		o := &b.before
		before = &detect.Header{
			Proto: now.Proto, Seq: o.seq, IPID: o.ipid, SrcPort: o.sport, DstPort: o.dport, Window: o.win, Flags: o.flags, TTL: o.ttl,
		}
		if o.dst != 0 {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], o.dst)
			before.Dst = netip.AddrFrom4(a)
		}
	}
	if t, run := l.Label(before, now); t != 0 && (t != b.tool || run != 0) {
		b.tool, b.run = t, run
	}
	b.before = sent{seq: now.Seq, ipid: now.IPID, sport: now.SrcPort, dport: now.DstPort, win: now.Window, flags: now.Flags, ttl: now.TTL}
	if now.Dst.Is4() {
		a := now.Dst.As4()
		b.before.dst = binary.BigEndian.Uint32(a[:])
	}
	b.known = true
}

// source is who counts as one; address is that of his which was seen first.
func (b *board) source() netip.Addr { return netip.AddrFrom16(b.key.src).Unmap() }

func (b *board) address() netip.Addr {
	a := b.key.src
	copy(a[8:], b.low[:])
	return netip.AddrFrom16(a).Unmap()
}

func (b *board) memory() detect.Memory {
	return detect.Memory{First: b.first, Last: b.last, Score: b.score, Verified: b.verified, Ports: b.ports, Days: b.days}
}

func (b *board) recall(m detect.Memory) {
	b.first, b.score, b.verified, b.ports, b.days = m.First, m.Score, m.Verified, m.Ports, m.Days
	b.recalled = true
}

// boards is the hot tier. A board lives in the one bucket that its keyed hash names.
// Where that is full the weaker of two random ones makes room, never the oldest as
// such: a flood of forged sources pushes out its own kind.
type boards struct {
	buckets [][ways]board
	tags    [][ways]uint16 // 0: free; looked at first, so that a look-up touches one board
	shift   uint
	rng     uint64
	evicted atomic.Uint64
}

func newBoards(n int) boards {
	logN := bits.Len(uint(max(1, n/ways) - 1)) // next power of two
	return boards{
		buckets: make([][ways]board, 1<<logN), tags: make([][ways]uint16, 1<<logN), shift: uint(64 - logN),
		rng: maphash.Bytes(maphash.MakeSeed(), nil) | 1,
	}
}

// get gives the board of a key. old: it was there; out is the one that made room.
func (t *boards) get(seed maphash.Seed, k boardKey) (b *board, old bool, out board) {
	var key [24]byte
	copy(key[:], k.src[:])
	binary.NativeEndian.PutUint64(key[16:], k.net)
	h := maphash.Bytes(seed, key[:])
	i, tag := h>>t.shift, uint16(h)|1
	bucket, tags := &t.buckets[i], &t.tags[i]
	free := -1
	for j := range bucket {
		if tags[j] == tag && bucket[j].key == k {
			return &bucket[j], true, out
		}
		if tags[j] == 0 && free < 0 {
			free = j
		}
	}
	if free < 0 {
		free = t.victim(bucket)
		out = bucket[free]
		t.evicted.Add(1)
	}
	tags[free] = tag
	return &bucket[free], false, out
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
