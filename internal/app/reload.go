package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
	"portsentry/internal/view"
)

// reloaded is a configuration that took the place of another.
type reloaded struct{ old *config.Config }

// reload reads the configuration again and puts it in force. With any mistake,
// and on any failure, the old one goes on as it was.
func (d *daemon) reload(ctx context.Context) error {
	d.notify("RELOADING=1")
	defer d.notify("READY=1")
	next, _, err := d.o.load()
	if path := d.conf.Load().Path; err == nil && path != "" && next.Path == "" {
		err = fmt.Errorf("%s is gone", path) // the built-in configuration is for a first look
	}
	if err == nil {
		err = d.apply(ctx, next)
	}
	if err != nil {
		d.sayRefused(err)
		return err
	}
	d.log.State("reloaded", "adminalert: the configuration has been read again and is in force")
	d.problems.set("reload", "")
	return nil
}

// hungUp is a reload that nobody waits for, and that stands.
func (d *daemon) hungUp(ctx context.Context) {
	if d.reload(ctx) == nil {
		d.unconfirmed.reload()
	}
}

// inHouse has keepHouse do something, and waits for it.
func (d *daemon) inHouse(ctx context.Context, do func(context.Context) error) error {
	reply := make(chan error, 1)
	select {
	case d.errands <- func(ctx context.Context) { reply <- do(ctx) }:
		return <-reply
	case <-d.stopping:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reload is for control.Changes.
func (d *daemon) Reload(ctx context.Context, who view.Caller, within time.Duration) (view.Changed, error) {
	if within > 0 {
		if err := d.unconfirmed.hasRoom(); err != nil {
			return view.Changed{}, err
		}
	}
	var c view.Changed
	err := d.inHouse(ctx, func(ctx context.Context) (err error) {
		c, err = d.reloadFor(ctx, who, within)
		return err
	})
	return c, err
}

// reloadFor is a reload that somebody asked for.
func (d *daemon) reloadFor(ctx context.Context, who view.Caller, within time.Duration) (view.Changed, error) {
	back := d.conf.Load()
	if err := d.reload(ctx); err != nil {
		return view.Changed{}, &view.Refusal{
			Status:   http.StatusConflict,
			Message:  "the configuration was not read again; the one from before stays in force",
			Mistakes: mistakesOf(err),
		}
	}
	if earlier := d.unconfirmed.reload(); earlier != nil {
		back = earlier.old.old // which nobody has confirmed either
	}
	path := d.conf.Load().Path
	if path == "" {
		path = "the built-in configuration"
	}
	c := view.Changed{Bans: []view.Ban{}, Lifted: []view.Ban{}, Text: path + " has been read again and is in force"}
	said := "a reload of " + path
	if within > 0 {
		now := time.Now()
		w := &waiting{
			Pending: view.Pending{Change: "reload of " + path, UID: who.UID, PID: who.PID, Since: now, Confirm: now.Add(within)},
			old:     &reloaded{back},
		}
		w.stand = func() error { return nil }
		w.back = func(stopping bool) { d.reloadBack(w, stopping) }
		if err := d.await(w, &c); err != nil {
			return view.Changed{}, err
		}
		said += fmt.Sprintf(", until %s unless that is confirmed (change %d)", w.Confirm.Format(time.TimeOnly), w.Number)
	}
	d.changed(ctx, who, said)
	return c, nil
}

// reloadBack puts the configuration in force that a reload took the place of. A
// daemon that stops has none in force any more: the next start reads the file.
func (d *daemon) reloadBack(w *waiting, stopping bool) {
	if stopping {
		d.log.Notice(fmt.Sprintf("adminalert: the %s (change %d by uid %d) is not confirmed, and portsentry is stopping: the next start reads it as it is", w.Change, w.Number, w.UID))
		return
	}
	err := d.inHouse(context.Background(), func(ctx context.Context) error { return d.apply(ctx, w.old.old) })
	if errors.Is(err, errStopping) {
		d.reloadBack(w, true)
		return
	}
	d.sayBack(w, false, err)
	d.problems.quiet("reload", true, "the configuration in force is older than the file: what was read last was not confirmed")
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
	if d.runner == nil && wantsHelper(next) && !wantsHelper(old) {
		return fmt.Errorf("%s: the KILL_ settings need a helper process, which starts with the daemon alone, before it gives up its privileges; restart portsentry once", next.Path)
	}
	if err := d.reaches(next); err != nil {
		return err
	}
	var done []swap
	for _, s := range []swap{
		{func() error { return d.openOthers(next) }, func() error { return nil }},
		{func() error { return d.setTable(ctx, next) }, func() error { return d.setTable(ctx, old) }},
		{func() error { return d.setSensor(next) }, func() error { return d.setSensor(old) }},
		{func() error { return d.setPackets(next) }, func() error { return d.setPackets(old) }},
		{func() error { return d.setSockets(next) }, func() error { return d.setSockets(old) }},
		{func() error { return d.reloadHelper(ctx) }, func() error { return nil }},
		{func() error { return d.setMetrics(next) }, func() error { return nil }}, // the last: it keeps the old by itself
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
	d.responder.SetMemory(next.DatabaseKeep)
	if d.runner != nil {
		d.runner.client.SetModes(next.Modes)
		d.responder.SetSteps(d.runner, respond.PlanFrom(next))
	}
	d.sayRules(next)
	d.setFiles(ctx, old, next)
	d.setJournal(old, next)
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
