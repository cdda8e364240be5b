package crowd

import "time"

// pairs remembers what areas tried, and who of them did so first: 32 bits of a hash of
// area, address and port, 16 of the source, and 16 of when.
type pairs struct {
	buckets [][8]uint64
	shift   uint
}

func (t *pairs) init(n int) { t.buckets, t.shift = buckets[[8]uint64](n / 2) }

// pairTime is the unit of an age in pairs.
const pairTime = int64(4 * time.Minute)

type tried uint8

const (
	unseen tried = iota // nobody of the area had
	same                // the same source had
	others              // somebody else had
)

// note keeps that source tried what h stands for, and says who had before. The oldest
// goes where there is no room.
func (t *pairs) note(h, source uint64, now int64) tried {
	b := &t.buckets[h>>t.shift]
	when := uint64(now/pairTime) & 0xffff
	old, oldest := 0, uint64(0)
	for i, e := range b {
		if e != 0 && uint32(e>>32) == uint32(h) {
			b[i] = e&^0xffff | when
			if e>>16&0xffff == source&0xffff {
				return same
			}
			return others
		}
		if age := (when - e) & 0xffff; e == 0 {
			old, oldest = i, 1<<16
		} else if age > oldest {
			old, oldest = i, age
		}
	}
	b[old] = h<<32 | source&0xffff<<16 | when
	return unseen
}
