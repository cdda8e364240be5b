package respond

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/judge"
)

// Limits of the book. Unverified bans are made on evidence that anybody can
// forge, so both their number and their rate are bounded; what is refused is
// counted, and the kernel's provisional ban still stands for its ten seconds.
const (
	MaxBans      = 1 << 16
	MaxPast      = 1 << 16
	bansPerSec   = 5000
	banBurst     = 10000
	pastRetained = 24 * time.Hour
)

// entry is one prefix in the book.
type entry struct {
	ban     Ban
	methods []*method // those that hold the native ban, until ban.Until
	staging *staging  // between Answer and Commit, else nil
	*more             // see own

	listed   bool // the ledger has been told that it began
	inFlight bool // an Order for this prefix is with the runner
	foreign  bool // a line that was in hosts.deny before us keeps the host out; it is not ours to undo

	// decided is the time of the packet that led to the ban, unix nanoseconds:
	// what comes later from this source runs into the ban and is only counted.
	decided int64
	// unreported holds the actions of a ban that the kernel's own report
	// brought about, for the sighting of the same packet that is still to come.
	unreported []Action

	length time.Duration // as the verdict gave it
	host   netip.Addr    // the address that the steps were run for
	expire time.Time     // when the book has to do something about it; zero: never
	index  int           // in the heap; -1: not there
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
	leaving []*method // hold the ban although they must not: their Unban failed and is tried again
	tries   int       // how often in a row
	done    []Step    // owner's steps that succeeded and have not been undone
	failed  []Step    // owner's steps to be tried again with the next hit
	order   Order     // as the steps were run
}

// own is e.more for changes.
func (e *entry) own() *more {
	if e.common {
		e.more = new(more)
	}
	return e.more
}

// book holds bans by prefix. It does no I/O and no locking.
type book struct {
	entries map[netip.Prefix]*entry
	nets64  map[netip.Prefix]int // single IPv6 addresses banned, by /64
	due     dueHeap
	past    map[netip.Prefix]past
	none    *more // in common

	tokens float64
	filled time.Time
}

type past struct {
	times int
	ended time.Time
}

func newBook() *book {
	return &book{
		entries: make(map[netip.Prefix]*entry),
		nets64:  make(map[netip.Prefix]int),
		past:    make(map[netip.Prefix]past),
		none:    &more{common: true},
		tokens:  banBurst,
	}
}

// find gives the entry of the address itself or of the /64 it lies in.
func (b *book) find(a netip.Addr) *entry {
	a = a.WithZone("")
	if e := b.entries[netip.PrefixFrom(a, a.BitLen())]; e != nil {
		return e
	}
	if a.Is6() {
		if net, err := a.Prefix(64); err == nil {
			return b.entries[net]
		}
	}
	return nil
}

// allow takes one token for a new ban.
func (b *book) allow(now time.Time) bool {
	if !b.filled.IsZero() {
		b.tokens = min(banBurst, b.tokens+now.Sub(b.filled).Seconds()*bansPerSec)
	}
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *book) add(e *entry) {
	p := e.ban.Prefix
	e.index = -1
	b.entries[p] = e
	if p.Addr().Is6() && p.IsSingleIP() {
		if net, err := p.Addr().Prefix(64); err == nil {
			b.nets64[net]++
		}
	}
	b.schedule(e)
}

// schedule puts e where its expire time belongs.
func (b *book) schedule(e *entry) {
	switch {
	case e.expire.IsZero() && e.index >= 0:
		heap.Remove(&b.due, e.index)
	case e.expire.IsZero():
	case e.index >= 0:
		heap.Fix(&b.due, e.index)
	default:
		heap.Push(&b.due, e)
	}
}

// again puts e where it is looked at again at t; zero: never.
func (b *book) again(e *entry, t time.Time) {
	e.expire = t
	b.schedule(e)
}

// remove takes e out and remembers that it was.
func (b *book) remove(e *entry, now time.Time) {
	p := e.ban.Prefix
	delete(b.entries, p)
	if e.index >= 0 {
		heap.Remove(&b.due, e.index)
	}
	if p.Addr().Is6() && p.IsSingleIP() {
		if net, err := p.Addr().Prefix(64); err == nil {
			if b.nets64[net]--; b.nets64[net] <= 0 {
				delete(b.nets64, net)
			}
		}
	}
	if len(b.past) >= MaxPast {
		for victim := range b.past { // any: iteration order is random
			delete(b.past, victim)
			break
		}
	}
	b.past[p] = past{times: e.ban.Times, ended: now}
}

// times is how often the address of a has been banned before.
func (b *book) times(p netip.Prefix, now time.Time) int {
	if e := b.entries[p]; e != nil {
		return e.ban.Times
	}
	old, ok := b.past[p]
	if !ok {
		return 0
	}
	if now.Sub(old.ended) > pastRetained {
		delete(b.past, p)
		return 0
	}
	return old.times
}

// native reports whether a native ban stands, enforced or not.
func (e *entry) native(now time.Time) bool {
	return (len(e.methods) > 0 || e.staging != nil) && (e.ban.Until.IsZero() || now.Before(e.ban.Until))
}

// covers reports whether a native ban stands that is at least what is asked for.
// Where the source is proved, one as hard without proof is not: it is shorter.
func (e *entry) covers(strength judge.Strength, evidence judge.Evidence, scope judge.Scope, now time.Time) bool {
	proved := evidence < judge.E2 || e.ban.Evidence >= evidence
	return e.native(now) && (e.ban.Strength > strength || e.ban.Strength == strength && proved) &&
		(e.ban.Scope == judge.AllProtocols || e.ban.Scope == scope)
}

// enforced reports whether a method that holds the native ban keeps the host out:
// a dry run does not.
func (e *entry) enforced() bool {
	keeps := func(m *method) bool { return m.enforces(&e.ban) }
	return slices.ContainsFunc(e.methods, keeps) || e.staging != nil && slices.ContainsFunc(e.staging.taking, keeps)
}

// stands reports whether something other than a native ban keeps the host out.
func (e *entry) stands() bool { return len(e.done) > 0 || e.foreign }

// blocks reports whether anything keeps the host out now.
func (e *entry) blocks(now time.Time) bool {
	return e.native(now) && e.enforced() || e.stands() || len(e.leaving) > 0
}

// idle reports whether nothing of e is left that anybody has to act on.
func (e *entry) idle(now time.Time) bool {
	return !e.native(now) && !e.stands() && !e.inFlight && len(e.failed)+len(e.leaving) == 0
}

// dueHeap orders entries by when the book has to act on them.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].expire.Before(h[j].expire) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }

// Push is for container/heap.
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
