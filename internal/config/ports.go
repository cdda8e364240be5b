package config

import (
	"slices"
	"strconv"
	"strings"
)

// PortRange is First to Last, both included, 1 to 65535.
type PortRange struct{ First, Last uint16 }

// PortSet is a set of ports as sorted, disjoint, non-adjacent ranges.
type PortSet []PortRange

// Has reports whether p is in the set. It is for start-up and messages; the
// packet path uses a Bitmap.
func (s PortSet) Has(p uint16) bool {
	for _, r := range s {
		if p < r.First {
			return false
		}
		if p <= r.Last {
			return true
		}
	}
	return false
}

// Count is the number of ports.
func (s PortSet) Count() int {
	n := 0
	for _, r := range s {
		n += int(r.Last) - int(r.First) + 1
	}
	return n
}

// String is the set as a configuration file would have it.
func (s PortSet) String() string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(r.First)))
		if r.Last != r.First {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(int(r.Last)))
		}
	}
	return b.String()
}

// merged is the set of s, which may be in any order and overlap.
func (s PortSet) merged() PortSet {
	slices.SortFunc(s, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var out PortSet
	for _, r := range s {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Less is s without the ports of t.
func (s PortSet) Less(t PortSet) PortSet {
	var out PortSet
	for _, r := range s {
		next := int(r.First)
		for _, x := range t {
			if int(x.Last) < next || x.First > r.Last {
				continue
			}
			if int(x.First) > next {
				out = append(out, PortRange{uint16(next), x.First - 1})
			}
			next = int(x.Last) + 1
		}
		if next <= int(r.Last) {
			out = append(out, PortRange{uint16(next), r.Last})
		}
	}
	return out
}

// Bitmap is a set of ports for the packet path: one load and one shift.
type Bitmap [1024]uint64

// Bitmap gives the set as a Bitmap.
func (s PortSet) Bitmap() *Bitmap {
	b := new(Bitmap)
	for _, r := range s {
		for p := int(r.First); p <= int(r.Last); p++ {
			b[p>>6] |= 1 << (p & 63)
		}
	}
	return b
}

// Has reports whether p is in the set.
func (b *Bitmap) Has(p uint16) bool { return b[p>>6]&(1<<(p&63)) != 0 }
