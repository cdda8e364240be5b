package bpf

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Strength is how hard the program keeps a source out.
type Strength uint8

// Strengths, in the order of judge.Strength. A Pardon says that nothing is to
// be done, whatever the program itself has begun.
const (
	Pardon Strength = iota
	Limited
	Soft
	Full
)

// Protos are the protocols that a soft ban is about.
type Protos uint8

// Protocols.
const (
	BanTCP Protos = 1 << iota
	BanUDP
	BanOther
	BanAll = BanTCP | BanUDP | BanOther
)

// Ban is an entry of the program's table of bans. It ends by itself.
type Ban struct {
	Prefix   netip.Prefix // an address, an IPv6 /64, or any other range (IsNet)
	Until    time.Time    // zero: never
	Strength Strength
	Protos   Protos
	// What the program does not look at is kept for the next run.
	Since          time.Time
	Evidence, Kind uint8
	Port           uint16
	Proto          uint8
	Times          uint32
	// The program writes these.
	Dropped uint64 // packets
	Alive   bool   // it has answered a challenge with a RST
}

// Bits of Ban.Marks on the C side.
const (
	markChallenged = 1 << iota
	markAlive
)

func banKey(p netip.Prefix) (xdpBanKey, error) {
	a := p.Addr()
	switch {
	case a.Is4() && p.Bits() == 32, a.Is6() && !a.Is4In6() && p.Bits() == 128:
		return xdpBanKey{Addr: xdpAddr{B: a.As16()}, Bits: 128}, nil
	case a.Is6() && !a.Is4In6() && p.Bits() == 64:
		return xdpBanKey{Addr: xdpAddr{B: p.Masked().Addr().As16()}, Bits: 64}, nil
	}
	return xdpBanKey{}, fmt.Errorf("xdp: cannot ban %v: only addresses and IPv6 /64s", p)
}

func (k *xdpBanKey) prefix() netip.Prefix {
	a := netip.AddrFrom16(k.Addr.B)
	if k.Bits == 128 {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.PrefixFrom(a, int(k.Bits))
}

// ErrBansFull means that there is no room for more bans.
var ErrBansFull = errors.New("as many bans as there is room for")

// PutBans puts bans in force, or replaces them: all or none, and of two of one
// prefix the later. What the program has counted of a ban that is replaced, its own
// included, goes on, but for packets of this very moment. A pardon of a range, or a
// ban of one that has ended, takes out the ban that there is.
func (s *Sensor) PutBans(bans []Ban) error {
	if len(bans) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := monotonic(), time.Now()
	if !slices.ContainsFunc(bans, func(b Ban) bool { return IsNet(b.Prefix) }) {
		return s.putAddrs(bans, now, wall)
	}
	var ranges, addrs []Ban
	for _, b := range bans {
		if IsNet(b.Prefix) {
			ranges = append(ranges, b)
		} else {
			addrs = append(addrs, b)
		}
	}
	before := maps.Clone(s.nets)
	next, err := s.nets.with(ranges, now, wall)
	if err != nil {
		return err
	}
	if err = s.putNets(next, ranges); err == nil {
		err = s.putAddrs(addrs, now, wall)
	}
	if err != nil {
		err = errors.Join(err, s.putNets(before, nil))
	}
	return err
}

// putAddrs is PutBans for addresses and IPv6 /64s.
func (s *Sensor) putAddrs(bans []Ban, now uint64, wall time.Time) error {
	if len(bans) == 0 {
		return nil
	}
	fresh := s.config.Bans&bannedAddrs == 0
	if err := s.lookAt(bannedAddrs, true); err != nil {
		return err
	}
	keys, values := make([]xdpBanKey, len(bans)), make([]xdpBan, len(bans))
	var until uint64
	hits := s.objects.HitsUntil.Get(&until) == nil && until > now
	var before []replaced
	var old xdpBan
	for i := range bans {
		b := &bans[i]
		key, err := banKey(b.Prefix)
		if err != nil {
			return err
		}
		v := b.value(now, wall)
		keys[i] = key
		if !fresh && s.objects.Bans.Lookup(&keys[i], &old) == nil {
			before = append(before, replaced{i, old})
			v.Marks |= old.Marks
			if old.Until > now && old.Strength != uint8(Pardon) {
				v.Dropped += old.Dropped
			}
		} else if hits && key.Bits == 128 {
			dropped, marks := s.hit(key.Addr.B)
			v.Dropped += dropped
			v.Marks |= marks
		}
		values[i] = v
	}
	n, err := s.put(keys, values)
	if err != nil {
		err = errors.Join(banError(err), s.takeBack(keys[:n], before))
	}
	return err
}

// put is one system call where there are many. It says how many are in force by
// now, at most.
func (s *Sensor) put(keys []xdpBanKey, values []xdpBan) (int, error) {
	if len(keys) > 1 {
		n, err := s.objects.Bans.BatchUpdate(keys, values, nil)
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return n, err
		}
	}
	for i := range keys {
		if err := s.objects.Bans.Put(&keys[i], &values[i]); err != nil {
			return i, err
		}
	}
	return len(keys), nil
}

