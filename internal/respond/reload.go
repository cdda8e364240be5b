package respond

import "slices"

// SetMethods replaces what new bans are made with, and what Share gives those that stand.
// Bans stay with the methods that hold them until they end or are replaced: a method that
// is not in the list any more must go on taking Unban, unless another of its name has come
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
	clear(r.book.lacking)
	r.unshared = true
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
	r.each(func(e *entry) {
		if len(e.failed) == 0 {
			return
		}
		e.failed = slices.DeleteFunc(e.failed, func(s Step) bool {
			return !slices.Contains(r.plan.Ban, s) && !slices.Contains(r.plan.Command, s)
		})
	})
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
