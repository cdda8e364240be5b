package nft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"go4.org/netipx"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// maxRanges bounds how many ranges are banned at once: each change makes their sets
// anew.
const maxRanges = 4096

// ErrManyRanges means that as many ranges are banned as can be.
var ErrManyRanges = errors.New("as many ranges are banned as there is room for (4,096); ban wider ones")

// ranges are the bans of networks other than IPv6 /64s, as they were asked for.
type ranges map[netip.Prefix]rangeBan

type rangeBan struct {
	strength judge.Strength // Full or Soft
	until    time.Time      // zero: until undone
}

func (b rangeBan) stands(now time.Time) bool { return b.until.IsZero() || b.until.After(now) }

// isRange reports whether a ban of p belongs in an interval set.
func isRange(p netip.Prefix) bool {
	return !p.IsSingleIP() && !(p.Addr().Is6() && p.Bits() == 64)
}

// rangeError says why there is no ban like b of a range.
func rangeError(b *respond.Ban) error {
	p := b.Prefix
	switch {
	case !p.IsValid() || p.Bits() == 0 || p.Addr().Is4In6():
		return fmt.Errorf("nftables: cannot ban %v", p)
	case b.Scope != judge.AllProtocols || b.Strength != judge.Full && b.Strength != judge.Soft:
		return fmt.Errorf("nftables: no %v ban of the range %v for protocols %v", b.Strength, p, b.Scope)
	}
	return nil
}

// with gives the bans that are not of ranges, and r with those that are, without what
// has ended: r itself stays as it is.
func (r ranges) with(bans []respond.Ban, now time.Time) (single []respond.Ban, next ranges, err error) {
	first := slices.IndexFunc(bans, func(b respond.Ban) bool { return isRange(b.Prefix) })
	if first < 0 {
		return bans, r, nil
	}
	single = slices.Clone(bans[:first])
	next = maps.Clone(r)
	if next == nil {
		next = make(ranges)
	}
	maps.DeleteFunc(next, func(_ netip.Prefix, b rangeBan) bool { return !b.stands(now) })
	for i := range bans[first:] {
		b := &bans[first+i]
		if !isRange(b.Prefix) {
			single = append(single, *b)
			continue
		}
		p, own := b.Prefix.Masked(), rangeBan{b.Strength, b.Until}
		if !own.stands(now) {
			delete(next, p)
			continue
		}
		if err := rangeError(b); err != nil {
			return nil, nil, err
		}
		if next[p] = own; len(next) > maxRanges {
			return nil, nil, fmt.Errorf("nftables: %v: %w", p, ErrManyRanges)
		}
	}
	return single, next, nil
}

// bans gives r as Bans.
func (r ranges) bans(now time.Time) []respond.Ban {
	var out []respond.Ban
	for p, b := range r {
		if b.stands(now) {
			out = append(out, respond.Ban{Prefix: p, Strength: b.strength, Until: b.until})
		}
	}
	return out
}

func (t *Table) bansRange(p netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, there := t.ranges[p.Masked()]
	return there
}

