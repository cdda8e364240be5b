package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

// Rules are what the program goes by. The zero value drops whom a ban keeps out,
// and neither bans nor tells.
type Rules struct {
	Sense       bool          // tell of probes that pass
	Scans       bool          // with Sense: tell of what begins something where nobody is, trap or not
	TCP, UDP    Protos        // a hit bans: the protocols that are dropped; 0: it does not
	LimitedOnly bool          // BLOCK_EVIDENCE="verified"
	TrapServed  bool          // a trap is a trap even where somebody is
	Elsewhere   bool          // destination NAT and the like: who is there cannot be seen from XDP
	VLANs       bool          // a device of this host takes tagged frames: likewise for them
	Nftables    bool          // it keeps the banned out as well: what cannot be judged may pass
	OwnTraps    bool          // sockets marked as trap sockets are traps (host.TrapMark)
	Verify      bool          // challenge
	Provisional time.Duration // length of the program's own bans; 0: 10 s
	// EphemeralFirst and EphemeralLast are ip_local_port_range, both included.
	EphemeralFirst, EphemeralLast uint16
}

// Bits of the C side, xdp_maps.h.
const (
	flagLimitedOnly = 1 << iota
	flagTrapServed
	flagElsewhere
	flagNftables
	flagOwnTraps
	flagSense
	flagVerify
	flagVLANs
	flagScans
)

// SetRules replaces what the program goes by, from the next packet on.
func (s *Sensor) SetRules(r Rules) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = r
	c := &s.config
	c.Flags = 0
	for flag, on := range map[uint32]bool{
		flagLimitedOnly: r.LimitedOnly, flagTrapServed: r.TrapServed, flagElsewhere: r.Elsewhere, flagNftables: r.Nftables,
		flagOwnTraps: r.OwnTraps, flagSense: r.Sense, flagVerify: r.Verify, flagVLANs: r.VLANs,
		flagScans: r.Sense && r.Scans,
	} {
		if on {
			c.Flags |= flag
		}
	}
	c.ArmedTcp, c.ArmedUdp = uint8(r.TCP), uint8(r.UDP)
	c.EphemeralFirst, c.EphemeralLast = r.EphemeralFirst, r.EphemeralLast
	if c.Provisional = uint64(r.Provisional); r.Provisional <= 0 {
		c.Provisional = uint64(defaultProvisional)
	}
	return s.configure()
}

// Ports is a set of ports, a bit each.
type Ports = [1024]uint64

// SetTraps replaces the trap ports.
func (s *Sensor) SetTraps(tcp, udp *Ports) error {
	err := s.objects.Traps.Put(uint32(TCP), tcp)
	if err = errors.Join(err, s.objects.Traps.Put(uint32(UDP), udp)); err != nil {
		return fmt.Errorf("trap ports of the XDP program: %w", err)
	}
	return nil
}

// SetOwn replaces the addresses of this host.
func (s *Sensor) SetOwn(addrs []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := replaceKeys(s.own, addrs, func(a netip.Addr, add bool) error {
		key := a.As16()
		if add {
			return s.objects.Own.Put(key, uint32(1))
		}
		return s.objects.Own.Delete(key)
	})
	if err != nil {
		return fmt.Errorf("own addresses of the XDP program: %w", err)
	}
	return nil
}

// SetSpare replaces the list of those who are never acted on.
func (s *Sensor) SetSpare(prefixes []netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := replaceKeys(s.spare, prefixes, func(p netip.Prefix, add bool) error {
		key := spareKey(p)
		if add {
			return s.objects.Spare.Put(&key, uint32(1))
		}
		return s.objects.Spare.Delete(&key)
	})
	if err != nil {
		return fmt.Errorf("whom the XDP program spares: %w", err)
	}
	return nil
}

// replaceKeys makes have the set of want, adding before it takes out.
func replaceKeys[K comparable](have map[K]struct{}, want []K, change func(k K, add bool) error) error {
	keep := make(map[K]struct{}, len(want))
	for _, k := range want {
		keep[k] = struct{}{}
		if _, there := have[k]; there {
			continue
		}
		if err := change(k, true); err != nil {
			return err
		}
		have[k] = struct{}{}
	}
	for k := range have {
		if _, wanted := keep[k]; wanted {
			continue
		}
		if err := change(k, false); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		delete(have, k)
	}
	return nil
}

func spareKey(p netip.Prefix) xdpSpareKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return xdpSpareKey{Bits: uint32(bits), Addr: p.Addr().As16()}
}
