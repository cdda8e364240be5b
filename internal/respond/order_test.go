package respond

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func ask(p string, length time.Duration) Ban {
	return Ban{Prefix: pfx(p), Until: time.Now().Add(length), Reason: "by hand", By: "uid 1000"}
}

// endings is a ledger that keeps how bans ended.
type endings struct{ ends map[netip.Prefix]End }

func (l *endings) Began(Ban, netip.Addr) {}
func (l *endings) Ended(b Ban, _ netip.Addr, end End, _ []Action) {
	l.ends[b.Prefix] = end
}

// What a person asks for takes the place of what there was, covers whoever is in it,
// and is neither made weaker nor shorter by what the daemon sees later.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newWay("nft", nil), &endings{make(map[netip.Prefix]End)}
		w.lets = true
		r := New([]Method{w}, nil, Plan{}, l)
		running(t, r)
		inside := verdict(scanner, judge.Full, config.BlockBan)
		inside.Evidence = judge.E2
		for _, p := range []string{"203.0.113.0/24", scanner + "/32"} {
			row, err := r.Order(t.Context(), ask(p, 2*time.Hour), netip.Addr{})
			if err != nil || row.Ban.Strength != judge.Full || row.Ban.Evidence != judge.E0 || row.Ban.By != "uid 1000" || row.Host != pfx(p).Addr() {
				t.Errorf("%s: %+v, %v", p, row, err)
			}
		}
		if o, _ := answer(r, inside, false, never(t)); !o.Already || len(w.held()) != 2 {
			t.Errorf("somebody inside scans: %+v, held %v", o, w.held())
		}
		if !r.Dropped(netip.MustParseAddr("203.0.113.77"), judge.Full, judge.E2, judge.TCPOnly, time.Now().Add(time.Second).UnixNano()) {
			t.Error("a packet from the network is itemised")
		}
		if row, ok := r.Find(netip.MustParseAddr("203.0.113.77")); !ok || row.Ban.Prefix != pfx("203.0.113.0/24") {
			t.Errorf("found %+v, %v", row, ok)
		}
		if _, ok := r.Find(netip.MustParseAddr("203.0.114.77")); ok {
			t.Error("the neighbour is found")
		}
		if _, err := r.Order(t.Context(), ask("203.0.113.0/24", time.Hour), netip.Addr{}); err != nil || len(r.List()) != 2 {
			t.Errorf("again, and shorter: %v, %+v", err, r.List())
		}
		if rows, err := r.Spare(t.Context(), func(p netip.Prefix) bool { return p.Contains(inside.Sighting.Src) }); err != nil || len(rows) != 1 {
			t.Errorf("spared: %+v, %v; the network stays", rows, err)
		}
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if len(r.List()) != 0 || l.ends[pfx("203.0.113.0/24")] != (End{}) || l.ends[pfx(scanner+"/32")].Ending != Spared {
			t.Errorf("after its time: %+v, ended %v", r.List(), l.ends)
		}
		if len(r.book.widths.v4.lengths) != 0 {
			t.Errorf("lengths are still looked for: %v", r.book.widths.v4.lengths)
		}
	})
}

func TestOrderRefused(t *testing.T) {
	narrow := newWay("narrow", func(b *Ban) bool { return b.Prefix.IsSingleIP() })
	r := New([]Method{narrow}, nil, Plan{}, &ledger{})
	if _, err := r.Order(t.Context(), ask("203.0.113.0/24", time.Hour), netip.Addr{}); !errors.Is(err, ErrNoMethod) {
		t.Errorf("no method takes it: %v", err)
	}
	narrow.err = errClosed
	if _, err := r.Order(t.Context(), ask(scanner+"/32", time.Hour), netip.Addr{}); !errors.Is(err, errClosed) || len(r.List()) != 0 {
		t.Errorf("the method fails: %v, %+v", err, r.List())
	}
	if wide := pfx("2001:db8::/56"); r.Bannable(wide.Addr(), wide) {
		t.Error("nothing bans so wide")
	}
}

func TestLift(t *testing.T) {
	for within, want := range map[string]int{"203.0.113.9/32": 2, "203.0.113.0/25": 3, "203.0.0.0/16": 3, "198.51.100.0/24": 1, "": 4} {
		w, l := newWay("nft", nil), &endings{make(map[netip.Prefix]End)}
		r := New([]Method{w}, nil, Plan{}, l)
		for _, p := range []string{"203.0.113.0/24", "203.0.113.9/32", "203.0.113.10/32", "198.51.100.1/32"} {
			if _, err := r.Order(t.Context(), ask(p, time.Hour), netip.Addr{}); err != nil {
				t.Fatal(err)
			}
		}
		var p netip.Prefix
		if within != "" {
			p = pfx(within)
		}
		end := End{Ending: Lifted, By: "uid 0"}
		rows, err := r.Lift(t.Context(), p, end)
		if err != nil || len(rows) != want || len(w.held()) != 4-want || len(l.ends) != want {
			t.Errorf("%q: %d lifted, %v; %d held, ended %v", within, len(rows), err, len(w.held()), l.ends)
		}
		for p, got := range l.ends {
			if got != end {
				t.Errorf("%v: %+v", p, got)
			}
		}
	}
}

