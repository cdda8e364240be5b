package bpf

import (
	"fmt"
	"time"
)

// cookieLife is how long the number of a challenge can be good for: two slots of
// 2^33 ns (SLOT_SHIFT in xdp_challenge.h).
const cookieLife = 2 << 33 * time.Nanosecond

// RotateKeys makes challenges with a fresh key from now on. Numbers made with the
// one before stay good as long as any, which is 17 s at most; so that they do, a
// call within that time of the last one does nothing.
func (s *Sensor) RotateKeys() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := monotonic()
	if s.rotated != 0 && now-s.rotated < uint64(cookieLife) {
		return nil
	}
	next := s.config.Key ^ 1
	s.config.Keys[next] = [2]uint64{random(), random()}
	if err := s.configure(); err != nil { // before it is used
		return err
	}
	s.config.Key, s.rotated = next, now
	return s.configure()
}

// VerifyPaused is until when nobody is challenged because too many ACKs brought
// numbers that are not ours; the zero time when that is not so.
func (s *Sensor) VerifyPaused() (until time.Time, err error) {
	var end uint64
	if err := s.objects.PausedUntil.Get(&end); err != nil {
		return until, fmt.Errorf("pause of the challenge: %w", err)
	}
	if left := time.Duration(end - monotonic()); end != 0 && left > 0 {
		until = time.Now().Add(left)
	}
	return until, nil
}
