package memory

import (
	"math"
	"math/bits"
)

// registers of a distinct counter: its standard error is 1.04/sqrt(256) = 6.5 %, and
// less for small numbers, which linear counting answers (4 % of 100).
const registers = 256

// distinct counts different things by their hashes (HyperLogLog, Flajolet et al. 2007).
type distinct [registers]uint8

// add says which register h belongs to, and whether it grew.
func (d *distinct) add(h uint64) (i int, grew bool) {
	i = int(h >> 56)
	// The rank of the first set bit of the other 56.
	if r := uint8(bits.LeadingZeros64(h<<8|1<<7) + 1); r > d[i] {
		d[i] = r
		return i, true
	}
	return i, false
}

func (d *distinct) merge(o *distinct) {
	for i, r := range o {
		d[i] = max(d[i], r)
	}
}

func (d *distinct) count() float64 {
	const m = registers
	sum, empty := 0.0, 0
	for _, r := range d {
		sum += math.Float64frombits(uint64(1023-int(r)) << 52) // 2^-r
		if r == 0 {
			empty++
		}
	}
	e := 0.7213 / (1 + 1.079/m) * m * m / sum
	if e <= 2.5*m && empty > 0 {
		return m * math.Log(m/float64(empty))
	}
	return e
}

// counts is a count-min sketch with conservative update (Cormode and Muthukrishnan
// 2005; Estan and Varghese 2002): never too few, and too many by at most e/width of
// all that was added, with a chance of 1-e^-depth = 98 %.
const (
	width = 1 << 16
	depth = 4
)

type counts [depth][width]uint32

// cells of h: 16 bits of the hash for each row.
func (c *counts) get(h uint64) uint32 {
	n := uint32(math.MaxUint32)
	for i := range c {
		n = min(n, c[i][h>>(16*i)&(width-1)])
	}
	return n
}

// raise makes the count of h n at least.
func (c *counts) raise(h uint64, n uint32) {
	for i := range c {
		at := &c[i][h>>(16*i)&(width-1)]
		*at = max(*at, n)
	}
}

func (c *counts) halve(times int64) {
	for i := range c {
		for j := range c[i] {
			c[i][j] >>= min(times, 32)
		}
	}
}

func (c *counts) merge(o *counts) {
	for i := range c {
		for j, n := range o[i] {
			c[i][j] = plus(c[i][j], n)
		}
	}
}

func plus(a, b uint32) uint32 {
	if s, carry := bits.Add32(a, b, 0); carry == 0 {
		return s
	}
	return math.MaxUint32
}
