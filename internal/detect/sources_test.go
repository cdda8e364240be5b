package detect

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"
)

// Up to as many sources as a line has room for are counted exactly.
func TestSourcesAreToldApart(t *testing.T) {
	for range 2000 {
		s := newSources(ways) // one line
		counts := make(map[netip.Addr]uint32)
		for now := range int64(10 * ways) {
			a := netip.AddrFrom4([4]byte{198, 51, 100, byte(rand.IntN(ways))})
			counts[a]++
			if got, _ := s.hit(a, now, 0, 1, 0); got != counts[a] {
				t.Fatalf("%v: %d hits, want %d", a, got, counts[a])
			}
		}
		if n := s.evicted.Load(); n != 0 {
			t.Fatalf("%d forgotten of %d", n, len(counts))
		}
	}
}

// Of two with as many hits the one that was silent longer makes room, and what is
// said of several ports goes with it.
func TestWhoMakesRoom(t *testing.T) {
	host := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }
	for range 200 {
		s, now := newSources(ways), int64(time.Hour)
		for i := range ways {
			s.hit(host(i), now, 0, 1, 1)
			if _, several := s.hit(host(i), now+int64(i+1)*int64(time.Minute), 0, 1, 2); !several {
				t.Fatal("two ports are not several")
			}
		}
		if _, several := s.hit(host(ways), now, 0, 1, 3); several {
			t.Fatal("a newcomer had several ports")
		}
		// Whoever came last is the weaker of no two.
		if n, several := s.hit(host(ways-1), now, 0, 1, 2); n != 3 || !several {
			t.Fatalf("%d hits, several %v", n, several)
		}
	}
}

// A line is a line of the cache.
func TestLineSize(t *testing.T) {
	if n := unsafe.Sizeof(line{}); n != 64 {
		t.Errorf("%d bytes", n)
	}
}

// BenchmarkSources counts a source in ten times as many as are remembered.
func BenchmarkSources(b *testing.B) {
	s := newSources(DefaultSources)
	for i := int64(0); b.Loop(); i++ {
		n := uint64(i) % (10 * DefaultSources)
		s.hit(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), i, 0, 1, 0)
	}
}
