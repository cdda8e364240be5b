package host

import (
	"net/netip"
	"time"
)

// See enters a, who has just completed a handshake with a port that is served
// here, as somebody else saw: the same as if that connection had been listed.
func (p *Peers) See(a netip.Addr) {
	if !mayBePeer(a) {
		return
	}
	p.mu.Lock()
	p.book.see(a, time.Now())
	p.mu.Unlock()
	p.wakeRun()
}

func mayBePeer(a netip.Addr) bool { return !a.IsLoopback() && !a.IsUnspecified() }

// wakeRun makes Run tell what has changed.
func (p *Peers) wakeRun() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// List gives all peers, in no order.
func (p *Peers) List() []netip.Addr {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]netip.Addr, 0, len(p.book.seen))
	for a := range p.book.seen {
		out = append(out, a)
	}
	return out
}

// Any reports whether a peer lies in net. Of a /64, about which anybody can make us ask
// as often as he likes, it is known.
func (p *Peers) Any(net netip.Prefix) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if net.Addr().Is6() && net.Bits() == 64 {
		return p.book.nets[net.Masked()] > 0
	}
	for a := range p.book.seen {
		if net.Contains(a) {
			return true
		}
	}
	return false
}
