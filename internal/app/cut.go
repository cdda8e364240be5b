package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/host"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

const (
	// cutQueue is how many bans may wait for their connections to be cut.
	cutQueue = 4096
	// cutEvery is the pause between two looks at all connections: a look at 262,144
	// of them takes a second of one CPU.
	cutEvery = 2 * time.Second
)

// cutter takes what a fully banned source has open out of connection tracking, so that
// it goes on by no way around the ban: not by an address that is translated, nor by a
// path that a table of flows has taken over. The kernel keeps out its packets before.
type cutter struct {
	queue chan netip.Prefix
	host  *host.Cutter
	said  func(problem string)

	cut  atomic.Uint64 // entries
	lost atomic.Uint64 // bans for which there was no room
}

// openCutter returns nil where no connections are tracked.
func openCutter(said func(string)) (*cutter, error) {
	h, err := host.NewCutter()
	if errors.Is(err, host.ErrNoConntrack) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("connections of banned sources: %w", err)
	}
	return &cutter{queue: make(chan netip.Prefix, cutQueue), host: h, said: said}, nil
}

// began takes in a ban that is in force. A weaker one ends no connection.
func (c *cutter) began(b *respond.Ban) {
	if c == nil || b.Strength != judge.Full {
		return
	}
	select {
	case c.queue <- b.Prefix:
	default:
		c.lost.Add(1)
	}
}

// run cuts until ctx ends: of all that were banned meanwhile in one look.
func (c *cutter) run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-c.queue:
			whom := newTargets(p, c.queue)
			n, err := c.host.Cut(whom.family, whom.has)
			c.cut.Add(uint64(n))
			problem := ""
			if err != nil {
				problem = fmt.Sprintf("connections of banned sources go on in connection tracking, though their packets are dropped: %v", err)
			}
			c.said(problem)
		}
		pause.Reset(cutEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

func (c *cutter) close() error {
	if c == nil {
		return nil
	}
	return c.host.Close()
}

// targets are those whose connections are cut.
type targets struct {
	family  uint8 // AF_UNSPEC: both
	single  map[netip.Addr]struct{}
	network map[netip.Prefix]struct{}
	lengths []int // that occur in network
}

// newTargets takes first and what else waits.
func newTargets(first netip.Prefix, rest <-chan netip.Prefix) *targets {
	t := &targets{single: make(map[netip.Addr]struct{}), network: make(map[netip.Prefix]struct{})}
	var v4, v6 bool
	var seen [129]bool
	for p, more := first, true; more; {
		v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
		if p.IsSingleIP() {
			t.single[p.Addr()] = struct{}{}
		} else {
			t.network[p] = struct{}{}
			if !seen[p.Bits()] {
				seen[p.Bits()] = true
				t.lengths = append(t.lengths, p.Bits())
			}
		}
		select {
		case p = <-rest:
		default:
			more = false
		}
	}
	switch {
	case !v6:
		t.family = unix.AF_INET
	case !v4:
		t.family = unix.AF_INET6
	}
	return t
}

func (t *targets) has(a netip.Addr) bool {
	if _, ok := t.single[a]; ok {
		return true
	}
	for _, n := range t.lengths {
		if p, err := a.Prefix(n); err == nil {
			if _, ok := t.network[p]; ok {
				return true
			}
		}
	}
	return false
}
