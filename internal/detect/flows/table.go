package flows

import (
	"hash/maphash"
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

// entry is one conversation or fact.
type entry struct {
	key  key
	last int64 // when it was active, by the Tracker's time
	due  int64 // when its wait is over; 0: it does not wait

	prev, next int32 // in the queue

	state state
	src   side // who began it
	seen  side // ends that have sent: first, second or both
	kind  detect.Kind

	over    bool // a FIN or RST was seen
	refused bool // how a failed contact failed
	proof   bool // answer is known

	verified, spoke, ended bool

	count uint8 // datagrams of the source's without answer

	number uint32 // sequence number of the latest SYN; of classSender: the port asked last
	// answer is the number that the source acknowledges when it gets what is sent
	// to it; after is behind all that the other end has sent so far.
	answer, after uint32

	start int64 // time of the packet that began it
	head  head
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

// bucket is what a look-up has to know of its entries: a line of the cache. What it
// holds is in the bucket that its keyed hash names.
type bucket struct {
	tag   [ways]uint32 // of the hash; 0: empty
	since [ways]uint32 // when it was active, in ticks
}

// ticks are 17 ms; they are equal after two years, and what comes from before the
// clock was set back has been idle for long.
func ticks(t int64) uint32 { return uint32(t >> 24) }

// table holds entries. An index names one until it is pushed out.
type table struct {
	seed    maphash.Seed
	buckets []bucket
	entries []entry
	shift   uint
}

func newTable(n int) table {
	logN := bits.Len(uint(max(1, n/ways) - 1)) // next power of two
	return table{
		seed: maphash.MakeSeed(), shift: uint(64 - logN),
		buckets: make([]bucket, 1<<logN), entries: make([]entry, ways<<logN),
	}
}

// none is no index.
const none int32 = -1

// place is where a key belongs.
type place struct {
	bucket uint64
	tag    uint32
}

func (t *table) place(k *key) place {
	h := maphash.Bytes(t.seed, k[:])
	return place{bucket: h >> t.shift, tag: uint32(h) | 1}
}

// at looks k up.
func (t *table) at(k *key, at place) int32 {
	for i, tag := range &t.buckets[at.bucket].tag {
		if tag == at.tag {
			if n := int32(at.bucket)*ways + int32(i); t.entries[n].key == *k {
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
	t.buckets[i/ways].since[i%ways] = since
}

// find looks k up and marks it as active. at is where it belongs; idle is how long
// it was not active before.
func (t *Tracker) find(k *key) (i int32, at place, idle int64) {
	at = t.place(k)
	i = t.at(k, at)
	if i != none {
		idle = t.idle(i)
		t.touch(i)
	}
	return i, at, idle
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
	b := &t.buckets[at.bucket]
	victim, now, idle := -1, ticks(t.now), ticks(retransmit)
	for i, tag := range &b.tag {
		if tag == 0 {
			victim = i
			break
		}
		if d := now - b.since[i]; d > idle {
			victim, idle = i, d
		}
	}
	if victim < 0 {
		t.stats.Full++
		return none
	}
	n := int32(at.bucket)*ways + int32(victim)
	if b.tag[victim] != 0 {
		t.stats.Evicted++
		if t.entries[n].due != 0 {
			t.settle(n)
		}
	}
	b.tag[victim] = at.tag
	t.entries[n] = entry{key: *k, prev: none, next: none}
	t.touch(n)
	return n
}

// note remembers a fact.
func (t *Tracker) note(k key) {
	i, at, _ := t.find(&k)
	if i == none {
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
