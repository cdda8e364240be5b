package respond

import (
	"context"
	"slices"
	"time"

	"portsentry/internal/judge"
)

// Restore takes bans of an earlier run into the book: native ones as the kernel
// still enforces them, others as steps that were done then. Rows of one prefix
// are one ban, which several methods may hold. Names that no method has are
// passed over. They are not counted among those that anybody can have made.
func (r *Responder) Restore(bans []InForce) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for i := range bans {
		if r.restore(&bans[i], now); i%turn == turn-1 {
			r.yield()
		}
	}
	r.unshared = true
	r.nudge()
}

func (r *Responder) restore(row *InForce, now time.Time) {
	b := &row.Ban
	var known [8]*method
	methods := known[:0]
	for _, name := range row.Methods {
		if m := r.known[name]; m != nil {
			methods = append(methods, m)
		}
	}
	e := r.book.entries.of(b.Prefix)
	switch {
	case len(methods)+len(row.Steps) == 0:
		return
	case e == nil && r.book.entries.number >= MaxBans:
		r.stats.RefusedLimits++
		return
	case e == nil:
		e = r.book.enter(b, row.Host, false)
		e.decided, e.listed = now.UnixNano(), true
	default:
		both := e.ban()
		both.Widen(b)
		r.book.replace(e, &both)
		methods = union(e.holders.methods, methods)
	}
	r.book.again(e, e.until)
	r.book.hold(e, methods)
	if len(row.Steps) == 0 {
		return
	}
	m := e.own()
	m.done = union(m.done, row.Steps)
	if !m.order.Host.IsValid() {
		m.order = Order{Host: e.hostAddr(), Port: b.Port, Proto: b.Proto, Evidence: uint8(b.Evidence)}
	}
}

// remadeAtOnce is how many bans are put back before others get a turn.
const remadeAtOnce = 1 << 14

// Remake has the method of that name make all the bans again that it holds, for
// somebody took them away. Begin makes room for all and puts the first of them in
// force; those it has no time for follow by BanAll, with turns for others in between.
// It returns how many.
func (r *Responder) Remake(ctx context.Context, name string, begin func([]Ban) error) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var held []*entry
	holds := func(e *entry) bool {
		return e.native(now) && slices.ContainsFunc(e.holders.methods, func(m *method) bool { return m.Name() == name })
	}
	r.each(func(e *entry) {
		if holds(e) {
			held = append(held, e)
		}
	})
	slices.SortFunc(held, func(a, b *entry) int { return int(b.strength) - int(a.strength) }) // the worst first
	n := 0
	for first := true; first || len(held) > 0; first = false {
		now = time.Now()
		var bans []Ban
		part := held[:min(len(held), remadeAtOnce)]
		held = held[len(part):]
		for _, e := range part {
			if r.book.entries.of(e.prefix) == e && holds(e) { // it may have ended meanwhile
				bans = append(bans, e.ban())
			}
		}
		if first {
			if err := begin(bans); err != nil {
				return 0, err
			}
		} else if err := r.known[name].BanAll(ctx, bans); err != nil {
			return n, err
		}
		n += len(bans)
		r.yield()
	}
	return n, nil
}

// Widen makes b what it comes to together with o, another ban of the same prefix:
// what either keeps out, for as long as either does. A person's stays his.
func (b *Ban) Widen(o *Ban) {
	b.Strength = max(b.Strength, o.Strength)
	if b.Scope != o.Scope {
		b.Scope = judge.AllProtocols
	}
	if outlasts(o, b) {
		b.Until = o.Until
	}
	if b.By == "" && o.By != "" {
		b.By, b.Evidence, b.Reason, b.Since, b.Times = o.By, o.Evidence, o.Reason, o.Since, o.Times
	}
}
