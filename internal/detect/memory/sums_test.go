package memory

import (
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"
)

func testSums(o SumsOptions) *Sums { return newSums(o, testKey) }

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within*want {
		t.Errorf("%s: %.1f, not %.1f to %.0f %%", what, got, want, 100*within)
	}
}

// The error is the standard error that theory gives, over many keys: 6.5 %, and below
// what linear counting is for (2.5 times the registers) that of linear counting.
func TestDistinctError(t *testing.T) {
	for _, n := range []int{1, 10, 100, 500, 2_000, 20_000} {
		const keys = 60
		square, mean := 0.0, 0.0
		for k := range uint64(keys) {
			s := newSums(SumsOptions{Keys: 1}, key{k, 77})
			for i := range n {
				s.Add(k, addr(uint64(i)), uint16(i%300), t0)
			}
			sources, ports := s.Distinct(k)
			e := sources/float64(n) - 1
			square += e * e
			mean += e
			near(t, "ports", ports, float64(min(n, 300)), .25)
		}
		deviation := math.Sqrt(square / keys)
		m := float64(registers)
		load := float64(n) / m
		want := 1.04 / math.Sqrt(m)
		if load < 2.5 {
			want = math.Sqrt(m*(math.Exp(load)-load-1)) / float64(n)
		}
		t.Logf("%d sources: error %.3f, by theory %.3f, mean %+.3f", n, deviation, want, mean/keys)
		if deviation > 1.35*want+.002 {
			t.Errorf("%d sources: error %.3f, by theory %.3f", n, deviation, want)
		}
	}
}

// A /24 shares out one sweep, a probe of each source every ten minutes, while 300
// forged sources a second from everywhere arrive: its numbers stay right.
func TestDistributed(t *testing.T) {
	s := testSums(SumsOptions{})
	idle := s.Bytes()
	network := Network(netip.MustParseAddr("198.51.100.9"))
	changed, n := 0, 0
	for i := range 600_000 { // 2000 s
		now := t0 + int64(i)*int64(time.Second)/300
		forged := netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), byte(i * 7)})
		s.Add(Network(forged), forged, uint16(i), now)
		if i%(300*3) == 0 {
			src := netip.AddrFrom4([4]byte{198, 51, 100, byte(n % 200)})
			if s.Add(network, src, uint16(1000+n), now) {
				changed++
			}
			n++
		}
	}
	sources, ports := s.Distinct(network)
	near(t, "sources", sources, 200, .2)
	near(t, "ports", ports, float64(n), .2)
	if c := s.Contacts(network); c < float64(n)*.5 {
		t.Errorf("%v contacts of %d", c, n)
	}
	if changed < 50 || changed > n {
		t.Errorf("%d of %d contacts changed it", changed, n)
	}
	best := Sum{}
	for k := range s.All() {
		if k.Ports > best.Ports {
			best = k
		}
	}
	if best.Key != network {
		t.Errorf("the most ports has %+v", best)
	}
	if b := s.Bytes(); idle > 64<<10 || b > 6<<20 {
		t.Errorf("%d bytes idle, %d bytes", idle, b)
	}
}

// Never fewer contacts than there were, and rarely more by over e/width of all.
func TestContacts(t *testing.T) {
	s := testSums(SumsOptions{Keys: 64})
	const keys, all = 40_000, 400_000
	for i := range uint64(all) {
		s.Add(i%keys, addr(1), 1, t0)
	}
	over := 0
	for k := range uint64(keys) {
		c := s.Contacts(k)
		if c < all/keys {
			t.Fatalf("%v contacts of key %d", c, k)
		}
		if c > all/keys+math.E/width*all {
			over++
		}
	}
	if limit := keys * math.Exp(-depth); float64(over) > limit {
		t.Errorf("%d keys have too many contacts, more than %.0f", over, limit)
	}
}

