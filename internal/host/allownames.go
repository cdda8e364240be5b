package host

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	allowEvery   = 5 * time.Minute // how often a name is asked that answers
	allowAgain   = 2 * time.Second // after a failure; doubled after each in a row
	allowLimit   = 5 * time.Second // of one look-up
	allowWorkers = 16
	// An address that a name has no longer is kept a while: what is behind it
	// changes over, and caches of others know it still.
	allowGone = time.Hour
	// Where nobody answers, what was known is kept for so long.
	allowStale = 7 * 24 * time.Hour
	// Strangers may make us ask out of turn, so that is not more often than this,
	// and less often the more names there are.
	allowPause   = time.Second
	allowPerName = 50 * time.Millisecond

	maxAllowed     = 512 // names: what two files may have
	maxAllowedAddr = 64  // addresses of one
)

// AllowedNamesOptions are what tests replace.
type AllowedNamesOptions struct {
	// Lookup gives the addresses of a name for network "ip4" or "ip6", before its
	// context ends. nil asks /etc/hosts and the resolvers of this machine.
	Lookup func(ctx context.Context, network, name string) ([]netip.Addr, error)
}

// AllowedNames knows the addresses of the names in the ignore file, asks for them
// again and again, and keeps the answers where nobody answers any more. Who
// controls a name controls who has it: what is decided by it is an exception, and
// no more than maxAllowedAddr addresses of hosts. All methods are safe for
// concurrent use.
type AllowedNames struct {
	lookup  func(ctx context.Context, network, name string) ([]netip.Addr, error)
	known   atomic.Pointer[map[netip.Addr]string]
	changed chan struct{}
	wake    chan struct{}

	mu       sync.Mutex
	names    map[string]*allowedName
	begun    time.Time // when all names were asked last
	asking   bool      // all names are being asked, or what they answered is being taken in
	answered bool      // the latter
	again    bool      // all are to be asked once more when the pause is over
	stats    AllowedStats
}

// NewAllowedNames gives an AllowedNames without names.
func NewAllowedNames(o AllowedNamesOptions) *AllowedNames {
	a := &AllowedNames{
		lookup: o.Lookup, names: make(map[string]*allowedName),
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
	if a.lookup == nil {
		r := &net.Resolver{PreferGo: true}
		a.lookup = func(ctx context.Context, network, name string) ([]netip.Addr, error) {
			return r.LookupNetIP(ctx, network, name+".") // as it stands, in no search domain
		}
	}
	a.known.Store(new(map[netip.Addr]string))
	return a
}

// Set says which names are wanted. What is known of those that stay is kept.
func (a *AllowedNames) Set(names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := make(map[string]*allowedName)
	fresh := false
	for _, n := range names {
		if wanted[n] != nil || len(wanted) == maxAllowed {
			continue
		}
		if wanted[n] = a.names[n]; wanted[n] == nil {
			wanted[n], fresh = &allowedName{until: make(map[netip.Addr]time.Time)}, true
		}
	}
	a.names = wanted
	a.publish()
	if fresh {
		a.begin(time.Now())
	}
}

// Addresses are those known now, each with its name. The map is not to be changed.
func (a *AllowedNames) Addresses() map[netip.Addr]string { return *a.known.Load() }

// Changed has a signal after each change of Addresses or Unresolved, and when all
// names have been asked; several may be one.
func (a *AllowedNames) Changed() <-chan struct{} { return a.changed }

// Ask has all names asked: somebody has come who may have a new address of one. It
// is done at once, or when they were asked a moment ago, after a pause of a second
// (with more than 20 names, 50 ms each). It reports whether answers are to be
// expected, which they are not where none was given last time.
func (a *AllowedNames) Ask() (awaited bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.names) == 0 {
		return false
	}
	if now := time.Now(); !a.asking && !now.Before(a.begun.Add(a.pause())) {
		a.begin(now)
	} else if !a.asking && !a.again {
		a.again = true
		touch(a.wake)
	}
	for _, n := range a.names {
		if n.failures == 0 {
			return true
		}
	}
	return false
}

