// Package xdp bans in the XDP program, below the network stack: bans go into its
// table, each with an end that the program itself keeps to; out come the bans of
// an earlier run, and how much each has dropped.
//
// Besides confirmed bans the program has provisional ones, which it begins by
// itself with the first packet to a trap port. Nobody can take those out. What
// user space says of a source comes before them, so lifting a ban is to put a
// pardon in its place, until whatever the program has begun has ended.
package xdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// pardonTime is how long a pardon lasts: as long as the longest provisional ban.
const pardonTime = 10 * time.Second

// maxPardons bounds how many provisional bans are taken back within pardonTime.
// Whoever forges sources that may not be banned must not fill the table.
const maxPardons = 4096

// sweepEvery is how often what has ended is taken out of the table.
const sweepEvery = time.Minute

// sweepRest is how soon that is worth while again where there was no room: it takes
// a look at every entry, and a flood asks for each of many bans.
const sweepRest = 500 * time.Millisecond

// ErrPardons means that a provisional ban is left to end by itself.
var ErrPardons = errors.New("too many provisional bans to take back at once")

// Stats counts. It only grows.
type Stats struct {
	SweepsFailed uint64 // times that what has ended could not be taken out: it only costs memory
}

// Method bans in the program of a Sensor. Its methods may be called from any
// goroutine.
type Method struct {
	sensor       *bpf.Sensor
	filled       chan struct{} // there is something to sweep, some day
	full         chan struct{}
	sweepsFailed atomic.Uint64

	mu      sync.Mutex // whoever looks and then changes
	pardons int        // since counted
	counted time.Time
	swept   time.Time // for want of room
}

