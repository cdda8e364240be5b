package judge

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// Who is spared in a /64 is the same as where everybody is looked at.
func TestWithinNet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	in := func() netip.Addr {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 5: byte(rng.IntN(3)), 7: byte(rng.IntN(16)), 15: byte(rng.IntN(4))}
		return netip.AddrFrom16(b)
	}
	for range 300 {
		f := TrustFrom{Own: map[netip.Addr]struct{}{in(): {}}, Names: map[netip.Addr]string{in(): "a.example"}}
		f.Gateways = []netip.Addr{in()}
		for range 3 {
			p, _ := in().Prefix([]int{32, 60, 63, 64, 65, 120, 128}[1+rng.IntN(6)])
			f.Ignore = append(f.Ignore, p)
		}
		tr := NewTrust(f)
		for range 30 {
			p, _ := in().Prefix(64)
			if got, want := tr.Within(p), tr.anybody(p); got != want {
				t.Fatalf("%v of %+v: %v, want %v", p, f, got, want)
			}
		}
	}
}

// BenchmarkWithinNet: the question that two forged addresses of a /64 bring up.
func BenchmarkWithinNet(b *testing.B) {
	var f TrustFrom
	for i := range uint32(65536) {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint32(a[4:], i)
		f.Ignore = append(f.Ignore, netip.PrefixFrom(netip.AddrFrom16(a), 64))
	}
	tr := NewTrust(f)
	p := prefix("2001:db9::/64")
	b.ReportAllocs()
	for b.Loop() {
		tr.Within(p)
	}
}
