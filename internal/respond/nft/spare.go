package nft

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"go4.org/netipx"
)

// SetSpare replaces whom to spare. Prefixes may overlap.
func (t *Table) SetSpare(prefixes []netip.Prefix) error {
	v4, v6, err := spareElements(prefixes)
	if err != nil {
		return err
	}
	unlock, err := t.begin(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	return t.commit(func() error {
		t.conn.FlushSet(t.lay.v4.spare)
		t.conn.FlushSet(t.lay.v6.spare)
		if err := t.conn.SetAddElements(t.lay.v4.spare, v4); err != nil {
			return err
		}
		return t.conn.SetAddElements(t.lay.v6.spare, v6)
	})
}

// spareElements merges prefixes: an overlap would abort the transaction.
func spareElements(prefixes []netip.Prefix) (v4, v6 []nftables.SetElement, err error) {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		b.AddPrefix(p)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil, nil, fmt.Errorf("nftables: whom to spare: %w", err)
	}
	for _, r := range set.Ranges() {
		els := &v4
		if r.From().Is6() {
			els = &v6
		}
		start := nftables.SetElement{Key: r.From().AsSlice()}
		end := r.To().Next() // the first address behind; none behind the last of all
		if !end.IsValid() {
			start.IntervalOpen = true
			*els = append(*els, start)
			continue
		}
		*els = append(*els, start, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return v4, v6, nil
}

// AddPeers says who holds a connection to a served port, and so earns no more
// than the limited ban by one packet. An entry stays until it is removed: only
// user space knows how long a connection lasts.
func (t *Table) AddPeers(addrs []netip.Addr) error {
	return t.setPeers(addrs, true)
}

// RemovePeers takes addresses out. One that is not there is no error.
func (t *Table) RemovePeers(addrs []netip.Addr) error {
	return t.setPeers(addrs, false)
}

func (t *Table) setPeers(addrs []netip.Addr, in bool) error {
	ctx := context.Background()
	unlock, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for some := range slices.Chunk(unique(addrs), perTransaction) {
		c := newChange()
		c.out[t.lay.v4.peers], c.out[t.lay.v6.peers] = peerElements(some)
		if in {
			c.in[t.lay.v4.peers], c.in[t.lay.v6.peers] = peerElements(some)
		}
		if err := t.apply(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func peerElements(addrs []netip.Addr) (v4, v6 []nftables.SetElement) {
	for _, a := range unique(addrs) {
		e := nftables.SetElement{Key: a.AsSlice()}
		if a.Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	return v4, v6
}

// unique gives the addresses as the kernel would compare them, each once.
func unique(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if a.IsValid() {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
