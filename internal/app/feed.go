package app

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"portsentry/internal/view"
)

// Bounds of what followers may take: 8 of them some 0.3 MiB together.
const (
	maxFollowers = 8
	followerRoom = 256 // events that wait for one of them
)

// feed hands what happens to those who follow it. Nobody waits for a follower: what
// one has no room for is counted, and he is told so.
type feed struct {
	following atomic.Int32

	mu        sync.Mutex
	followers []*follower
	lost      uint64 // of all followers there were
}

// follower is one who follows.
type follower struct {
	filter  view.PastFilter // its Source and Kind
	pending []view.Event
	spare   []view.Event
	lost    uint64 // since pending is full
	wake    chan struct{}
}

// wanted reports whether anybody follows: else nothing is made of what happens.
func (f *feed) wanted() bool { return f.following.Load() > 0 }

// follow takes in one more follower.
func (f *feed) follow(filter view.PastFilter) (*follower, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.followers) >= maxFollowers {
		return nil, view.Refuse(http.StatusServiceUnavailable, fmt.Sprintf("%d already follow what happens", maxFollowers), "end one of them first")
	}
	who := &follower{filter: filter, wake: make(chan struct{}, 1)}
	f.followers = append(f.followers, who)
	f.following.Add(1)
	return who, nil
}

// leave lets go of a follower.
func (f *feed) leave(who *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, o := range f.followers {
		if o == who {
			f.followers = append(f.followers[:i], f.followers[i+1:]...)
			f.following.Add(-1)
			return
		}
	}
}

// publish hands e, which is about src (invalid: about nobody), to those who want it.
func (f *feed) publish(e *view.Event, src netip.Prefix) { f.tell(e, src, nil) }

// tell is publish for an event of which the type and kind are known: words adds the
// rest when the first follower has room for it. In a flood hardly anybody has.
func (f *feed) tell(e *view.Event, src netip.Prefix, words func(e *view.Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, who := range f.followers {
		switch {
		case !matches(&who.filter, e, src):
			continue
		case len(who.pending) >= followerRoom:
			who.lost++
			f.lost++
			continue
		}
		if words != nil {
			words(e)
			words = nil
		}
		who.pending = append(who.pending, *e)
		touch(who.wake)
	}
}

// matches reports whether f asks for e.
func matches(f *view.PastFilter, e *view.Event, src netip.Prefix) bool {
	return (f.Kind == "" || f.Kind == e.Kind || f.Kind == e.Type) &&
		(!f.Source.IsValid() || src.IsValid() && f.Source.Overlaps(src))
}

// take gives what has happened since the last call. It is good until the next one.
func (f *feed) take(who *follower) []view.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := who.pending
	who.pending, who.spare = who.spare[:0], out
	if who.lost > 0 {
		out = append(out, view.Event{
			Time: time.Now(), Type: view.TypeLost, Count: who.lost,
			Text: fmt.Sprintf("%d %s happened here for which you were too slow", who.lost, plural(int(who.lost), "thing", "things")),
		})
		who.lost = 0
	}
	return out
}

// stats is how many follow, and how many events followers were too slow for.
func (f *feed) stats() (followers int, lost uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.followers), f.lost
}
