package respond

import (
	"container/heap"
	"time"
)

// schedule puts e where its expire time belongs.
func (b *book) schedule(e *entry) {
	switch {
	case e.expire.IsZero() && e.index >= 0:
		heap.Remove(&b.due, int(e.index))
	case e.expire.IsZero():
	case e.index >= 0:
		heap.Fix(&b.due, int(e.index))
	default:
		heap.Push(&b.due, e)
	}
}

// again puts e where it is looked at again at t; zero: never.
func (b *book) again(e *entry, t time.Time) {
	e.expire = t
	b.schedule(e)
}

// dueHeap orders entries by when the book has to act on them.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].expire.Before(h[j].expire) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = int32(i), int32(j)
}

// Push is for container/heap.
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = int32(len(*h))
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *dueHeap) Pop() any {
	old := *h
	last := len(old) - 1
	e := old[last]
	old[last] = nil
	*h = old[:last]
	e.index = -1
	return e
}
