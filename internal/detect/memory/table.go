package memory

import (
	"math"
	"math/bits"
	"time"

	"portsentry/internal/detect"
)

const (
	slots       = 8
	bucketBytes = slots * entryBytes
	entryBytes  = 32

	pageBuckets = 256 // 64 KiB are allocated at a time
	scoreUnit   = 1. / 512
)

// note is what an entry holds besides the hash. Times are minutes since 1970, scores
// are in scoreUnit: up to 64, which is far beyond any decision.
type note struct {
	ports             uint64
	days, first, last uint32
	score, verified   int16
}

// bucket has its hashes in one cache line, so that a look into it costs one.
type bucket struct {
	hash [slots]uint64 // 0: empty
	note [slots]note
}

// table is a linear hash table (Litwin 1980) that grows by one bucket at a time, so
// that it is never larger than its entries need and no call ever rehashes all of them. An
// entry lies in one of two buckets, which its hash names, in the one that had more
// room.
type table struct {
	pages         [][]bucket
	n, max        int // buckets
	mask          uint32
	entries, once int
	perMinute     float64 // 1 / half-life in minutes
}

func noteOf(m detect.Memory) note {
	return note{
		ports: m.Ports, days: m.Days,
		first: minute(m.First), last: minute(m.Last),
		score: quantised(m.Score), verified: quantised(m.Verified),
	}
}

func (n *note) memory() detect.Memory {
	return detect.Memory{
		First: int64(n.first) * int64(time.Minute), Last: int64(n.last) * int64(time.Minute),
		Score: float32(n.score) * scoreUnit, Verified: float32(n.verified) * scoreUnit,
		Ports: n.ports, Days: n.days,
	}
}

// once: it was seen in one minute only.
func (n *note) once() bool { return n.first >= n.last }

func minute(t int64) uint32 {
	return uint32(min(max(t/int64(time.Minute), 0), math.MaxUint32))
}

func quantised(s float32) int16 {
	if s != s {
		return 0
	}
	return int16(math.Round(float64(min(max(s/scoreUnit, math.MinInt16), math.MaxInt16))))
}

// worth orders entries by score * 2^(-age/half-life), by its logarithm, in which the
// age can be counted from any time, so from 1970. The logarithm of the score is
// linear between powers of two: monotone, and at most .09 half-lives off.
func (t *table) worth(n *note) float64 {
	s := uint16(max(n.score, n.verified, 0))
	if s == 0 {
		return -1
	}
	e := bits.Len16(s) - 1
	return float64(e) + float64(s)/float64(uint32(1)<<e) - 1 + float64(n.last)*t.perMinute
}

func (t *table) at(i int) *bucket { return &t.pages[i/pageBuckets][i%pageBuckets] }

// home is the bucket that half a hash names.
func (t *table) home(h uint32) *bucket {
	i := h & t.mask
	if int(i) >= t.n {
		i &= t.mask >> 1
	}
	return t.at(int(i))
}

func (t *table) homes(h uint64) [2]*bucket {
	return [2]*bucket{t.home(uint32(h)), t.home(uint32(h >> 32))}
}

func (t *table) find(h uint64) (*bucket, int) {
	if t.n == 0 {
		return nil, 0
	}
	for _, b := range t.homes(h) {
		for i := range b.hash {
			if b.hash[i] == h {
				return b, i
			}
		}
	}
	return nil, 0
}

// set puts an entry into a slot, empty or not.
func (t *table) set(b *bucket, i int, h uint64, n note) {
	if b.hash[i] == 0 {
		t.entries++
	} else if b.note[i].once() {
		t.once--
	}
	if n.once() {
		t.once++
	}
	b.hash[i], b.note[i] = h, n
}

