package respond

import (
	"hash/maphash"
	"net/netip"
)

// pastTable finds past by prefix. It is a fixed number of sets with a few places each:
// who comes to a full set takes the place of the oldest in it. A map would go on growing
// while a flood comes and goes, for its parts are divided and never joined again.
type pastTable struct {
	seed maphash.Seed
	sets [MaxPast / pastPlaces]*pastSet // nil: nothing yet
}

const pastPlaces = 16

type pastSet [pastPlaces]pastPlace

// pastPlace holds no pointer, so the garbage collector passes it by.
type pastPlace struct {
	addr          [16]byte
	bits          uint8 // of the prefix, and one more; 0: the place is free
	is4           bool
	ended         uint32 // unix seconds, until 2106
	times, proved int32
}

// find gives the set that p belongs in, and its place there: -1 where it is not.
func (t *pastTable) find(p netip.Prefix) (set **pastSet, at int) {
	addr, bits, is4 := p.Addr().As16(), uint8(p.Bits()+1), p.Addr().Is4()
	set = &t.sets[maphash.Bytes(t.seed, addr[:])%uint64(len(t.sets))]
	if *set != nil {
		for i := range *set {
			if o := &(*set)[i]; o.bits == bits && o.is4 == is4 && o.addr == addr {
				return set, i
			}
		}
	}
	return set, -1
}

func (t *pastTable) get(p netip.Prefix) (past, bool) {
	set, at := t.find(p)
	if at < 0 {
		return past{}, false
	}
	o := &(*set)[at]
	return past{times: o.times, proved: o.proved, ended: int64(o.ended)}, true
}

// put keeps what is not in the table yet.
func (t *pastTable) put(p netip.Prefix, v past) {
	set, _ := t.find(p)
	if *set == nil {
		*set = new(pastSet)
	}
	oldest := &(*set)[0]
	for i := range *set {
		if o := &(*set)[i]; o.bits == 0 || oldest.bits != 0 && o.ended < oldest.ended {
			oldest = o
		}
	}
	*oldest = pastPlace{
		addr: p.Addr().As16(), bits: uint8(p.Bits() + 1), is4: p.Addr().Is4(),
		ended: uint32(v.ended), times: v.times, proved: v.proved,
	}
}

func (t *pastTable) remove(p netip.Prefix) {
	if set, at := t.find(p); at >= 0 {
		(*set)[at] = pastPlace{}
	}
}
