package route

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/test/banlab"
)

// A range goes into a route, unless the way to everybody else or a network of this host
// lies in it.
func TestRange(t *testing.T) {
	l := newLab(t)
	r := l.open()
	until := time.Now().Add(time.Minute)
	far, far6 := netip.PrefixFrom(banlab.Far4, 24).Masked(), netip.PrefixFrom(banlab.Far6, 48).Masked()
	bans := []respond.Ban{banlab.Ban(far, until), banlab.Ban(far6, until)}
	for i := range bans {
		if !r.Takes(&bans[i]) {
			t.Fatalf("does not take %v", bans[i].Prefix)
		}
	}
	if err := r.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	for src, want := range map[netip.Addr]bool{banlab.Far4: false, banlab.Far4.Next(): false, banlab.Far6: false, banlab.Near4: true, banlab.Gateway4: true} {
		if l.Answered(src) != want {
			t.Errorf("banned %v: %v answered %v, want %v", l.blackholes(), src, !want, want)
		}
	}
	for _, p := range []netip.Prefix{netip.PrefixFrom(banlab.Near4, 24).Masked(), netip.PrefixFrom(banlab.Near4, 8).Masked()} {
		if err := r.BanAll(t.Context(), []respond.Ban{banlab.Ban(p, until)}); !errors.Is(err, ErrGateway) && !errors.Is(err, ErrNotUsed) {
			t.Errorf("our own network %v: %v", p, err)
		}
	}
	for _, p := range []string{"0.0.0.0/0", "::/0", "::/1", "127.0.0.0/8", "224.0.0.0/4", "fe80::/10"} {
		b := banlab.Ban(netip.MustParsePrefix(p), until)
		if b.Strength = judge.Soft; r.Takes(&b) {
			t.Errorf("takes %v", p)
		}
	}
	if got, err := r.Existing(t.Context()); err != nil || len(got) != len(bans) {
		t.Errorf("there are %+v, %v", got, err)
	}
}

// Whoever takes a route out is found out.
func TestHolds(t *testing.T) {
	l := newLab(t)
	r := l.open()
	until := time.Now().Add(time.Minute)
	bans := []respond.Ban{
		banlab.Ban(banlab.Single(banlab.Near4), until), banlab.Ban(netip.PrefixFrom(banlab.Far4, 24).Masked(), until),
		banlab.Ban(banlab.Single(banlab.Near6), until), banlab.Ban(netip.PrefixFrom(banlab.Far6, 64).Masked(), until),
	}
	if err := r.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	holds := func(want ...int) {
		t.Helper()
		if missing, err := r.Holds(t.Context(), bans); err != nil || !slices.Equal(missing, want) {
			t.Errorf("missing %v, %v, want %v", missing, err, want)
		}
	}
	holds()
	l.Run("ip", "route", "del", "blackhole", bans[1].Prefix.String(), "proto", "112")
	l.Run("ip", "-6", "route", "del", "blackhole", bans[3].Prefix.String(), "proto", "112")
	holds(1, 3)
	if err := r.BanAll(t.Context(), []respond.Ban{bans[1], bans[3]}); err != nil {
		t.Fatal(err)
	}
	holds()
}
