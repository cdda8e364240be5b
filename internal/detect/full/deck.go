package full

import "math/bits"

// deck is where a source has its things that has turned to more than a few: 208 bytes.
type deck struct {
	thing [things]thing
	bad   [8]uint64 // a Bloom filter of all that failed: what thing has forgotten is not new
	good  uint64    // a bit for each success, by its hash
	next  uint8     // of thing: the oldest that failed, when all are in use
}

// seen notes t, and reports whether it was noted before, or so it seems.
func (d *deck) seen(t thing) bool {
	h := uint64(t) * 0x9e3779b97f4a7c15
	if !t.gone() {
		bit := uint64(1) << (h >> 58)
		seen := d.good&bit != 0
		if d.good |= bit; bits.OnesCount64(d.good) > 48 {
			d.good = 0 // who finds so much may find it again: a scanner never gets here
		}
		return seen
	}
	seen := true
	for range 3 {
		h = bits.RotateLeft64(h, 9)
		word, bit := &d.bad[h>>6&7], uint64(1)<<(h&63)
		seen = seen && *word&bit != 0
		*word |= bit
	}
	return seen
}

// keep puts t among the things of b that are told apart. What succeeded is there for the
// count of a scan that is found later, and makes room for what failed.
func (d *deck) keep(b *board, t thing) {
	if b.n < things {
		d.thing[b.n] = t
		b.n++
		return
	}
	if !t.gone() {
		return
	}
	for i, o := range d.thing {
		if !o.gone() {
			d.thing[i] = t
			return
		}
	}
	d.thing[d.next] = t
	d.next = (d.next + 1) % things
}

// decks are made when they are needed, 256 at a time, and used again. There are never
// more than boards.
type decks struct {
	slabs [][]deck
	free  []uint32
}

const slab = 256

// of is the deck of b, which gets one if it has none.
func (s *decks) of(b *board) *deck {
	if b.deck != 0 {
		return s.at(b.deck)
	}
	if len(s.free) == 0 {
		first := uint32(len(s.slabs)*slab) + 1 // 0 is none
		s.slabs = append(s.slabs, make([]deck, slab))
		for i := range uint32(slab) {
			s.free = append(s.free, first+slab-1-i)
		}
	}
	last := len(s.free) - 1
	b.deck, s.free = s.free[last], s.free[:last]
	d := s.at(b.deck)
	*d = deck{}
	for i, t := range b.thing[:b.n] {
		d.thing[i] = t
		d.seen(t)
	}
	return d
}

func (s *decks) at(n uint32) *deck { return &s.slabs[(n-1)/slab][(n-1)%slab] }

// drop takes the deck of b back.
func (s *decks) drop(b *board) {
	if b.deck != 0 {
		s.free = append(s.free, b.deck)
		b.deck = 0
	}
}
