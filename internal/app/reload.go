package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

// reload reads the configuration again and puts it in force. With any mistake,
// and on any failure, the old one goes on as it was.
func (d *daemon) reload(ctx context.Context) {
	d.notify("RELOADING=1")
	defer d.notify("READY=1")
	next, _, err := d.o.load()
	if path := d.conf.Load().Path; err == nil && path != "" && next.Path == "" {
		err = fmt.Errorf("%s is gone", path) // the built-in configuration is for a first look
	}
	if err == nil {
		err = d.apply(ctx, next)
	}
	if err == nil {
		d.log.Notice("adminalert: the configuration has been read again and is in force")
		d.problems.set("reload", "")
		return
	}
	d.sayRefused(err)
}

// sayRefused says everything that is wrong with a configuration that was to
// replace the one in force.
func (d *daemon) sayRefused(err error) {
	lines := mistakesOf(err)
	for _, l := range lines {
		d.log.Error("adminalert: " + l)
	}
	d.log.Error("adminalert: the configuration was not read again; the one from before stays in force")
	d.problems.quiet("reload", true, fmt.Sprintf("the configuration in force is older than the file, which has mistakes (%d)", len(lines)))
}

// swap is one step of a reload: what it takes to undo it, when it has failed half
// way or a later one fails.
type swap struct {
	do, undo func() error
}

// apply puts next in force in the place of what is. What can fail comes first,
// each step with its way back; behind the last of them nothing fails any more.
// Nothing is closed in between: packets go on being captured, and bans stand.
func (d *daemon) apply(ctx context.Context, next *config.Config) error {
	old := d.conf.Load()
	if d.runner == nil && wantsHelper(next) {
		return fmt.Errorf("%s: the KILL_ settings need a helper process, which starts with the daemon alone, before it gives up its privileges; restart portsentry once", next.Path)
	}
	var done []swap
	for _, s := range []swap{
		{func() error { return d.openOthers(next) }, func() error { return nil }},
		{func() error { return d.setTable(ctx, next) }, func() error { return d.setTable(ctx, old) }},
		{func() error { return d.setSensor(next) }, func() error { return d.setSensor(old) }},
		{func() error { return d.setPackets(next) }, func() error { return d.setPackets(old) }},
		{func() error { return d.setSockets(next) }, func() error { return d.setSockets(old) }},
		{func() error { return d.reloadHelper(ctx) }, func() error { return nil }},
	} {
		done = append(done, s)
		if err := s.do(); err != nil {
			for _, u := range slices.Backward(done) {
				err = errors.Join(err, u.undo())
			}
			if !findsScans(old) {
				d.dropKnown() // read for nothing
			}
			return err
		}
	}
	d.conf.Store(next)
	d.setKnown(next)
	d.sayXDP(old, next)
	d.decider.set(func() {
		d.decider.judge.SetPolicy(d.policy(next))
		d.decider.answers = blocks(next)
	})
	d.responder.SetMethods(d.methods(next))
	if d.runner != nil {
		d.runner.client.SetModes(next.Modes)
		d.responder.SetSteps(d.runner, respond.PlanFrom(next))
	}
	d.sayRules(next)
	d.setFiles(ctx, old, next)
	d.setLog(next)
	d.follow(ctx)
	return nil
}

// sayXDP says what becomes of XDP that was not to be had, or not wanted, at the
// start: the program is loaded with privileges that have been given up since.
func (d *daemon) sayXDP(old, next *config.Config) {
	switch {
	case d.sensor.Load() != nil:
	case !wantsXDP(next):
		d.problems.set("xdp", "")
	case !wantsXDP(old):
		d.problems.set("xdp", "CAPTURE and BLOCK_METHOD can have XDP from the next start on; until then "+instead(next))
	}
}
