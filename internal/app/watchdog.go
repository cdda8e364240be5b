package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/respond/nft"
)

// What somebody takes out of the kernel is put back within lookAround, and at once
// where the kernel tells of it. A round looks at some bans of each method, any of them:
// at few where we are told of changes, at more where we are not. Where one is missing
// all are looked at.
const (
	lookAround = 4 * time.Second
	breather   = time.Second // between two rounds, whatever is told
	lookTold   = 16
	lookUntold = 64
	lookNow    = 512
	lookAll    = respond.MaxBans
)

// watchdog is what is known of the bans in the kernel.
type watchdog struct {
	last   atomic.Pointer[lastLook] // nil: nobody has looked yet
	remade atomic.Uint64            // bans put back
	failed atomic.Uint64            // that could not be, each time

	rest    time.Duration // between two tries to open the firewall table; lookRound's, as is
	refused time.Time     // when the last of them failed
}

type lastLook struct {
	bans, enforced int
	at             time.Time
}

// enforced is how many of the native bans the kernel enforced when it was asked last.
// The zero Time: not yet.
func (d *daemon) enforced() (bans, enforced int, checked time.Time) {
	l := d.watchdog.last.Load()
	if l == nil {
		return 0, 0, time.Time{}
	}
	return l.bans, l.enforced, l.at
}

// watchBans looks after the bans in the kernel, until ctx ends.
func (d *daemon) watchBans(ctx context.Context) error {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	for told := false; ; {
		ok := d.lookRound(ctx, told)
		if told || !ok { // soon again, but not at once
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(breather):
			}
		}
		if told = false; !ok {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.touched():
			told = true
		}
	}
}

// touched has a signal when somebody else has changed the firewall's rules.
func (d *daemon) touched() <-chan struct{} {
	if t := d.table.Load(); t != nil {
		return t.Touched()
	}
	return nil
}

// lookRound is one look, and reports whether all could be asked. told: somebody has
// changed the firewall's rules.
func (d *daemon) lookRound(ctx context.Context, told bool) (ok bool) {
	d.lookAtProgram()
	d.lookForTable(ctx)
	d.lookAtStandby()
	c, err := d.responder.Check(ctx, func(method string) int {
		switch {
		case method != string(config.MethodNftables):
			return lookUntold
		case told:
			return lookNow
		}
		return lookTold
	})
	if c.Missing > 0 && err == nil { // and more may be
		var rest respond.Checked
		rest, err = d.responder.Check(ctx, func(string) int { return lookAll })
		rest.Missing += c.Missing
		rest.Remade += c.Remade
		c = rest
	}
	if ctx.Err() != nil {
		return false
	}
	d.watchdog.remade.Add(uint64(c.Remade))
	d.watchdog.failed.Add(uint64(c.Missing - c.Remade))
	d.watchdog.last.Store(&lastLook{bans: c.Bans, enforced: c.Bans - c.Lacking, at: time.Now()})
	said := ""
	switch {
	case errors.Is(err, nft.ErrLost): // which says so itself, and is made again
	case err != nil:
		said = fmt.Sprintf("%d of %d bans are not in the kernel, as far as it can be asked: %v", c.Lacking, c.Bans, err)
	case c.Lacking > 0:
		said = fmt.Sprintf("%d of %d bans are not in the kernel", c.Lacking, c.Bans)
	}
	d.problems.set("bans", said)
	if c.Remade > 0 {
		d.log.Notice(fmt.Sprintf("adminalert: somebody took %d %s out of the kernel; %s put back (to lift a ban: portsentry unban)",
			c.Remade, plural(c.Remade, "ban", "bans"), plural(c.Remade, "it was", "they were")))
	}
	d.shareBans(ctx)
	return err == nil
}

// shareBans gives bans to the methods that have not got them yet.
func (d *daemon) shareBans(ctx context.Context) {
	trust := d.facts.latest.Load()
	given := d.responder.Share(ctx, func(p netip.Prefix) bool { return trust.Within(p) != judge.NotSpared })
	for name, n := range given {
		d.log.Notice(fmt.Sprintf("adminalert: %d %s that %s did not hold %s in force there, too", n, plural(n, "ban", "bans"), name, plural(n, "is", "are")))
	}
}

// lookForTable tries to open the firewall table where the kernel refused it.
func (d *daemon) lookForTable(ctx context.Context) {
	w := &d.watchdog
	if d.table.Load() != nil || !d.wants(d.conf.Load(), config.MethodNftables) || time.Since(w.refused) < w.rest {
		return
	}
	err := d.inHouse(ctx, func(ctx context.Context) error {
		c := d.conf.Load()
		if err := d.setTable(ctx, c); err != nil || d.table.Load() == nil {
			return err
		}
		return d.apply(ctx, c) // all that goes by whether there is one
	})
	if d.table.Load() == nil || err != nil {
		w.refused, w.rest = time.Now(), min(max(2*w.rest, lookAround), time.Minute)
		return
	}
	w.rest = 0
	d.log.Notice("adminalert: the firewall table can be had by now: nftables bans, too")
}

// lookAtProgram runs the XDP program again where somebody took it off, and pins again
// what somebody removed.
func (d *daemon) lookAtProgram() {
	s := d.sensor.Load()
	if s == nil {
		return
	}
	d.keepPinned(s)
	again, err := s.AttachAgain()
	d.remember(s)
	said := ""
	if err != nil {
		said = fmt.Sprintf("somebody took the XDP program off an interface, and it could not be put there again: %v", err)
	}
	d.problems.set("attach", said)
	for _, i := range again {
		d.log.Notice(fmt.Sprintf("adminalert: somebody took the XDP program off %s; it runs there again", d.facts.interfaceName(i)))
	}
}
