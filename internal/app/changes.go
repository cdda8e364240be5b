package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
	"portsentry/internal/respond/route"
	"portsentry/internal/view"
)

// kernelGrace is how much later than an unconfirmed ban is taken back the kernel ends
// it by itself, should there be nobody to take it back.
const kernelGrace = 5 * time.Second

// by is who asked, as bans keep it.
func by(who view.Caller) string { return fmt.Sprintf("uid %d", who.UID) }

// changed tells the log and the journal of a change by somebody.
func (d *daemon) changed(ctx context.Context, who view.Caller, text string) {
	d.log.Changed(fmt.Sprintf("uid %d (pid %d)", who.UID, who.PID), text)
	d.journal.Changed(fmt.Sprintf("uid %d (pid %d)", who.UID, who.PID), text)
	d.feed.changed(fmt.Sprintf("uid %d (pid %d)", who.UID, who.PID), text)
	d.writeDown(ctx)
}

// sayBack tells of a change that has been taken back.
func (d *daemon) sayBack(w *waiting, stopping bool, failed error) {
	why := "was not confirmed in time"
	if stopping {
		why = "is not confirmed, and portsentry is stopping"
	}
	text := fmt.Sprintf("the %s (change %d by uid %d) %s: it is taken back", w.Change, w.Number, w.UID, why)
	if failed != nil {
		text += fmt.Sprintf(", but not all of it: %v", failed)
	}
	d.log.Changed("", text)
	d.journal.Changed("", text)
	d.feed.changed("", text)
}

