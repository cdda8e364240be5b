package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// MaxNets is how many ranges can be banned at once.
const MaxNets = 4096

// nets are the bans of ranges as the program's table is to have them. Dropped and
// Marks of their Ban are not kept here.
type nets map[netip.Prefix]xdpNetBan

// IsNet reports whether a ban of p is one of a range: of anything but an address or an
// IPv6 /64.
func IsNet(p netip.Prefix) bool {
	return !p.IsSingleIP() && !(p.Addr().Is6() && p.Bits() == 64)
}

// netKey is p in the table of ranges.
func netKey(p netip.Prefix) (xdpSpareKey, error) {
	if !p.IsValid() || p.Bits() == 0 || p.Addr().Is4In6() {
		return xdpSpareKey{}, fmt.Errorf("xdp: cannot ban %v", p)
	}
	return spareKey(p.Masked()), nil
}

// netOf is the reverse of netKey.
func netOf(key *xdpSpareKey) netip.Prefix {
	a, bits := netip.AddrFrom16(key.Addr), int(key.Bits)
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	return netip.PrefixFrom(a, bits)
}

// ended reports whether the ban has.
func (v *xdpNetBan) ended(now uint64) bool { return v.Ban.Until <= now }

// until says how long the ban itself keeps somebody out: fully, and at least softly.
func (v *xdpNetBan) until() (full, soft uint64) {
	if Strength(v.Ban.Strength) == Full {
		return v.Ban.Until, v.Ban.Until
	}
	return 0, v.Ban.Until
}

// cover has each ban know of those it lies in. Any two lie one in the other or apart.
func (n nets) cover() {
	prefixes := slices.SortedFunc(maps.Keys(n), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var within []netip.Prefix // widest first
	for _, p := range prefixes {
		for len(within) > 0 && !within[len(within)-1].Contains(p.Addr()) {
			within = within[:len(within)-1]
		}
		v := n[p]
		v.Full, v.Soft = v.until()
		if len(within) > 0 {
			outer := n[within[len(within)-1]]
			v.Full, v.Soft = max(v.Full, outer.Full), max(v.Soft, outer.Soft)
		}
		n[p] = v
		within = append(within, p)
	}
}

// with is n with the bans of ranges, without what has ended.
func (n nets) with(bans []Ban, now uint64, wall time.Time) (nets, error) {
	next := make(nets, len(n)+len(bans))
	maps.Copy(next, n)
	maps.DeleteFunc(next, func(_ netip.Prefix, v xdpNetBan) bool { return v.ended(now) })
	for i := range bans {
		b := &bans[i]
		p := b.Prefix.Masked()
		key, err := netKey(p)
		if err != nil {
			return nil, err
		}
		v := xdpNetBan{Bits: key.Bits, Ban: b.value(now, wall)}
		if v.ended(now) || b.Strength == Pardon {
			delete(next, p)
			continue
		}
		if b.Strength != Full && (b.Strength != Soft || b.Protos != BanAll) {
			return nil, fmt.Errorf("xdp: a range is banned fully, or softly for all protocols: %v", p)
		}
		if next[p] = v; len(next) > MaxNets {
			return nil, banError(fmt.Errorf("%w of ranges (%d)", ErrBansFull, MaxNets))
		}
	}
	next.cover()
	return next, nil
}

// putNets makes the table of ranges what next says. What is new or different comes
// before what is not wanted any more goes. again are written whether they are thought to
// be there or not.
func (s *Sensor) putNets(next nets, again []Ban) error {
	force := make(map[netip.Prefix]bool, len(again))
	for i := range again {
		force[again[i].Prefix.Masked()] = true
	}
	for p, v := range next {
		if old, there := s.nets[p]; there && old == v && !force[p] {
			continue
		}
		key := spareKey(p)
		var counted xdpNetBan
		kept := v
		if s.objects.Nets.Lookup(&key, &counted) == nil && counted.Bits == v.Bits {
			kept.Ban.Dropped += counted.Ban.Dropped
			kept.Ban.Marks |= counted.Ban.Marks
		}
		if err := s.objects.Nets.Put(&key, &kept); err != nil {
			return banError(err)
		}
		v.Ban.Dropped, v.Ban.Marks = 0, 0
		s.nets[p] = v
	}
	for p := range s.nets {
		if _, wanted := next[p]; wanted {
			continue
		}
		key := spareKey(p)
		if err := s.objects.Nets.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return banError(err)
		}
		delete(s.nets, p)
	}
	return s.lookAt(bannedNets, len(s.nets) > 0)
}

