package app

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go4.org/netipx"
)

// forced are the bans that root made by --force of who is never acted on otherwise:
// he is while they stand. They are not kept beyond the daemon's end: with the next
// start whom to spare is what the files and the machine say. Safe for concurrent use.
type forced struct {
	mu    sync.Mutex
	begun map[netip.Prefix]bool // whether the ban is in force yet
}

func (f *forced) set(p netip.Prefix, begun bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begun == nil {
		f.begun = make(map[netip.Prefix]bool)
	}
	f.begun[p] = begun
}

// prune forgets those whose ban has ended, and reports whether there were any.
func (f *forced) prune(stands func(netip.Prefix) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.begun)
	maps.DeleteFunc(f.begun, func(p netip.Prefix, begun bool) bool { return begun && !stands(p) })
	return len(f.begun) < before
}

func (f *forced) list() []netip.Prefix {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.begun))
}

// without is spared less those who are banned by force.
func (f *forced) without(spared []netip.Prefix) []netip.Prefix {
	out := f.list()
	if len(out) == 0 {
		return spared
	}
	var b netipx.IPSetBuilder
	for _, p := range spared {
		b.AddPrefix(p)
	}
	for _, p := range out {
		b.RemovePrefix(p)
	}
	set, err := b.IPSet()
	if err != nil { // one that is no prefix
		return spared
	}
	return set.Prefixes()
}

// others are addrs less those who are banned by force.
func (f *forced) others(addrs []netip.Addr) []netip.Addr {
	out := f.list()
	if len(out) == 0 {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return slices.ContainsFunc(out, func(p netip.Prefix) bool { return p.Contains(a.Unmap().WithZone("")) })
	})
}

// force has nobody in p spared until its ban, which is to begin, ends.
func (d *daemon) force(ctx context.Context, p netip.Prefix) error {
	d.facts.forced.set(p, false)
	return d.inHouse(ctx, func(ctx context.Context) error {
		d.follow(ctx)
		return nil
	})
}

// unforce looks, now or at the end of a ban, whether any that was forced has ended.
func (d *daemon) unforce(at time.Time) {
	if len(d.facts.forced.list()) == 0 {
		return
	}
	time.AfterFunc(time.Until(at), func() {
		_ = d.inHouse(context.Background(), func(ctx context.Context) error {
			stands := func(p netip.Prefix) bool { _, is := d.responder.Of(p); return is }
			if d.facts.forced.prune(stands) {
				d.follow(ctx)
			}
			return nil
		})
	})
}