// How often somebody was banned on proof is counted apart, and one ban that becomes
// harder is one.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWay("nft", nil)
		r := New([]Method{w}, nil, Plan{}, &ledger{})
		running(t, r)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		ban := func(e judge.Evidence) int {
			v.Evidence = e
			answer(r, v, false, never(t))
			return w.held()[v.Prefix].Times
		}
		over := func() { time.Sleep(11 * time.Minute); synctest.Wait() }
		if n := ban(judge.E1); n != 1 {
			t.Errorf("first: %d", n)
		}
		if n := ban(judge.E2); n != 1 {
			t.Errorf("the same ban, with proof by now: %d", n)
		}
		over()
		if n := ban(judge.E1); n != 2 {
			t.Errorf("second, without proof: %d", n)
		}
		over()
		if n := ban(judge.E2); n != 2 {
			t.Errorf("second on proof: %d", n)
		}
		over()
		past := Ban{Prefix: v.Prefix, Times: 7, Evidence: judge.E1}
		if r.Remember(&past, time.Now()); r.Bans(v.Prefix, false) != 7 || r.Bans(v.Prefix, true) != 2 {
			t.Errorf("remembered: %d, on proof %d", r.Bans(v.Prefix, false), r.Bans(v.Prefix, true))
		}
		if r.SetMemory(time.Hour); r.Bans(v.Prefix, false) != 7 {
			t.Error("forgotten at once")
		}
		time.Sleep(2 * time.Hour)
		if r.Bans(v.Prefix, false) != 0 {
			t.Error("remembered for longer than is kept")
		}
	})
}

// Forged sources do not push out of the memory who was banned on proof.
func TestMemoryIsBounded(t *testing.T) {
	m, now := newMemory(), time.Now()
	known := pfx(scanner + "/32")
	m.add(known, 3, true, now, now)
	const forged = 4 * MaxPast
	source := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	for i := range forged {
		at := now.Add(time.Duration(i) * time.Millisecond)
		m.add(source(i), 1, false, at, at)
	}
	var remembered int
	for i := range forged {
		if m.of(source(i), now).times > 0 {
			remembered++
		} else if i > forged-1000 {
			t.Errorf("%d of %d is forgotten", i, forged)
		}
	}
	if remembered > MaxPast || remembered < MaxPast*9/10 || m.of(known, now) != (past{times: 3, proved: 3, ended: now.Unix()}) {
		t.Errorf("%d remembered, and of the known one %+v", remembered, m.of(known, now))
	}
	m.forget(known)
	same := netip.PrefixFrom(netip.AddrFrom16(known.Addr().As16()), 32) // IPv6, with the same bytes
	if m.add(same, 1, true, now, now); m.of(known, now).times != 0 || m.of(same, now).times != 1 {
		t.Error("one prefix was taken for another")
	}
}

// Networks on proof are counted for the next wider ones, whatever becomes of them.
func TestProved(t *testing.T) {
	r := New([]Method{newWay("nft", nil)}, nil, Plan{}, &ledger{})
	for i, p := range []string{"2001:db8:0:1::/64", "2001:db8:0:2::/64", "2001:db8:0:3::/64", "2001:db8:0:100::/64"} {
		v := verdict(pfx(p).Addr().Next().String(), judge.Soft, config.BlockBan)
		v.Prefix = pfx(p)
		if v.Evidence = judge.E2; i == 2 {
			v.Evidence = judge.E1
		}
		answer(r, v, false, never(t))
	}
	a := netip.MustParseAddr("2001:db8:0:3::1")
	if n := r.Proved(a, 56); n != 2 {
		t.Errorf("%d /64s, want 2: one has no proof, one is in another /56", n)
	}
	v := verdict(a.String(), judge.Soft, config.BlockBan)
	v.Prefix, v.Evidence = pfx("2001:db8:0:3::/64"), judge.E2
	answer(r, v, false, never(t))
	if n, own := r.Proved(netip.MustParseAddr("2001:db8:0:4::1"), 56), r.Proved(a, 56); n != 3 || own != 2 {
		t.Errorf("with proof by now: %d seen from beside, %d from inside", n, own)
	}
	if _, err := r.Lift(context.Background(), pfx("2001:db8::/56"), End{Ending: Lifted}); err != nil || r.Proved(a, 56) != 0 || len(r.book.proved) != 1 {
		t.Errorf("lifted: %v, %v", err, r.book.proved)
	}
}
