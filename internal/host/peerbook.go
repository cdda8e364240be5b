package host

import (
	"net/netip"
	"slices"
	"time"
)

// peerBook is the memory behind Peers: who was seen when. Bounded: where there
// is no room, whoever has not been seen for the longest time goes, and nobody
// who is connected. It must be locked by its owner.
type peerBook struct {
	size    int
	keep    time.Duration
	seen    map[netip.Addr]time.Time
	nets    map[netip.Prefix]int    // how many of seen are in a /64
	waiting map[netip.Addr]struct{} // found in this round, no room yet
	pending map[netip.Addr]bool     // changes not told yet: true added, false removed
	dropped uint64
}

func newPeerBook(size int, keep time.Duration) peerBook {
	return peerBook{size, keep, make(map[netip.Addr]time.Time), make(map[netip.Prefix]int), make(map[netip.Addr]struct{}), make(map[netip.Addr]bool), 0}
}

// see notes a peer that is connected in the round that began at now.
func (b *peerBook) see(a netip.Addr, now time.Time) {
	_, known := b.seen[a]
	switch {
	case known:
		b.seen[a] = now
	case len(b.seen) < b.size:
		b.enter(a, now)
	case len(b.waiting) < b.size:
		b.waiting[a] = struct{}{}
	default:
		b.dropped++
	}
}

// endRound forgets those not seen for longer than keep and finds room for those
// who wait.
func (b *peerBook) endRound(now time.Time) {
	for a, at := range b.seen {
		if now.Sub(at) > b.keep {
			b.forget(a)
		}
	}
	if need := len(b.seen) + len(b.waiting) - b.size; need > 0 {
		var gone []netip.Addr
		for a, at := range b.seen {
			if at.Before(now) {
				gone = append(gone, a)
			}
		}
		slices.SortFunc(gone, func(x, y netip.Addr) int { return b.seen[x].Compare(b.seen[y]) })
		for _, a := range gone[:min(need, len(gone))] {
			b.forget(a)
		}
	}
	for a := range b.waiting {
		if len(b.seen) >= b.size {
			b.dropped++
			continue
		}
		b.enter(a, now)
	}
	clear(b.waiting)
}

func (b *peerBook) enter(a netip.Addr, now time.Time) {
	b.seen[a] = now
	if a.Is6() {
		b.nets[net64(a)]++
	}
	b.tell(a, true)
}

// net64 is the /64 of an IPv6 address.
func net64(a netip.Addr) netip.Prefix {
	p, _ := a.WithZone("").Prefix(64) // a length that every one of them has
	return p
}

func (b *peerBook) forget(a netip.Addr) {
	delete(b.seen, a)
	if a.Is6() {
		net := net64(a)
		if b.nets[net]--; b.nets[net] == 0 {
			delete(b.nets, net)
		}
	}
	b.tell(a, false)
}

// tell notes a change; one that undoes another leaves none. So there are never
// more changes than peers known here and peers known to whom they are told.
func (b *peerBook) tell(a netip.Addr, added bool) {
	if before, ok := b.pending[a]; ok && before != added {
		delete(b.pending, a)
		return
	}
	b.pending[a] = added
}

// take gives the changes since it was called last.
func (b *peerBook) take() PeerChange {
	var c PeerChange
	for a, added := range b.pending {
		if added {
			c.Added = append(c.Added, a)
		} else {
			c.Removed = append(c.Removed, a)
		}
	}
	clear(b.pending)
	return c
}
