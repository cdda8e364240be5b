package crowd

import (
	"hash/maphash"
	"math"
	"math/bits"
	"net/netip"
)

// keys are what makes the hashes of one Crowd nobody else's.
type keys struct {
	seed maphash.Seed
	a, b uint64

	last     netip.Addr // most contacts go to the same few addresses
	lastHash uint64
}

func newKeys() keys {
	k := keys{seed: maphash.MakeSeed()}
	k.a, k.b = maphash.String(k.seed, "a")|1, maphash.String(k.seed, "b")|1
	return k
}

func (k *keys) addr(a *[16]byte) uint64 { return maphash.Bytes(k.seed, a[:]) }

func (k *keys) dst(a netip.Addr) uint64 {
	if a != k.last {
		b := a.As16()
		k.last, k.lastHash = a, maphash.Bytes(k.seed, b[:])
	}
	return k.lastHash
}

// mix makes one hash of a keyed hash and something more (the folded product of
// wyhash).
func (k *keys) mix(h, more uint64) uint64 {
	hi, lo := bits.Mul64(h^k.a, more^k.b)
	hi, lo = bits.Mul64(hi^lo^k.b, k.a)
	return hi ^ lo
}

// net is the hash of the network of a with n bits of its 128 (IPv4 as IPv4-mapped);
// n is a multiple of 8.
func (k *keys) net(a [16]byte, n int) uint64 {
	clear(a[n/8:])
	return k.mix(k.addr(&a), uint64(n))
}

// around is the provider's network of a, as a rule: a /16 or a /48.
func (k *keys) around(a [16]byte) uint64 {
	if unmap(a).Is4() {
		return k.net(a, 112)
	}
	return k.net(a, 48)
}

// targets is the network that the contact is aimed at: a /24 or a /64.
func (c *Crowd) targets(a *about) uint64 {
	if a.ct.Dst.Is4() {
		return c.keys.net(a.ct.Dst.As16(), 120)
	}
	return c.keys.net(a.ct.Dst.As16(), 64)
}

// estimates[n] is how many distinct things have set n of 64 bits, as a rule (linear
// counting, Whang et al. 1990): 64 ln(64/(64-n)); full means 256 or more.
var estimates = func() (e [65]uint16) {
	for n := range 64 {
		e[n] = uint16(math.Round(64 * math.Log(64/float64(64-n))))
	}
	e[64] = 256
	return e
}()

func estimate(set uint64) int { return int(estimates[bits.OnesCount64(set)]) }

// spread counts distinct things up to some thousands, within a few per cent.
type spread [16]uint64

func (s *spread) add(h uint64) { s[h>>60] |= 1 << (h >> 54 & 63) }

func (s *spread) count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return int(math.Round(1024 * math.Log(1024/max(1, float64(1024-n)))))
}

// most finds what more than a fifth of a stream is (Misra and Gries 1982).
type most [4]struct{ key, n uint64 }

func (m *most) add(key, n uint64) {
	free := -1
	for i := range m {
		if m[i].n > 0 && m[i].key == key {
			m[i].n += n
			return
		}
		if m[i].n == 0 {
			free = i
		}
	}
	if free >= 0 {
		m[free].key, m[free].n = key, n
		return
	}
	for i := range m {
		m[i].n -= min(n, m[i].n)
	}
}

// top is the most frequent one and at least how often it came.
func (m *most) top() (key, n uint64) {
	for _, e := range m {
		if e.n > n {
			key, n = e.key, e.n
		}
	}
	return key, n
}
