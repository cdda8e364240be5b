package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// Bans of an earlier run: what the kernel held of them meets what the database knows, and
// what the kernel has lost is put back.

// recollect adds to the bans that the kernel holds what the database knows of them, and
// puts back those that it does not hold any more: it is another kernel, or somebody has
// emptied its tables. standing has the place in rows of each.
func (d *daemon) recollect(ctx context.Context, c *config.Config, kept, rows []respond.InForce, standing map[netip.Prefix]int) []respond.InForce {
	lost := kept[:0] // in its place: there may be half a million
	known := make(map[netip.Prefix]struct{}, len(rows))
	trust := d.trust()
	for i := range kept {
		k := &kept[i].Ban
		if inTime(k, d.started) {
			d.journal.Began(*k, kept[i].Host)
		}
		at, held := standing[k.Prefix]
		if !held {
			// Inside a network that a person has banned somebody may be spared.
			if !k.Until.IsZero() && (k.By != "" && !k.Prefix.IsSingleIP() || trust.Within(k.Prefix) == judge.NotSpared) {
				lost = append(lost, kept[i])
			}
			continue
		}
		known[k.Prefix] = struct{}{}
		d.recollectOne(&rows[at], &kept[i])
		if rows[at].Ban.Strength < k.Strength { // relaxed a moment before the crash
			d.journal.Began(rows[at].Ban, rows[at].Host)
		}
	}
	for i := range rows {
		if _, is := known[rows[i].Ban.Prefix]; !is { // a moment before the crash
			host := rows[i].Host
			if !host.IsValid() {
				host = rows[i].Ban.Prefix.Addr()
			}
			d.journal.Began(rows[i].Ban, host)
		}
	}
	back := d.enforceAgain(ctx, c, trust, lost)
	for i := range back {
		standing[back[i].Ban.Prefix] = len(rows) + i
	}
	if len(rows) == 0 {
		return back
	}
	return append(rows, back...)
}

// inTime has a ban of an earlier run end after the rest of its time, whatever becomes of
// the clock from now on. One that has not begun yet was made under a clock that has gone
// back since: its time begins now, and that is reported.
func inTime(b *respond.Ban, now time.Time) (begins bool) {
	if b.Until.IsZero() {
		return false
	}
	left := b.Until.Sub(now)
	if begins = b.Since.After(now); begins {
		left = min(left, b.Until.Sub(b.Since))
		b.Since = now
	}
	b.Until = now.Add(left) // by the monotonic clock, which now has
	return begins
}

// recollectOne fills in what the kernel does not keep. It alone knows how hard the ban
// is by now, and when it ends, as far as methods that hold it say so.
func (d *daemon) recollectOne(row, kept *respond.InForce) {
	b, k := &row.Ban, &kept.Ban
	b.Since, b.Times, b.Evidence, b.Reason, b.By = k.Since, k.Times, k.Evidence, k.Reason, k.By
	b.Port, b.Proto, b.Kind = k.Port, k.Proto, k.Kind
	row.Host = kept.Host
	ends, tells := false, false
	for _, m := range d.outliving() {
		if slices.Contains(row.Methods, m.Name()) {
			_, stops := m.(respond.Stopper) // the same, whatever the ban says
			ends, tells = ends || m.Ends(), tells || !stops
		}
	}
	if !ends && !k.Until.IsZero() {
		b.Until = k.Until
	}
	if !tells {
		b.Strength = max(b.Strength, k.Strength)
	}
}

// enforceAgain puts bans into force once more, for the rest of their time, and gives those
// that a method holds. The watchdog gives them to the other methods.
func (d *daemon) enforceAgain(ctx context.Context, c *config.Config, trust *judge.Trust, lost []respond.InForce) []respond.InForce {
	if len(lost) == 0 {
		return nil
	}
	var errs []error
	for _, m := range d.methods(c) {
		if m.Enforces() {
			errs = append(errs, d.hold(ctx, m, trust, lost))
		}
	}
	back := slices.DeleteFunc(lost, func(row respond.InForce) bool { return len(row.Methods) == 0 })
	if err := errors.Join(errs...); err != nil && len(back) < len(lost) {
		d.problems.set("restore", fmt.Sprintf("%d bans of an earlier run are not in force any more: %v", len(lost)-len(back), err))
	}
	if len(back) > 0 {
		d.log.Notice(fmt.Sprintf("adminalert: %d bans that the kernel had forgotten are in force again, for the rest of their time", len(back)))
	}
	return back
}

// holdAtOnce is how many bans a method is given in one go: as many as each puts into force
// all or none.
const holdAtOnce = 4096

// hold has m hold rows, as far as it takes them and has room.
func (d *daemon) hold(ctx context.Context, m respond.Method, trust *judge.Trust, rows []respond.InForce) (failed error) {
	bans, at := make([]respond.Ban, 0, holdAtOnce), make([]int, 0, holdAtOnce)
	left := 0
	put := func() {
		if failed == nil {
			failed = m.BanAll(ctx, bans)
		}
		if failed != nil {
			left += len(bans)
		} else {
			for _, i := range at {
				rows[i].Methods = append(rows[i].Methods, m.Name())
			}
		}
		bans, at = bans[:0], at[:0]
	}
	for i := range rows {
		b := &rows[i].Ban
		if !m.Takes(b) || !respond.Spares(m) && !b.Prefix.IsSingleIP() && trust.Within(b.Prefix) != judge.NotSpared {
			continue
		}
		if bans, at = append(bans, *b), append(at, i); len(bans) == holdAtOnce {
			put()
		}
	}
	if len(bans) > 0 {
		put()
	}
	if failed != nil {
		d.log.Notice(fmt.Sprintf("adminalert: %d bans of an earlier run are not enforced by %s yet: %v", left, m.Name(), failed))
	}
	return failed
}
