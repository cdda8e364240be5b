package respond

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/judge"
)

// undo are the steps that end what e began.
func (r *Responder) undo(e *entry) []Step {
	var out []Step
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

// Run ends bans when their time has come, until ctx ends. A native ban ends in
// the kernel by itself; what is left to do here is to undo the owner's steps
// and to tell the ledger.
func (r *Responder) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.expire())
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// expire ends what is due and says how long nothing will be.
func (r *Responder) expire() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for len(r.book.due) > 0 {
		e := r.book.due[0]
		if wait := e.expire.Sub(now); wait > 0 {
			return wait
		}
		if e.inFlight {
			e.expire = now.Add(time.Second)
			r.book.schedule(e)
			continue
		}
		r.end(e, now)
	}
	return time.Hour
}

// end takes e out of force. A route that only a person can take back keeps its
// entry: the book must not say that a host is free when it is not. A command
// without an undo (a mail, a page) does not outlive the native ban it came with.
func (r *Responder) end(e *entry, now time.Time) {
	wasNative := e.native
	e.native = false
	left := r.plan.lasting(e.done)
	if wasNative {
		left = slices.DeleteFunc(left, func(s Step) bool { return s == StepCommand })
	}
	steps := r.undo(e)
	if len(steps) > 0 && !r.submitUndo(e, steps) {
		e.expire = now.Add(time.Second)
		r.book.schedule(e)
		return
	}
	if len(left) > 0 {
		e.done, e.failed = left, nil
		e.ban.Until, e.expire = time.Time{}, time.Time{}
		r.book.schedule(e)
		return
	}
	r.book.remove(e, now)
	if len(steps) == 0 {
		r.ledger.Ended(e.ban, e.host, nil)
	}
}

func (r *Responder) submitUndo(e *entry, steps []Step) bool {
	if r.runner == nil {
		return true
	}
	o := e.order
	o.Steps = steps
	ban, host := e.ban, e.host
	return r.runner.Submit(o, func(actions []Action) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, a := range actions {
			if a.Err != nil {
				r.stats.StepsFailed++
			}
		}
		r.ledger.Ended(ban, host, actions)
	})
}

// Unban lifts the ban of a, and that of the /64 it lies in, at once, and says
// what was in force. What the owner's steps began is undone by the runner; the
// ledger hears of it.
func (r *Responder) Unban(ctx context.Context, a netip.Addr) ([]InForce, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var out []InForce
	for range 2 { // the address itself, then its /64
		e := r.book.find(a)
		if e == nil {
			break
		}
		if e.native {
			for _, m := range r.methods {
				if err := m.Unban(ctx, e.ban); err != nil {
					return out, err
				}
			}
		}
		row := r.row(e, now)
		steps := r.undo(e)
		if len(steps) > 0 && !r.submitUndo(e, steps) {
			return out, ErrBusy
		}
		r.book.remove(e, now)
		delete(r.book.past, e.ban.Prefix) // a person forgave it
		if len(steps) == 0 {
			r.ledger.Ended(e.ban, e.host, nil)
		}
		out = append(out, row)
	}
	return out, nil
}

// InForce is one row of the book.
type InForce struct {
	Ban     Ban
	Methods []string // names of native methods
	Steps   []Step   // owner's steps that stand
	Lasting []Step   // those that only a person can undo
}

// Relax turns native bans on unverified evidence against the addresses into
// limited ones, for what is left of their time: their owners turned out to hold
// a connection to a served port.
func (r *Responder) Relax(ctx context.Context, addrs []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var errs []error
	for _, a := range addrs {
		e := r.book.find(a)
		if e == nil || !e.native || !now.Before(e.ban.Until) || e.ban.Strength != judge.Soft {
			continue
		}
		relaxed := e.ban
		relaxed.Strength = judge.Limited
		relaxed.Reason += "; limited since it has a connection to a served port"
		var failed error
		for _, m := range r.methods {
			failed = errors.Join(failed, m.BanAll(ctx, []Ban{relaxed}))
		}
		if failed != nil {
			errs = append(errs, failed)
			continue
		}
		e.ban = relaxed
	}
	return errors.Join(errs...)
}

// row is e as it stands now.
func (r *Responder) row(e *entry, now time.Time) InForce {
	row := InForce{Ban: e.ban, Steps: slices.Clone(e.done), Lasting: r.plan.lasting(e.done)}
	if e.native && now.Before(e.ban.Until) {
		for _, m := range r.methods {
			row.Methods = append(row.Methods, m.Name())
		}
	}
	return row
}

// Count is how many bans are in force.
func (r *Responder) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, n := time.Now(), 0
	for _, e := range r.book.entries {
		if e.inForce(now) {
			n++
		}
	}
	return n
}

// List gives what is in force, in the order of prefixes.
func (r *Responder) List() []InForce {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	out := make([]InForce, 0, len(r.book.entries))
	for _, e := range r.book.entries {
		if e.inForce(now) {
			out = append(out, r.row(e, now))
		}
	}
	slices.SortFunc(out, func(a, b InForce) int { return a.Ban.Prefix.Compare(b.Ban.Prefix) })
	return out
}

// Restore takes bans of an earlier run into the book: native ones as the kernel
// still enforces them, others as steps that were done then.
func (r *Responder) Restore(bans []InForce) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, row := range bans {
		b := row.Ban
		if len(r.book.entries) >= MaxBans || r.book.entries[b.Prefix] != nil {
			continue
		}
		e := &entry{
			ban: b, native: len(row.Methods) > 0, done: slices.Clone(row.Steps), decided: now.UnixNano(),
			host: b.Prefix.Addr(), expire: b.Until, index: -1,
			order: Order{Host: b.Prefix.Addr(), Port: b.Port, Proto: b.Proto, Evidence: uint8(b.Evidence)},
		}
		r.book.add(e)
	}
	r.nudge()
}
