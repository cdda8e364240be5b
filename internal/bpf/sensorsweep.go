package bpf

import (
	"errors"
	"net/netip"
	"time"
)

// Sweep takes out what has ended, and says how many entries are left. Nothing
// depends on it but memory.
func (s *Sensor) Sweep() (left int, err error) {
	var gone []netip.Prefix
	now := time.Now()
	err = s.EachBan(func(b *Ban) bool {
		if !b.Until.IsZero() && b.Until.Before(now) {
			gone = append(gone, b.Prefix)
		} else {
			left++
		}
		return true
	})
	for _, p := range gone {
		err = errors.Join(err, s.sweepOne(p))
	}
	return left, err
}

// sweepOne takes a ban out that has ended, unless it has been renewed since.
func (s *Sensor) sweepOne(p netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if IsNet(p) {
		return s.sweepNets()
	}
	b, there, err := s.Ban(p)
	if err != nil || !there || b.Until.IsZero() || b.Until.After(time.Now()) {
		return err
	}
	return s.DeleteBan(p)
}
