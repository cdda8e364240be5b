package app

import (
	"sync"
	"testing"

	"portsentry/internal/detect"
)

// Everything that fits comes out in the order of each worker, while the other end takes
// and gives back; what does not fit is refused, and no more blocks are made than fit.
func TestQueueKeepsOrderAndIsBounded(t *testing.T) {
	const workers, each = 3, 20_000
	q := newQueue()
	var putting sync.WaitGroup
	for w := range workers {
		putting.Go(func() {
			for i := 0; i < each; {
				if q.put(&detect.Sighting{IfIndex: int32(w), Time: int64(i)}) {
					i++
				}
			}
		})
	}
	var next [workers]int64
	for n := 0; n < workers*each; {
		b := q.take()
		if b == nil {
			<-q.ready
			continue
		}
		for i := range b.n {
			s := &b.seen[i]
			if s.Time != next[s.IfIndex] {
				t.Fatalf("sighting %d of worker %d came when %d was due", s.Time, s.IfIndex, next[s.IfIndex])
			}
			next[s.IfIndex]++
		}
		n += b.n
		q.back(b)
	}
	putting.Wait()
	if b := q.take(); b != nil {
		t.Errorf("%d more than were put in", b.n)
	}

	fit := 0
	for q.put(&detect.Sighting{}) {
		fit++
	}
	if fit != queueLen || q.blocks != queueLen/blockLen {
		t.Errorf("%d fit, in %d blocks; want %d in %d", fit, q.blocks, queueLen, queueLen/blockLen)
	}
}

// A decider that keeps up has one block go to and fro.
func TestQueueUsesWhatWasUsedLast(t *testing.T) {
	q := newQueue()
	s := &detect.Sighting{}
	used := func() *block {
		q.put(s)
		b := q.take()
		q.back(b)
		return b
	}
	first := used()
	if got := testing.AllocsPerRun(1000, func() {
		if used() != first {
			t.Error("another block")
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkQueue(b *testing.B) {
	q := newQueue()
	s := &detect.Sighting{}
	for b.Loop() {
		for range blockLen {
			q.put(s)
		}
		q.back(q.take())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/blockLen, "ns/sighting")
}