// written is a prefix as one would write it.
func written(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Ban is for control.Changes.
func (d *daemon) Ban(ctx context.Context, who view.Caller, o view.Order) (view.Changed, error) {
	done, err := d.ask()
	if err != nil {
		return view.Changed{}, err
	}
	defer done()
	if err := d.mayBan(&o); err != nil {
		return view.Changed{}, err
	}
	now := time.Now()
	if o.Length == 0 {
		o.Length = d.conf.Load().BanTime
	}
	b := respond.Ban{Prefix: o.Prefix, Until: now.Add(o.Length), Reason: o.Reason, By: by(who)}
	if b.Reason == "" {
		b.Reason = "by hand"
	}
	if o.Within > 0 {
		if err := d.unconfirmed.hasRoom(); err != nil {
			return view.Changed{}, err
		}
		// The rest of its time comes when it is confirmed. Until then a daemon that
		// dies leaves nothing behind that anybody would have to take back.
		if short := now.Add(o.Within + kernelGrace); short.Before(b.Until) {
			b.Until = short
		}
	}
	before, had := d.responder.Of(o.Prefix)
	if o.Force {
		if err := d.force(ctx, o.Prefix); err != nil {
			return view.Changed{}, err
		}
	}
	row, err := d.responder.Order(ctx, b, o.Prefix.Addr())
	if errors.Is(err, respond.ErrNoMethod) && !d.byHand.Load() {
		if err = d.inHouse(ctx, d.openByHand); err == nil {
			row, err = d.responder.Order(ctx, b, o.Prefix.Addr())
		}
	}
	if o.Force {
		d.facts.forced.set(o.Prefix, true)
	}
	if err != nil {
		d.unforce(time.Now())
		return view.Changed{}, cannotBan(o.Prefix, err)
	}
	d.unforce(b.Until.Add(time.Second))
	what := fmt.Sprintf("ban of %s for %s", written(o.Prefix), config.ShowTime(o.Length))
	c := view.Changed{Bans: []view.Ban{banRow(&row)}, Lifted: []view.Ban{}, Text: fmt.Sprintf("%s is banned for %s", written(o.Prefix), config.ShowTime(o.Length))}
	said := c.Text
	if o.Reason != "" {
		said += fmt.Sprintf(" (%s)", o.Reason)
	}
	if o.Within > 0 {
		w := &waiting{Pending: view.Pending{Change: what, UID: who.UID, PID: who.PID, Since: now, Confirm: now.Add(o.Within)}}
		w.stand = func() error {
			b := row.Ban
			b.Until = now.Add(o.Length)
			_, err := d.responder.Order(context.Background(), b, row.Host)
			d.unforce(b.Until.Add(time.Second))
			return err
		}
		w.back = func(stopping bool) {
			_, _, err := d.responder.LiftOnly(context.Background(), o.Prefix, respond.End{Ending: respond.Undone, By: by(who)})
			d.unforce(time.Now())
			if had {
				err = errors.Join(err, d.banAgain(before))
			}
			d.sayBack(w, stopping, err)
		}
		if err := d.await(w, &c); err != nil {
			return view.Changed{}, err
		}
		said += fmt.Sprintf(", until %s unless that is confirmed (change %d)", w.Confirm.Format(time.TimeOnly), w.Number)
	}
	d.changed(ctx, who, said)
	return c, nil
}

// await has a change that was made wait to be confirmed; without room for it, it is
// taken back at once.
func (d *daemon) await(w *waiting, c *view.Changed) error {
	if err := d.unconfirmed.add(w); err != nil {
		w.back(d.isStopping())
		return err
	}
	c.Pending, c.Confirm = w.Number, &w.Confirm
	return nil
}

// openByHand opens what BLOCK_METHOD names where the configuration bans nobody: nothing
// of it has been needed until now.
func (d *daemon) openByHand(ctx context.Context) error {
	c := d.conf.Load()
	d.byHand.Store(true)
	if err := errors.Join(d.setTable(ctx, c), d.openOthers(c)); err != nil {
		return err
	}
	d.responder.SetMethods(d.methods(c))
	d.sayRules(c)
	return nil
}

// resumeByHand does so at the start, where bans by hand of an earlier run stand.
func (d *daemon) resumeByHand(ctx context.Context, c *config.Config, kept []respond.InForce) {
	byHand := func(row respond.InForce) bool { return row.Ban.By != "" }
	if blocks(c) || !slices.ContainsFunc(kept, byHand) {
		return
	}
	d.byHand.Store(true)
	if err := errors.Join(d.setTable(ctx, c), d.openOthers(c)); err != nil {
		d.problems.set("restore", fmt.Sprintf("bans by hand of an earlier run may not be enforced: %v", err))
	}
}

// cannotBan is why nothing enforces a ban, for who asked.
func cannotBan(p netip.Prefix, err error) error {
	if errors.Is(err, respond.ErrNoMethod) {
		return view.Refuse(http.StatusConflict, fmt.Sprintf("nothing here can enforce a ban of %s", written(p)), "set BLOCK_METHOD in portsentry.conf, auto for example, and portsentry reload")
	}
	if errors.Is(err, route.ErrGateway) {
		return refuseBan(p, "the default gateway of this host", "a blackhole would cut off this host itself; BLOCK_METHOD nftables or xdp can ban it all the same")
	}
	if errors.Is(err, respond.ErrFull) {
		return view.Refuse(http.StatusConflict, err.Error(), "portsentry bans lists them, portsentry unban makes room")
	}
	return err
}

// banAgain puts a ban of before in force again, for the rest of its time.
func (d *daemon) banAgain(row respond.InForce) error {
	b := row.Ban
	if !b.Until.IsZero() && !time.Now().Before(b.Until) {
		return nil
	}
	if _, again := d.responder.Of(b.Prefix); again {
		return nil
	}
	_, err := d.responder.Order(context.Background(), b, row.Host)
	return err
}

// Unban is for control.Changes.
func (d *daemon) Unban(ctx context.Context, who view.Caller, l view.Lifting) (view.Changed, error) {
	done, err := d.ask()
	if err != nil {
		return view.Changed{}, err
	}
	defer done()
	if err := d.mayUnban(who, l.Prefix); err != nil {
		return view.Changed{}, err
	}
	if l.Within > 0 {
		if err := d.unconfirmed.hasRoom(); err != nil {
			return view.Changed{}, err
		}
	}
	release := d.heap.hold(d.responder.Size())
	defer func() { release(d.responder.Size()) }()
	lifted, err := d.responder.Lift(ctx, l.Prefix, respond.End{Ending: respond.Lifted, By: by(who)})
	if l.Prefix.IsValid() && l.Prefix.IsSingleIP() {
		if back := d.takeBack(ctx, l.Prefix.Addr()); back != nil {
			err = errors.Join(err, fmt.Errorf("take back a provisional ban: %w", back))
		}
	}
	d.unforce(time.Now())
	slices.SortFunc(lifted, func(a, b respond.InForce) int { return a.Ban.Prefix.Compare(b.Ban.Prefix) })
	c := view.Changed{Bans: []view.Ban{}, Lifted: make([]view.Ban, len(lifted))}
	for i := range lifted {
		c.Lifted[i] = banRow(&lifted[i])
	}
	if len(lifted) == 0 {
		return c, err
	}
	target, what := "everybody", "unban of all"
	if l.Prefix.IsValid() {
		target = written(l.Prefix)
		what = "unban of " + target
	}
	c.Text = target + " is no longer banned"
	if len(lifted) > 1 {
		c.Text += fmt.Sprintf(" (%d bans)", len(lifted))
	}
	said := c.Text
	if l.Within > 0 {
		now := time.Now()
		w := &waiting{Pending: view.Pending{Change: what, UID: who.UID, PID: who.PID, Since: now, Confirm: now.Add(l.Within)}}
		w.stand = func() error { return nil }
		w.back = func(stopping bool) {
			var errs []error
			for _, row := range lifted {
				errs = append(errs, d.banAgain(row))
			}
			d.sayBack(w, stopping, errors.Join(errs...))
		}
		if back := d.await(w, &c); back != nil {
			return view.Changed{}, errors.Join(err, back)
		}
		said += fmt.Sprintf(", until %s unless that is confirmed (change %d)", w.Confirm.Format(time.TimeOnly), w.Number)
	}
	d.changed(ctx, who, said)
	return c, err
}

// Pending is for control.Changes.
func (d *daemon) Pending(context.Context) ([]view.Pending, error) { return d.unconfirmed.list(), nil }

// Confirm is for control.Changes.
func (d *daemon) Confirm(ctx context.Context, who view.Caller, number uint64) (view.Pending, error) {
	done, err := d.ask()
	if err != nil {
		return view.Pending{}, err
	}
	defer done()
	p, err := d.unconfirmed.confirm(who, number)
	if err != nil {
		return view.Pending{}, err
	}
	d.changed(ctx, who, fmt.Sprintf("the %s (change %d) is confirmed", p.Change, p.Number))
	return p, nil
}
