package flows

import (
	"math"
	"math/bits"

	"portsentry/internal/detect"
)

// state is where a conversation stands.
type state uint8

const (
	live     state = iota // known: no contact, or one that was emitted. Nothing waits
	failed                // a contact that nobody took was emitted. Nothing waits
	asked                 // a contact waits for an answer
	taken                 // it was answered, and waits for what the source makes of it
	doubtful              // a bare ACK or FIN+ACK waits for signs of a connection
	stray                 // a FIN, NULL, XMAS or the like waits for a RST
)

// entry is one conversation or fact: two lines of the cache. What goes on in a
// conversation, and all that there is to a fact, is in the first.
type entry struct {
	key
	last   int64  // when it was active, by the Tracker's time
	number uint32 // sequence number of the latest SYN; of classSender: the port asked last

	state state
	src   side // who began it
	seen  side // ends that have sent: first, second or both
	kind  detect.Kind

	count uint8 // datagrams of the source's without answer

	over    bool // a FIN or RST was seen
	refused bool // how a failed contact failed
	proof   bool // answer is known

	verified, spoke, ended bool

	course
}

// course is what a contact needs until its outcome is known. Otherwise only due
// means anything, and is 0.
type course struct {
	due        int64 // when its wait is over; 0: it does not wait
	start      int64 // time of the packet that began it
	prev, next int32 // in the queue

	// answer is the number that the source acknowledges when it gets what is sent
	// to it; after is behind all that the other end has sent so far.
	answer, after uint32

	head head
}

// head is a detect.Header without what the key says.
type head struct {
	seq, ack, ipid         uint32
	payload                int32
	flags, window, urgent  uint16
	mss                    uint16
	proto, ttl, opts, icmp uint8
	df                     bool
}

// ways is the number of entries of a bucket.
const ways = 8

// tags are 16 bits of the hash of each entry of a bucket; 0: empty. They are all that
// a look-up of what is not there has to see, and few enough for the cache of a core.
type tags [ways / lanes]uint64

// ages says of each entry of a bucket when it was active, in ticks.
type ages [ways]uint32

// lanes are the tags in a word, which are looked at together.
const (
	lanes = 4
	ones  = 0x0001000100010001
	highs = 0x8000800080008000
)

// zeros has the highest bit of each lane of x that is 0. There may be more above one
// of them.
func zeros(x uint64) uint64 { return (x - ones) &^ x & highs }

// ticks are 17 ms; they are equal after two years, and what comes from before the
// clock was set back has been idle for long.
func ticks(t int64) uint32 { return uint32(t >> 24) }

// table holds entries, in buckets of ways: a key is in the one that its keyed hash
// names. An index names an entry until it is pushed out.
type table struct {
	secret  secret
	tags    []tags
	since   []ages
	waits   []uint8 // a bit for each entry of a bucket that waits
	entries []entry
	shift   uint
}

func newTable(n int) table {
	logN := bits.Len(uint(max(1, n/ways) - 1)) // next power of two
	return table{
		secret: newSecret(), shift: uint(64 - logN), entries: make([]entry, ways<<logN),
		tags: make([]tags, 1<<logN), since: make([]ages, 1<<logN), waits: make([]uint8, 1<<logN),
	}
}

// none is no index.
const none int32 = -1

// place is where a key belongs.
type place struct {
	bucket uint64
	tag    uint64 // 16 bits, not 0
}

func (t *table) place(k *key) place {
	h := t.secret.hash(k)
	return place{bucket: h >> t.shift, tag: max(1, h&0xffff)}
}

// at looks k up.
func (t *table) at(k *key, at place) int32 {
	for w, tags := range &t.tags[at.bucket] {
		for m := zeros(tags ^ at.tag*ones); m != 0; m &= m - 1 {
			n := int32(at.bucket)*ways + int32(w*lanes+bits.TrailingZeros64(m)/16)
			if t.entries[n].key.is(k) {
				return n
			}
		}
	}
	return none
}

// touch says that i is active. What failed has no need to stay.
func (t *Tracker) touch(i int32) {
	e := &t.entries[i]
	e.last = t.now
	since := ticks(t.now)
	if e.state == failed {
		since -= ticks(forgotten)
	}
	t.since[i/ways][i%ways] = since
}

// find looks k up, at where it belongs, and marks it as active. idle is how long it was
// not active before.
func (t *Tracker) find(k *key, at place) (i int32, idle int64) {
	i = t.at(k, at)
	if i != none {
		idle = t.idle(i)
		t.touch(i)
	}
	return i, idle
}

// idle is how long i has not been active. What comes from before the clock was set
// back has been for ever.
func (t *Tracker) idle(i int32) int64 {
	if d := t.now - t.entries[i].last; d >= 0 {
		return d
	}
	return math.MaxInt64
}

// insert makes an entry for k, which is not there: none if there is no room.
// What failed makes room first, then what has been idle longest. Nothing that was
// active within a retransmission time does: a flood neither pushes out who is
// talking, nor turns into silence what is still being answered. What it cannot push
// out it cannot enter, so that it is sampled.
func (t *Tracker) insert(k *key, at place) int32 {
	tags, since := &t.tags[at.bucket], &t.since[at.bucket]
	way := tags.empty()
	if way == ways {
		way = since.idlest(ticks(t.now))
		if way == ways {
			t.stats.Full++
			return none
		}
		t.stats.Evicted++
		if t.waits[at.bucket]>>way&1 != 0 {
			t.settle(int32(at.bucket)*ways + int32(way))
		}
	}
	tags.set(way, at.tag)
	since[way] = ticks(t.now)
	n := int32(at.bucket)*ways + int32(way)
	e := &t.entries[n]
	// Word by word, as it was made: wider copies would wait for its words to be in the
	// cache, behind every store that misses it.
	e.a.hi, e.a.lo, e.b.hi, e.b.lo = k.a.hi, k.a.lo, k.b.hi, k.b.lo
	e.ports, e.class, e.v4 = k.ports, k.class, k.v4
	e.last, e.number = t.now, 0
	e.state, e.src, e.seen, e.kind, e.count = live, 0, 0, 0, 0
	e.over, e.refused, e.proof = false, false, false
	e.verified, e.spoke, e.ended = false, false, false
	return n
}

// empty is the first entry without a tag, ways if there is none.
func (t *tags) empty() uint {
	for w, four := range t {
		if m := zeros(four); m != 0 {
			return uint(w*lanes + bits.TrailingZeros64(m)/16)
		}
	}
	return ways
}

// idlest is the entry that has been idle longest, of several the first, ways if all
// were active of late.
func (a *ages) idlest(now uint32) uint {
	most := uint64(ticks(retransmit))<<3 | (ways - 1)
	for i, since := range a {
		most = max(most, uint64(now-since)<<3|uint64(ways-1-i))
	}
	if most>>3 == uint64(ticks(retransmit)) {
		return ways
	}
	return uint(ways - 1 - most&(ways-1))
}

// set gives an entry its tag.
func (t *tags) set(way uint, tag uint64) {
	s := way % lanes * 16
	t[way/lanes] = t[way/lanes]&^(0xffff<<s) | tag<<s
}

// note remembers a fact.
func (t *Tracker) note(k key) {
	at := t.place(&k)
	if i, _ := t.find(&k, at); i == none {
		t.insert(&k, at)
	}
}

// known reports whether a fact is remembered, and how long ago it was noted last.
func (t *Tracker) known(k key) (ago int64, ok bool) {
	i := t.at(&k, t.place(&k))
	if i == none {
		return 0, false
	}
	return t.idle(i), true
}
