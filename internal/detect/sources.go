package detect

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// DefaultSources is how many sources a worker remembers: the hot tier of
// DETECTION's memory, 2.5 MiB when full.
const DefaultSources = 1 << 16

// ways is the number of entries in a bucket. A source lives in the one bucket
// that its keyed hash names, so an attacker who does not know the key cannot aim
// at somebody's bucket.
const ways = 8

// bucket begins with what it takes to find a source, or to say who makes room for
// a new one: one cache line. Another one is the entry itself.
type bucket struct {
	tags    tags
	count   [ways]uint32
	last    [ways]uint16 // see tick
	several uint64       // as tags are, the top bit: there was more than one port
	entries [ways]source
}

type source struct {
	addr  [16]byte // IPv4 as IPv4-mapped
	first int64    // unix nanoseconds of the hit that began the count
	port  uint16   // the first trap port with which a handshake was completed; 0: none
}

// tick is the time t (unix nanoseconds) in units of 4.3 s, of which 65,536 are
// 78 hours: enough to say who of two was silent longer.
func tick(t int64) uint16 { return uint16(t >> 32) }

// tags has a byte of the hash for each entry of a bucket, 0 where there is none.
type tags uint64

const (
	lows = 0x0101010101010101 // the lowest bit of each byte
	tops = lows << 7
)

// equal marks, with its top bit, each byte that is tag; it may mark bytes above one
// that is (Hacker's Delight, 2nd ed., section 6-1).
func (t tags) equal(tag uint8) uint64 {
	x := uint64(t) ^ lows*uint64(tag)
	return (x - lows) &^ x & tops
}

func (t *tags) set(i int, tag uint8) {
	*t = *t&^(0xff<<(8*i)) | tags(tag)<<(8*i)
}

// sources counts hits per source address in bounded memory. When a bucket is
// full, the weaker of two random entries makes room, never the oldest as such:
// a flood of forged sources, one hit each, pushes out its own kind.
type sources struct {
	seed    maphash.Seed
	buckets []bucket
	shift   uint
	rng     uint64
	evicted atomic.Uint64
}

func newSources(n int) *sources {
	b := max(1, n/ways)
	logN := bits.Len(uint(b - 1)) // next power of two
	return &sources{
		seed:    maphash.MakeSeed(),
		buckets: make([]bucket, 1<<logN),
		shift:   uint(64 - logN),
		rng:     maphash.Bytes(maphash.MakeSeed(), nil) | 1,
	}
}

// hit counts n hits of a at time t (unix nanoseconds) and returns the count. A
// count older than window (0: for ever) begins anew. port is the trap port of a
// completed handshake, 0 for other hits; several says that there were such with
// more than one port.
func (s *sources) hit(a netip.Addr, t, window int64, n uint32, port uint16) (count uint32, several bool) {
	key := a.As16()
	hash := maphash.Bytes(s.seed, key[:])
	tag := uint8(max(1, hash&0xff))
	b := &s.buckets[hash>>s.shift]
	for left := b.tags.equal(tag); left != 0; left &= left - 1 {
		i := bits.TrailingZeros64(left) / 8
		e := &b.entries[i]
		if e.addr != key {
			continue
		}
		mark := uint64(0x80) << (8 * i)
		if window > 0 && t-e.first > window {
			e.first, e.port, b.count[i] = t, 0, 0
			b.several &^= mark
		}
		b.count[i] += min(n, ^uint32(0)-b.count[i])
		b.last[i] = tick(t)
		if e.port == 0 {
			e.port = port
		}
		if port != 0 && port != e.port {
			b.several |= mark
		}
		return b.count[i], b.several&mark != 0
	}
	i := bits.TrailingZeros64(b.tags.equal(0)) / 8 // of the marks the lowest is always right
	if i == ways {
		i = s.victim(b, tick(t))
		s.evicted.Add(1)
	}
	b.tags.set(i, tag)
	b.several &^= 0x80 << (8 * i)
	b.count[i], b.last[i] = n, tick(t)
	b.entries[i] = source{addr: key, first: t, port: port}
	return n, false
}

// victim picks two entries at random and names the weaker: the one with fewer
// hits, of equals the one that was silent longer.
func (s *sources) victim(b *bucket, now uint16) int {
	s.rng ^= s.rng << 13
	s.rng ^= s.rng >> 7
	s.rng ^= s.rng << 17
	i, j := int(s.rng%ways), int(s.rng>>8%(ways-1))
	if j >= i {
		j++
	}
	if b.count[i] < b.count[j] || b.count[i] == b.count[j] && now-b.last[i] > now-b.last[j] {
		return i
	}
	return j
}
