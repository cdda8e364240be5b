package bpf

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
)

// Missing gives the places in bans of those that the program does not keep to: taken
// out of its tables, ended, or weaker there.
func (s *Sensor) Missing(bans []Ban) (missing []int, err error) {
	now := monotonic()
	var ( // out of the loop: each would be another allocation
		key    xdpBanKey
		netted xdpSpareKey
		v      xdpBan
		n      xdpNetBan
	)
	for i := range bans {
		p := bans[i].Prefix
		var err error
		if IsNet(p) {
			if netted, err = netKey(p); err == nil {
				err = s.objects.Nets.Lookup(&netted, &n)
			}
			if v = n.Ban; err == nil && n.Bits != netted.Bits { // a wider one
				err = ebpf.ErrKeyNotExist
			}
		} else {
			if key, err = banKey(p); err == nil {
				err = s.objects.Bans.Lookup(&key, &v)
			}
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist), err == nil && (v.Until <= now || v.Strength < uint8(bans[i].Strength)):
			missing = append(missing, i)
		case err != nil:
			return nil, banError(err)
		}
	}
	return missing, nil
}

// AttachAgain runs the program again where somebody has taken it off the interface by
// hand, and gives the numbers of those interfaces.
func (s *Sensor) AttachAgain() (again []int32, err error) {
	for ifindex, generic := range s.detached() {
		if _, gone := net.InterfaceByIndex(int(ifindex)); gone != nil {
			continue // with its interface: whoever follows those sees to it
		}
		if failed := s.Attach(ifindex, generic); failed != nil {
			err = errors.Join(err, fmt.Errorf("interface %d: %w", ifindex, failed))
			continue
		}
		again = append(again, ifindex)
	}
	return again, err
}

// detached are the interfaces that the program is not on any more; true: generic.
func (s *Sensor) detached() map[int32]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[int32]bool)
	for ifindex, a := range s.links {
		if !a.earlier && a.dead() {
			out[ifindex] = a.generic
		}
	}
	return out
}