// Taken says that Addresses has been taken in, and reports whether all names had
// been asked by then: until that Ask goes on to say that answers are awaited.
func (a *AllowedNames) Taken() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.answered {
		return false
	}
	a.asking, a.answered = false, false
	return true
}

// Stats returns the counters.
func (a *AllowedNames) Stats() AllowedStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

// pause is how long after all names were asked they may be so again. a.mu is held.
func (a *AllowedNames) pause() time.Duration {
	return max(allowPause, time.Duration(len(a.names))*allowPerName)
}

// begin has all names asked. a.mu is held.
func (a *AllowedNames) begin(now time.Time) {
	for _, n := range a.names {
		n.due = now
	}
	a.begun, a.asking, a.answered, a.again = now, true, false, false
	touch(a.wake)
}

// Run asks until ctx ends. Without names it sleeps.
func (a *AllowedNames) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-timer.C:
		}
		a.round(ctx)
		if wait, any := a.wait(time.Now()); any {
			timer.Reset(wait)
		}
	}
}

// wait is how long nothing is due.
func (a *AllowedNames) wait(now time.Time) (wait time.Duration, any bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var next time.Time
	if a.again {
		next = a.begun.Add(a.pause())
	}
	for _, n := range a.names {
		if next.IsZero() || n.due.Before(next) {
			next = n.due
		}
	}
	return max(0, next.Sub(now)), !next.IsZero()
}

// round asks the names that are due.
func (a *AllowedNames) round(ctx context.Context) {
	now := time.Now()
	a.mu.Lock()
	if a.again && !now.Before(a.begun.Add(a.pause())) {
		a.begin(now)
	}
	all := a.asking
	var due []string
	for _, name := range slices.Sorted(maps.Keys(a.names)) {
		if !a.names[name].due.After(now) {
			due = append(due, name)
		}
	}
	a.mu.Unlock()
	var workers sync.WaitGroup
	queue := make(chan string)
	for range min(allowWorkers, len(due)) {
		workers.Go(func() {
			for name := range queue {
				a.ask(ctx, name)
			}
		})
	}
	for _, name := range due {
		queue <- name
	}
	close(queue)
	workers.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	if all {
		a.answered = true
		touch(a.changed)
	}
}

// ask asks for the addresses of name, of both families.
func (a *AllowedNames) ask(ctx context.Context, name string) {
	limited, cancel := context.WithTimeout(ctx, allowLimit)
	defer cancel()
	var families [2]resolved
	var both sync.WaitGroup
	for i, network := range []string{"ip4", "ip6"} {
		both.Go(func() {
			f := &families[i]
			f.addrs, f.err = a.lookup(limited, network, name)
			var none *net.DNSError
			var strange *net.AddrError // no address of this family in the answer
			f.missing = errors.As(f.err, &none) && none.IsNotFound || errors.As(f.err, &strange)
		})
	}
	both.Wait()
	if ctx.Err() != nil {
		return // it is we who did not wait
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Asked++
	if n := a.names[name]; n != nil { // else it has been taken out meanwhile
		was := n.failures
		a.stats.LeftOut += n.take(&families, time.Now())
		if was > 1 != (n.failures > 1) {
			touch(a.changed) // for Unresolved
		}
		if n.failures > 0 {
			a.stats.Failed++
		}
		a.publish()
	}
}

// publish makes known what is known. a.mu is held.
func (a *AllowedNames) publish() {
	now := make(map[netip.Addr]string)
	for _, name := range slices.Sorted(maps.Keys(a.names)) {
		for addr := range a.names[name].until {
			if now[addr] == "" {
				now[addr] = name
			}
		}
	}
	if !maps.Equal(now, *a.known.Load()) {
		a.known.Store(&now)
		touch(a.changed)
	}
}

func touch(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
