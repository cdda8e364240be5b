package app

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"portsentry/internal/config"
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
