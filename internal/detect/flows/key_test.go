package flows

import (
	"net/netip"
	"testing"
)

// TestSpread: keys that follow each other, as those of a sweep do, fill the buckets as
// evenly as chance would, whatever the secret.
func TestSpread(t *testing.T) {
	v4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	v6 := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(i >> 16), 7: byte(i >> 8), 15: byte(i)})
	}
	here, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:ffff::1")
	type ends struct {
		src, dst netip.Addr
		sp, dp   uint16
	}
	patterns := map[string]func(i int) ends{
		"ports":               func(i int) ends { return ends{v4(1), here, 40000, uint16(i)} },
		"both ports":          func(i int) ends { return ends{v4(1), here, uint16(i), uint16(i)} },
		"ports, and a client": func(i int) ends { return ends{here, v4(1), uint16(32768 + i>>8), uint16(i & 255)} },
		"addresses":           func(i int) ends { return ends{here, v4(i), 40000, 22} },
		"addresses and ports": func(i int) ends { return ends{here, v4(i >> 4), uint16(i), 22} },
		"both addresses":      func(i int) ends { return ends{v4(i), v4(1<<20 + i), 40000, 22} },
		"IPv6 addresses":      func(i int) ends { return ends{six, v6(i), 40000, 22} },
		"IPv6 ports":          func(i int) ends { return ends{six, v6(1), 40000, uint16(i)} },
	}
	const buckets, n = 1 << 10, 4 << 10
	// Of 4,096 keys that chance alone places, 35 are the ninth or later one in their
	// bucket (Poisson), give or take 8.
	const most = 100
	const rounds = 20
	for name, of := range patterns {
		for range rounds {
			tb := newTable(buckets * ways)
			var in [buckets]int
			over, tags := 0, make(map[uint64]bool)
			for i := range n {
				e := of(i)
				k, _ := pair(classTCP, e.src, e.dst, e.sp, e.dp)
				at := tb.place(&k)
				tags[at.tag] = true
				if in[at.bucket]++; in[at.bucket] > ways {
					over++
				}
			}
			if over > most || len(tags) < n*9/10 {
				t.Errorf("%s: %d keys find no room, %d tags", name, over, len(tags))
			}
		}
	}
}

// TestKeys: a key is the same from both ends and gives back what it was made of, and
// what differs in anything is another one.
func TestKeys(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")
	mapped := func(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
	long, low := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db7:ffff::2")
	keys := make(map[key]int)
	for i, e := range []struct {
		src, dst netip.Addr
		sp, dp   uint16
	}{{a, b, 1, 2}, {a, b, 2, 1}, {a, a, 1, 2}, {mapped(a), mapped(b), 1, 2}, {long, low, 1, 2}, {low, long, 1, 2}} {
		for _, c := range []class{classTCP, classUDP} {
			k, from := pair(c, e.src, e.dst, e.sp, e.dp)
			back, to := pair(c, e.dst, e.src, e.dp, e.sp)
			if k != back || !k.is(&back) || from == to {
				t.Errorf("%v: %+v from %d, %+v from %d", e, k, from, back, to)
			}
			if k.addr(from) != e.src || k.addr(to) != e.dst || k.port(from) != e.sp || k.port(to) != e.dp {
				t.Errorf("%v: gives %v:%d and %v:%d", e, k.addr(from), k.port(from), k.addr(to), k.port(to))
			}
			for o, j := range keys {
				if k.is(&o) {
					t.Errorf("%d and %d are the same: %+v", i, j, k)
				}
			}
			keys[k] = i
		}
	}
}
