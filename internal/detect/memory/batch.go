package memory

import (
	"net/netip"
	"slices"
	"sync"

	"portsentry/internal/detect"
)

// together is how many memories go into a Long at once.
const together = 32

// Batch is the hand of one goroutine in a Long that several share. What is kept waits
// until there are some of it: a flood of forged sources keeps one for each packet, in a table
// that no cache holds, and so waits for memory once for many of them, and as seldom for
// the lock. It is a detect.Past.
type Batch struct {
	long *Long
	lock sync.Locker // of long

	n       int // that wait
	hash    [together]uint64
	note    [together]note
	still   bool   // see Still
	fetched uint64 // of no meaning, but what is read must be used
}

var _ detect.Past = (*Batch)(nil)

// NewBatch is a hand in l, which lock guards.
func NewBatch(l *Long, lock sync.Locker) *Batch { return &Batch{long: l, lock: lock} }

// Recall is that of the Long, what waits counted in.
func (b *Batch) Recall(a netip.Addr, now int64) (detect.Memory, bool) {
	h := b.long.hash(a)
	if slices.Contains(b.hash[:b.n], h) {
		b.settle()
	}
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.long.recall(h, now)
}

// Keep is that of the Long, sooner or later.
func (b *Batch) Keep(a netip.Addr, m detect.Memory) {
	b.hash[b.n], b.note[b.n] = b.long.hash(a), noteOf(m)
	if b.n++; b.n == together {
		b.settle()
	}
}

// Still has keep hand over who goes on being looked at. Of those who were seen once, and
// will be handed over again, none pushes another out: to come back from there looks
// like having come twice. After it nothing waits.
func (b *Batch) Still(keep func()) {
	b.settle()
	b.still = true
	keep()
	b.settle()
	b.still = false
}

// settle keeps what waits.
func (b *Batch) settle() {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.fetched += b.long.fetch(b.hash[:b.n])
	for i := range b.n {
		if n := b.note[i]; !b.still || !n.once() || !b.long.Crowded() {
			b.long.keep(b.hash[i], n)
		}
	}
	b.n = 0
}

// fetch reads a word of each cache line that keep will want to see: of all of them at
// once, where keep would wait for one after the other.
func (l *Long) fetch(hashes []uint64) (sum uint64) {
	if l.table.n == 0 {
		return 0
	}
	for _, h := range hashes {
		for _, b := range l.table.homes(h) {
			sum += b.hash[0] + b.note[0].ports + b.note[3].ports + b.note[6].ports
		}
		i, _ := l.door.where(h)
		if l.door.newer != nil {
			sum += l.door.newer[i][0]
		}
		if l.door.older != nil {
			sum += l.door.older[i][0]
		}
	}
	return sum
}
