package full

import (
	"fmt"
	"net/netip"
	"testing"

	"portsentry/internal/detect"
)

// Of those who are named, who has failed more than once and is not found alone is a part
// of the sweep.
func TestShared(t *testing.T) {
	b := newBench(t, Options{})
	member, alone, visitor, other := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("203.0.113.3"), netip.MustParseAddr("203.0.113.4")
	once := netip.MustParseAddr("203.0.113.5")
	six, dst6 := netip.MustParseAddr("2001:db8:1::5"), netip.MustParseAddr("2001:db8:9::1")
	for i := range uint16(10) {
		b.see(syn(alone, host, 1000+i, detect.Refused))
	}
	first := b.now
	b.see(syn(member, host, 80, detect.Answered))
	b.see(syn(member, host, 7000, detect.Refused))
	b.see(syn(member, netip.MustParseAddr("192.0.3.1"), 7001, detect.Silent)) // another network
	b.see(syn(visitor, host, 80, detect.Answered))
	b.see(syn(other, host, 7000, detect.Refused))
	b.see(syn(six, dst6, 7002, detect.Refused))
	b.see(syn(six, dst6, 7003, detect.Refused))
	b.see(syn(once, host, 7004, detect.Refused))
	neighbour := netip.MustParseAddr("2001:db8:1::77") // of the same /64
	got := b.Shared(map[netip.Addr]uint64{alone: 7, member: 7, visitor: 7, neighbour: 7, once: 7})
	want := map[netip.Addr]string{
		member: "syn distributed 6 ports 3 targets 2 probes 3 failed 2",
		six:    "syn distributed 6 ports 2 targets 1 probes 2 failed 2",
	}
	for _, s := range got {
		one := fmt.Sprintf("%v %v %d ports %d targets %d probes %d failed %d", s.Kind, s.Direction, s.Proto, s.Ports, s.Targets, s.Probes, s.Failed)
		if want[s.Source] != one || s.Campaign != 7 || s.Verified || s.Score <= 0 || s.Score >= float64(Threshold) || s.First < first || s.Found != s.Last {
			t.Errorf("%+v, want %s", s, want[s.Source])
		}
		delete(want, s.Source)
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
}
