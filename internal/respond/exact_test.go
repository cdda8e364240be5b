package respond

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// 1.x looked for the address anywhere in its blocked file: with 110.77.0.2 in it,
// 10.77.0.2 was never blocked.
func TestBanIsOfOneAddress(t *testing.T) {
	m := &fakeMethod{bans: map[netip.Prefix]Ban{}}
	r := New([]Method{m}, nil, Plan{}, &ledger{})
	answer(r, verdict("110.77.0.2", judge.Soft, config.BlockBan), false, never(t))
	for _, a := range []string{"10.77.0.2", "110.77.0.22", "110.77.0.1"} {
		if r.Dropped(netip.MustParseAddr(a), judge.Nothing, judge.E1, judge.TCPOnly, time.Now().Add(time.Second).UnixNano()) {
			t.Errorf("%s is dropped", a)
		}
		if o, _ := answer(r, verdict(a, judge.Soft, config.BlockBan), false, never(t)); o.Already || !o.Blocked {
			t.Errorf("%s: %+v", a, o)
		}
	}
	if len(r.List()) != 4 || len(m.bans) != 4 {
		t.Errorf("%d rows, %d bans", len(r.List()), len(m.bans))
	}
}
