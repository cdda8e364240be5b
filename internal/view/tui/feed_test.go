package tui

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/view"
)

// follows is a daemon that tells something and goes.
type follows struct {
	fake
	told   func(n int, take func(view.Event)) // the nth time
	before []int
}

func (f *follows) Follow(_ context.Context, before int, take func(view.Event)) error {
	f.before = append(f.before, before)
	f.told(len(f.before), take)
	return errors.New("it has gone")
}

// Between two beats no more is read than anybody could look at, what was lost is
// summed up, and a daemon that has gone is followed again.
func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var read atomic.Int64
		c := &follows{told: func(n int, take func(view.Event)) {
			if n > 1 {
				return
			}
			take(view.Event{Type: view.TypeLost, Count: 7})
			for range 1000 {
				take(view.Event{Type: view.TypeProbes})
				read.Add(1)
			}
		}}
		f := newFeed()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.run(ctx, c)
		}()
		var events int
		var lost uint64
		for i := range 4 {
			b := f.beat().(beat)
			events += len(b.events)
			lost += b.lost
			if len(b.events) > beatRoom || read.Load() > int64((i+2)*beatRoom) {
				t.Errorf("beat %d: %d events, %d read", i, len(b.events), read.Load())
			}
		}
		time.Sleep(beatPause)
		synctest.Wait()
		if events != 1000 || lost != 7 {
			t.Errorf("%d events, %d lost", events, lost)
		}
		if b := f.beat().(beat); b.broken != "it has gone" {
			t.Errorf("broken: %q", b.broken)
		}
		time.Sleep(again)
		synctest.Wait()
		cancel()
		<-ended
		if len(c.before) < 2 || c.before[0] != before || c.before[1] != 0 {
			t.Errorf("asked for %v events from before", c.before)
		}
	})
}

// Rates are those of counters that grow; one that begins again says nothing.
func TestMeter(t *testing.T) {
	var r meter
	for i, count := range []uint64{100, 110, 130, 5, 25} {
		r.take(count, now.Add(time.Duration(i)*2*time.Second))
	}
	if want := []float64{5, 5, 10, 10, 10, 10}; len(r.rates) != len(want) || r.now() != 10 || r.rates[1] != 5 {
		t.Errorf("%v, want %v", r.rates, want)
	}
	r.take(1000, now.Add(time.Hour))
	if len(r.rates) != minute {
		t.Errorf("%d rates are kept", len(r.rates))
	}
}
