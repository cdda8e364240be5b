package memory

import (
	"math"
	"time"
)

// forgotten: nobody is remembered who was not seen for as many days as
// detect.Memory.Days has bits.
const forgotten = 32 * 24 * time.Hour

// fade is what is left of a score after a gap: min(1, 2^(1-gap/half)).
func fade(gap, half time.Duration) float64 {
	if gap <= half {
		return 1
	}
	return math.Exp2(1 - float64(gap)/float64(half))
}

// Horizon is the largest gap between any two of a number of failures, each worth step,
// with which they still add up to the threshold. As scores fade by f(g) = min(1,
// 2^(1-g/halfLife)), failures n in number make
//
//	S = step (1 + f + ... + f^(n-1)) = step (1-f^n)/(1-f)
//
// S grows with f, so there is one f* in (0, 1] where S is the threshold, and the gap is
//
//	g = halfLife (1 + log2(1/f*))
//
// but below 32 days, after which a source is forgotten. It is 0 where even without
// fading they are too few, step*n < threshold. It is exact but for the grain of what is kept:
// a minute, and 1/1024 of a score at each failure. Not counted in is who is pushed out,
// and a port that looks like another one in detect.Memory.Ports.
func Horizon(failures int, step, threshold float64, halfLife time.Duration) time.Duration {
	if failures < 1 || step*float64(failures) < threshold {
		return 0
	}
	sum := func(f float64) float64 {
		s := 0.0
		for range failures {
			s = s*f + step
			if s >= threshold {
				break
			}
		}
		return s
	}
	lo, hi := 0.0, 1.0 // sum(hi) >= threshold always
	for range 64 {
		if mid := (lo + hi) / 2; sum(mid) >= threshold {
			hi = mid
		} else {
			lo = mid
		}
	}
	gap := float64(halfLife) * (1 - math.Log2(hi))
	return time.Duration(min(gap, float64(forgotten-time.Minute)))
}