func TestWindow(t *testing.T) {
	s := testSums(SumsOptions{Window: time.Hour})
	want := func(when string, contacts, sources float64) {
		t.Helper()
		got, _ := s.Distinct(1)
		near(t, when+": sources", got, sources, .2)
		near(t, when+": contacts", s.Contacts(1), contacts, 0)
	}
	for i := range uint64(40) {
		s.Add(1, addr(i), 1, t0)
	}
	want("now", 40, 40)
	for i := range uint64(40) {
		s.Add(1, addr(20+i), 1, t0+hour)
	}
	want("an hour later", 60, 60)
	if s.Add(1, addr(45), 1, t0+hour) || s.Add(1, addr(0), 1, t0) {
		t.Error("nobody new, and it says so")
	}
	s.Add(2, addr(1), 1, t0+2*hour)
	want("an hour without a contact", 31, 40)
	s.Add(2, addr(1), 1, t0+4*hour)
	if got, _ := s.Distinct(1); got != 0 {
		t.Errorf("after two more hours there are %v sources", got)
	}
	s.Add(2, addr(1), 1, math.MaxInt64)
	s.Add(2, addr(1), 1, math.MinInt64)
	if c := s.Contacts(1); c != 0 {
		t.Errorf("%v contacts in the end", c)
	}
}

// Who had no row gets one when it has more contacts than the weakest, and loses it so.
func TestRows(t *testing.T) {
	s := testSums(SumsOptions{Keys: 8})
	for k := range uint64(8) {
		for range 10 {
			s.Add(k, addr(k), uint16(k), t0)
		}
	}
	for i := range uint64(10) {
		s.Add(99, addr(i), 1, t0)
	}
	if n, _ := s.Distinct(99); n != 0 {
		t.Errorf("%v sources, and no room for them", n)
	}
	s.Add(99, addr(1), 1, t0)
	if n, _ := s.Distinct(99); math.Round(n) != 1 || s.Contacts(99) != 11 {
		t.Errorf("%v sources, %v contacts", n, s.Contacts(99))
	}
	for k := range uint64(8) {
		if s.Contacts(k) != 10 {
			t.Errorf("key %d has %v contacts", k, s.Contacts(k))
		}
	}
}

// Workers that each saw a part of the sources know together what one would know.
func TestMerge(t *testing.T) {
	one := testSums(SumsOptions{Keys: 64})
	workers := []*Sums{one.Sibling(), one.Sibling(), one.Sibling(), one.Sibling()}
	for i := range uint64(20_000) {
		k, now := i%50, t0+int64(i)*int64(time.Second)
		one.Add(k, addr(i/100), uint16(i/50), now)
		workers[i/100%4].Add(k, addr(i/100), uint16(i/50), now)
	}
	all := one.Sibling()
	for _, w := range workers {
		if err := all.Merge(w); err != nil {
			t.Fatal(err)
		}
	}
	rows := 0
	for k := range uint64(50) {
		s1, p1 := one.Distinct(k)
		s2, p2 := all.Distinct(k)
		if s1 == 0 && s2 == 0 {
			continue // without a row in both
		}
		rows++
		near(t, "sources", s2, s1, .001)
		near(t, "ports", p2, p1, .001)
		near(t, "contacts", all.Contacts(k), one.Contacts(k), .1) // halves are rounded in each
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
	if err := all.Merge(NewSums(SumsOptions{Keys: 64})); !errors.Is(err, ErrUnrelated) {
		t.Errorf("strangers merge: %v", err)
	}
}

func TestNetwork(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.255", true}, {"192.0.2.1", "192.0.3.1", false}, {"192.0.2.1", "::ffff:192.0.2.9", true},
		{"2001:db8::1", "2001:db8::ffff:0:0:1", true}, {"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		if same := Network(netip.MustParseAddr(c.a)) == Network(netip.MustParseAddr(c.b)); same != c.same {
			t.Errorf("%s and %s: same network %v", c.a, c.b, same)
		}
	}
}
