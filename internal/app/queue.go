package app

import (
	"sync"

	"portsentry/internal/detect"
)

const (
	// queueLen is how many sightings may wait: about 0.2 s of a flood at 100,000/s.
	queueLen = 1 << 14
	// blockLen is how many are handed on at a time.
	blockLen = 64
)

// queue is the one queue between the packet path and everything that takes time. Any
// number of workers put in, the decider alone takes out. Sightings lie in blocks, and
// the block that was given back last is filled next: while the decider keeps up, a few
// of them go to and fro within the processor's cache, and no more are ever made.
type queue struct {
	ready chan struct{} // says that there is something, to whoever found nothing

	mu          sync.Mutex
	first, last *block // with something in them
	free        *block
	blocks      int // made so far
}

type block struct {
	next *block
	n    int
	seen [blockLen]detect.Sighting
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

// put copies s to the end, and reports whether there was room.
func (q *queue) put(s *detect.Sighting) bool {
	q.mu.Lock()
	was := q.first
	b := q.last
	if b == nil || b.n == blockLen {
		if b = q.add(); b == nil {
			q.mu.Unlock()
			return false
		}
	}
	b.seen[b.n] = *s
	b.n++
	q.mu.Unlock()
	if was == nil {
		touch(q.ready)
	}
	return true
}

// add puts an empty block at the end; nil: as many wait as may.
func (q *queue) add() *block {
	b := q.free
	switch {
	case b != nil:
		q.free, b.next = b.next, nil
	case q.blocks == queueLen/blockLen:
		return nil
	default:
		b = new(block)
		q.blocks++
	}
	if q.last == nil {
		q.first = b
	} else {
		q.last.next = b
	}
	q.last = b
	return b
}

// take gives the oldest block, full or not, until it is given back; nil: nothing waits,
// and ready has a signal when something does.
func (q *queue) take() *block {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.first
	if b == nil {
		return nil
	}
	if q.first = b.next; q.first == nil {
		q.last = nil
	}
	return b
}

func (q *queue) back(b *block) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b.n, b.next = 0, q.free
	q.free = b
}
