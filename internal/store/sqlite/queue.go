package sqlite

import (
	"net/netip"

	"portsentry/internal/respond"
)

// maxQueue bounds what waits to be written while the disk does not take it: 25 MiB
// at the worst.
const maxQueue = 1 << 16

// event is something that has to be written by itself.
type event struct {
	what     what
	time     int64 // unix nanoseconds
	ban      respond.Ban
	host     netip.Addr
	end      respond.End
	by, text string
}

type what uint8

const (
	began what = iota
	ended
	changed
)

// queue is what waits to be written, the oldest first. It is a ring that grows as far
// as it may; beyond that the oldest makes room, and is counted.
type queue struct {
	ring  []event
	first uint64 // the number of the oldest
	next  uint64 // the number that the next one gets
	lost  uint64
}

func (q *queue) len() int { return int(q.next - q.first) }

// at is the place of number n. The size of the ring is a power of two.
func (q *queue) at(n uint64) *event { return &q.ring[n&uint64(len(q.ring)-1)] }

func (q *queue) push(e *event) {
	switch n := q.len(); {
	case n < len(q.ring):
	case n < maxQueue:
		old := *q
		q.ring = make([]event, max(64, 2*n))
		for i := old.first; i < old.next; i++ {
			*q.at(i) = *old.at(i)
		}
	default:
		q.first++
		q.lost++
	}
	*q.at(q.next) = *e
	q.next++
}

// drop takes out those before number end.
func (q *queue) drop(end uint64) {
	for ; q.first < end; q.first++ {
		*q.at(q.first) = event{}
	}
	if q.first == q.next && len(q.ring) > 1024 {
		q.ring = nil // a storm is over
	}
}
