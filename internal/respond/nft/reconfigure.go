package nft

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"portsentry/internal/respond"
)

// Reconfigure replaces traps, rules, Spare and Peers by those of o, in one
// transaction: every packet meets the old rules or the new ones (one that is between two
// hooks at that moment, where Untracked ends, the new half). Bans stay with
// what is left of their time, provisional ones too, and so do the counters.
// After an error everything goes on as it was. A table that somebody has taken
// away stands again, but without its bans: Lost has a signal all the same.
//
// Like Open it works in the network namespace of the calling thread.
func (t *Table) Reconfigure(ctx context.Context, o Options) error {
	unlock, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	o.DynamicSize, o.Spare = t.opt.DynamicSize, slices.Clone(o.Spare)
	o.fill()
	if err := t.become(o, peerSet(o.Peers), wish{}); err != nil {
		return hint(err)
	}
	return nil
}

// Rebuild makes the table again, in one transaction, after somebody has taken it
// away (see Lost): with the options and lists of whom to spare as they are now,
// and with these bans as all the confirmed ones there are. Of two about the same
// prefix the later replaces the earlier as Ban would. Counters begin at zero.
//
// Like Open it works in the network namespace of the calling thread.
func (t *Table) Rebuild(ctx context.Context, bans []respond.Ban) error {
	unlock, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	single, nets, err := ranges(nil).with(bans, time.Now())
	if err != nil {
		return err
	}
	elements, err := t.elementsOf(single)
	if err != nil {
		return err
	}
	before := t.ranges
	t.ranges = nets
	if err := t.become(t.opt, t.peers, wish{fresh: true, bans: elements}); err != nil {
		t.ranges = before
		return hint(err)
	}
	select {
	case <-t.lost: // told again meanwhile
	default:
	}
	return nil
}

// become makes the table what o and peers say; after an error nothing changed.
func (t *Table) become(o Options, peers map[netip.Addr]struct{}, w wish) (err error) {
	before, beforePeers, looked, heard := t.opt, t.peers, maps.Clone(t.looked), t.log != nil
	o.Peers = nil
	t.opt, t.peers = o, peers
	if !heard && (o.trapsTCP() || o.trapsUDP()) {
		// The group is bound before a rule names it, so that no hit goes unheard.
		t.log, err = openHitLog()
	}
	if err == nil {
		err = t.rebuild(w)
	}
	if err != nil {
		t.opt, t.peers, t.looked = before, beforePeers, looked
		if !heard && t.log != nil {
			err = errors.Join(err, t.log.conn.Close())
			t.log = nil
		}
		return err
	}
	t.untracked.Store(o.Untracked)
	if !heard && t.log != nil {
		close(t.hearing)
	}
	return nil
}

// elementsOf gives the bans as elements of the sets they belong in.
func (t *Table) elementsOf(bans []respond.Ban) (map[*nftables.Set][]nftables.SetElement, error) {
	keyed := make(map[*nftables.Set]map[string]nftables.SetElement)
	for _, b := range bans {
		c := newChange()
		if err := t.stage(c, b); err != nil {
			return nil, err
		}
		t.fill(c)
		for s, els := range c.out {
			for _, e := range els {
				delete(keyed[s], string(e.Key))
			}
		}
		for s, els := range c.in {
			if keyed[s] == nil {
				keyed[s] = make(map[string]nftables.SetElement)
			}
			for _, e := range els {
				keyed[s][string(e.Key)] = e
			}
		}
	}
	elements := make(map[*nftables.Set][]nftables.SetElement)
	for s, els := range keyed {
		elements[s] = slices.Collect(maps.Values(els))
	}
	return elements, nil
}
