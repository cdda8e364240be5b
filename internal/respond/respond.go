// Package respond carries out Verdicts: it keeps the book of bans, asks each
// Method to enforce them, runs the administrator's commands, ends bans and
// undoes what was begun. Verdict in, Outcome out.
package respond

import (
	"context"
	"net/netip"
	"time"

	"portsentry/internal/judge"
)

// Ban is one ban that is in force or was.
type Ban struct {
	Prefix   netip.Prefix
	Scope    judge.Scope
	Strength judge.Strength
	Evidence judge.Evidence
	Since    time.Time
	Until    time.Time // zero: until undone by hand (a command without an undo)
	Times    int       // how often this prefix has been banned, this time included
	Reason   string
	Port     uint16
	Proto    uint8
	Kind     string // detect.Kind in words
	By       string // who asked for it, such as "uid 1000"; "": the daemon
}

// Ending is how a ban ended.
type Ending uint8

// Endings. The store keeps their numbers: new ones come at the end.
const (
	Expired  Ending = iota // its time had come
	Lifted                 // somebody lifted it
	Spared                 // its owner turned out to be somebody who is never acted on
	Unproved               // what it was founded on proved wrong: whoever was seen is connected
	Undone                 // it was not confirmed in time
)

// String is the ending in one word.
func (e Ending) String() string {
	return [...]string{"expired", "lifted", "spared", "unproved", "undone"}[e]
}

// End is how a ban ended, and who saw to it: "" for the daemon.
type End struct {
	Ending Ending
	By     string
}

// Method enforces bans natively (nft, xdp, route, ipset, dryrun). Calls come
// from one goroutine at a time. BanAll puts all of them in force or none; on an
// existing ban it replaces it (length, strength, scope). Unban of a missing ban
// is no error.
type Method interface {
	// Name is the word of BLOCK_METHOD. Two methods of one name keep their bans
	// in the same place: the later takes over what the earlier holds.
	Name() string
	// Takes reports whether the method can enforce b without doing more than b
	// permits. BanAll gets no other bans. It is asked again while b stands: what
	// it could not take now, it does not enforce now.
	Takes(b *Ban) bool
	// Enforces: what still arrives from the banned comes to nothing, so it is
	// counted and not itemised. Only a dry run does not.
	Enforces() bool
	// Ends: a ban ends by itself when its time has come, even if this process is
	// dead. Otherwise Unban is called then.
	Ends() bool
	BanAll(ctx context.Context, bans []Ban) error
	Unban(ctx context.Context, b Ban) error
}

// Lifter is a Method that takes many bans out with less work than one by one. With an error
// some may be out: each is asked for by Unban then.
type Lifter interface {
	UnbanAll(ctx context.Context, bans []Ban) error
}

// Stopper is a Method that stops something else than what b.Strength says. It
// tells what, as in "nftables for 10m0s (new connections; unverified)".
type Stopper interface{ Stops(b *Ban) string }

// Counter is a Method that counts what each ban has dropped. Counts may be called
// at any time. Alive: the address has answered a challenge of ours with a RST, so
// somebody has it. ok is false for what the method does not hold.
type Counter interface {
	Counts(p netip.Prefix) (dropped uint64, alive, ok bool)
	// EachCount tells of every ban that the method holds: to ask for each of many
	// takes many times as long.
	EachCount(tell func(p netip.Prefix, dropped uint64, alive bool)) error
}

// Checker is a Method that can be asked whether it still holds bans: somebody else
// may have taken them out of the kernel. Holds looks each of them up, one by one, and
// gives the places in bans of those that are not there. With an error nothing is known.
type Checker interface {
	Holds(ctx context.Context, bans []Ban) (missing []int, err error)
}

// Sparer is a Method that lets in whom it has been told to spare, whatever it holds: of
// a network that a person banned, too. Any other keeps out all of a network or nobody.
type Sparer interface{ Spares() bool }

// method is a Method as the Responder keeps it. Entries of the book point to it,
// so it lasts as long as the last of them: in use, or retired.
type method struct {
	Method
	again time.Time // after it refused a ban: not before

	refused int       // how often in a row it took nothing of what it was to share
	rests   time.Time // so it is not given anything to share before
}

// enforces reports whether the method keeps the owner of b out now.
func (m *method) enforces(b *Ban) bool { return m.Enforces() && m.Takes(b) }

func (m *method) spares() bool { return Spares(m.Method) }

// Spares reports whether m keeps nobody out who is to be spared.
func Spares(m Method) bool {
	s, ok := m.(Sparer)
	return ok && s.Spares() || !m.Enforces()
}