// New bans in the program of s, which the caller attaches and closes.
func New(s *bpf.Sensor) *Method {
	return &Method{sensor: s, filled: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// Name is the method's name in BLOCK_METHOD.
func (m *Method) Name() string { return string(config.MethodXDP) }

// Takes is for respond.Method. There is no full ban of one protocol, and of a range
// other than an IPv6 /64 none but full and soft ones of all.
func (m *Method) Takes(b *respond.Ban) bool {
	if b.Strength == judge.Nothing || b.Prefix.Addr().Is4In6() || b.Prefix.Bits() <= 0 {
		return false
	}
	if bpf.IsNet(b.Prefix) {
		return b.Strength >= judge.Soft && b.Scope == judge.AllProtocols
	}
	return b.Strength != judge.Full || b.Scope == judge.AllProtocols
}

// Enforces is for respond.Method: on the interfaces that the program runs on.
func (m *Method) Enforces() bool { return true }

// Spares is for respond.Sparer: the program looks first whom to spare.
func (m *Method) Spares() bool { return true }

// Ends is for respond.Method: the program looks at the end of each ban.
func (m *Method) Ends() bool { return true }

// Stats is a snapshot of the counters.
func (m *Method) Stats() Stats { return Stats{SweepsFailed: m.sweepsFailed.Load()} }

// atOnce bounds what one call of the kernel is given, and so the memory that takes.
const atOnce = 1 << 14

// BanAll is for respond.Method. A ban that has ended already is a pardon. Of more than
// 16,384 bans those before a failed piece of so many stay in force.
func (m *Method) BanAll(ctx context.Context, bans []respond.Ban) error {
	for some := range slices.Chunk(bans, atOnce) {
		if err := m.banAll(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (m *Method) banAll(ctx context.Context, bans []respond.Ban) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	entries := make([]bpf.Ban, len(bans))
	for i := range bans {
		b := &bans[i]
		switch {
		case !m.Takes(b):
			return fmt.Errorf("xdp: no %v ban of %v for protocols %v", b.Strength, b.Prefix, b.Scope)
		case !b.Until.IsZero() && !b.Until.After(now):
			entries[i] = pardon(b.Prefix, now)
		default:
			entries[i] = entry(b)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put(entries)
}

// Unban is for respond.Method. It lifts provisional bans, too.
func (m *Method) Unban(ctx context.Context, b respond.Ban) error {
	return m.UnbanAll(ctx, []respond.Ban{b})
}

// UnbanAll is for respond.Lifter.
func (m *Method) UnbanAll(ctx context.Context, bans []respond.Ban) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	pardons := make([]bpf.Ban, len(bans))
	for i := range bans {
		pardons[i] = pardon(bans[i].Prefix, now)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put(pardons)
}

// Revoke takes back what the program began against addr. A confirmed ban of addr
// stays. With ErrPardons the provisional one ends by itself.
func (m *Method) Revoke(ctx context.Context, addr netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	addr = addr.Unmap().WithZone("")
	p := netip.PrefixFrom(addr, addr.BitLen())
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	b, there, err := m.sensor.Ban(p)
	if err != nil || there && stands(&b, now) {
		return err
	}
	if now.Sub(m.counted) > pardonTime {
		m.counted, m.pardons = now, 0
	}
	if m.pardons++; m.pardons > maxPardons {
		return ErrPardons
	}
	return m.put([]bpf.Ban{pardon(p, now)})
}

// put makes room first where there is none: what has ended is in the way until
// somebody sweeps.
func (m *Method) put(entries []bpf.Ban) error {
	err := m.sensor.PutBans(entries)
	if errors.Is(err, bpf.ErrBansFull) && time.Since(m.swept) > sweepRest {
		m.swept = time.Now()
		if _, failed := m.sensor.Sweep(); failed == nil {
			err = m.sensor.PutBans(entries)
		}
	}
	told := m.filled
	if err != nil {
		told = m.full
	}
	select {
	case told <- struct{}{}:
	default: // it is known
	}
	return err
}

// Full has a signal after a change that found no room, or failed otherwise.
func (m *Method) Full() <-chan struct{} { return m.full }

// Existing gives the bans that are in force. They may come from an earlier run;
// Reason alone is not kept. If ctx ends the answer is a part. A ban that changes
// meanwhile may be missing.
func (m *Method) Existing(ctx context.Context) ([]respond.Ban, error) {
	var bans []respond.Ban
	now := time.Now()
	err := m.sensor.EachBan(func(b *bpf.Ban) bool {
		if stands(b, now) && b.Strength != bpf.Pardon && b.Strength <= bpf.Full {
			bans = append(bans, ban(b))
		}
		return ctx.Err() == nil
	})
	return bans, errors.Join(err, ctx.Err())
}

// Holds is for respond.Checker.
func (m *Method) Holds(ctx context.Context, bans []respond.Ban) (missing []int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries := make([]bpf.Ban, len(bans))
	for i := range bans {
		entries[i].Prefix, entries[i].Strength = bans[i].Prefix, bpf.Strength(bans[i].Strength)
	}
	return m.sensor.Missing(entries)
}

// Counts is for respond.Counter. A range counts what no narrower ban of a range has.
func (m *Method) Counts(p netip.Prefix) (dropped uint64, alive, ok bool) {
	b, there, err := m.sensor.Ban(p)
	if err != nil || !there || b.Strength == bpf.Pardon {
		return 0, false, false
	}
	return b.Dropped, b.Alive, true
}

// EachCount is for respond.Counter.
func (m *Method) EachCount(tell func(p netip.Prefix, dropped uint64, alive bool)) error {
	return m.sensor.EachBan(func(b *bpf.Ban) bool {
		if b.Strength != bpf.Pardon {
			tell(b.Prefix, b.Dropped, b.Alive)
		}
		return true
	})
}

// Run takes what has ended out of the table, until ctx ends. While nothing is in
// it, it sleeps.
func (m *Method) Run(ctx context.Context) error {
	for {
		for m.sweep() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(sweepEvery):
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.filled:
		}
	}
}

// sweep reports whether there is something left to sweep, some day.
func (m *Method) sweep() bool {
	left, err := m.sensor.Sweep()
	if err != nil {
		m.sweepsFailed.Add(1)
	}
	return left > 0 || err != nil
}
