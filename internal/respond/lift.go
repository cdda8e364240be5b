package respond

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Unban lifts the bans that a lies in, as Lift does.
func (r *Responder) Unban(ctx context.Context, a netip.Addr, end End) ([]InForce, error) {
	a = a.WithZone("")
	return r.Lift(ctx, netip.PrefixFrom(a, a.BitLen()), end)
}

// Lift lifts every ban inside the prefix, and those that it lies in, at once; of the
// zero Prefix: all. It says what was in force. What the owner's steps began is undone
// by the runner; the ledger hears of it. With an error some may be lifted already.
func (r *Responder) Lift(ctx context.Context, within netip.Prefix, end End) ([]InForce, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	var all []*entry
	if within.IsValid() && within.IsSingleIP() {
		r.book.around(within.Addr(), func(e *entry) bool {
			all = append(all, e)
			return false
		})
	} else {
		r.each(func(e *entry) {
			if !within.IsValid() || e.prefix.Overlaps(within) {
				all = append(all, e)
			}
		})
	}
	return r.lift(ctx, all, end, false)
}

// LiftOnly lifts the ban of exactly p. ok is false where there is none.
func (r *Responder) LiftOnly(ctx context.Context, p netip.Prefix, end End) (row InForce, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	e := r.book.entries[p.Masked()]
	if e == nil {
		return InForce{}, false, nil
	}
	row, err = r.liftOne(ctx, e, end, r.counters())
	return row, err == nil, err
}

// Spare lifts every ban, as Lift does, of a prefix that is to be spared by now, and
// says what was in force. A network that a person banned stays with the methods that
// let in whom to spare inside it (Sparer).
func (r *Responder) Spare(ctx context.Context, spared func(netip.Prefix) bool) ([]InForce, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	var all, networks []*entry
	r.each(func(e *entry) {
		switch keeps := e.ordered() && !e.prefix.IsSingleIP() && slices.ContainsFunc(e.holders.methods, (*method).spares); {
		case !spared(e.prefix):
		case keeps:
			networks = append(networks, e)
		default:
			all = append(all, e)
		}
	})
	for _, e := range networks {
		if r.book.entries[e.prefix] == e { // it may have ended meanwhile
			r.thin(ctx, e)
		}
	}
	return r.lift(ctx, all, End{Ending: Spared}, true)
}

// thin leaves the ban of e to the methods that let in whom to spare inside it.
func (r *Responder) thin(ctx context.Context, e *entry) {
	var keep []*method
	for _, m := range e.holders.methods {
		if m.spares() {
			keep = append(keep, m)
		} else {
			e.own().leaving = append(e.leaving, m)
		}
	}
	if len(keep) == len(e.holders.methods) {
		return
	}
	e.holders = r.book.holding(keep)
	now := time.Now()
	r.leave(ctx, e, now)
	r.settle(e, now)
	r.nudge()
}

// liftedAtOnce is how many bans are lifted before others get a turn.
const liftedAtOnce = 64

// lift takes entries out of force. After an error it goes on with the others where
// it is told to. Calls hold r.mu; others get a turn meanwhile.
func (r *Responder) lift(ctx context.Context, all []*entry, end End, goOn bool) ([]InForce, error) {
	var out []InForce
	var errs []error
	counters := r.counters()
	for i, e := range all {
		if i%liftedAtOnce == liftedAtOnce-1 {
			r.yield()
			r.commit(ctx)
		}
		if r.book.entries[e.prefix] != e { // it has ended meanwhile
			continue
		}
		row, err := r.liftOne(ctx, e, end, counters)
		switch {
		case err == nil:
			out = append(out, row)
		case goOn:
			errs = append(errs, err)
		default:
			return out, err
		}
	}
	return out, errors.Join(errs...)
}

func (r *Responder) liftOne(ctx context.Context, e *entry, end End, counters map[string]Counter) (InForce, error) {
	now := time.Now()
	row := r.row(e, now)
	row.count(counters)
	if err := r.letGo(ctx, e, &row.Ban); err != nil {
		r.schedule(e, now) // what was to be tried again may have gone meanwhile
		return row, err
	}
	steps := r.undo(e)
	if len(steps) > 0 && !r.submitUndo(e, steps, end) {
		return row, ErrBusy
	}
	if !e.common || e.inFlight { // steps that succeed from now on are undone
		m := e.own()
		m.done, m.end = nil, end
	}
	r.book.remove(e, now, false)
	r.book.past.forget(e.prefix) // it is forgiven
	if len(steps) == 0 {
		r.ended(e, end)
	}
	return row, nil
}

// letGo takes the ban out of all methods that hold it. Those that fail go on to.
func (r *Responder) letGo(ctx context.Context, e *entry, b *Ban) error {
	var errs []error
	holds := func(m *method) bool {
		err := m.Unban(ctx, *b)
		errs = append(errs, err)
		return err != nil
	}
	var keep []*method
	for _, m := range e.holders.methods {
		if holds(m) {
			keep = append(keep, m)
		}
	}
	e.holders = r.book.holding(keep)
	if len(e.leaving) > 0 {
		e.leaving = slices.DeleteFunc(e.leaving, func(m *method) bool { return !holds(m) })
	}
	return errors.Join(errs...)
}
