package full

// services are those that a source has failed at, as Memory.Ports keeps them: of each a
// print, which is a keyed hash of protocol and port. The uppermost 4 bits say how many
// there are; the other 60 hold them, with as many bits of each as there is room for: 15 of
// up to four, 12 of five, 6 of ten.
//
// Four is what a scan of five ports needs. The kth of n ports is taken for one of those
// before it with a chance of (k-1)/2^15, so one of five is with 3 in 10,000 (a bit of 64 for
// each would make it 15 in 100). From eleven on they are bits of 60, by the six bits
// that the ten had left, and no worse than bits of 64 would be: who is so weak that
// ten failures decide nothing is rather forgiven than called a scanner for what he
// failed at before.
type services uint64

const (
	listed   = 10 // services that have a print of their own
	printLen = 15
	room     = 60
	asBits   = 15 // in place of the number: they are bits
)

func (s services) n() int { return int(s >> room) }

// width is how many bits n prints have each.
func width(n int) int { return min(printLen, room/max(1, n)) }

// has reports whether p, a print, is among them.
func (s services) has(p uint16) bool {
	n := s.n()
	if n == asBits {
		return s>>bitOf(p>>(printLen-width(listed)))&1 == 1
	}
	w := width(n)
	for i := range n {
		if s.at(i, w) == p>>(printLen-w) {
			return true
		}
	}
	return false
}

func (s *services) add(p uint16) {
	if s.has(p) {
		return
	}
	n := s.n()
	switch {
	case n == asBits:
		*s |= 1 << bitOf(p>>(printLen-width(listed)))
		return
	case n >= listed:
		out := services(asBits)<<room | 1<<bitOf(p>>(printLen-width(listed)))
		for i := range listed {
			out |= 1 << bitOf(s.at(i, width(listed)))
		}
		*s = out
		return
	}
	w, now := width(n), width(n+1)
	out := services(n+1)<<room | services(p>>(printLen-now))<<(n*now)
	for i := range n {
		out |= services(s.at(i, w)>>(w-now)) << (i * now)
	}
	*s = out
}

// at is the ith print, of which w bits are kept.
func (s services) at(i, w int) uint16 { return uint16(s>>(i*w)) & (1<<w - 1) }

// bitOf is where the six bits that are left of a print are, among so many bits.
func bitOf(p uint16) int { return int(p) % room }
