package respond

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// A table holds what a map would, and gives all of it, whatever comes and goes meanwhile.
func TestTable(t *testing.T) {
	b := newBook()
	want := make(map[netip.Prefix]*entry)
	rnd := rand.New(rand.NewPCG(1, 2))
	step := func() {
		a := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(8)), byte(rnd.IntN(256)), byte(rnd.IntN(16))})
		p := netip.PrefixFrom(a, 24+rnd.IntN(9))
		switch e := want[p]; {
		case b.entries.of(p) != e:
			t.Fatalf("%v: %v, want %v", p, b.entries.of(p), e)
		case e == nil:
			want[p] = b.enter(&Ban{Prefix: p}, a, false)
		case rnd.IntN(3) == 0:
			b.entries.remove(e)
			delete(want, p)
		}
	}
	for range 50_000 {
		step()
	}
	seen := make(map[*entry]int)
	for e := range b.entries.all {
		if want[e.prefix] != e {
			t.Fatalf("%v is given, and has gone", e.prefix)
		}
		seen[e]++
		for range rnd.IntN(4) {
			step()
		}
	}
	if b.entries.number != len(want) {
		t.Errorf("it says %d, want %d", b.entries.number, len(want))
	}
	for e, n := range seen {
		if n != 1 {
			t.Errorf("%v is given %d times", e.prefix, n)
		}
	}
	given := 0
	for range b.entries.all {
		given++
	}
	if given != len(want) || len(seen) < len(want)/2 {
		t.Errorf("%d are given, %d while it changed; want %d", given, len(seen), len(want))
	}
}
