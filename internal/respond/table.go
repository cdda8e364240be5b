package respond

import (
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
)

// table finds entries by prefix, in lists that begin in buckets. It takes a quarter of the
// memory of a map, whose parts are divided as a flood comes and goes and never joined
// again. It is in shards, for none of them takes long to grow: a packet may be waiting.
type table struct {
	seed   maphash.Seed
	number int
	shards [256]shard
}

type shard struct {
	number  int
	buckets []*entry // a power of two
}

// place gives the shard of p, and the hash that finds it there.
func (t *table) place(p netip.Prefix) (*shard, uint64) {
	addr := p.Addr().As16()
	h := maphash.Bytes(t.seed, addr[:])
	return &t.shards[h>>56], h
}

func (s *shard) bucket(h uint64) **entry { return &s.buckets[h&uint64(len(s.buckets)-1)] }

// of gives the entry of exactly p, or nil.
func (t *table) of(p netip.Prefix) *entry {
	if t.number == 0 { // for every packet where nobody is answered
		return nil
	}
	s, h := t.place(p)
	if s.number == 0 {
		return nil
	}
	e := *s.bucket(h)
	for e != nil && e.prefix != p {
		e = e.next
	}
	return e
}

// put takes e in; there is none of its prefix.
func (t *table) put(e *entry) {
	s, h := t.place(e.prefix)
	if s.number == len(s.buckets) {
		t.grow(s)
	}
	b := s.bucket(h)
	e.next, *b, e.booked = *b, e, true
	s.number++
	t.number++
}

func (t *table) grow(s *shard) {
	old := s.buckets
	s.buckets = make([]*entry, max(16, 2*len(old)))
	for _, e := range old {
		for e != nil {
			next := e.next
			_, h := t.place(e.prefix)
			b := s.bucket(h)
			e.next, *b = *b, e
			e = next
		}
	}
}

// remove takes e out, which is in the table.
func (t *table) remove(e *entry) {
	s, h := t.place(e.prefix)
	b := s.bucket(h)
	for *b != e {
		b = &(*b).next
	}
	*b, e.next, e.booked = e.next, nil, false
	s.number--
	t.number--
}

// all gives every entry, beginning with any. What comes in meanwhile may be missing; what
// goes is.
func (t *table) all(yield func(*entry) bool) {
	var some []*entry
	begin := rand.IntN(len(t.shards))
	for i := range t.shards {
		s := &t.shards[(begin+i)%len(t.shards)]
		some = some[:0]
		for _, e := range s.buckets {
			for ; e != nil; e = e.next {
				some = append(some, e)
			}
		}
		if len(some) == 0 {
			continue
		}
		first := rand.IntN(len(some))
		for j := range some {
			if e := some[(first+j)%len(some)]; e.booked && !yield(e) {
				return
			}
		}
	}
}
