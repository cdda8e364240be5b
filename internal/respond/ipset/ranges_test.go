package ipset

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/respond"
	"portsentry/test/banlab"
)

// A range goes into a set, beside bans of addresses in it, each with a time of its own;
// not into one that would take it for all its addresses.
func TestRange(t *testing.T) {
	l := newLab(t)
	s := l.open()
	l.rules(s)
	far, far6 := netip.PrefixFrom(banlab.Far4, 24).Masked(), netip.PrefixFrom(banlab.Far6, 48).Masked()
	bans := []respond.Ban{
		banlab.Ban(far, time.Now().Add(time.Hour)), banlab.Ban(far6, time.Now().Add(time.Hour)),
		banlab.Ban(banlab.Single(banlab.Far4), time.Now().Add(time.Second)),
	}
	for i := range bans {
		if !s.Takes(&bans[i]) {
			t.Fatalf("does not take %v", bans[i].Prefix)
		}
	}
	if err := s.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the ban of an address", func() bool {
		got, err := s.Existing(t.Context())
		return err == nil && len(got) == 2
	})
	for src, want := range map[netip.Addr]bool{banlab.Far4: false, banlab.Far4.Next(): false, banlab.Far6: false, banlab.Near4: true} {
		if l.Answered(src) != want {
			t.Errorf("%v answered %v, want %v", src, !want, want)
		}
	}

	other := newLab(t)
	other.Run("ipset", "create", "portsentry4", "hash:ip", "timeout", "0")
	s = other.open()
	other.rules(s)
	if s.Takes(&bans[0]) || !s.Takes(&bans[1]) || !s.Takes(&respond.Ban{Prefix: banlab.Single(banlab.Far4), Strength: bans[0].Strength, Until: bans[0].Until}) {
		t.Error("with a hash:ip it takes a range, or no address")
	}
}

// Whoever flushes a set, or takes one out, is found out.
func TestHolds(t *testing.T) {
	l := newLab(t)
	s := l.open()
	l.rules(s)
	until := time.Now().Add(time.Hour)
	bans := []respond.Ban{
		banlab.Ban(banlab.Single(banlab.Near4), until), banlab.Ban(netip.PrefixFrom(banlab.Far4, 24).Masked(), until),
		banlab.Ban(netip.PrefixFrom(banlab.Far6, 64).Masked(), until),
	}
	if err := s.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	holds := func(want ...int) {
		t.Helper()
		if missing, err := s.Holds(t.Context(), bans); err != nil || !slices.Equal(missing, want) {
			t.Errorf("missing %v, %v, want %v", missing, err, want)
		}
	}
	holds()
	l.Run("ipset", "del", "portsentry6", bans[2].Prefix.String())
	holds(2)
	l.Run("ipset", "flush")
	holds(0, 1, 2)
	if err := s.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	holds()
}
