package respond

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/judge"
)

// Unban lifts the ban of a, and that of the /64 it lies in, at once, and says
// what was in force. What the owner's steps began is undone by the runner; the
// ledger hears of it.
func (r *Responder) Unban(ctx context.Context, a netip.Addr, end End) ([]InForce, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	now := time.Now()
	var out []InForce
	for range 2 { // the address itself, then its /64
		e := r.book.find(a)
		if e == nil {
			break
		}
		row := r.row(e, now)
		row.count(r.counters())
		for _, m := range slices.Concat(e.methods, e.leaving) {
			if err := m.Unban(ctx, e.ban); err != nil {
				return out, err
			}
		}
		steps := r.undo(e)
		if len(steps) > 0 && !r.submitUndo(e, steps, end) {
			return out, ErrBusy
		}
		e.methods = nil
		if !e.common {
			e.leaving, e.done = nil, nil
		}
		r.book.remove(e, now)
		delete(r.book.past, e.ban.Prefix) // a person forgave it
		if len(steps) == 0 {
			r.ended(e, end)
		}
		out = append(out, row)
	}
	return out, nil
}

// Spare lifts every ban, as Unban does, of a prefix that is to be spared by now,
// and says what was in force.
func (r *Responder) Spare(ctx context.Context, spared func(netip.Prefix) bool) ([]InForce, error) {
	r.mu.Lock()
	var prefixes []netip.Prefix
	for p := range r.book.entries {
		if spared(p) {
			prefixes = append(prefixes, p)
		}
	}
	r.mu.Unlock()
	var out []InForce
	var errs []error
	for _, p := range prefixes {
		rows, err := r.Unban(ctx, p.Addr(), End{Ending: Spared})
		out, errs = append(out, rows...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// Relax turns native bans on unverified evidence against the addresses into
// limited ones, for what is left of their time: their owners turned out to hold
// a connection to a served port. A method that has no limited ban lifts it.
func (r *Responder) Relax(ctx context.Context, addrs []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	now := time.Now()
	var errs []error
	for _, a := range addrs {
		e := r.book.find(a)
		if e == nil || !e.native(now) || e.ban.Strength != judge.Soft {
			continue
		}
		errs = append(errs, r.relax(ctx, e, now))
	}
	r.nudge()
	return errors.Join(errs...)
}

func (r *Responder) relax(ctx context.Context, e *entry, now time.Time) error {
	relaxed := e.ban
	relaxed.Strength = judge.Limited
	relaxed.Reason += "; limited since it has a connection to a served port"
	var keep []*method
	var failed error
	for _, m := range e.methods {
		if !m.Takes(&relaxed) {
			e.own().leaving = append(e.leaving, m)
			continue
		}
		keep = append(keep, m)
		failed = errors.Join(failed, m.BanAll(ctx, []Ban{relaxed}))
	}
	e.methods = keep
	if failed == nil && len(keep) > 0 {
		e.ban = relaxed
	}
	r.leave(ctx, e, now)
	r.settle(e, now)
	return failed
}
