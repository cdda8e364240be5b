package nft

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// place is where an element would be.
type place struct {
	family *family
	set    *nftables.Set
	key    []byte
}

// places are all that may hold a ban of addr.
func (t *Table) places(addr netip.Addr) []place {
	f := t.familyOf(addr)
	all := append(f.confirmed(addr), place{f, f.fullnet, addr.AsSlice()}, place{f, f.softnet, addr.AsSlice()})
	if addr.Is6() {
		p, _ := addr.Prefix(64) // 64 is a length that every IPv6 address has
		all = append(all, t.lay.net6.confirmed(p.Addr())...)
	}
	return append(all, f.provisional(addr, true)...)
}

func (f *family) confirmed(addr netip.Addr) []place {
	key := addr.AsSlice()
	return []place{{f, f.full, key}, {f, f.soft, key}, {f, f.lim, key},
		{f, f.part, partKey(addr, unix.IPPROTO_TCP)}, {f, f.part, partKey(addr, unix.IPPROTO_UDP)}}
}

// provisional are the elements that the trap rules may have made, those of
// hitlim only if asked for.
func (f *family) provisional(addr netip.Addr, limited bool) []place {
	key := addr.AsSlice()
	all := []place{{f, f.hit, key},
		{f, f.hitpart, partKey(addr, unix.IPPROTO_TCP)}, {f, f.hitpart, partKey(addr, unix.IPPROTO_UDP)}}
	if limited {
		all = append(all, place{f, f.hitlim, key})
	}
	return all
}

// get looks one element up.
func (t *Table) get(p place) (element, bool, error) {
	els, err := t.conn.FindSetElements(p.set, []nftables.SetElement{{Key: p.key}})
	if errors.Is(err, unix.ENOENT) || err == nil && len(els) == 0 {
		return element{}, false, nil
	}
	if err != nil {
		return element{}, false, fmt.Errorf("nftables: looking into set %s: %w", p.set.Name, err)
	}
	return element{key: p.key, left: els[0].Expires, ends: els[0].Expires != 0, comment: els[0].Comment}, true, nil
}

// ban is an element as a Ban.
func (f *family) ban(s *nftables.Set, e element) (respond.Ban, bool) {
	b := respond.Ban{Until: e.until()}
	size := int(f.addrType.Bytes)
	if len(e.key) < size {
		return b, false
	}
	addr, _ := netip.AddrFromSlice(e.key[:size])
	b.Prefix = netip.PrefixFrom(addr, addr.BitLen())
	if f.hit == nil {
		b.Prefix = netip.PrefixFrom(addr, 64)
	}
	if s == f.fullnet || s == f.softnet {
		p, err := netip.ParsePrefix(e.comment)
		if err != nil {
			return b, false
		}
		b.Prefix = p
	}
	switch s {
	case f.full, f.fullnet:
		b.Strength = judge.Full
	case f.lim, f.hitlim:
		b.Strength = judge.Limited
	default:
		b.Strength = judge.Soft
	}
	if s == f.part || s == f.hitpart {
		if len(e.key) <= size {
			return b, false
		}
		switch e.key[size] {
		case unix.IPPROTO_TCP:
			b.Scope = judge.TCPOnly
		case unix.IPPROTO_UDP:
			b.Scope = judge.UDPOnly
		default:
			return b, false
		}
	}
	return b, true
}

// of finds the sets for a prefix.
func (t *Table) of(p netip.Prefix) (*family, netip.Addr, error) {
	addr := p.Addr()
	switch {
	case addr.Is4() && p.Bits() == 32:
		return &t.lay.v4, addr, nil
	case addr.Is6() && !addr.Is4In6() && p.Bits() == 128:
		return &t.lay.v6, addr.WithZone(""), nil
	case addr.Is6() && !addr.Is4In6() && p.Bits() == 64:
		return &t.lay.net6, p.Masked().Addr(), nil
	}
	return nil, addr, fmt.Errorf("nftables: cannot ban %v: only addresses and IPv6 /64s", p)
}

func (t *Table) familyOf(addr netip.Addr) *family {
	if addr.Is4() {
		return &t.lay.v4
	}
	return &t.lay.v6
}

func protocolOf(s judge.Scope) byte {
	if s == judge.UDPOnly {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// partKey is source . protocol: each part is padded to four bytes.
func partKey(addr netip.Addr, proto byte) []byte { return append(addr.AsSlice(), proto, 0, 0, 0) }
