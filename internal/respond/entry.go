package respond

import (
	"net/netip"
	"slices"
	"time"
	"unique"

	"portsentry/internal/judge"
)

// entry is one prefix in the book. There may be a million: what few of them have is
// in more, and what many have in common is kept once.
type entry struct {
	prefix   netip.Prefix
	until    time.Time // zero: until undone by hand
	expire   time.Time // when the book has to do something about it; zero: never
	since    int64     // unix nanoseconds; 0: not known
	decided  int64     // time of the packet that led to it, likewise; later ones run into the ban
	words    unique.Handle[words]
	holders  *holders // those that hold the native ban, until its end
	staging  *staging // between Answer and Commit, else nil
	*more             // see own
	next     *entry   // in the table
	index    int32    // in the heap; -1: not there
	times    int32
	scope    judge.Scope
	strength judge.Strength
	evidence judge.Evidence

	booked   bool // in the table
	unproved bool // counted among those that anybody can have made
	listed   bool // the ledger has been told that it began
	inFlight bool // an Order for this prefix is with the runner
	foreign  bool // a line that was in hosts.deny before us keeps the host out; it is not ours to undo
}

// words are what a ban says of itself. Many say the same.
type words struct {
	reason, kind, by string
	port             uint16
	proto            uint8
}

// holders are native methods, in the order in which they are asked. There is one of
// each combination.
type holders struct {
	methods []*method
	names   []string
	entries int // of the book, that these hold
}

// staging is what is kept while the ban of an entry is what is to come.
type staging struct {
	times  int       // staged so often
	taking []*method // asked last
	held   Ban       // what the entry's methods hold meanwhile
}

// more is what few entries have and there are many of those: they begin with an empty
// one in common.
type more struct {
	common  bool
	host    netip.Addr    // that steps were run for, where it is not the first of the prefix
	length  time.Duration // as the verdict gave it that steps were run for
	leaving []*method     // hold the ban although they must not: their Unban failed and is tried again
	tries   int           // how often in a row
	done    []Step        // owner's steps that succeeded and have not been undone
	failed  []Step        // owner's steps to be tried again with the next hit
	order   Order         // as the steps were run
	end     End           // a person's, while steps were still running
	// unreported holds the actions of a ban that the kernel's own report brought
	// about, for the sighting of the same packet that is still to come.
	unreported []Action
}

// own is e.more for changes.
func (e *entry) own() *more {
	if e.common {
		e.more = new(more)
	}
	return e.more
}

// ban is the ban of e as everybody else sees it.
func (e *entry) ban() Ban {
	w := e.words.Value()
	b := Ban{
		Prefix: e.prefix, Scope: e.scope, Strength: e.strength, Evidence: e.evidence,
		Until: e.until, Times: int(e.times), Reason: w.reason, Port: w.port, Proto: w.proto, Kind: w.kind, By: w.by,
	}
	if e.since != 0 {
		b.Since = time.Unix(0, e.since)
	}
	return b
}

// set makes b, which has the same prefix, the ban of e.
func (e *entry) set(b *Ban) {
	e.scope, e.strength, e.evidence = b.Scope, b.Strength, b.Evidence
	e.until, e.times, e.since = b.Until, int32(min(b.Times, 1<<30)), 0
	if !b.Since.IsZero() {
		e.since = b.Since.UnixNano()
	}
	e.words = unique.Make(words{b.Reason, b.Kind, b.By, b.Port, b.Proto})
}

// hostAddr is who was seen, or stands for who is banned.
func (e *entry) hostAddr() netip.Addr {
	if e.host.IsValid() {
		return e.host
	}
	return e.prefix.Addr()
}

// setHost keeps who was seen.
func (e *entry) setHost(a netip.Addr) {
	if a.IsValid() && a != e.hostAddr() {
		e.own().host = a
	}
}

// ordered reports whether a person asked for the ban.
func (e *entry) ordered() bool { return e.words.Value().by != "" }

// native reports whether a native ban stands, enforced or not.
func (e *entry) native(now time.Time) bool {
	return (len(e.holders.methods) > 0 || e.staging != nil) && (e.until.IsZero() || now.Before(e.until))
}

// covers reports whether a native ban stands that is at least what is asked for.
// Where the source is proved, one as hard without proof is not: it is shorter. A
// person needs no proof.
func (e *entry) covers(strength judge.Strength, evidence judge.Evidence, scope judge.Scope, now time.Time) bool {
	if !e.native(now) || e.strength < strength || e.scope != judge.AllProtocols && e.scope != scope {
		return false
	}
	return e.strength > strength || evidence < judge.E2 || e.evidence >= evidence || e.ordered()
}

// stands reports whether something other than a native ban keeps the host out.
func (e *entry) stands() bool { return len(e.done) > 0 || e.foreign }

// idle reports whether nothing of e is left that anybody has to act on.
func (e *entry) idle(now time.Time) bool {
	return !e.native(now) && !e.stands() && !e.inFlight && len(e.failed)+len(e.leaving) == 0
}

// enforced reports whether a method that holds the native ban of e keeps the host
// out: a dry run does not.
func (b *book) enforced(e *entry) bool {
	b.asked = e.ban() // kept here, for an answer a packet is not to allocate
	keeps := func(m *method) bool { return m.enforces(&b.asked) }
	return slices.ContainsFunc(e.holders.methods, keeps) || e.staging != nil && slices.ContainsFunc(e.staging.taking, keeps)
}

// blocks reports whether anything keeps the host of e out now.
func (b *book) blocks(e *entry, now time.Time) bool {
	return e.native(now) && b.enforced(e) || e.stands() || len(e.leaving) > 0
}

// hold makes methods those that hold the native ban of e.
func (b *book) hold(e *entry, methods []*method) {
	e.holders.entries--
	e.holders = b.holding(methods)
	e.holders.entries++
}

// heldWithout counts the bans that a method of this name holds, and none of the other
// name.
func (b *book) heldWithout(name, other string) (n int) {
	for _, h := range b.combinations {
		if slices.Contains(h.names, name) && !slices.Contains(h.names, other) {
			n += h.entries
		}
	}
	return n
}

// holding gives the one combination of these methods.
func (b *book) holding(methods []*method) *holders {
	if len(methods) == 0 {
		return b.nobody
	}
	for _, h := range b.combinations {
		if slices.Equal(h.methods, methods) {
			return h
		}
	}
	h := &holders{methods: slices.Clip(slices.Clone(methods))}
	for _, m := range methods {
		h.names = append(h.names, m.Name())
	}
	h.names = slices.Clip(h.names)
	b.combinations = append(b.combinations, h)
	return h
}
