package app

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portsentry/internal/view"
)

// learned knows which ports of ours told somebody something before he was banned: with
// them he had completed a connection. The XDP program tells of the first one of each
// address; whoever sends SYNs alone learns from their answers without being in it.
type learned struct {
	mu     sync.Mutex
	opened map[netip.Addr]uint16 // who has connected, and where to first
	told   []lesson              // the latest, oldest first
}

// lesson is a port that somebody had connected to when he was banned.
type lesson struct {
	at   time.Time
	port uint16
}

// Bounds of learned, some 400 KiB together: who connected long ago and whom
// nobody banned since is let go, in no order.
const (
	maxOpened  = 4096
	maxLessons = 4096
)

// connected notes that a has completed a handshake with port.
func (l *learned) connected(a netip.Addr, port uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened == nil {
		l.opened = make(map[netip.Addr]uint16)
	}
	if len(l.opened) >= maxOpened {
		for who := range l.opened {
			delete(l.opened, who)
			break
		}
	}
	l.opened[a] = port
}

// banned notes that a has been banned.
func (l *learned) banned(a netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	port, had := l.opened[a]
	if !had {
		return
	}
	delete(l.opened, a)
	if len(l.told) >= maxLessons {
		l.told = slices.Delete(l.told, 0, maxLessons/4)
	}
	l.told = append(l.told, lesson{now, port})
}

// tally counts by port who was banned from since until until.
func (l *learned) tally(since, until time.Time) []view.Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[uint16]uint64)
	for _, one := range l.told {
		if !one.at.Before(since) && one.at.Before(until) {
			counts[one.port]++
		}
	}
	out := []view.Tally{}
	for port, n := range counts {
		out = append(out, view.Tally{What: fmt.Sprintf("%d/tcp", port), Count: n})
	}
	slices.SortFunc(out, func(a, b view.Tally) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.What, b.What))
	})
	return out
}
