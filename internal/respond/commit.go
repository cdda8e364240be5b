package respond

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/judge"
)

// staged is a native ban that waits for Commit, as it was when it was staged.
// The actions, one a method, are those of the Outcome that Answer gave.
type staged struct {
	e       *entry
	ban     Ban
	methods []*method
	actions []Action
}

// stage prepares the native ban that v asks for: it is in the book at once, and
// in force with the next Commit. It returns nil when no method takes it or there
// is no room. idle: the ban stands already, but nothing enforces it, so it is
// only worth while with a method that does.
func (r *Responder) stage(v *judge.Verdict, now time.Time, idle bool, o *Outcome) *entry {
	ban := r.ban(v, now)
	ban.Until = now.Add(v.Length)
	old := r.book.entries.of(v.Prefix)
	if old != nil && old.native(now) { // stronger or wider
		ban.Strength = max(ban.Strength, old.strength)
		if ban.Scope != old.scope { // one protocol, then the other
			ban.Scope = judge.AllProtocols
		}
		if old.ordered() { // and not enforced until now: it stays what the person asked for
			ban = old.ban()
		}
	}
	proved := !forgeable(&ban)
	takes := func(m *method) bool { return (proved || !now.Before(m.again)) && m.Takes(&ban) }
	methods := r.methods // which nobody changes: what all entries share costs nothing
	if refuses := func(m *method) bool { return !takes(m) }; slices.ContainsFunc(methods, refuses) {
		methods = slices.DeleteFunc(slices.Clone(methods), refuses)
	}
	enforces := func(m *method) bool { return m.enforces(&ban) }
	if len(methods) == 0 || idle && !slices.ContainsFunc(methods, enforces) {
		return nil
	}
	if err := r.room(&ban, old, now); err != nil {
		o.Actions = append(o.Actions, Action{Step: StepNative, Host: v.Sighting.Src, Err: err})
		return nil
	}
	actions := make([]Action, len(methods))
	for i, m := range methods {
		actions[i] = Action{
			Step: StepNative, Host: v.Sighting.Src, Skipped: !m.Enforces(), Text: nativeText(m.Method, &ban, v.Length),
		}
	}
	e := r.put(&ban, v.Sighting.Src, methods, actions)
	o.Blocked, o.Already = r.book.enforced(e) || e.stands(), e.stands()
	o.Actions = actions
	return e
}

// put stages ban, in the place of one of the same prefix. The actions, one a method,
// are to say what became of it.
func (r *Responder) put(ban *Ban, host netip.Addr, methods []*method, actions []Action) *entry {
	// The runner may hold a callback for an old entry: it stays the same one.
	e := r.book.entries.of(ban.Prefix)
	if e == nil {
		e = r.book.enter(ban, host, forgeable(ban))
	}
	if e.staging == nil {
		e.staging = &staging{held: e.ban()}
	}
	r.book.replace(e, ban)
	e.staging.taking = methods
	e.staging.times++
	r.staged = append(r.staged, staged{e, *ban, methods, actions})
	return e
}

// Commit puts the bans that Answer has prepared into force, in one transaction
// a method. A method that refuses them all together is asked for each alone, so
// that one bad ban harms no other. What failed is in the Actions of the
// Outcomes: see Outcome.Settle.
func (r *Responder) Commit(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
}

// commit is Commit for those who hold r.mu. Whatever changes bans that may be
// staged does it first.
func (r *Responder) commit(ctx context.Context) {
	if len(r.staged) == 0 {
		return
	}
	var asked []*method
	for _, s := range r.staged {
		for _, m := range s.methods {
			if !slices.Contains(asked, m) {
				asked = append(asked, m)
			}
		}
	}
	now := time.Now()
	for _, m := range asked {
		r.ask(ctx, m, now)
	}
	for i := range r.staged {
		r.committed(&r.staged[i], now)
	}
	for _, s := range r.staged { // whoever took the ban is in force by now
		if r.book.entries.of(s.ban.Prefix) == s.e {
			r.leave(ctx, s.e, now)
			r.schedule(s.e, now)
		}
	}
	clear(r.staged)
	r.staged = r.staged[:0]
	r.nudge()
}

// ask asks m for the staged bans that it takes.
func (r *Responder) ask(ctx context.Context, m *method, now time.Time) {
	var bans []Ban
	var actions []*Action
	for _, s := range r.staged {
		if i := slices.Index(s.methods, m); i >= 0 {
			bans = append(bans, s.ban)
			actions = append(actions, &s.actions[i])
		}
	}
	err := m.BanAll(ctx, bans)
	for i, a := range actions {
		if a.Err = err; err != nil && len(bans) > 1 {
			a.Err = m.BanAll(ctx, bans[i:i+1])
		}
		if a.Err != nil {
			r.stats.NativeFailed++
			m.again = now.Add(time.Second)
		}
	}
}

// committed books what came of one native ban. A method that failed goes on
// holding what it held.
func (r *Responder) committed(s *staged, now time.Time) {
	e := s.e
	e.staging.times--
	took := s.methods
	if slices.ContainsFunc(s.actions, func(a Action) bool { return a.Err != nil }) {
		took = nil
		for i, m := range s.methods {
			if s.actions[i].Err == nil {
				took = append(took, m)
			}
		}
	}
	if len(took) > 0 {
		longer := outlasts(&e.staging.held, &s.ban) // what one that failed holds
		for _, m := range e.holders.methods {
			switch asked, failed := slices.Contains(s.methods, m), !slices.Contains(took, m); {
			case !asked, failed && longer:
				e.own().leaving = append(e.leaving, m)
			case failed:
				took = append(slices.Clip(took), m)
			}
		}
		r.book.hold(e, took)
		e.staging.held = s.ban
		if len(e.leaving) > 0 {
			e.leaving = slices.DeleteFunc(e.leaving, func(m *method) bool { return slices.Contains(took, m) })
		}
	}
	if e.staging.times > 0 {
		return // it has been staged again since
	}
	r.book.replace(e, &e.staging.held)
	e.staging = nil
	if len(e.holders.methods)+len(e.leaving) == 0 && !e.stands() && !e.inFlight {
		r.book.remove(e, now, false)
		return
	}
	if len(took) > 0 && r.book.enforced(e) {
		r.stats.Bans++
		r.began(e)
	}
	r.missed(e)
}

// outlasts reports whether a ends after b.
func outlasts(a, b *Ban) bool {
	return !b.Until.IsZero() && (a.Until.IsZero() || a.Until.After(b.Until))
}

// began tells the ledger.
func (r *Responder) began(e *entry) {
	e.listed = true
	r.ledger.Began(e.ban(), e.hostAddr())
}