// setRanges makes next the banned ranges. It makes the rules anew with their sets, for
// what is in an interval set is never changed: see layout.intervals.
func (t *Table) setRanges(next ranges) error {
	before := t.ranges
	t.ranges = next
	if err := t.become(t.opt, t.peers, wish{}); err != nil {
		t.ranges = before
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// segments are what the interval sets hold: pieces that do not overlap.
type segments map[*nftables.Set][]segment

// segment is a piece of a banned range that ends as one. Where several ranges have an
// address, it belongs to the one that ends last.
type segment struct {
	netipx.IPRange
	of    netip.Prefix
	until time.Time // zero: until undone
}

func (s segments) has(set *nftables.Set) bool { return len(s[set]) > 0 }

// segments divides the ranges that stand. Of those of one strength any two lie one in
// the other or apart: so, of a sorted list, those that have an address are a stack.
func (r ranges) segments(l *layout, now time.Time) segments {
	prefixes := slices.SortedFunc(maps.Keys(r), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	out := make(segments)
	for _, f := range []*family{&l.v4, &l.v6} {
		for set, strength := range map[*nftables.Set]judge.Strength{f.fullnet: judge.Full, f.softnet: judge.Soft} {
			var d divider
			for _, p := range prefixes {
				if b := r[p]; p.Addr().Is4() == (f == &l.v4) && b.strength == strength && b.stands(now) {
					d.enter(p, b.until)
				}
			}
			d.leave(netip.Addr{})
			if len(d.out) > 0 {
				out[set] = d.out
			}
		}
	}
	return out
}

// divider is on its way through ranges, in the order of addresses.
type divider struct {
	open []segment // the ranges it is in, widest first: whole, with the end that holds within
	at   netip.Addr
	out  []segment
}

// enter begins p, which ends at until.
func (d *divider) enter(p netip.Prefix, until time.Time) {
	s := segment{netipx.RangeOfPrefix(p), p, until}
	d.leave(s.From())
	if n := len(d.open); n > 0 {
		outer := d.open[n-1]
		d.emit(outer, s.From().Prev())
		if later(outer.until, until) {
			s.of, s.until = outer.of, outer.until
		}
	}
	d.open, d.at = append(d.open, s), s.From()
}

// leave ends the ranges that lie before to; the zero Addr: all of them.
func (d *divider) leave(to netip.Addr) {
	for n := len(d.open); n > 0; n = len(d.open) {
		s := d.open[n-1]
		if to.IsValid() && !s.To().Less(to) {
			return
		}
		d.open = d.open[:n-1]
		d.emit(s, s.To())
		d.at = s.To().Next()
	}
}

// emit gives out what lies between where it is and to, as part of s.
func (d *divider) emit(s segment, to netip.Addr) {
	if !d.at.IsValid() || to.Less(d.at) {
		return
	}
	if n := len(d.out); n > 0 && d.out[n-1].of == s.of && d.out[n-1].To().Next() == d.at {
		d.out[n-1].IPRange = netipx.IPRangeFrom(d.out[n-1].From(), to)
		return
	}
	d.out = append(d.out, segment{netipx.IPRangeFrom(d.at, to), s.of, s.until})
}

// later reports whether a ban until a is at least as long as one until b.
func later(a, b time.Time) bool { return a.IsZero() || !b.IsZero() && !a.Before(b) }

// netElements are segments as an interval set has them. The comment keeps whose they
// are for the next run.
func netElements(parts []segment) []nftables.SetElement {
	var out []nftables.SetElement
	for _, s := range parts {
		start := nftables.SetElement{Key: s.From().AsSlice(), Comment: s.of.String()}
		if !s.until.IsZero() {
			start.Timeout = max(time.Until(s.until), time.Millisecond)
		}
		end := s.To().Next() // none behind the last of all
		if !end.IsValid() {
			start.IntervalOpen = true
			out = append(out, start)
			continue
		}
		out = append(out, start, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return out
}

// readRanges reads the ranges that an earlier run has left in the table.
func (t *Table) readRanges() (ranges, error) {
	_, _, sets, err := t.find()
	if err != nil {
		return nil, err
	}
	out := make(ranges)
	for _, s := range sets {
		strength := netStrength(t.lay, s.Name)
		if strength == judge.Nothing {
			continue
		}
		err := dump(s.Name, 3*maxRanges, func(e element) {
			p, err := netip.ParsePrefix(e.comment)
			if err != nil || p != p.Masked() || !isRange(p) || len(out) >= maxRanges {
				return // the end of a segment, or somebody else's
			}
			b := rangeBan{strength, e.until()}
			if old, there := out[p]; there && (old.strength > b.strength || old.strength == b.strength && later(old.until, b.until)) {
				return
			}
			out[p] = b
		})
		if err != nil {
			return nil, fmt.Errorf("listing set %s: %w", s.Name, err)
		}
	}
	return out, nil
}

// netStrength says what a set of ranges with this name, of any number, is for.
func netStrength(l *layout, name string) judge.Strength {
	for i, n := range l.nets() {
		digits, ok := strings.CutPrefix(name, n.name+"_")
		if _, err := strconv.Atoi(digits); !ok || err != nil {
			continue
		}
		if i%2 == 0 {
			return judge.Full
		}
		return judge.Soft
	}
	return judge.Nothing
}
