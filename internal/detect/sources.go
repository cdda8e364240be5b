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
// that its keyed hash names, so a look-up touches five cache lines at most and
// an attacker who does not know the key cannot aim at somebody's bucket.
const ways = 8

type source struct {
	addr  [16]byte // IPv4 as IPv4-mapped
	first int64    // unix nanoseconds of the hit that began the count
	last  int64
	count uint32 // 0: empty

	port    uint16 // the first trap port with which a handshake was completed; 0: none
	several bool   // and there was another
}

// sources counts hits per source address in bounded memory. When a bucket is
// full, the weaker of two random entries makes room, never the oldest as such:
// a flood of forged sources, one hit each, pushes out its own kind.
type sources struct {
	seed    maphash.Seed
	buckets [][ways]source
	shift   uint
	rng     uint64
	evicted atomic.Uint64
}

func newSources(n int) *sources {
	b := max(1, n/ways)
	logN := bits.Len(uint(b - 1)) // next power of two
	return &sources{
		seed:    maphash.MakeSeed(),
		buckets: make([][ways]source, 1<<logN),
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
	bucket := &s.buckets[maphash.Bytes(s.seed, key[:])>>s.shift]
	free := -1
	for i := range bucket {
		e := &bucket[i]
		if e.count == 0 {
			if free < 0 {
				free = i
			}
			continue
		}
		if e.addr != key {
			continue
		}
		if window > 0 && t-e.first > window {
			*e = source{addr: key, first: t}
		}
		e.count += min(n, ^uint32(0)-e.count)
		e.last = t
		if e.port == 0 {
			e.port = port
		}
		e.several = e.several || port != 0 && port != e.port
		return e.count, e.several
	}
	if free < 0 {
		free = s.victim(bucket)
		s.evicted.Add(1)
	}
	bucket[free] = source{addr: key, first: t, last: t, count: n, port: port}
	return n, false
}

// victim picks two entries at random and names the weaker: the one with fewer
// hits, of equals the one that was silent longer.
func (s *sources) victim(b *[ways]source) int {
	s.rng ^= s.rng << 13
	s.rng ^= s.rng >> 7
	s.rng ^= s.rng << 17
	i, j := int(s.rng%ways), int(s.rng>>8%(ways-1))
	if j >= i {
		j++
	}
	if b[i].count < b[j].count || b[i].count == b[j].count && b[i].last < b[j].last {
		return i
	}
	return j
}
