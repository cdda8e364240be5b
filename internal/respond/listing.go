package respond

import (
	"cmp"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// Listing is a List of which nothing is made but the order and the counters: of a million
// bans the rows are of use one after the other, and all at once are 350 MB.
type Listing struct {
	r        *Responder
	stand    []place
	counters []counted
}

// place is an entry where its prefix has it among others. Entries lie all over the heap, so
// they are sorted by what is kept here.
type place struct {
	high, low uint64 // the address, of IPv4 the low half alone
	six       bool
	bits      uint8
	entry     *entry
}

func placeOf(p netip.Prefix, e *entry) place {
	a := p.Addr().As16()
	return place{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:]), p.Addr().Is6(), uint8(p.Bits()), e}
}

// compare orders as netip.Prefix.Compare does, those whose host bits are zero: the book
// has no others.
func (a place) compare(b place) int {
	switch {
	case a.six != b.six:
		if b.six {
			return -1
		}
		return 1
	case a.high != b.high:
		return cmp.Compare(a.high, b.high)
	case a.low != b.low:
		return cmp.Compare(a.low, b.low)
	}
	return cmp.Compare(a.bits, b.bits)
}

// counted is what one method says of the entries that stand, by their place.
type counted struct {
	method string
	counts []count
}

type count struct {
	dropped   uint64
	ok, alive bool // as Counter has them
}

// rowsAtOnce is how many rows are made before others get a turn: some 50 kB of them.
const rowsAtOnce = 128

// countMany is how many entries there are before their counters are asked for all at once.
const countMany = 256

// Listing gives what is in force and what is dry run as of now, with what has been dropped
// until now.
func (r *Responder) Listing() *Listing {
	r.mu.Lock()
	now := time.Now()
	l := &Listing{r: r, stand: make([]place, 0, r.book.entries.number)}
	r.each(func(e *entry) {
		if e.native(now) || r.book.blocks(e, now) {
			l.stand = append(l.stand, placeOf(e.prefix, e))
		}
	})
	counters := r.counters()
	r.mu.Unlock()
	slices.SortFunc(l.stand, place.compare)
	for name, c := range counters { // which may take a while: nobody waits for it
		l.counters = append(l.counters, counted{name, l.count(c)})
	}
	return l
}

// count asks c of everybody.
func (l *Listing) count(c Counter) []count {
	counts := make([]count, len(l.stand))
	if len(l.stand) < countMany {
		for i := range l.stand {
			k := &counts[i]
			k.dropped, k.alive, k.ok = c.Counts(l.stand[i].entry.prefix)
		}
		return counts
	}
	// With an error, what was not told of is not counted.
	_ = c.EachCount(func(p netip.Prefix, dropped uint64, alive bool) {
		if i, found := slices.BinarySearchFunc(l.stand, placeOf(p, nil), place.compare); found {
			counts[i] = count{dropped, true, alive}
		}
	})
	return counts
}

// Rows gives them in the order of prefixes, without those that have ended meanwhile. A row
// is only good until the next.
func (l *Listing) Rows() iter.Seq[*InForce] {
	return func(yield func(*InForce) bool) {
		rows := make([]InForce, 0, rowsAtOnce)
		for i := 0; i < len(l.stand); i += rowsAtOnce {
			rows = l.take(rows[:0], i, min(i+rowsAtOnce, len(l.stand)))
			for j := range rows {
				if !yield(&rows[j]) {
					return
				}
			}
		}
	}
}

// take appends the rows of places from i to below end.
func (l *Listing) take(rows []InForce, i, end int) []InForce {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	now := time.Now()
	for ; i < end; i++ {
		e := l.stand[i].entry
		if !e.booked || !e.native(now) && !l.r.book.blocks(e, now) {
			continue
		}
		row := l.r.row(e, now)
		for _, c := range l.counters {
			if k := &c.counts[i]; k.ok && slices.Contains(row.Methods, c.method) {
				row.counted(k.dropped, k.alive)
			}
		}
		rows = append(rows, row)
	}
	return rows
}
