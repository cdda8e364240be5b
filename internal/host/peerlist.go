package host

import "net/netip"

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

// Any reports whether a peer lies in net.
func (p *Peers) Any(net netip.Prefix) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for a := range p.book.seen {
		if net.Contains(a) {
			return true
		}
	}
	return false
}