// insert makes room for an entry that is not there and says whether another had to go:
// the one with the least worth. Who is on probation takes the place of its like only
// where there is no other.
func (t *table) insert(h uint64, n note) (pushed bool) {
	// Two thirds full: the buckets that are not split yet are fuller than others.
	for t.n < t.max && (t.n < pageBuckets || t.entries >= t.n*slots*2/3) {
		t.grow()
	}
	for {
		b, i := t.roomiest(t.homes(h))
		if b != nil {
			t.set(b, i, h, n)
			return false
		}
		if t.entries >= t.n*slots*15/16 || !t.shift(h) {
			break
		}
	}
	b, i := t.weakest(h, n.once())
	if b == nil {
		b, i = t.weakest(h, false)
	}
	t.set(b, i, h, n)
	return true
}

// weakest is the entry with the least worth in the buckets of h, which are full; or, nil
// if there is none, of those that are not on probation.
func (t *table) weakest(h uint64, settled bool) (b *bucket, i int) {
	least := math.Inf(1)
	for _, c := range t.homes(h) {
		for j := range c.note {
			if settled && c.note[j].once() {
				continue
			}
			if w := t.worth(&c.note[j]); w < least {
				b, i, least = c, j, w
			}
		}
	}
	return b, i
}

// restore is insert for an entry that stays outside if it is the weakest itself.
func (t *table) restore(h uint64, n note) {
	if t.entries >= t.n*slots*15/16 && t.n == t.max {
		if b, _ := t.roomiest(t.homes(h)); b == nil {
			if b, i := t.weakest(h, false); t.worth(&b.note[i]) < t.worth(&n) {
				t.set(b, i, h, n)
			}
			return
		}
	}
	t.insert(h, n)
}

// roomiest is an empty slot in the one of two buckets that has more of them; nil: none.
func (t *table) roomiest(two [2]*bucket) (b *bucket, i int) {
	most := 0
	for _, c := range two {
		at, empty := 0, 0
		for j := range c.hash {
			if c.hash[j] == 0 {
				at, empty = j, empty+1
			}
		}
		if empty > most {
			b, i, most = c, at, empty
		}
	}
	return b, i
}

// shift makes room for h by moving an entry to the other bucket that it may be in: of
// 16 there is one that can be moved nearly always, unless the table is full.
func (t *table) shift(h uint64) bool {
	for _, c := range t.homes(h) {
		for j, other := range c.hash {
			if b, i := t.roomiest(t.homes(other)); b != nil {
				b.hash[i], b.note[i] = other, c.note[j]
				c.hash[j] = 0
				return true
			}
		}
	}
	return false
}

// oldestOnce is, of the entries on probation in the buckets of h, the one that was seen
// the longest time ago.
func (t *table) oldestOnce(h uint64) (b *bucket, i int) {
	if t.n == 0 {
		return nil, 0
	}
	for _, c := range t.homes(h) {
		for j := range c.hash {
			if c.hash[j] != 0 && c.note[j].once() && (b == nil || c.note[j].last < b.note[i].last) {
				b, i = c, j
			}
		}
	}
	return b, i
}

// grow adds a bucket and moves into it what belongs there now, from the one bucket where
// that was so far. There must be fewer than max.
func (t *table) grow() {
	if t.n%pageBuckets == 0 {
		t.pages = append(t.pages, make([]bucket, min(pageBuckets, t.max-t.n)))
	}
	added := t.at(t.n)
	t.mask = uint32(1)<<bits.Len(uint(t.n)) - 1
	from := t.n & int(t.mask>>1)
	t.n++
	if t.n == 1 {
		return
	}
	b, to := t.at(from), 0
	for i, h := range b.hash {
		if h == 0 {
			continue
		}
		if c := t.homes(h); c[0] != b && c[1] != b {
			added.hash[to], added.note[to] = h, b.note[i]
			b.hash[i] = 0
			to++
		}
	}
}

func (t *table) bytes() int {
	n := 0
	for _, p := range t.pages {
		n += len(p) * bucketBytes
	}
	return n
}
