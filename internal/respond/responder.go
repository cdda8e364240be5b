package respond

import (
	"context"
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
	Ended(b Ban, host netip.Addr, undone []Action)
}

// Stats counts what the Responder did. All only grow.
type Stats struct {
	Bans          uint64 // native bans and completed steps, each host once
	NativeFailed  uint64 // a native method refused
	StepsFailed   uint64 // an owner's step failed
	RefusedBusy   uint64 // owner's steps not run: queue full
	RefusedLimits uint64 // bans not made: number or rate
}

// Responder answers Verdicts and keeps the book. Its methods may be called
// from any goroutine; native methods are called one at a time.
type Responder struct {
	methods []Method
	runner  Runner // nil: the plan is empty
	plan    Plan
	ledger  Ledger

	mu          sync.Mutex
	book        *book
	stats       Stats
	nativeAgain time.Time // after a native method failed: not before
	staged      []staged
	wake        chan struct{}
}

// New builds a Responder. runner may be nil when plan has no steps.
func New(methods []Method, runner Runner, plan Plan, ledger Ledger) *Responder {
	return &Responder{
		methods: methods, runner: runner, plan: plan, ledger: ledger,
		book: newBook(), wake: make(chan struct{}, 1),
	}
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

	e := r.book.find(v.Sighting.Src)
	if e != nil && e.covers(v.Strength, v.Scope, now) {
		if kernelSays {
			return Outcome{Blocked: true, Already: true}, false
		}
		if first := e.unreported; first != nil {
			e.unreported = nil
			return Outcome{Blocked: true, Actions: first}, false
		}
		r.retry(e, v, later)
		return Outcome{Blocked: true, Already: true}, false
	}

	native := r.stage(v, now, &o)
	if native != nil {
		e = native
		e.decided = v.Sighting.Time
		if kernelSays {
			e.unreported = o.Actions
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
		var err error
		if e, err = r.newEntry(v, now); err != nil {
			o.Actions = append(o.Actions, Action{Step: steps[0], Host: v.Sighting.Src, Err: err})
			return o, false
		}
		r.book.add(e)
	}
	e.order = Order{
		Host: v.Sighting.Src, Port: v.Sighting.DstPort, Proto: v.Sighting.Proto, Kind: uint8(v.Sighting.Kind),
		Flags: v.Sighting.Flags, Count: v.Sighting.Count, Evidence: uint8(v.Evidence),
	}
	ok, deferred := r.submit(e, steps, native == nil, later)
	if !ok {
		o.Actions = append(o.Actions, Action{Step: steps[0], Host: v.Sighting.Src, Err: ErrBusy})
	}
	return o, ok && deferred
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

// newEntry makes an entry for v, unless the limits forbid it.
func (r *Responder) newEntry(v *judge.Verdict, now time.Time) (*entry, error) {
	switch {
	case len(r.book.entries) >= MaxBans:
		r.stats.RefusedLimits++
		return nil, ErrFull
	case !r.book.allow(now):
		r.stats.RefusedLimits++
		return nil, ErrRate
	}
	s := &v.Sighting
	return &entry{
		host:   s.Src,
		length: v.Length,
		index:  -1,
		ban: Ban{
			Prefix: v.Prefix, Scope: v.Scope, Strength: v.Strength, Evidence: v.Evidence,
			Since: now, Times: r.book.times(v.Prefix, now) + 1, Reason: v.Reason,
			Port: s.DstPort, Proto: s.Proto, Kind: s.Kind.String(),
		},
	}, nil
}

// stage prepares the native ban that v asks for: it is in the book at once, and
// in force with the next Commit. It returns nil when there is no method or no
// room.
func (r *Responder) stage(v *judge.Verdict, now time.Time, o *Outcome) *entry {
	if len(r.methods) == 0 || now.Before(r.nativeAgain) {
		return nil
	}
	e, err := r.newEntry(v, now)
	if err != nil {
		o.Actions = append(o.Actions, Action{Step: StepNative, Host: v.Sighting.Src, Err: err})
		return nil
	}
	e.native = true
	if old := r.book.entries[v.Prefix]; old != nil { // stronger, wider, or again after its native part ended
		if old.native && now.Before(old.ban.Until) {
			e.ban.Strength = max(e.ban.Strength, old.ban.Strength)
			if e.ban.Scope != old.ban.Scope { // one protocol, then the other
				e.ban.Scope = judge.AllProtocols
			}
		}
		// The runner may hold a callback for the old entry: it stays the same one.
		old.ban, old.length, old.native = e.ban, e.length, true
		e = old
	} else {
		r.book.add(e)
	}
	e.ban.Until = now.Add(v.Length)
	actions := make([]Action, len(r.methods))
	for i, m := range r.methods {
		actions[i] = Action{Step: StepNative, Host: v.Sighting.Src, Text: nativeText(m.Name(), &e.ban, v.Length)}
	}
	o.Blocked = true
	o.Actions = actions
	r.staged = append(r.staged, staged{e, actions})
	return e
}

// staged is a native ban that waits for Commit. The actions, one a method, are
// those of the Outcome that Answer gave.
type staged struct {
	e       *entry
	actions []Action
}

// Commit puts the bans that Answer has prepared into force, in one transaction
// a method. A method that refuses them all together is asked for each alone, so
// that one bad ban harms no other. What failed is in the Actions of the
// Outcomes: see Outcome.Settle.
func (r *Responder) Commit(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.staged) == 0 {
		return
	}
	bans := make([]Ban, len(r.staged))
	for i, s := range r.staged {
		bans[i] = s.e.ban
	}
	for i, m := range r.methods {
		err := m.BanAll(ctx, bans)
		for j, s := range r.staged {
			if err != nil && len(bans) > 1 {
				s.actions[i].Err = m.BanAll(ctx, bans[j:j+1])
			} else {
				s.actions[i].Err = err
			}
		}
	}
	now := time.Now()
	for _, s := range r.staged {
		r.committed(s.e, s.actions, now)
	}
	clear(r.staged)
	r.staged = r.staged[:0]
	r.nudge()
}

// committed books what came of one native ban.
func (r *Responder) committed(e *entry, actions []Action, now time.Time) {
	e.native = false
	for _, a := range actions {
		if a.Err == nil {
			e.native = true
		} else {
			r.stats.NativeFailed++
		}
	}
	if e.native {
		r.stats.Bans++
		e.expire = e.ban.Until
		r.book.schedule(e)
		r.ledger.Began(e.ban, e.host)
		return
	}
	r.nativeAgain = now.Add(time.Second)
	if !e.stands() && !e.inFlight && r.book.entries[e.ban.Prefix] == e {
		r.book.remove(e, now)
	}
}

// nativeText is the native ban in words.
func nativeText(method string, b *Ban, length time.Duration) string {
	what := map[judge.Strength]string{
		judge.Limited: "ports without a service", judge.Soft: "new connections", judge.Full: "everything",
	}[b.Strength]
	if b.Scope != judge.AllProtocols {
		what += ", " + b.Scope.String() + " only"
	}
	if !b.Prefix.IsSingleIP() {
		what += ", all of " + b.Prefix.String()
	}
	return method + " for " + length.String() + " (" + what + "; " + evidenceWord(b.Evidence) + ")"
}

func evidenceWord(e judge.Evidence) string {
	if e >= judge.E2 {
		return "verified"
	}
	return "unverified"
}

// Dropped reports whether a packet of src that was captured at time t (unix
// nanoseconds) ran into a native ban that was decided before it: such packets
// are counted, not itemised.
func (r *Responder) Dropped(src netip.Addr, scope judge.Scope, t int64) bool {
	if len(r.methods) == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.book.find(src)
	return e != nil && e.unreported == nil && t > e.decided && e.covers(judge.Nothing, scope, time.Now())
}

// Bans is how often a has been banned; for judge.History.
func (r *Responder) Bans(a netip.Addr) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.book.times(netip.PrefixFrom(a, a.BitLen()), time.Now())
}

// Neighbours is how many other addresses of the /64 of a are banned; for judge.History.
func (r *Responder) Neighbours(a netip.Addr) int {
	net, err := a.Prefix(64)
	if err != nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.book.nets64[net]
	if r.book.entries[netip.PrefixFrom(a, a.BitLen())] != nil {
		n--
	}
	return n
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
