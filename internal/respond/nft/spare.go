package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// SetSpare replaces whom to spare. Prefixes may overlap. It is a Reconfigure with
// the same options otherwise; while the list stays the same it does nothing.
func (t *Table) SetSpare(prefixes []netip.Prefix) error {
	unlock, err := t.begin(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	if slices.Equal(prefixes, t.opt.Spare) {
		return nil
	}
	o := t.opt
	o.Spare = slices.Clone(prefixes)
	if err := t.become(o, t.peers, wish{}); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
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
		return nil, nil, fmt.Errorf("whom to spare: %w", err)
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
	var gone error
	for some := range slices.Chunk(unique(addrs), perTransaction) {
		c := newChange()
		c.out[t.lay.v4.peers], c.out[t.lay.v6.peers] = peerElements(some)
		if in {
			c.in[t.lay.v4.peers], c.in[t.lay.v6.peers] = peerElements(some)
		}
		err := t.apply(ctx, c)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		for _, a := range some { // also where the table is gone: it comes back with them
			if in {
				t.peers[a] = struct{}{}
			} else {
				delete(t.peers, a)
			}
		}
		gone = cmp.Or(gone, err)
	}
	return gone
}

func peerSet(addrs []netip.Addr) map[netip.Addr]struct{} {
	set := make(map[netip.Addr]struct{})
	for _, a := range unique(addrs) {
		set[a] = struct{}{}
	}
	return set
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
