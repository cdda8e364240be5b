package respond

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"portsentry/internal/judge"
)

// Limits of the book. Unproved bans are made on evidence that anybody can forge, so
// both their number and their rate are bounded, apart from all others: no flood can
// take the room of a ban on proof, or of a person's. What is refused is counted, and
// the kernel's provisional ban still stands for its ten seconds.
const (
	MaxBans     = 1 << 20
	MaxUnproved = 1 << 16
	bansPerSec  = 5000 // unproved
	banBurst    = 10000
)

// turn is how many bans are looked at before others get a turn: some 0.1 ms.
const turn = 1024

// book holds bans by prefix. It does no I/O and no locking.
type book struct {
	entries  table
	widths   widths                 // of the prefixes that are no single address
	inside   map[uint64]int32       // how many IPv6 addresses, by the first half of theirs: their /64
	proved   map[netip.Prefix]int32 // how many /64s are banned on proof, by /56, and /56s by /48
	size     atomic.Int32           // entries.number
	unproved int                    // of them
	due      dueHeap
	past     memory

	none         *more    // in common
	nobody       *holders // likewise
	combinations []*holders
	lacking      map[*method]map[*entry]struct{} // what a method may take and does not hold: see Share
	asked        Ban                             // see enforced

	tokens float64
	filled time.Time
}

func newBook() *book {
	return &book{
		entries: table{seed: maphash.MakeSeed()}, inside: make(map[uint64]int32), proved: make(map[netip.Prefix]int32),
		past: newMemory(), none: &more{common: true}, nobody: new(holders), tokens: banBurst,
		lacking: make(map[*method]map[*entry]struct{}),
	}
}

// enter makes the entry of a ban. unproved: it is one of those that are few.
func (b *book) enter(ban *Ban, host netip.Addr, unproved bool) *entry {
	e := &entry{prefix: ban.Prefix, index: -1, more: b.none, holders: b.nobody, unproved: unproved}
	e.set(ban)
	e.setHost(host)
	b.add(e)
	return e
}

func (b *book) add(e *entry) {
	b.entries.put(e)
	b.size.Store(int32(b.entries.number))
	e.holders.entries++
	if !e.prefix.IsSingleIP() {
		b.widths.add(e.prefix)
	}
	b.count(e, 1)
	if e.unproved {
		b.unproved++
	}
	b.schedule(e)
}

// replace makes ban what e is.
func (b *book) replace(e *entry, ban *Ban) {
	b.count(e, -1)
	e.set(ban)
	b.count(e, 1)
	if e.unproved && !forgeable(ban) {
		e.unproved = false
		b.unproved--
	}
}

// remove takes e out. How often it was banned is remembered where it ended by itself.
func (b *book) remove(e *entry, now time.Time, expired bool) {
	b.entries.remove(e)
	for _, lacks := range b.lacking {
		delete(lacks, e)
	}
	b.size.Store(int32(b.entries.number))
	e.holders.entries--
	if !e.prefix.IsSingleIP() {
		b.widths.remove(e.prefix)
	}
	b.again(e, time.Time{})
	b.count(e, -1)
	if e.unproved {
		b.unproved--
	}
	if expired {
		b.past.add(e.prefix, e.times, e.evidence >= judge.E2, now, now)
	}
}

// count keeps inside and proved: n is 1 for an entry that comes, -1 for one that goes.
func (b *book) count(e *entry, n int32) {
	a, bits := e.prefix.Addr(), e.prefix.Bits()
	switch {
	case !a.Is6():
	case bits == 128:
		add(b.inside, half(a), n)
	case (bits == 64 || bits == 56) && e.evidence >= judge.E2:
		if net, err := a.Prefix(bits - 8); err == nil {
			add(b.proved, net, n)
		}
	}
}

func add[K comparable](m map[K]int32, k K, n int32) {
	if m[k] += n; m[k] <= 0 {
		delete(m, k)
	}
}

// half is the first half of an IPv6 address.
func half(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:])
}

// forgeable reports whether anybody can have brought the ban about.
func forgeable(b *Ban) bool { return b.Evidence < judge.E2 && b.By == "" }

// find gives the entry of the address itself or of the /64 it lies in: whom a
// verdict on a may be about.
func (b *book) find(a netip.Addr) *entry {
	a = a.WithZone("")
	if e := b.entries.of(netip.PrefixFrom(a, a.BitLen())); e != nil {
		return e
	}
	if a.Is6() {
		if net, err := a.Prefix(64); err == nil {
			return b.entries.of(net)
		}
	}
	return nil
}

// around gives the entries that a lies in to each, the narrowest first, until it has
// seen enough.
func (b *book) around(a netip.Addr, each func(*entry) (enough bool)) {
	a = a.WithZone("")
	if e := b.entries.of(netip.PrefixFrom(a, a.BitLen())); e != nil && each(e) {
		return
	}
	for _, bits := range b.widths.of(a).lengths {
		if net, err := a.Prefix(int(bits)); err == nil {
			if e := b.entries.of(net); e != nil && each(e) {
				return
			}
		}
	}
}

// widths are the lengths of prefixes that occur, so that an address is looked for in
// those alone.
type widths struct{ v4, v6 lengths }

type lengths struct {
	lengths []uint8 // the longest first
	number  [128]int32
}

func (w *widths) of(a netip.Addr) *lengths {
	if a.Is4() {
		return &w.v4
	}
	return &w.v6
}

func (w *widths) add(p netip.Prefix) {
	l := w.of(p.Addr())
	if l.number[p.Bits()]++; l.number[p.Bits()] == 1 {
		l.lengths = append(l.lengths, uint8(p.Bits()))
		slices.SortFunc(l.lengths, func(a, b uint8) int { return int(b) - int(a) })
	}
}

func (w *widths) remove(p netip.Prefix) {
	l := w.of(p.Addr())
	if l.number[p.Bits()]--; l.number[p.Bits()] == 0 {
		l.lengths = slices.DeleteFunc(l.lengths, func(n uint8) bool { return int(n) == p.Bits() })
	}
}

// allow takes one token for a new unproved ban.
func (b *book) allow(now time.Time) bool {
	if !b.filled.IsZero() {
		b.tokens = min(banBurst, b.tokens+now.Sub(b.filled).Seconds()*bansPerSec)
	}
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// times is how often p has been banned with what stands or is to come: on proof where
// that is asked for.
func (b *book) times(p netip.Prefix, proved bool, now time.Time) int {
	old := b.past.of(p, now)
	if proved {
		return int(old.proved) + 1
	}
	return int(old.times) + 1
}
