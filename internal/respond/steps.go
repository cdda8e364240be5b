package respond

import (
	"slices"
	"time"

	"portsentry/internal/judge"
)

// submit hands steps for e to the runner. When nothing else keeps the host out,
// the sighting at hand waits for them, if they begin at once (deferred); behind
// a queue of slow commands it is recorded now, and they when they end. before
// are the actions of that sighting so far. Calls hold r.mu; the callback takes it.
func (r *Responder) submit(e *entry, steps []Step, before []Action, later func(Outcome)) (ok, deferred bool) {
	if r.runner == nil {
		return false, false
	}
	e.own().order.Steps = steps
	deferred = !r.book.blocks(e, time.Now()) && !r.runner.Busy()
	if !deferred {
		before = nil
	}
	ok = r.runner.Submit(e.order, func(actions []Action) {
		o := r.finished(e, before, actions)
		o.Deferred = deferred
		if later != nil {
			later(o)
		}
	})
	e.inFlight = ok
	if !ok {
		r.stats.RefusedBusy++
		e.own().failed = slices.Clone(steps) // not the plan's own: finished appends
		if !e.native(time.Now()) && !e.stands() && len(e.leaving) == 0 {
			r.book.remove(e, time.Now(), false)
		}
	}
	return ok, deferred
}

// failureKept is how long a failed step is tried again with the next hit.
const failureKept = 24 * time.Hour

// retry tries the failed steps of e once more. It reports whether the outcome of the sighting at hand waits for them alone.
// Evidence too weak to run them tries none again: their host may hold a
// connection by now.
func (r *Responder) retry(e *entry, v *judge.Verdict, later func(Outcome)) (deferred bool) {
	if e.inFlight || len(e.failed) == 0 || len(r.steps(v)) == 0 {
		return false
	}
	var steps []Step
	steps, e.own().failed = e.failed, nil
	ok, deferred := r.submit(e, steps, nil, later)
	return ok && deferred
}

// finished books what came of the steps of e, and gives the whole outcome of its
// sighting. Any step that succeeded blocks the host, as in PortSentry 2.x; a
// failed one is tried again with the next hit.
func (r *Responder) finished(e *entry, before, actions []Action) Outcome {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e.inFlight = false
	stood := e.stands()
	for _, a := range actions {
		switch {
		case a.Err != nil:
			r.stats.StepsFailed++
			e.own().failed = append(e.failed, a.Step)
		case a.Skipped && a.Step == StepHostsDeny:
			e.foreign = true
		case a.Skipped:
		default:
			e.own().done = append(e.done, a.Step)
		}
	}
	// before is Commit's to write, so it is copied while it cannot.
	o := Outcome{Blocked: r.book.blocks(e, now), Actions: slices.Concat(before, actions)}
	native := e.native(now)
	switch {
	case r.book.entries.of(e.prefix) != e: // lifted by a person meanwhile
		r.late(e, now)
		return o
	case native: // the steps last as long
	case e.stands():
		if !stood {
			e.until = r.commandsEnd(e)
		}
		e.expire = e.until
		r.schedule(e, now)
		r.nudge()
	case len(e.failed) == 0 && len(e.leaving) == 0:
		r.book.remove(e, now, false) // everything was skipped
	default:
		e.expire = now.Add(failureKept) // forget the failure some day
		r.schedule(e, now)
	}
	if o.Newly = e.stands() && !stood && !(native && r.book.enforced(e)); o.Newly {
		r.stats.Bans++
		r.began(e)
	}
	return o
}

// late books steps that succeeded after a person had lifted the ban: they are
// undone at once, unless the host has earned another ban by then.
func (r *Responder) late(e *entry, now time.Time) {
	if !e.stands() {
		return
	}
	if other := r.book.entries.of(e.prefix); other != nil {
		other.own().done = union(other.done, e.done)
		return
	}
	e.until, e.expire = now, now
	r.book.add(e)
	r.nudge()
}

// commandsEnd is when a ban that stands on steps alone ends: after its length
// when all of it can be undone, else when a person says so.
func (r *Responder) commandsEnd(e *entry) time.Time {
	if len(r.lasting(e.done)) > 0 {
		return time.Time{}
	}
	return time.Unix(0, e.since).Add(e.length)
}
