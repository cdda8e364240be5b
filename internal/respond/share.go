package respond

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Methods drop what comes by different ways, so each is to hold every ban that it takes.
// It may have refused one, or been opened later than one was made, or the kernel may have
// kept one of an earlier run for another method alone.

// sharedAtOnce is how many bans a method is given while nobody else gets a turn.
const sharedAtOnce = 256

// maxRefused is how many bans a method may refuse, each alone, before it is left in peace
// until the next time: a route may be refused for what it is, or all of them.
const maxRefused = 8

// maxRest bounds how long a method rests that took nothing.
const maxRest = time.Minute

// Share gives the methods the bans that they take and do not hold, and says how many each
// got, by name. One that takes nothing is asked again after a rest. A network in which
// somebody is to be spared goes to none that would keep him out.
func (r *Responder) Share(ctx context.Context, spared func(netip.Prefix) bool) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	if r.unshared {
		r.unshared = false
		r.each(r.missed)
	}
	given := make(map[string]int)
	for _, m := range r.methods {
		if len(r.book.lacking[m]) == 0 || time.Now().Before(m.rests) {
			continue
		}
		if n := r.share(ctx, m, spared); n > 0 {
			given[m.Name()] = n
		}
	}
	return given
}

// HeldWithout counts the bans that the method of a name holds, and that of another does
// not.
func (r *Responder) HeldWithout(name, other string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.book.heldWithout(name, other)
}

// missed notes which methods lack the ban of e.
func (r *Responder) missed(e *entry) {
	for _, m := range r.methods {
		if !r.lacks(m, e) {
			continue
		}
		if r.book.lacking[m] == nil {
			r.book.lacking[m] = make(map[*entry]struct{})
		}
		r.book.lacking[m][e] = struct{}{}
	}
}

// lacks reports whether m is to hold the ban of e and does not. What nothing enforces, as
// in a dry run, is not to be enforced by sharing; what has no end is the owner's own.
func (r *Responder) lacks(m *method, e *entry) bool {
	if slices.Contains(e.holders.methods, m) || len(e.holders.methods) == 0 || e.until.IsZero() ||
		slices.Contains(e.leaving, m) || !slices.Contains(r.methods, m) || !r.book.enforced(e) {
		return false
	}
	return m.enforces(&r.book.asked)
}

// share gives m what it lacks, and says how many it took.
func (r *Responder) share(ctx context.Context, m *method, spared func(netip.Prefix) bool) (n int) {
	lacking := r.book.lacking[m]
	var some []*entry
	looked, refused := 0, 0
	give := func() {
		took, not := m.take(ctx, some)
		for _, e := range took {
			r.book.hold(e, r.inOrder(e.holders.methods, m))
			delete(lacking, e)
		}
		n, refused, some = n+len(took), refused+not, some[:0]
	}
	for e := range lacking { // in an order that is another each time
		if refused >= maxRefused || ctx.Err() != nil {
			break
		}
		switch {
		case !r.lacks(m, e):
			delete(lacking, e)
		case e.staging != nil, !e.native(time.Now().Add(soon)):
		case !e.prefix.IsSingleIP() && !m.spares() && spared(e.prefix):
		default:
			some = append(some, e)
		}
		if looked++; looked%turn == 0 || len(some) == sharedAtOnce {
			give()
			r.yield()
		}
	}
	give()
	if len(lacking) == 0 {
		delete(r.book.lacking, m) // there may have been a million
	}
	if n > 0 || refused == 0 {
		m.refused = 0
		return n
	}
	m.refused++
	m.rests = time.Now().Add(min(pause(m.refused), maxRest))
	return n
}

// take puts the bans of some into force, each alone where m refuses all together, and
// gives those that it took. It ends when maxRefused have been refused.
func (m *method) take(ctx context.Context, some []*entry) (took []*entry, refused int) {
	if len(some) == 0 {
		return nil, 0
	}
	bans := make([]Ban, len(some))
	for i, e := range some {
		bans[i] = e.ban()
	}
	if m.BanAll(ctx, bans) == nil {
		return some, 0
	}
	for i := range bans {
		if m.BanAll(ctx, bans[i:i+1]) == nil {
			took = append(took, some[i])
		} else if refused++; refused == maxRefused {
			break
		}
	}
	return took, refused
}

// inOrder gives the methods of before and m, in the order in which they are asked.
func (r *Responder) inOrder(before []*method, m *method) []*method {
	all := union(before, []*method{m})
	in := slices.DeleteFunc(slices.Clone(r.methods), func(m *method) bool { return !slices.Contains(all, m) })
	return union(in, all)
}
