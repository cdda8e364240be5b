package bpf_test

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/bpf"
)

// What the program's own ban has dropped goes on being counted under the ban that
// takes its place, once.
func TestDropsAreCarriedOver(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll, Provisional: time.Minute})
	for _, src := range []netip.Addr{from4, from6} {
		for range 3 {
			r.run(frame(t, tcp(src, trap, syn)))
		}
		prefix := netip.PrefixFrom(src, src.BitLen())
		for range 2 {
			r.must(r.PutBans([]bpf.Ban{{Prefix: prefix, Until: time.Now().Add(time.Hour), Strength: bpf.Soft, Protos: bpf.BanAll}}))
		}
		r.run(frame(t, tcp(src, noTrap, syn)))
		if b, _, err := r.Ban(prefix); err != nil || b.Dropped != 4 {
			t.Errorf("%v: %d packets dropped (%v), want 4", src, b.Dropped, err)
		}
	}
}
