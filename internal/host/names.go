package host

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	maxNames    = 4096 // answers kept
	nameFound   = time.Hour
	nameMissing = 5 * time.Minute // no name, no answer, or no decent name
	nameLimit   = 2 * time.Second // from Ask to done
	nameWorkers = 16              // so that a few servers that are silent on purpose hold up nobody else
	maxAwaited  = 4096            // calls of done that are owed

	// Forged sources must not make this machine a burden on its resolvers, nor
	// show them to the world as one: so many questions a second, and at once.
	nameRate  = 50
	nameBurst = 200
	// A question is answered within nameLimit, so no more than this can wait.
	nameQueue = nameBurst + nameRate*int(nameLimit/time.Second)
)

// NamesOptions are what tests replace.
type NamesOptions struct {
	// Lookup gives the name of an address, as foreign as it comes, before its
	// context ends. nil asks /etc/hosts and the resolvers of this machine.
	Lookup func(context.Context, netip.Addr) (string, error)
}

// Names knows the names of addresses, for people to read (RESOLVE_HOST). Who
// asks never waits for an answer. All methods are safe for concurrent use.
//
// A name is what the owner of the address says, and a label beside the address:
// nothing is decided by it. Hence no look-up in the other direction: it would
// double the questions, under names that the scanner chooses, and a name that
// leads back to the address still says nothing of who sits there.
type Names struct {
	lookup func(context.Context, netip.Addr) (string, error)
	queue  chan *nameQuery

	mu      sync.Mutex
	known   map[netip.Addr]*list.Element // of *namedAddr
	recent  *list.List                   // the one used last in front
	pending map[netip.Addr]*nameQuery
	awaited int  // calls of done that are owed
	ended   bool // Run has returned
	tokens  float64
	filled  time.Time // when tokens was right
	stats   NamesStats
}

// NamesStats are counters of Names.
type NamesStats struct {
	Asked   uint64 // questions to the resolver
	Cached  uint64 // answers of Cached
	Failed  uint64 // questions without an answer in time, or with an error for one
	Unfit   uint64 // answers that are no host names, or could pass for an address
	Refused uint64 // calls of Ask for which there was no room
}

// namedAddr is an answer. No name is one, too.
type namedAddr struct {
	addr  netip.Addr
	name  string
	until time.Time
}

// nameQuery is an address that somebody waits for the name of.
type nameQuery struct {
	addr     netip.Addr
	deadline time.Time
	done     []func(string)
}

// NewNames gives a Names that knows none yet.
func NewNames(o NamesOptions) *Names {
	n := &Names{
		lookup:  o.Lookup,
		queue:   make(chan *nameQuery, nameQueue),
		known:   make(map[netip.Addr]*list.Element),
		recent:  list.New(),
		pending: make(map[netip.Addr]*nameQuery),
		tokens:  nameBurst,
		filled:  time.Now(),
	}
	if n.lookup == nil {
		n.lookup = lookupPTR(&net.Resolver{PreferGo: true})
	}
	return n
}

// lookupPTR gives the first name that r has for an address.
func lookupPTR(r *net.Resolver) func(context.Context, netip.Addr) (string, error) {
	return func(ctx context.Context, a netip.Addr) (string, error) {
		names, err := r.LookupAddr(ctx, a.String())
		if len(names) > 0 {
			return names[0], nil // an error is about the others
		}
		return "", err
	}
}

// Cached gives the name of a if it is known by now, "" if it is known to have
// none.
func (n *Names) Cached(a netip.Addr) (name string, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, known = n.recall(a)
	if known {
		n.stats.Cached++
	}
	return name, known
}

// recall looks a up among the answers. n.mu is held.
func (n *Names) recall(a netip.Addr) (name string, known bool) {
	e := n.known[a]
	if e == nil {
		return "", false
	}
	x := e.Value.(*namedAddr)
	if !time.Now().Before(x.until) {
		n.recent.Remove(e)
		delete(n.known, a)
		return "", false
	}
	n.recent.MoveToFront(e)
	return x.name, true
}

// Ask asks for the name of a. done is called once, by another goroutine, within
// two seconds while Run runs and at the latest when it ends; with "" when there
// is no name or no answer. It must not wait for anything. Several questions for
// one address are one. False says that there is no room, or that Run has ended:
// done will not be called.
func (n *Names) Ask(a netip.Addr, done func(name string)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended || n.awaited == maxAwaited {
		n.stats.Refused++
		return false
	}
	q := n.pending[a]
	if q == nil {
		now := time.Now()
		if _, known := n.recall(a); !known && !n.spend(now) {
			n.stats.Refused++
			return false
		}
		q = &nameQuery{addr: a, deadline: now.Add(nameLimit)}
		select {
		case n.queue <- q:
		default:
			n.stats.Refused++
			return false
		}
		n.pending[a] = q
	}
	q.done = append(q.done, done)
	n.awaited++
	return true
}

// spend takes one question off what may be asked. n.mu is held.
func (n *Names) spend(now time.Time) bool {
	n.tokens = min(nameBurst, n.tokens+nameRate*now.Sub(n.filled).Seconds())
	n.filled = now
	if n.tokens < 1 {
		return false
	}
	n.tokens--
	return true
}

// Run answers questions until ctx ends. What is open then has no name.
func (n *Names) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range nameWorkers {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case q := <-n.queue:
					n.answer(ctx, q)
				}
			}
		})
	}
	workers.Wait()
	n.mu.Lock()
	n.ended = true
	n.mu.Unlock()
	for {
		select {
		case q := <-n.queue:
			n.tell(q, "")
		default:
			return nil
		}
	}
}

// answer finds the name that q asks for.
func (n *Names) answer(ctx context.Context, q *nameQuery) {
	n.mu.Lock()
	name, known := n.recall(q.addr)
	// Those in front of it may have taken all the time there was.
	ask := !known && time.Now().Before(q.deadline)
	if ask {
		n.stats.Asked++
	} else if !known {
		n.stats.Failed++
	}
	n.mu.Unlock()
	if ask {
		name = n.resolve(ctx, q)
	}
	n.tell(q, name)
}

// resolve asks the resolver and keeps the answer. That there is none is kept as
// well: the next line about a source shall not wait for it again.
func (n *Names) resolve(ctx context.Context, q *nameQuery) string {
	ctx, cancel := context.WithDeadline(ctx, q.deadline)
	defer cancel()
	said, err := n.lookup(ctx, q.addr)
	name, keep := "", nameMissing
	var missing *net.DNSError

	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err == nil:
		if name = hostName(said); name != "" {
			keep = nameFound
		} else if said != "" {
			n.stats.Unfit++
		}
	case !errors.As(err, &missing) || !missing.IsNotFound:
		n.stats.Failed++
	}
	if n.recent.Len() == maxNames {
		oldest := n.recent.Back()
		delete(n.known, n.recent.Remove(oldest).(*namedAddr).addr)
	}
	n.known[q.addr] = n.recent.PushFront(&namedAddr{q.addr, name, time.Now().Add(keep)})
	return name
}

// tell tells everybody who waits for q.
func (n *Names) tell(q *nameQuery, name string) {
	n.mu.Lock()
	delete(n.pending, q.addr)
	n.awaited -= len(q.done)
	n.mu.Unlock()
	for _, done := range q.done {
		done(name)
	}
}

// Stats returns the counters.
func (n *Names) Stats() NamesStats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}
