package respond

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// Errors of an Action that was not even tried.
var (
	ErrBusy = errors.New("the queue of commands is full")
	ErrFull = errors.New("as many bans as are allowed are in force")
	ErrRate = errors.New("too many new bans a second on unverified evidence")
)

// Plan is which of the owner's steps the configuration asks for.
type Plan struct {
	Ban         []Step // BLOCK=1, in order
	Command     []Step // BLOCK=2
	RouteUndo   bool   // KILL_ROUTE_UNDO is set
	CommandUndo bool   // KILL_RUN_CMD_UNDO is set
}

// PlanFrom derives the Plan from a configuration. The order is COMPAT's:
// KILL_RUN_CMD_FIRST=1: command, hosts.deny, route; 0: hosts.deny, route, command.
func PlanFrom(c *config.Config) Plan {
	var p Plan
	if c.KillHostsDeny != "" {
		p.Ban = append(p.Ban, StepHostsDeny)
	}
	if c.KillRoute != "" || c.KillRoute6 != "" {
		p.Ban = append(p.Ban, StepRoute)
	}
	if c.KillRunCmd != "" {
		p.Command = []Step{StepCommand}
		if c.KillRunCmdFirst {
			p.Ban = slices.Insert(p.Ban, 0, StepCommand)
		} else {
			p.Ban = append(p.Ban, StepCommand)
		}
	}
	p.RouteUndo, p.CommandUndo = c.KillRouteUndo != "", c.KillRunCmdUndo != ""
	return p
}

// Ledger is told of bans that begin and end, for the files that list them.
// Calls come one at a time and must not call back.
type Ledger interface {
	Began(b Ban, host netip.Addr)
	Ended(b Ban, host netip.Addr, end End, undone []Action)
}

// Stats counts what the Responder did. All only grow.
type Stats struct {
	Bans          uint64 // native bans and completed steps, each host once
	NativeFailed  uint64 // a native method refused
	StepsFailed   uint64 // an owner's step failed
	RefusedBusy   uint64 // owner's steps not run: queue full
	RefusedLimits uint64 // bans not made: number or rate
	UnbanFailed   uint64 // a method did not take a ban out whose time had come; it is tried again
	UnbanGivenUp  uint64 // nor did it when asked for the last time
}

// Responder answers Verdicts and keeps the book. Its methods may be called
// from any goroutine; native methods are called one at a time.
type Responder struct {
	ledger Ledger
	wake   chan struct{}

	mu      sync.Mutex
	methods []*method          // what new bans are made with
	known   map[string]*method // by name: these, and those retired
	runner  Runner             // nil: the plan is empty
	plan    Plan
	book    *book
	stats   Stats
	staged  []staged

	unshared bool // any entry may be one that a method lacks: see Share
}

// New builds a Responder. runner may be nil when plan has no steps.
func New(methods []Method, runner Runner, plan Plan, ledger Ledger) *Responder {
	r := &Responder{
		runner: runner, plan: plan, ledger: ledger,
		known: make(map[string]*method), book: newBook(), wake: make(chan struct{}, 1),
	}
	r.SetMethods(methods)
	return r
}

