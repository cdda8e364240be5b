package tui

import (
	"context"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"portsentry/internal/view"
)

const (
	// beatPause is the least time between two pictures.
	beatPause = 250 * time.Millisecond
	// beatRoom is how many events are read between two. More nobody reads: the daemon
	// passes over them, and says how many.
	beatRoom = 250
	// again is how soon a daemon that has gone is looked for.
	again = time.Second
	// before is how many events there are to begin with.
	before = 100
)

// beat is what happened since the last one.
type beat struct {
	at     time.Time
	events []view.Event
	lost   uint64 // events that passed unread
	broken string // why there are no events; "": they come
}

// feed collects events until the next beat.
type feed struct {
	mu    sync.Mutex
	next  beat
	taken chan struct{} // a beat has made room
}

func newFeed() *feed { return &feed{taken: make(chan struct{}, 1)} }

// run follows what happens until ctx ends.
func (f *feed) run(ctx context.Context, c Client) {
	for wanted := before; ; wanted = 0 {
		err := c.Follow(ctx, wanted, func(e view.Event) { f.take(ctx, e) })
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		f.next.broken = view.Printable(err.Error())
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// take keeps e for the next beat. Where there is no room it waits: what happens
// meanwhile is lost in the daemon, which counts it.
func (f *feed) take(ctx context.Context, e view.Event) {
	for !f.keep(&e) {
		select {
		case <-ctx.Done():
			return
		case <-f.taken:
		}
	}
}

func (f *feed) keep(e *view.Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next.broken = ""
	switch {
	case e.Type == view.TypeLost:
		f.next.lost += e.Count
	case len(f.next.events) >= beatRoom:
		return false
	default:
		f.next.events = append(f.next.events, *e)
	}
	return true
}

// beat waits for its time and gives what has come.
func (f *feed) beat() tea.Msg {
	time.Sleep(beatPause)
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.next
	b.at = time.Now()
	f.next = beat{broken: b.broken}
	select {
	case f.taken <- struct{}{}:
	default:
	}
	return b
}
