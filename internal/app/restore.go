package app

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/store/textfile"
)

// restoreTime bounds how long a start waits for the bans of an earlier run.
const restoreTime = 20 * time.Second

// existing is a native method whose bans outlive the daemon.
type existing interface {
	respond.Method
	Existing(ctx context.Context) ([]respond.Ban, error)
}

// restore takes over the bans of an earlier run: those that the kernel still
// enforces, those that the database knows to stand, and hosts of the blocked files
// that the owner's commands keep out, or those beside the kernel. A line whose ban has
// ended since is taken out of its file.
func (d *daemon) restore(c *config.Config, listed []textfile.BlockedEntry) {
	ctx, cancel := context.WithTimeout(context.Background(), restoreTime)
	defer cancel()
	lines := make(map[netip.Addr]textfile.BlockedEntry, len(listed))
	for _, e := range listed {
		lines[e.Host] = e
	}
	var rows []respond.InForce
	standing := make(map[netip.Prefix]int) // the row of
	var holders []respond.Method
	for _, m := range d.outliving() {
		holders = append(holders, m)
		bans, err := m.Existing(ctx)
		if err != nil {
			d.problems.set("restore", fmt.Sprintf("some bans of an earlier run stay in the kernel (%s), but are not listed: %v", m.Name(), err))
		}
		for _, b := range bans {
			if at, also := standing[b.Prefix]; also {
				if m.Ends() { // else it does not know the end
					rows[at].Ban.Widen(&b)
				}
				rows[at].Methods = append(rows[at].Methods, m.Name())
				continue
			}
			remember(&b, lines[b.Prefix.Addr()], d.started, c)
			standing[b.Prefix] = len(rows)
			rows = append(rows, respond.InForce{Ban: b, Methods: []string{m.Name()}})
		}
	}
	kept := d.openJournal()
	d.resumeByHand(ctx, c, kept)
	rows = d.recollect(ctx, c, kept, rows, standing)
	plan, covered := d.responder.Plan(), covering(standing)
	for _, e := range listed {
		row, did := plan.Earlier(e.Host, e.Since, e.Port, e.Proto, c)
		at, native := covered(e.Host)
		switch {
		case native && len(rows[at].Steps) == 0 && (!rows[at].Host.IsValid() || rows[at].Host == e.Host):
			rows[at].Host = e.Host
			if did && rows[at].Ban.Strength >= judge.Soft { // a limited ban runs no commands
				rows[at].Steps = row.Steps
			}
		case native:
		case did:
			rows = append(rows, row)
		default:
			if f := d.record.lists.of(e.Proto); f != nil {
				f.Remove(e.Host)
			}
		}
	}
	for i := range rows {
		inTime(&rows[i].Ban, d.started)
	}
	d.responder.SetMethods(holders)
	d.responder.Restore(rows)
	d.responder.SetMethods(d.methods(c))
	d.heap.follow(len(rows))
	d.responder.Relist(d.record.list) // a start script of 1.x, or a person, may have emptied the file
}

// covering gives what finds, of standing bans, the narrowest that keeps an address out.
func covering(standing map[netip.Prefix]int) func(netip.Addr) (row int, ok bool) {
	var occurs [129]bool
	for p := range standing {
		occurs[p.Bits()] = true
	}
	var lengths []int
	for n := len(occurs) - 1; n >= 0; n-- {
		if occurs[n] {
			lengths = append(lengths, n)
		}
	}
	return func(a netip.Addr) (row int, ok bool) {
		for _, n := range lengths {
			if p, err := a.Prefix(n); err == nil {
				if row, ok = standing[p]; ok {
					break
				}
			}
		}
		return row, ok
	}
}

// remember fills in what the method has not kept about a ban, as far as the
// blocked file has it.
func remember(b *respond.Ban, e textfile.BlockedEntry, now time.Time, c *config.Config) {
	kept := b.Evidence != judge.E0 || b.By != "" // a person's has none
	if !kept {
		b.Since, b.Times, b.Evidence = now, 1, judge.E1
		if b.Strength == judge.Full {
			b.Evidence = judge.E2
		}
	}
	b.Reason = "taken over from an earlier run"
	if e.Host.IsValid() && !kept {
		b.Since, b.Port, b.Proto = e.Since, e.Port, e.Proto
	}
	if b.Port != 0 {
		b.Reason += fmt.Sprintf(": %s port %d", store.ProtoName(b.Proto), b.Port)
	}
	if b.Until.IsZero() && !kept { // a method without an end of its own
		b.Until = b.Since.Add(c.BanTimeUnverified)
	}
}

// liftEdited lifts the bans of hosts whose lines somebody took out of the
// blocked file: that is how access has been restored since 1998. It reports whether
// the files are up to date.
func (d *daemon) liftEdited(ctx context.Context) (written bool) {
	edited, err := d.record.sync()
	for host, file := range edited {
		rows, err := d.responder.Unban(ctx, host, respond.End{Ending: respond.Lifted, By: "blocked file"})
		if err != nil {
			d.problems.set("lift", fmt.Sprintf("%s was taken out of %s, but is still banned: %v", host, file, err))
			continue
		}
		d.log.Notice(fmt.Sprintf("adminalert: %s is no longer banned: its line was taken out of %s%s", host, file, butStays(rows...)))
	}
	return err == nil
}

// liftSpared lifts the bans of those who turn out to be never acted on: a line was
// added to the ignore file, or the gateway is another one.
func (d *daemon) liftSpared(ctx context.Context, trust *judge.Trust) {
	rows, err := d.responder.Spare(ctx, func(p netip.Prefix) bool { return trust.Within(p) != judge.NotSpared })
	said := ""
	if err != nil {
		said = fmt.Sprintf("somebody who is never acted on is still banned: %v", err)
	}
	d.problems.set("spared", said)
	for _, row := range rows {
		who := row.Ban.Prefix.String()
		if row.Ban.Prefix.IsSingleIP() {
			who = row.Ban.Prefix.Addr().String()
		}
		d.log.Notice(fmt.Sprintf("adminalert: %s is no longer banned: %s", who, trust.Reason(row.Ban.Prefix, trust.Within(row.Ban.Prefix))+butStays(row)))
	}
}

// butStays says what is left of bans that have been lifted, "" for nothing.
func butStays(rows ...respond.InForce) string {
	for _, row := range rows {
		if len(row.Lasting) > 0 {
			return "; but " + stays(row.Lasting)
		}
	}
	return ""
}

// stays says that only a person can undo what steps did.
func stays(steps []respond.Step) string {
	return "what " + steps[0].String() + " did stays until undone by hand: no undo is configured for it"
}
