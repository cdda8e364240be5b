package respond

import (
	"net/netip"
	"time"
)

// Step is one thing done about a host.
type Step uint8

// Steps. The order of KILL_* steps for one host is the configuration's.
const (
	StepNative        Step = iota // a native ban (nft, ...)
	StepRoute                     // KILL_ROUTE or KILL_ROUTE6
	StepHostsDeny                 // a line in hosts.deny
	StepCommand                   // KILL_RUN_CMD
	StepNativeUndo                // a native ban lifted or ended
	StepRouteUndo                 // KILL_ROUTE_UNDO
	StepHostsDenyUndo             // our line taken out of hosts.deny
	StepCommandUndo               // KILL_RUN_CMD_UNDO
)

// Action is what came of one Step.
type Action struct {
	Step Step
	Host netip.Addr
	Text string // the command as run, the line written, the native ban in words
	// Skipped: nothing has changed for the host. The line was there already,
	// there is no template for this family, or the native ban is a dry run.
	Skipped bool
	Err     error         // nil: it worked, exit status 0
	Took    time.Duration // for commands
}

// Order asks for the owner's steps about one host, in order. Everything in it
// is a number or an address: no text of a packet's reaches a command line.
type Order struct {
	Steps    []Step // at most four, of the helper's kinds (not StepNative)
	Host     netip.Addr
	Port     uint16
	Proto    uint8
	Kind     uint8 // detect.Kind
	Flags    uint16
	Count    uint32
	Evidence uint8 // judge.Evidence
}

// Runner carries out Orders away from the packet path. Submit never blocks: it
// reports false when the bounded queue is full and done will not be called.
// Otherwise done is called once, from another goroutine, with one Action a Step.
// Busy reports that an Order submitted now would wait for others: then what
// hangs on it must not wait for it.
type Runner interface {
	Submit(o Order, done func([]Action)) bool
	Busy() bool
}

// Outcome is what a Verdict led to.
type Outcome struct {
	Blocked bool // something stands between the host and us: a ban, or a step that succeeded
	Already bool // and it did so before this sighting
	// Deferred: the sighting waited for the owner's steps and is not recorded
	// yet. Set only in what the later callback of Answer gets.
	Deferred bool
	// Newly: of a later callback. The steps that have ended are what blocks the
	// host; nothing did before.
	Newly   bool
	Actions []Action
}

// Settle corrects an Outcome after Commit: a native ban that every method
// refused blocks nobody, and nor does one that is a dry run.
func (o *Outcome) Settle() {
	if o.Already || len(o.Actions) == 0 || o.Actions[0].Step != StepNative {
		return
	}
	o.Blocked = false
	for _, a := range o.Actions {
		o.Blocked = o.Blocked || a.Err == nil && !a.Skipped
	}
}

// String is the step by the key that configures it.
func (s Step) String() string {
	return [...]string{
		StepNative: "native", StepRoute: "KILL_ROUTE", StepHostsDeny: "KILL_HOSTS_DENY", StepCommand: "KILL_RUN_CMD",
		StepNativeUndo: "native undo", StepRouteUndo: "KILL_ROUTE_UNDO", StepHostsDenyUndo: "KILL_HOSTS_DENY undo",
		StepCommandUndo: "KILL_RUN_CMD_UNDO",
	}[s]
}
