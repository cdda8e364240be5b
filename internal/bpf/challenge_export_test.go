package bpf

// EndPause lets the challenge go on.
func (s *Sensor) EndPause() error { return s.objects.PausedUntil.Set(uint64(0)) }

// AgeKeys makes as if the last rotation of keys were long ago.
func (s *Sensor) AgeKeys() { s.rotated = 1 }

// CookieKeys are the keys of the cookies, and which of them is used.
func (s *Sensor) CookieKeys() ([2][2]uint64, uint8) { return s.config.Keys, s.config.Key }

// Helpers of the tests outside the package.
var (
	Monotonic  = monotonic
	CookieLife = uint64(cookieLife)
)
