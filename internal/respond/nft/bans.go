package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// perTransaction bounds the bans in one transaction, and so the memory that
// its messages take.
const perTransaction = 5000

// Ban puts b in force, in place of what the table has about b.Prefix: an
// address or an IPv6 /64. A Limited ban covers all protocols whatever b.Scope
// is: it only silences ports that nobody serves. A Soft ban of one protocol
// leaves a ban of the other alone. There is no Full ban of one protocol.
// A b.Until that has passed is an Unban.
func (t *Table) Ban(ctx context.Context, b respond.Ban) error {
	return t.BanAll(ctx, []respond.Ban{b})
}

// BanAll is Ban for many, in as few transactions as memory allows: what comes
// after a failed one is not tried.
func (t *Table) BanAll(ctx context.Context, bans []respond.Ban) error {
	unlock, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c := newChange()
	for _, b := range bans {
		// One transaction takes a prefix once.
		if len(c.seen) == perTransaction || c.has(b.Prefix) {
			if err := t.apply(ctx, c); err != nil {
				return err
			}
			c = newChange()
		}
		if err := t.stage(c, b); err != nil {
			return err
		}
	}
	return t.apply(ctx, c)
}

// Unban lifts every ban of b.Prefix, confirmed or provisional. Bans that are
// not there are no error.
func (t *Table) Unban(ctx context.Context, b respond.Ban) error {
	b.Until = time.Unix(1, 0)
	return t.Ban(ctx, b)
}

// Revoke takes back what the trap rules began against addr.
func (t *Table) Revoke(ctx context.Context, addr netip.Addr) error {
	unlock, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	addr = addr.Unmap()
	f := t.familyOf(addr)
	c := newChange()
	c.drop = f.provisional(addr, true)
	return t.apply(ctx, c)
}

// change is one transaction on bans.
type change struct {
	seen map[netip.Prefix]struct{}
	out  map[*nftables.Set][]nftables.SetElement // whether there or not
	in   map[*nftables.Set][]nftables.SetElement
	drop []place // provisional elements, where they exist
}

func newChange() *change {
	return &change{
		seen: make(map[netip.Prefix]struct{}),
		out:  make(map[*nftables.Set][]nftables.SetElement),
		in:   make(map[*nftables.Set][]nftables.SetElement),
	}
}

func (c *change) has(p netip.Prefix) bool { _, ok := c.seen[p.Masked()]; return ok }

// stage works out what b changes.
func (t *Table) stage(c *change, b respond.Ban) error {
	f, addr, err := t.of(b.Prefix)
	if err != nil {
		return err
	}
	c.seen[b.Prefix.Masked()] = struct{}{}
	left := time.Duration(0) // for ever
	lift := false
	if !b.Until.IsZero() {
		left = time.Until(b.Until)
		lift = left <= 0
		left = max(left, time.Millisecond) // the kernel's unit
	}
	key := addr.AsSlice()
	into, own := f.full, key
	switch {
	case lift:
	case b.Strength == judge.Limited:
		into = f.lim
	case b.Strength == judge.Soft && b.Scope == judge.AllProtocols:
		into = f.soft
	case b.Strength == judge.Soft:
		into, own = f.part, partKey(addr, protocolOf(b.Scope))
	case b.Strength != judge.Full || b.Scope != judge.AllProtocols:
		return fmt.Errorf("nftables: no ban of %v with strength %d and scope %d", b.Prefix, b.Strength, b.Scope)
	}

	for _, s := range []*nftables.Set{f.full, f.soft, f.lim} {
		c.out[s] = append(c.out[s], nftables.SetElement{Key: key})
	}
	for _, scope := range []judge.Scope{judge.TCPOnly, judge.UDPOnly} {
		if lift || into != f.part || b.Scope == scope {
			c.out[f.part] = append(c.out[f.part], nftables.SetElement{Key: partKey(addr, protocolOf(scope))})
		}
	}
	if !lift {
		c.in[into] = append(c.in[into], nftables.SetElement{Key: own, Timeout: left})
	}
	// A provisional ban that does more than this one would go on doing so.
	if f.hit != nil && (lift || into == f.lim || into == f.part) {
		c.drop = append(c.drop, f.provisional(addr, lift)...)
	}
	return nil
}

// apply makes the change in one transaction. What is banned already is taken
// out first: adding what exists lengthens nothing on older kernels.
func (t *Table) apply(ctx context.Context, c *change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.commit(func() error {
		for s, els := range c.out {
			if err := t.takeOut(s, els); err != nil {
				return err
			}
		}
		for _, p := range c.drop {
			if err := t.takeOutProvisional(p); err != nil {
				return err
			}
		}
		for s, els := range c.in {
			if err := t.conn.SetAddElements(s, els); err != nil {
				return err
			}
		}
		return nil
	})
}

// takeOut queues the removal of elements that may not be there. Deleting what
// is missing fails, so without "destroy" they are added before.
func (t *Table) takeOut(s *nftables.Set, els []nftables.SetElement) error {
	if t.destroys {
		return t.conn.SetDestroyElements(s, els)
	}
	return errors.Join(t.conn.SetAddElements(s, els), t.conn.SetDeleteElements(s, els))
}

// takeOutProvisional is takeOut for a set that may be full, so that adding to
// it may fail: without "destroy" the element is looked up.
func (t *Table) takeOutProvisional(p place) error {
	els := []nftables.SetElement{{Key: p.key}}
	if t.destroys {
		return t.conn.SetDestroyElements(p.set, els)
	}
	_, there, err := t.get(p)
	if err != nil || !there {
		return err
	}
	return t.conn.SetDeleteElements(p.set, els)
}

// probeDestroy finds out whether the kernel can destroy elements, which is to
// delete them if they are there (Linux 6.3).
func (t *Table) probeDestroy() error {
	none := nftables.SetElement{Key: make([]byte, 4)} // 0.0.0.0 is no source
	if err := t.conn.SetDestroyElements(t.lay.v4.full, []nftables.SetElement{none}); err != nil {
		return err
	}
	err := t.conn.Flush()
	t.destroys = err == nil
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// place is where an element would be.
type place struct {
	family *family
	set    *nftables.Set
	key    []byte
}

// places are all that may hold a ban of addr.
func (t *Table) places(addr netip.Addr) []place {
	f := t.familyOf(addr)
	all := f.confirmed(addr)
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
	return element{key: p.key, left: els[0].Expires, ends: els[0].Expires != 0}, true, nil
}

// ban is an element as a Ban.
func (f *family) ban(s *nftables.Set, e element) (respond.Ban, bool) {
	b := respond.Ban{Until: e.until()}
	size := int(f.addrType.Bytes)
	addr, ok := netip.AddrFromSlice(e.key[:min(size, len(e.key))])
	if !ok {
		return b, false
	}
	b.Prefix = netip.PrefixFrom(addr, addr.BitLen())
	if f.hit == nil {
		b.Prefix = netip.PrefixFrom(addr, 64)
	}
	switch s {
	case f.full:
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
