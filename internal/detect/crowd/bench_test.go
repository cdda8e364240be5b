package crowd

import (
	"net/netip"
	"testing"

	"portsentry/internal/detect"
)

// quiet is an hour of ten thousand clients of two services, one contact in twenty of
// which fails.
func quiet(t testing.TB, n int) []detect.Contact {
	s := newScene(nil)
	cts := make([]detect.Contact, n)
	for i := range cts {
		a := ip4(0xcb000000 + s.rng.Uint32()%10_000)
		if s.rng.Uint32()%20 == 0 {
			cts[i] = *s.stack(a, uint16(s.rng.Uint32()), detect.Refused)
		} else {
			cts[i] = *s.stack(a, 443, detect.Answered)
		}
		s.now += 10 * ms
	}
	t.Helper()
	return cts
}

func BenchmarkContactQuiet(b *testing.B) {
	c, s := New(Options{}), newScene(nil)
	// The contact comes fresh from the packet; only who, where and what became of it
	// are looked up.
	var who [1 << 14]struct {
		src  netip.Addr
		port uint16
	}
	for i := range who {
		who[i].src, who[i].port = ip4(0xcb000000+s.rng.Uint32()%10_000), 443
		if i%20 == 0 {
			who[i].port = uint16(s.rng.Uint32())
		}
	}
	good, bad := s.stack(here, 443, detect.Answered), s.stack(here, 443, detect.Refused)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		w, ct := &who[i&(len(who)-1)], good
		if w.port != 443 {
			ct = bad
		}
		s.now += 10 * ms
		ct.Time, ct.Src, ct.DstPort = s.now, w.src, w.port
		c.Contact(ct, 0, 0)
		i++
	}
}

// Forged sources, each once, at any port: no entry of a table is where the last was.
func BenchmarkContactForged(b *testing.B) {
	s := newScene(nil)
	cts := make([]detect.Contact, 1<<16)
	for i := range cts {
		cts[i] = *s.bare(s.anybody(), uint16(s.rng.Uint32()), detect.Refused)
		s.now += ms
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.Contact(&cts[i&(len(cts)-1)], 0, 0)
		i++
	}
}

func TestContactAllocatesNothing(t *testing.T) {
	c, cts := New(Options{}), quiet(t, 1<<12)
	i := 0
	if n := testing.AllocsPerRun(4000, func() {
		c.Contact(&cts[i&(len(cts)-1)], 0, 0)
		i++
	}); n != 0 {
		t.Errorf("%v allocations per contact", n)
	}
}
