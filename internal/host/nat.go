package host

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	natRest  = 100 * time.Millisecond // a change of the ruleset seldom comes alone: wait for the rest
	natPoll  = 10 * time.Second       // how often to look at what announces no change
	natAgain = time.Second            // after a look at rules that found out nothing
	natShare = 20                     // looking takes one part in 20 of one CPU at most
	natTries = 4                      // dumps until one is not interrupted
)

// NAT watches whether packets addressed to this host may be handed to somebody
// else: by destination NAT, a transparent proxy or IPVS. Then a port without a
// socket may be served all the same, by a container for instance. It looks at
// rules of nftables, ours not counted, at the legacy tables of iptables, and at
// IPVS. It does not see what tc, eBPF programs or Open vSwitch do. When in doubt
// its answer is that there is some.
//
// Looking takes CAP_NET_ADMIN, and CAP_SYS_ADMIN too where Run is called in
// another network namespace than NewNAT was.
type NAT struct {
	home *home
	news *ruleNews
	poll time.Duration

	rules, other finding // by nftables; by what has to be polled
	state        atomic.Pointer[finding]
	changed      chan struct{}

	looks, failed atomic.Uint64
}

// finding is what a look has found.
type finding struct {
	why    string // "": nothing
	failed bool
}

func found(why string, err error) finding {
	if err != nil {
		return finding{"could not be found out: " + err.Error(), true}
	}
	return finding{why, false}
}

// NATStats are counters of NAT.
type NATStats struct {
	Looks  uint64 // at the rules of nftables
	Failed uint64 // looks, at whatever, that found out nothing
}

// NewNAT subscribes to changes and looks once. What cannot be looked at is no
// error but a State.
func NewNAT() (*NAT, error) {
	h, err := openHome()
	if err != nil {
		return nil, fmt.Errorf("NAT: %w", err)
	}
	n := &NAT{home: h, poll: natPoll, changed: make(chan struct{}, 1)}
	if n.news, err = subscribeRules(); err != nil {
		return nil, errors.Join(fmt.Errorf("NAT: %w", err), h.close())
	}
	n.lookAtRules()
	n.lookAtOthers()
	n.conclude()
	return n, nil
}

// Close frees the sockets. Run must have returned.
func (n *NAT) Close() error { return errors.Join(n.news.close(), n.home.close()) }

// State reports whether there is any, and why in words. It is safe for
// concurrent use.
func (n *NAT) State() (there bool, why string) {
	f := n.state.Load()
	return f.why != "", f.why
}

// Changed has a signal after each change of State; several may be one.
func (n *NAT) Changed() <-chan struct{} { return n.changed }

// Stats gives the counters. It is safe for concurrent use.
func (n *NAT) Stats() NATStats { return NATStats{n.looks.Load(), n.failed.Load()} }

// Run follows changes until ctx ends. A rule is noticed natRest after it came,
// legacy tables and IPVS within natPoll.
func (n *NAT) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, n.news.wake)
	defer stop()
	next := time.Now().Add(n.poll) // time to poll
	var rested time.Time           // when looking at rules again takes no more than its share
	for {
		late := next
		if again := time.Now().Add(natAgain); n.rules.failed && again.Before(next) {
			late = again
		}
		heard, err := n.news.wait(ctx, late)
		if err != nil {
			return fmt.Errorf("NAT: %w", err)
		}
		if heard || n.rules.failed {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(max(natRest, time.Until(rested))):
			}
			start := time.Now()
			n.lookAtRules()
			rested = time.Now().Add(natShare * time.Since(start))
		}
		if ctx.Err() != nil {
			return nil
		}
		if start := time.Now(); !start.Before(next) {
			n.lookAtOthers()
			next = start.Add(max(n.poll, natShare*time.Since(start)))
		}
		n.conclude()
	}
}

// conclude tells what was found, if it is something else than before.
func (n *NAT) conclude() {
	now := n.rules
	if now.why == "" || now.failed && n.other.why != "" {
		now = n.other
	}
	old := n.state.Swap(&now)
	if old == nil || old.why == now.why {
		return
	}
	select {
	case n.changed <- struct{}{}:
	default: // a signal is waiting already
	}
}

func (n *NAT) lookAtRules() {
	n.rules = n.look(n.searchRules)
}

func (n *NAT) lookAtOthers() {
	n.other = n.look(func() (string, error) {
		if why, err := virtualServices(); why != "" || err != nil {
			return why, err
		}
		return legacyTables()
	})
}

// look calls what in the namespace that is watched.
func (n *NAT) look(what func() (string, error)) finding {
	var why string
	err := n.home.inside(func() (err error) {
		why, err = what()
		return err
	})
	if err != nil {
		n.failed.Add(1)
	}
	return found(why, err)
}

// searchRules looks through the rules of nftables.
func (n *NAT) searchRules() (string, error) {
	n.news.drain()
	for range natTries {
		n.looks.Add(1)
		why, err := dumpRules()
		if why != "" || !errors.Is(err, errInterrupted) {
			return why, err
		}
		// Every transaction interrupts a dump, a ban by nftables too. It has
		// missed rules only if rules came or went.
		if !n.news.drain() {
			return "", nil
		}
	}
	return "", fmt.Errorf("rules of nftables: %w", errInterrupted)
}
