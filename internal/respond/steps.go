package respond

import (
	"slices"
	"time"

	"portsentry/internal/judge"
)

// submit hands steps for e to the runner. alone: nothing else stands by then, so
// the sighting at hand waits for them, if they begin at once (deferred); behind
// a queue of slow commands it is recorded now, and they when they end. Calls
// hold r.mu; the callback takes it.
func (r *Responder) submit(e *entry, steps []Step, alone bool, later func(Outcome)) (ok, deferred bool) {
	if r.runner == nil {
		return false, false
	}
	e.order.Steps = steps
	deferred = alone && !r.runner.Busy()
	ok = r.runner.Submit(e.order, func(actions []Action) {
		o := r.finished(e, actions)
		o.Deferred = deferred
		if later != nil {
			later(o)
		}
	})
	e.inFlight = ok
	if !ok {
		r.stats.RefusedBusy++
		e.failed = slices.Clone(steps) // not the plan's own: finished appends
		if !e.native && !e.stands() {
			r.book.remove(e, time.Now())
		}
	}
	return ok, deferred
}

// retry tries the failed steps of e once more. It reports whether the outcome
// of the sighting at hand waits for them alone. Evidence too weak to run them
// tries none again: their host may hold a connection by now.
func (r *Responder) retry(e *entry, v *judge.Verdict, later func(Outcome)) (deferred bool) {
	if e.inFlight || len(e.failed) == 0 || len(r.steps(v)) == 0 {
		return false
	}
	steps := e.failed
	e.failed = nil
	ok, deferred := r.submit(e, steps, !e.native && !e.stands(), later)
	return ok && deferred
}

// finished books what came of the steps of e. Any step that succeeded blocks
// the host, as in PortSentry 2.x; a failed one is tried again with the next hit.
func (r *Responder) finished(e *entry, actions []Action) Outcome {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e.inFlight = false
	before := e.stands()
	for _, a := range actions {
		switch {
		case a.Err != nil:
			r.stats.StepsFailed++
			e.failed = append(e.failed, a.Step)
		case a.Skipped && a.Step == StepHostsDeny:
			e.foreign = true
		case a.Skipped:
		default:
			e.done = append(e.done, a.Step)
		}
	}
	native := e.native && now.Before(e.ban.Until)
	o := Outcome{Blocked: native || e.stands(), Actions: actions}
	if !e.stands() && !native {
		if r.book.entries[e.ban.Prefix] == e {
			if len(e.failed) == 0 {
				r.book.remove(e, now) // everything was skipped
			} else {
				e.expire = now.Add(pastRetained) // forget the failure some day
				r.book.schedule(e)
			}
		}
		return o
	}
	if !native {
		if !before {
			r.stats.Bans++
			e.ban.Until = r.commandsEnd(e)
			r.ledger.Began(e.ban, e.host)
		}
		e.expire = e.ban.Until
		r.book.schedule(e)
		r.nudge()
	}
	return o
}

// commandsEnd is when a ban that stands on steps alone ends: after its length
// when all of it can be undone, else when a person says so.
func (r *Responder) commandsEnd(e *entry) time.Time {
	if len(r.plan.lasting(e.done)) > 0 {
		return time.Time{}
	}
	return e.ban.Since.Add(e.length)
}