// sweepNets takes out what has ended.
func (s *Sensor) sweepNets() error {
	next, err := s.nets.with(nil, monotonic(), time.Now())
	if err != nil || len(next) == len(s.nets) {
		return err
	}
	return s.putNets(next, nil)
}

// Bits of config.bans on the C side: which tables are not empty.
const (
	bannedAddrs = 1 << iota
	bannedNets
)

// lookAt has the program look at a table of bans, or no longer.
func (s *Sensor) lookAt(table uint32, is bool) error {
	bans := s.config.Bans &^ table
	if is {
		bans |= table
	}
	if bans == s.config.Bans {
		return nil
	}
	s.config.Bans = bans
	return s.configure()
}

// readNets reads the ranges that an earlier run has left in the table.
func readNets(m *ebpf.Map) (nets, error) {
	out := make(nets)
	var key xdpSpareKey
	var value xdpNetBan
	each := m.Iterate()
	for each.Next(&key, &value) {
		if value.Ban.Dropped, value.Ban.Marks = 0, 0; value.Bits == key.Bits {
			out[netOf(&key)] = value
		}
	}
	return out, each.Err()
}

// net looks one up. The answer may be about a wider range, where it is not there.
func (s *Sensor) net(p netip.Prefix) (b Ban, there bool, err error) {
	key, err := netKey(p)
	if err != nil {
		return b, false, err
	}
	var v xdpNetBan
	switch err := s.objects.Nets.Lookup(&key, &v); {
	case errors.Is(err, ebpf.ErrKeyNotExist), err == nil && v.Bits != key.Bits:
		return b, false, nil
	case err != nil:
		return b, false, banError(err)
	}
	return v.Ban.ban(p.Masked(), monotonic(), time.Now()), true, nil
}

// eachNet is EachBan for ranges.
func (s *Sensor) eachNet(fn func(b *Ban) bool) error {
	s.mu.Lock()
	prefixes := slices.Collect(maps.Keys(s.nets))
	s.mu.Unlock()
	for _, p := range prefixes {
		b, there, err := s.net(p)
		if err != nil {
			return err
		}
		if there && !fn(&b) {
			return nil
		}
	}
	return nil
}

// netsHold reports whether a ban of a table of ranges has not ended.
func netsHold(m *ebpf.Map) bool {
	left, err := readNets(m)
	now := monotonic()
	maps.DeleteFunc(left, func(_ netip.Prefix, v xdpNetBan) bool { return v.ended(now) })
	return err == nil && len(left) > 0
}

// value is b as the program has it, without what it counts.
func (b *Ban) value(now uint64, wall time.Time) xdpBan {
	v := xdpBan{
		Until: math.MaxUint64, Strength: uint8(b.Strength), Protos: uint8(b.Protos),
		Evidence: b.Evidence, Kind: b.Kind, Port: b.Port, Proto: b.Proto, Times: b.Times, Dropped: b.Dropped,
	}
	if !b.Since.IsZero() {
		v.Since = uint64(b.Since.UnixNano())
	}
	if !b.Until.IsZero() {
		v.Until = now + uint64(max(0, b.Until.Sub(wall)))
	}
	if b.Alive {
		v.Marks = markAlive | markChallenged
	}
	return v
}
