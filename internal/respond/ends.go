package respond

import (
	"context"
	"slices"
	"time"
)

// undo are the steps that end what e began. A runner and a plan that came later
// undo what those before them began, as far as they can.
func (r *Responder) undo(e *entry) []Step {
	var out []Step
	if r.runner == nil {
		return nil
	}
	for _, s := range slices.Backward(e.done) {
		switch {
		case s == StepHostsDeny:
			out = append(out, StepHostsDenyUndo)
		case s == StepRoute && r.plan.RouteUndo:
			out = append(out, StepRouteUndo)
		case s == StepCommand && r.plan.CommandUndo:
			out = append(out, StepCommandUndo)
		}
	}
	return out
}

// lasting are those of steps that only a person can undo.
func (r *Responder) lasting(steps []Step) []Step {
	if r.runner == nil {
		return slices.Clone(steps)
	}
	return r.plan.lasting(steps)
}

// Run ends bans when their time has come, until ctx ends. Where a method's bans
// do not end by themselves they are taken out here, the owner's steps are
// undone, and the ledger is told.
func (r *Responder) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.expire(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// endsAtOnce bounds how many bans end while nobody else gets a turn.
const endsAtOnce = 256

// expire ends what is due and says how long nothing will be.
func (r *Responder) expire(ctx context.Context) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	now := time.Now()
	for range endsAtOnce {
		if len(r.book.due) == 0 || ctx.Err() != nil {
			return time.Hour
		}
		e := r.book.due[0]
		if wait := e.expire.Sub(now); wait > 0 {
			return wait
		}
		switch {
		case e.inFlight:
			r.book.again(e, now.Add(time.Second))
		case len(e.leaving) > 0 && (e.until.IsZero() || now.Before(e.until)):
			e.expire = e.until
			r.leave(ctx, e, now)
			r.settle(e, now)
		default:
			r.end(ctx, e, now)
		}
	}
	return 0
}

// end takes e out of force. A route that only a person can take back keeps its
// entry: the book must not say that a host is free when it is not. A command
// without an undo (a mail, a page) does not outlive the native ban it came with.
func (r *Responder) end(ctx context.Context, e *entry, now time.Time) {
	if len(e.holders.methods) > 0 {
		for _, m := range e.holders.methods {
			if !m.Ends() {
				e.own().leaving = append(e.leaving, m)
			}
		}
		r.book.hold(e, nil)
		if !r.plan.CommandUndo && len(e.done) > 0 {
			e.done = slices.DeleteFunc(e.done, func(s Step) bool { return s == StepCommand })
		}
	}
	if r.leave(ctx, e, now); len(e.leaving) > 0 {
		r.book.again(e, now.Add(pause(e.tries)))
		return
	}
	end := e.end
	left, steps := r.lasting(e.done), r.undo(e)
	if len(steps) > 0 && !r.submitUndo(e, steps, end) {
		r.book.again(e, now.Add(time.Second))
		return
	}
	if len(left) > 0 {
		m := e.own()
		m.done, m.failed = left, nil
		e.until = time.Time{}
		r.book.again(e, time.Time{})
		return
	}
	r.book.remove(e, now, end.Ending == Expired)
	if len(steps) == 0 {
		r.ended(e, end)
	}
}

// maxTries bounds how often a method is asked to take a ban out: for about eight
// minutes.
const maxTries = 10

// pause is how long to wait after the nth failure in a row.
func pause(n int) time.Duration { return min(time.Second<<max(0, n-1), 5*time.Minute) }

// leave takes the ban out of the methods that must not hold it any longer. What
// fails is tried again by Run, a bounded number of times.
func (r *Responder) leave(ctx context.Context, e *entry, now time.Time) {
	if len(e.leaving) == 0 {
		return
	}
	ban := e.ban()
	e.leaving = slices.DeleteFunc(e.leaving, func(m *method) bool {
		return m.Unban(ctx, ban) == nil
	})
	r.stats.UnbanFailed += uint64(len(e.leaving))
	if e.tries++; e.tries >= maxTries {
		r.stats.UnbanGivenUp += uint64(len(e.leaving))
		e.leaving = nil
	}
	if len(e.leaving) == 0 {
		e.tries = 0
	}
}

// schedule says when the book has to look at e again.
func (r *Responder) schedule(e *entry, now time.Time) {
	if len(e.holders.methods) > 0 || e.staging != nil {
		e.expire = e.until
	}
	if next := now.Add(pause(e.tries)); len(e.leaving) > 0 && (e.expire.IsZero() || next.Before(e.expire)) {
		e.expire = next
	}
	r.book.schedule(e)
}

// settle books a change of e before its time: nothing may be left of it, since what
// it was founded on proved wrong.
func (r *Responder) settle(e *entry, now time.Time) {
	if !e.idle(now) {
		r.schedule(e, now)
		return
	}
	r.book.remove(e, now, false)
	r.ended(e, End{Ending: Unproved})
}

// ended tells the ledger of the end of what it was told the beginning of.
func (r *Responder) ended(e *entry, end End) {
	if e.listed {
		r.ledger.Ended(e.ban(), e.hostAddr(), end, nil)
	}
}

// submitUndo hands the runner the steps that undo those of e. The ledger hears
// of it when they have ended.
func (r *Responder) submitUndo(e *entry, steps []Step, end End) bool {
	if len(steps) == 0 {
		return true
	}
	o := e.order
	o.Steps = steps
	ban, host := e.ban(), e.hostAddr()
	return r.runner.Submit(o, func(actions []Action) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, a := range actions {
			if a.Err != nil {
				r.stats.StepsFailed++
			}
		}
		r.ledger.Ended(ban, host, end, actions)
	})
}
