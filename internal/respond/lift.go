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
	e := r.book.entries.of(p.Masked())
	if e == nil {
		return InForce{}, false, nil
	}
	rows, err := r.liftSome(ctx, []*entry{e}, end, r.counters())
	if err != nil {
		return InForce{}, false, err
	}
	return rows[0], true, nil
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
		if r.book.entries.of(e.prefix) == e { // it may have ended meanwhile
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
	r.book.hold(e, keep)
	now := time.Now()
	r.leave(ctx, e, now)
	r.missed(e) // for the time when nobody is to be spared any more
	r.settle(e, now)
	r.nudge()
}

// liftedAtOnce is how many bans are lifted before others get a turn.
const liftedAtOnce = 512

// lift takes entries out of force. After an error it goes on with the others where
// it is told to. Calls hold r.mu; others get a turn meanwhile.
func (r *Responder) lift(ctx context.Context, all []*entry, end End, goOn bool) ([]InForce, error) {
	out := make([]InForce, 0, len(all)) // 350 bytes each
	var errs []error
	counters := r.counters()
	for some := range slices.Chunk(all, liftedAtOnce) {
		some = slices.DeleteFunc(some, func(e *entry) bool { return r.book.entries.of(e.prefix) != e }) // it has ended meanwhile
		rows, err := r.liftSome(ctx, some, end, counters)
		out, errs = append(out, rows...), append(errs, err)
		if err != nil && !goOn {
			break
		}
		r.yield()
		r.commit(ctx)
	}
	return out, errors.Join(errs...)
}

// liftSome lifts entries of the book, and says what was in force of those that it has lifted.
func (r *Responder) liftSome(ctx context.Context, some []*entry, end End, counters map[string]Counter) ([]InForce, error) {
	now := time.Now()
	rows := make([]InForce, len(some))
	for i, e := range some {
		rows[i] = r.row(e, now)
		rows[i].count(counters)
	}
	errs := r.letGo(ctx, some)
	lifted := rows[:0]
	for i, e := range some {
		if errs[i] == nil {
			errs[i] = r.lifted(e, end, now)
		}
		if errs[i] == nil {
			lifted = append(lifted, rows[i])
		}
	}
	return lifted, errors.Join(errs...)
}

// lifted books that no method holds e any more.
func (r *Responder) lifted(e *entry, end End, now time.Time) error {
	steps := r.undo(e)
	if len(steps) > 0 && !r.submitUndo(e, steps, end) {
		return ErrBusy
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
	return nil
}

// letGo takes the bans of some out of all methods that hold them. Those that fail go on
// to; errs has a place for each of some.
func (r *Responder) letGo(ctx context.Context, some []*entry) (errs []error) {
	errs = make([]error, len(some))
	var asked []*method
	for _, e := range some {
		asked = union(union(asked, e.holders.methods), e.leaving)
	}
	failed := make(map[*entry][]*method)
	for _, m := range asked {
		var bans []Ban
		var at []int
		for i, e := range some {
			if slices.Contains(e.holders.methods, m) || slices.Contains(e.leaving, m) {
				bans, at = append(bans, e.ban()), append(at, i)
			}
		}
		for i, err := range m.unbanAll(ctx, bans) {
			if err != nil {
				e := some[at[i]]
				errs[at[i]], failed[e] = errors.Join(errs[at[i]], err), append(failed[e], m)
			}
		}
	}
	now := time.Now()
	for _, e := range some {
		out := func(m *method) bool { return !slices.Contains(failed[e], m) }
		r.book.hold(e, slices.DeleteFunc(slices.Clone(e.holders.methods), out))
		if len(e.leaving) > 0 {
			e.leaving = slices.DeleteFunc(e.leaving, out)
		}
		if len(failed[e]) > 0 {
			r.schedule(e, now) // what was to be tried again may have gone meanwhile
		}
	}
	return errs
}

// unbanAll takes bans out of m. Nil: all are out; else what came of each.
func (m *method) unbanAll(ctx context.Context, bans []Ban) []error {
	if l, ok := m.Method.(Lifter); ok && len(bans) > 1 && l.UnbanAll(ctx, bans) == nil {
		return nil
	}
	errs := make([]error, len(bans))
	for i := range bans {
		errs[i] = m.Unban(ctx, bans[i])
	}
	return errs
}
