package decode

import "math/bits"

// unitSet is a set of the 8192 8-octet units that the longest datagram has.
type unitSet [8192 / 64]uint64

// wordMask has the bits of [lo, hi) that lie in word w.
func wordMask(w, lo, hi int) uint64 {
	m := ^uint64(0)
	if w == lo/64 {
		m <<= lo % 64
	}
	if w == (hi-1)/64 {
		m &= ^uint64(0) >> (63 - (hi-1)%64)
	}
	return m
}

// add puts units [lo, hi) in; lo < hi.
func (s *unitSet) add(lo, hi int) {
	for w := lo / 64; w <= (hi-1)/64; w++ {
		s[w] |= wordMask(w, lo, hi)
	}
}

// count is how many of units [lo, hi) are in; lo <= hi.
func (s *unitSet) count(lo, hi int) (n int) {
	if lo == hi {
		return 0
	}
	for w := lo / 64; w <= (hi-1)/64; w++ {
		n += bits.OnesCount64(s[w] & wordMask(w, lo, hi))
	}
	return n
}
