package full

import (
	"math/bits"
	"time"
)

// deck is where a source has its things that has turned to more than a few: 216 bytes.
type deck struct {
	thing [things]thing
	bad   [8]uint64 // a Bloom filter of all that failed: what thing has forgotten is not new
	good  uint64    // a bit for each success, by its hash
	next  uint8     // of thing: the oldest that failed, when all are in use

	over  float32 // what successes of late would have taken off the score below the floor
	newer int64   // when the newest of them began, unix nanoseconds
}

// late is how much later silence is known than an answer. The test goes by the order in
// which things were tried: of sixty machines that are asked at once, the twelve that are
// off come last, and would find nothing left of what the others have forgiven. So what a
// success is worth beyond the floor is there for failures that began before it.
const late = int64(3 * time.Second)

// spare notes that a success which began at t was worth more by x than it could take off.
func (d *deck) spare(x float32, t int64) {
	if passed := t - d.newer; passed > 0 {
		d.over *= 1 - float32(min(passed, late))/float32(late)
		d.newer = t
	}
	d.over += x
}

// spend gives how much of x, which a failure that began at t adds, was forgiven by what
// began after it.
func (d *deck) spend(x float32, t int64) float32 {
	if t > d.newer {
		return 0
	}
	x = min(x, d.over)
	d.over -= x
	return x
}

// found reports whether what t stands for was noted with somebody there, or so it seems:
// once in so many cases as good has bits set.
func (d *deck) found(t thing) bool { return d.good>>place(t&^goneBit)&1 != 0 }

// place is the bit of good for t.
func place(t thing) uint64 { return uint64(t) * spread >> 58 }

const spread = 0x9e3779b97f4a7c15

// seen notes t, and reports whether it was noted before, or so it seems.
func (d *deck) seen(t thing) bool {
	h := uint64(t) * spread
	if !t.gone() {
		bit := uint64(1) << place(t)
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