// Answer does what v permits; a native ban is in force with the next Commit.
// When the outcome waits for the owner's steps alone, deferred is true and later
// is called once with the whole of it; otherwise the Outcome returned is whole,
// and later is called with the actions of steps that go on, if there are any.
// kernelSays marks a verdict on the kernel's own report of a provisional ban: its
// actions are kept for the sighting of the same packet.
func (r *Responder) Answer(v *judge.Verdict, kernelSays bool, later func(Outcome)) (o Outcome, deferred bool) {
	if v.Strength == judge.Nothing {
		return Outcome{}, false
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()

	e, covered := r.book.cover(v, now)
	idle := covered && !r.book.enforced(e) // a dry run
	if covered && !idle {
		if kernelSays {
			return Outcome{Blocked: true, Already: true}, false
		}
		if first := e.unreported; first != nil {
			e.own().unreported = nil
			return Outcome{Blocked: true, Actions: first}, false
		}
		r.retry(e, v, later)
		return Outcome{Blocked: true, Already: true}, false
	}

	native := r.stage(v, now, idle, &o)
	if native != nil {
		e = native
		e.decided = v.Sighting.Time
		if kernelSays {
			e.own().unreported = o.Actions
		}
	}
	if e != nil && native == nil {
		// Only the owner's steps stand, or are on their way.
		switch {
		case e.inFlight:
			return o, false
		case len(e.failed) > 0:
			return o, r.retry(e, v, later)
		case e.stands():
			o.Blocked, o.Already = true, true
			return o, false
		}
	}
	steps := r.steps(v)
	if len(steps) == 0 || e != nil && (e.inFlight || e.stands()) {
		return o, false
	}
	if e == nil {
		ban := r.ban(v, now)
		if err := r.room(&ban, nil, now); err != nil {
			o.Actions = append(o.Actions, Action{Step: steps[0], Host: v.Sighting.Src, Err: err})
			return o, false
		}
		e = r.book.enter(&ban, v.Sighting.Src, forgeable(&ban))
	}
	m := e.own()
	m.length = v.Length
	m.order = Order{
		Host: v.Sighting.Src, Port: v.Sighting.DstPort, Proto: v.Sighting.Proto, Kind: uint8(v.Sighting.Kind),
		Flags: v.Sighting.Flags, Count: v.Sighting.Count, Evidence: uint8(v.Evidence),
	}
	ok, deferred := r.submit(e, steps, o.Actions, later)
	if !ok {
		o.Actions = append(o.Actions, Action{Step: steps[0], Host: v.Sighting.Src, Err: ErrBusy})
	}
	return o, ok && deferred
}

// cover gives the entry by which the source of v is kept out as v asks for, if there
// is one; else what is in the book about him.
func (b *book) cover(v *judge.Verdict, now time.Time) (e *entry, covered bool) {
	b.around(v.Sighting.Src, func(o *entry) bool {
		if o.covers(v.Strength, v.Evidence, v.Scope, now) && (!covered || b.enforced(o)) {
			e, covered = o, true
			return b.enforced(o)
		}
		return false
	})
	if !covered {
		e = b.find(v.Sighting.Src)
	}
	return e, covered
}

// steps are the owner's steps that v permits: they cannot tell an existing
// connection from a new one, so they need at least what earns the soft ban.
func (r *Responder) steps(v *judge.Verdict) []Step {
	if v.Strength < judge.Soft {
		return nil
	}
	if v.Block == config.BlockCommand {
		return r.plan.Command
	}
	return r.plan.Ban
}

// room says why there is none for ban, which is to be in the place of old, if any.
func (r *Responder) room(ban *Ban, old *entry, now time.Time) error {
	unproved := forgeable(ban)
	switch {
	case old == nil && r.book.entries.number >= MaxBans, old == nil && unproved && r.book.unproved >= MaxUnproved:
		r.stats.RefusedLimits++
		return ErrFull
	case unproved && !r.book.allow(now):
		r.stats.RefusedLimits++
		return ErrRate
	}
	return nil
}

// ban is the ban that v asks for, its end left open.
func (r *Responder) ban(v *judge.Verdict, now time.Time) Ban {
	s := &v.Sighting
	return Ban{
		Prefix: v.Prefix, Scope: v.Scope, Strength: v.Strength, Evidence: v.Evidence,
		Since: now, Times: r.book.times(v.Prefix, v.Evidence >= judge.E2, now), Reason: v.Reason,
		Port: s.DstPort, Proto: s.Proto, Kind: s.Kind.String(),
	}
}

// Dropped reports whether a packet of src that was captured at time t (unix
// nanoseconds) ran into a native ban that was decided before it: such packets
// are counted, not itemised. A dry run drops none. News is how hard the sighting
// may be answered, and on what evidence, where it says more than the ban knew: a
// weaker ban does not swallow it.
func (r *Responder) Dropped(src netip.Addr, news judge.Strength, evidence judge.Evidence, scope judge.Scope, t int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	dropped := false
	r.book.around(src, func(e *entry) bool {
		dropped = e.unreported == nil && t > e.decided && e.covers(news, evidence, scope, time.Now()) && r.book.enforced(e)
		return dropped
	})
	return dropped
}

// Stats is a snapshot of the counters.
func (r *Responder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

func (r *Responder) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
