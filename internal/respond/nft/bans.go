package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
// address, an IPv6 /64, or any other range. A Limited ban covers all protocols
// whatever b.Scope is: it only silences ports that nobody serves. A Soft ban of one
// protocol leaves a ban of the other alone. There is no Full ban of one protocol, and
// of a range none but Full and Soft ones of all. A b.Until that has passed is an Unban.
func (t *Table) Ban(ctx context.Context, b respond.Ban) error {
	return t.BanAll(ctx, []respond.Ban{b})
}

// BanAll is Ban for many, in as few transactions as memory allows: what comes
// after a failed one is not tried. Ranges come first, in one of their own, and go
// again if any other ban fails.
func (t *Table) BanAll(ctx context.Context, bans []respond.Ban) error {
	unlock, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	single, nets, err := t.ranges.with(bans, time.Now())
	if err != nil {
		return err
	}
	if len(single) == len(bans) {
		return t.banSingle(ctx, single)
	}
	before := t.ranges
	if err := t.setRanges(nets); err != nil {
		return err
	}
	if err := t.banSingle(ctx, single); err != nil {
		return errors.Join(err, t.setRanges(before))
	}
	return nil
}

// banSingle is BanAll for addresses and IPv6 /64s.
func (t *Table) banSingle(ctx context.Context, bans []respond.Ban) error {
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
	return t.UnbanAll(ctx, []respond.Ban{b})
}

// UnbanAll is Unban for many, as BanAll is Ban.
func (t *Table) UnbanAll(ctx context.Context, bans []respond.Ban) error {
	ended := make([]respond.Ban, 0, len(bans))
	for _, b := range bans {
		if isRange(b.Prefix) && !t.bansRange(b.Prefix) {
			continue
		}
		b.Until = time.Unix(1, 0)
		ended = append(ended, b)
	}
	return t.BanAll(ctx, ended)
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

	fills []*nftables.Set // of in, see Table.filled
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
	if !lift {
		home, err := f.home(&b, addr)
		if err != nil {
			return err
		}
		into, own = home.set, home.key
	}

	for _, s := range []*nftables.Set{f.full, f.soft, f.lim} {
		if t.filled[s] {
			c.out[s] = append(c.out[s], nftables.SetElement{Key: key})
		}
	}
	for _, scope := range []judge.Scope{judge.TCPOnly, judge.UDPOnly} {
		if !t.filled[f.part] {
			break
		}
		if lift || into != f.part || b.Scope == scope {
			c.out[f.part] = append(c.out[f.part], nftables.SetElement{Key: partKey(addr, protocolOf(scope))})
		}
	}
	if !lift {
		c.in[into] = append(c.in[into], nftables.SetElement{Key: own, Timeout: left})
		c.fills = append(c.fills, into)
	}
	// A provisional ban that does more than this one would go on doing so.
	if f.hit != nil && (lift || into == f.lim || into == f.part) {
		c.drop = append(c.drop, f.provisional(addr, lift)...)
	}
	return nil
}

// home is where b, a ban of addr or its network, belongs.
func (f *family) home(b *respond.Ban, addr netip.Addr) (place, error) {
	switch {
	case b.Strength == judge.Limited:
		return place{f, f.lim, addr.AsSlice()}, nil
	case b.Strength == judge.Soft && b.Scope == judge.AllProtocols:
		return place{f, f.soft, addr.AsSlice()}, nil
	case b.Strength == judge.Soft:
		return place{f, f.part, partKey(addr, protocolOf(b.Scope))}, nil
	case b.Strength == judge.Full && b.Scope == judge.AllProtocols:
		return place{f, f.full, addr.AsSlice()}, nil
	}
	return place{}, fmt.Errorf("nftables: no %v ban of %v for protocols %v", b.Strength, b.Prefix, b.Scope)
}

// fill notes which sets c puts something into.
func (t *Table) fill(c *change) {
	for _, s := range c.fills {
		t.filled[s] = true
	}
}

// apply makes the change in one transaction. What is banned already is taken
// out first: adding what exists lengthens nothing on older kernels.
func (t *Table) apply(ctx context.Context, c *change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.fill(c)
	looked := maps.Clone(t.looked)
	err := t.commit(func() error {
		t.looked = maps.Clone(looked)
		for _, f := range t.lay.families() {
			if len(c.in[f.full]) > 0 && !t.looked[f.full] && !t.opt.Standby {
				t.look(f, f.full)
			}
		}
		for s, els := range c.out {
			if err := t.takeOut(s, els); err != nil {
				return err
			}
		}
		if err := t.takeOutProvisional(c.drop); err != nil {
			return err
		}
		for s, els := range c.in {
			if err := t.conn.SetAddElements(s, els); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.looked = looked
	}
	return err
}

// takeOut queues the removal of elements that may not be there. Deleting what
// is missing fails, so without "destroy" they are added before.
func (t *Table) takeOut(s *nftables.Set, els []nftables.SetElement) error {
	if t.destroys {
		return t.conn.SetDestroyElements(s, els)
	}
	return errors.Join(t.conn.SetAddElements(s, els), t.conn.SetDeleteElements(s, els))
}

// takeOutProvisional is takeOut for sets that may be full, so that adding to them may
// fail: without "destroy" the elements are looked up.
func (t *Table) takeOutProvisional(places []place) error {
	out := make(map[*nftables.Set][]nftables.SetElement)
	for _, p := range places {
		if !t.destroys {
			if _, there, err := t.get(p); err != nil {
				return err
			} else if !there {
				continue
			}
		}
		out[p.set] = append(out[p.set], nftables.SetElement{Key: p.key})
	}
	remove := t.conn.SetDeleteElements
	if t.destroys {
		remove = t.conn.SetDestroyElements
	}
	for s, els := range out {
		if err := remove(s, els); err != nil {
			return err
		}
	}
	return nil
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