// replaced is a ban that the one at that place was put over.
type replaced struct {
	at  int
	ban xdpBan
}

// takeBack undoes what put did. None of it needs room.
func (s *Sensor) takeBack(keys []xdpBanKey, before []replaced) error {
	var errs []error
	for i := range keys {
		var err error
		if len(before) > 0 && before[0].at == i {
			err = s.objects.Bans.Put(&keys[i], &before[0].ban)
			before = before[1:]
		} else if err = s.objects.Bans.Delete(&keys[i]); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
		errs = append(errs, banError(err))
	}
	return errors.Join(errs...)
}

func banError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.E2BIG):
		err = ErrBansFull
	}
	return fmt.Errorf("xdp: table of bans: %w", err)
}

// DeleteBan ends a ban; a missing one is no error.
func (s *Sensor) DeleteBan(p netip.Prefix) error {
	if IsNet(p) {
		return s.PutBans([]Ban{{Prefix: p, Strength: Pardon}})
	}
	key, err := banKey(p)
	if err != nil {
		return err
	}
	if err := s.objects.Bans.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return banError(err)
	}
	return nil
}

// Ban looks one up.
func (s *Sensor) Ban(p netip.Prefix) (b Ban, there bool, err error) {
	if IsNet(p) {
		return s.net(p)
	}
	key, err := banKey(p)
	if err != nil {
		return b, false, err
	}
	var v xdpBan
	switch err := s.objects.Bans.Lookup(&key, &v); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return b, false, nil
	case err != nil:
		return b, false, banError(err)
	}
	return v.ban(key.prefix(), monotonic(), time.Now()), true, nil
}

// EachBan calls fn for every entry, pardons and what has ended included, until
// it returns false. Entries that come and go meanwhile may be missed.
func (s *Sensor) EachBan(fn func(b *Ban) bool) error {
	now, wall := monotonic(), time.Now()
	var (
		cursor ebpf.MapBatchCursor
		keys   [1024]xdpBanKey
		values [1024]xdpBan
	)
	for {
		n, err := s.objects.Bans.BatchLookup(&cursor, keys[:], values[:], nil)
		for i := range n {
			b := values[i].ban(keys[i].prefix(), now, wall)
			if !fn(&b) {
				return nil
			}
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return s.eachNet(fn)
		case err != nil:
			return banError(err)
		}
	}
}

func (v *xdpBan) ban(p netip.Prefix, now uint64, wall time.Time) Ban {
	b := Ban{
		Prefix: p, Strength: Strength(v.Strength), Protos: Protos(v.Protos),
		Evidence: v.Evidence, Kind: v.Kind, Port: v.Port, Proto: v.Proto, Times: v.Times,
		Dropped: v.Dropped, Alive: v.Marks&markAlive != 0,
	}
	if v.Since != 0 {
		b.Since = time.Unix(0, int64(v.Since))
	}
	if v.Until != math.MaxUint64 {
		b.Until = wall.Add(time.Duration(int64(v.Until - now)))
	}
	return b
}

// bans is what is carried over by hand.
type bans []Ban

func (b bans) into(s *Sensor) error { return s.PutBans(b) }
