package respond

import (
	"slices"
	"time"
)

// SetMethods replaces what new bans are made with. Bans that stand stay with the
// methods that hold them until they end or are replaced: a method that is not in
// the list any more must go on taking Unban, unless another of its name has come
// in its place.
func (r *Responder) SetMethods(methods []Method) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.methods = make([]*method, len(methods))
	for i, m := range methods {
		if r.known[m.Name()] == nil {
			r.known[m.Name()] = new(method)
		}
		r.known[m.Name()].Method = m
		r.methods[i] = r.known[m.Name()]
	}
}

// SetSteps replaces the runner and the plan for new answers. What steps under the
// old plan began is undone by the new runner, if the new plan has the undo for
// it; where it has none, the ban stays in the book until a person lifts it. Steps
// that failed and are not in the new plan are not tried again. The old runner
// still finishes the orders that it has taken. runner may be nil when plan has no
// steps.
func (r *Responder) SetSteps(runner Runner, plan Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runner, r.plan = runner, plan
	for _, e := range r.book.entries {
		if len(e.failed) == 0 {
			continue
		}
		e.failed = slices.DeleteFunc(e.failed, func(s Step) bool {
			return !slices.Contains(plan.Ban, s) && !slices.Contains(plan.Command, s)
		})
	}
}

// Restore takes bans of an earlier run into the book: native ones as the kernel
// still enforces them, others as steps that were done then. Rows of one prefix
// are one ban, which several methods may hold. Names that no method has are
// passed over.
func (r *Responder) Restore(bans []InForce) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for i := range bans {
		r.restore(&bans[i], now)
	}
	r.nudge()
}

func (r *Responder) restore(row *InForce, now time.Time) {
	b, host := row.Ban, row.Host
	if !host.IsValid() {
		host = b.Prefix.Addr()
	}
	var methods []*method
	for _, name := range row.Methods {
		if m := r.known[name]; m != nil {
			methods = append(methods, m)
		}
	}
	e := r.book.entries[b.Prefix]
	switch {
	case len(methods)+len(row.Steps) == 0:
		return
	case e == nil && len(r.book.entries) >= MaxBans:
		return
	case e == nil:
		e = &entry{
			ban: b, decided: now.UnixNano(), host: host, expire: b.Until, listed: true, index: -1, more: r.book.none,
		}
		r.book.add(e)
	default:
		e.ban.Widen(&b)
		e.expire = e.ban.Until
		r.book.schedule(e)
	}
	e.methods = union(e.methods, methods)
	if len(row.Steps) == 0 {
		return
	}
	m := e.own()
	m.done = union(m.done, row.Steps)
	if !m.order.Host.IsValid() {
		m.order = Order{Host: e.host, Port: e.ban.Port, Proto: e.ban.Proto, Evidence: uint8(e.ban.Evidence)}
	}
}

// union is a with what b has besides.
func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// Remake has a method make all the bans again that it holds, for somebody took
// them away. Nothing begins and nothing ends meanwhile. It returns how many.
func (r *Responder) Remake(name string, remake func([]Ban) error) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var bans []Ban
	for _, e := range r.book.entries {
		if e.native(now) && slices.ContainsFunc(e.methods, func(m *method) bool { return m.Name() == name }) {
			bans = append(bans, e.ban)
		}
	}
	return len(bans), remake(bans)
}
