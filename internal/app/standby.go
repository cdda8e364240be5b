package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"portsentry/internal/config"
	"portsentry/internal/host"
)

// standby is what becomes of the firewall table where nothing gets past the XDP
// program: it has every ban and no rules, which every packet of ordinary traffic would
// pay for.
type standby struct {
	on   atomic.Bool
	look chan struct{} // whether the table may stand by is to be looked at
}

// standsBy is the table's name, where it stands by.
func (d *daemon) standsBy() []string {
	if d.standby.on.Load() {
		return []string{string(config.MethodNftables)}
	}
	return nil
}

// openNAT looks at NAT from here on.
func (d *daemon) openNAT() {
	var err error
	if d.nat, err = host.NewNAT(); err != nil {
		d.problems.set("nat", fmt.Sprintf("whether this host translates destinations cannot be known, so the XDP program does not decide by itself who hits a trap, and the firewall table has connections tracked: %v", err))
		return
	}
	d.onStop(d.nat.Close)
}

// natChanged is readable when NAT came or went.
func (d *daemon) natChanged() <-chan struct{} {
	if d.nat == nil {
		return nil
	}
	return d.nat.Changed()
}

// endsHere reports whether all that comes in is for this host, as it came: nothing is
// forwarded, through a bridge or otherwise, and no destination translated. By any goroutine.
func (d *daemon) endsHere() bool {
	if d.nat == nil {
		return false
	}
	facts := d.facts.watcher.Snapshot()
	there, _ := d.nat.State()
	bridge := func(l host.Link) bool { return l.Kind == "bridge" }
	return !there && !facts.Forwards && !slices.ContainsFunc(facts.Links, bridge)
}

// past reports whether anything goes in or out where the XDP program does not see it, or
// does not remember it.
func (d *daemon) past(s *sensor) bool {
	return slices.ContainsFunc(d.facts.watcher.Snapshot().Links, func(l host.Link) bool {
		return l.Up && !l.Loopback && !s.Remembers(l.Index)
	})
}

// untracked reports whether the table's rules may do without connection tracking: if all
// ends here, and the XDP program, where it bans, has a memory of its own. By any goroutine.
func (d *daemon) untracked(c *config.Config) bool {
	s := d.sensor.Load()
	return d.endsHere() && (s == nil || !drops(c) || !d.past(s))
}

// sent reports whether this host has sent something in the flow, where nothing is
// tracked. By any goroutine.
func (d *daemon) sent(proto uint8, remote, local netip.AddrPort) bool {
	if s := d.sensor.Load(); s != nil && s.Sent(proto, remote, local) {
		return true
	}
	t := d.table.Load()
	return t != nil && t.Sent(proto, remote, local)
}

// mayStandBy reports whether the XDP program stops all that the table would, and goes
// on to if we are killed. The table is for what is forwarded, for interfaces on which
// the program does not run, for devices inside of what it sees, and for bans that it
// has no room for. By any goroutine.
func (d *daemon) mayStandBy(c *config.Config) bool {
	s := d.sensor.Load()
	if s == nil || s.folder == "" || !d.endsHere() || !d.dropping(c) || !d.tableBans(c) || slices.Contains(c.BlockMethods, config.MethodNftables) {
		return false
	}
	return !hasVLANs(d.facts.watcher.Snapshot()) && !d.past(s) &&
		d.responder.HeldWithout(string(config.MethodNftables), string(config.MethodXDP)) == 0
}

// remember has the program know what this host sends, on every interface that it runs
// on.
func (d *daemon) remember(s *sensor) {
	said := ""
	if err := s.Remember(); err != nil {
		said = fmt.Sprintf("what this host sends is not remembered, so the firewall table has connections tracked: %v", err)
	}
	d.problems.set("remember", said)
}

// lookAtStandby has the table looked at where something has changed for it.
func (d *daemon) lookAtStandby() {
	c, t := d.conf.Load(), d.table.Load()
	if d.mayStandBy(c) != d.standby.on.Load() || t != nil && t.Untracked() != d.untracked(c) {
		touch(d.standby.look)
	}
}

// standBy lets the table stand by, or wakes it, with rules that have connections tracked
// or without. Whoever is to keep somebody out does so before the other stops.
func (d *daemon) standBy(ctx context.Context) {
	if s := d.sensor.Load(); s != nil {
		d.remember(s)
	}
	c := d.conf.Load()
	may, untracked := d.mayStandBy(c), d.untracked(c)
	was := d.standby.on.Load()
	t := d.table.Load()
	if may == was && (t == nil || t.Untracked() == untracked) {
		return
	}
	d.standby.on.Store(may)
	table := func() error { return t.Reconfigure(ctx, d.tableOptions(c)) }
	program := func() error { return d.setSensor(c) }
	first, then := table, program
	if may {
		first, then = program, table
	}
	err := first()
	if err == nil {
		err = then()
	}
	said := ""
	if err != nil {
		d.standby.on.Store(was)
		said = fmt.Sprintf("the firewall table has rules that nobody needs: %v", err)
		if !may && (was || !untracked) {
			said = fmt.Sprintf("the firewall table lacks the rules that it needs: %v", err)
		}
	}
	d.problems.set("standby", said)
}

// programFull has a signal after a ban that the XDP program had no room for.
func (d *daemon) programFull() <-chan struct{} {
	if s := d.sensor.Load(); s != nil {
		return s.method.Full()
	}
	return nil
}
