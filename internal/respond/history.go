package respond

import (
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/judge"
)

// Bans is how often p has been banned before, on proof where that is asked for; for
// judge.History.
func (r *Responder) Bans(p netip.Prefix, proved bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.book.times(p, proved, time.Now()) - 1
}

// Neighbours is how many other addresses of the /64 of a, which is of IPv6, are
// banned; for judge.History.
func (r *Responder) Neighbours(a netip.Addr) int {
	a = a.WithZone("")
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int(r.book.inside[half(a)])
	if r.book.entries.of(netip.PrefixFrom(a, a.BitLen())) != nil {
		n--
	}
	return n
}

// Proved is how many /64s of the /56 of a, or /56s of its /48, are banned on proof,
// beside that of a; for judge.History.
func (r *Responder) Proved(a netip.Addr, bits int) int {
	net, err := a.Prefix(bits)
	own, wrong := a.Prefix(bits + 8)
	if err != nil || wrong != nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int(r.book.proved[net])
	if e := r.book.entries.of(own); e != nil && e.evidence >= judge.E2 {
		n--
	}
	return n
}

// Bannable reports whether what is made of bans of the /64 of a can be made of p,
// which is wider; for judge.History.
func (r *Responder) Bannable(a netip.Addr, p netip.Prefix) bool {
	net, err := a.Prefix(64)
	if err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	narrow, wide := Ban{Prefix: net, Strength: judge.Full}, Ban{Prefix: p, Strength: judge.Full}
	takes := func(m *method) bool { return m.enforces(&wide) }
	loses := func(m *method) bool { return m.enforces(&narrow) && !takes(m) }
	return slices.ContainsFunc(r.methods, takes) && !slices.ContainsFunc(r.methods, loses)
}

// Remember takes into the memory that b was a ban until ended. Whom a person forgave
// is not to be remembered.
func (r *Responder) Remember(b *Ban, ended time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(ended) <= r.book.past.keep {
		r.book.past.add(b.Prefix, int32(b.Times), b.Evidence >= judge.E2, ended, now)
	}
}
