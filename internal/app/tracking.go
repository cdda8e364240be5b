package app

import (
	"fmt"
	"net/netip"
	"slices"

	"portsentry/internal/config"
	"portsentry/internal/host"
)

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
