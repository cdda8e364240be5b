package memory

import (
	"sync"
	"testing"

	"portsentry/internal/detect"
)

// What waits is recalled as what does not, and the newer goes before.
func TestBatchIsNoDelay(t *testing.T) {
	l := newKeyed(Options{}, testKey)
	b := NewBatch(l, new(sync.Mutex))
	m := detect.Memory{First: t0, Last: t0 + hour, Score: 3}
	for i := range uint64(3 * together / 2) {
		m.Score = 3
		b.Keep(addr(i), m)
		m.Score = 6
		b.Keep(addr(i), m)
		if got, ok := b.Recall(addr(i), t0+hour); !ok || got.Score != 6 {
			t.Fatalf("%d: %+v, %v", i, got, ok)
		}
		if _, ok := b.Recall(addr(i+1), t0+hour); ok {
			t.Fatalf("%d: nobody is remembered", i)
		}
	}
	b.Keep(addr(1<<20), m)
	if l.Stats().Entries != 3*together/2 {
		t.Errorf("%+v: one waits", l.Stats())
	}
	b.Still(func() {})
	if l.Stats().Entries != 3*together/2+1 {
		t.Errorf("%+v: nothing waits", l.Stats())
	}
}

// A flood that is kept by handfuls is kept as one by one.
func TestBatchKeepsTheSame(t *testing.T) {
	one, many := newKeyed(Options{Bytes: DefaultBytes / 256}, testKey), newKeyed(Options{Bytes: DefaultBytes / 256}, testKey)
	b := NewBatch(many, new(sync.Mutex))
	for i := range uint64(30_000) {
		now := t0 + int64(i)*3_333_333
		m := detect.Memory{First: now, Last: now, Score: 3}
		one.Keep(addr(i*7919%20_000), m)
		b.Keep(addr(i*7919%20_000), m)
	}
	b.Still(func() {})
	if one.Stats() != many.Stats() {
		t.Errorf("%+v, one by one %+v", many.Stats(), one.Stats())
	}
	for i := range uint64(20_000) {
		got, known := many.Recall(addr(i), t0+hour)
		want, wanted := one.Recall(addr(i), t0+hour)
		if got != want || known != wanted {
			t.Fatalf("%d: %+v, one by one %+v", i, got, want)
		}
	}
}

// Whoever was seen once, while there is no room for more of them, pushes nobody out by
// being looked at still.
func TestKeepingIsNoSecondVisit(t *testing.T) {
	l := newKeyed(Options{}, testKey)
	b := NewBatch(l, new(sync.Mutex))
	once := detect.Memory{First: t0, Last: t0, Score: 3}
	i := uint64(0)
	for ; !l.Crowded(); i++ {
		b.Keep(addr(i), once)
	}
	b.Still(func() {})
	before := l.Stats()
	twice := once
	twice.Last += hour
	b.Still(func() {
		for n := range uint64(1000) {
			b.Keep(addr(i+n), once)
		}
		b.settle()
		if after := l.Stats(); after != before {
			t.Errorf("%+v, before %+v", after, before)
		}
		b.Keep(addr(i), twice)
	})
	b.Keep(addr(i+1), once)
	b.settle()
	if after := l.Stats(); after.Kept+after.Refused != before.Kept+before.Refused+2 {
		t.Errorf("%+v, before %+v", after, before)
	}
}

func TestBatchAllocatesNothing(t *testing.T) {
	b := NewBatch(full(), new(sync.Mutex))
	i := uint64(1 << 30)
	if n := testing.AllocsPerRun(10*together, func() {
		i++
		b.Recall(addr(i), t0+2*hour)
		b.Keep(addr(i), detect.Memory{First: t0, Last: t0 + 2*hour, Score: 6})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
