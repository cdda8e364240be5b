package detect

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// DefaultSources is how many sources a worker remembers: the hot tier of
// DETECTION's memory, 1.4 MiB when full.
const DefaultSources = 1 << 16

// ways is the number of sources in a line. A source lives in the one line that its
// keyed hash names, so an attacker who does not know the key cannot aim at somebody's.
const ways = 3

// line is what is remembered of some sources, in one line of the processor's cache: in a
// flood of forged ones each costs a look into memory, and no more than one.
type line struct {
	prints  [ways]uint64 // the hash, which stands for the address; 0: nobody
	first   [ways]uint32 // when the count began, see stamp
	count   [ways]uint32
	last    [ways]uint16 // see tick
	port    [ways]uint16 // the first trap port with which a handshake was completed; 0: none
	several uint8        // a bit each: there was more than one such port
}

// stamp is the time t (unix nanoseconds) in units of 16.8 ms: enough to say of two that
// are up to a year apart which was first, and by how much.
func stamp(t int64) uint32 { return uint32(t >> 24) }

// tick is the time t (unix nanoseconds) in units of 4.3 s, of which 65,536 are
// 78 hours: enough to say who of two was silent longer.
func tick(t int64) uint16 { return uint16(t >> 32) }

// sources counts hits per source address in bounded memory. When a line is full, the
// weaker of two random ones in it makes room, never the oldest as such: a flood of
// forged sources, one hit each, pushes out its own kind. Two addresses have the same
// hash once in 2^64 pairs, and nobody can choose them.
type sources struct {
	seed    maphash.Seed
	lines   []line
	rng     uint64
	evicted atomic.Uint64
}

func newSources(n int) *sources {
	return &sources{
		seed:  maphash.MakeSeed(),
		lines: make([]line, (n+ways-1)/ways),
		rng:   maphash.Bytes(maphash.MakeSeed(), nil) | 1,
	}
}

// hit counts n hits of a at time t (unix nanoseconds) and returns the count. A
// count older than window (0: for ever) begins anew. port is the trap port of a
// completed handshake, 0 for other hits; several says that there were such with
// more than one port.
func (s *sources) hit(a netip.Addr, t, window int64, n uint32, port uint16) (count uint32, several bool) {
	key := a.As16()
	print := max(1, maphash.Bytes(s.seed, key[:]))
	at, _ := bits.Mul64(print, uint64(len(s.lines)))
	l := &s.lines[at]
	free := ways
	for i, p := range l.prints {
		if p == 0 {
			free = i
		}
		if p != print {
			continue
		}
		mark := uint8(1) << i
		if window > 0 && int64(int32(stamp(t)-l.first[i])) > window>>24 { // a late packet is before first
			l.first[i], l.port[i], l.count[i] = stamp(t), 0, 0
			l.several &^= mark
		}
		l.count[i] += min(n, ^uint32(0)-l.count[i])
		l.last[i] = tick(t)
		if l.port[i] == 0 {
			l.port[i] = port
		}
		if port != 0 && port != l.port[i] {
			l.several |= mark
		}
		return l.count[i], l.several&mark != 0
	}
	if free == ways {
		free = s.victim(l, tick(t))
		s.evicted.Add(1)
	}
	l.prints[free], l.first[free], l.count[free], l.last[free], l.port[free] = print, stamp(t), n, tick(t), port
	l.several &^= 1 << free
	return n, false
}

// victim picks two of l at random and names the weaker: the one with fewer hits, of
// equals the one that was silent longer.
func (s *sources) victim(l *line, now uint16) int {
	s.rng ^= s.rng << 13
	s.rng ^= s.rng >> 7
	s.rng ^= s.rng << 17
	i, j := int(s.rng%ways), int(s.rng>>8%(ways-1))
	if j >= i {
		j++
	}
	if l.count[i] < l.count[j] || l.count[i] == l.count[j] && now-l.last[i] > now-l.last[j] {
		return i
	}
	return j
}
