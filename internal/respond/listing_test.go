package respond

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// Places are in the order of the prefixes that they stand for.
func TestPlacesAreOrderedAsPrefixes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var all []netip.Prefix
	for _, s := range []string{"0.0.0.0/0", "0.0.0.0/32", "255.255.255.255/32", "::/0", "::/128", "::1/128", "::ffff:0:0/96", "::ffff:1.2.3.4/128", "1.2.3.4/32", "ffff::/16"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	for range 300 {
		a := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), byte(rnd.IntN(256)), byte(rnd.IntN(256))})
		if rnd.IntN(2) == 0 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 7: byte(rnd.IntN(3)), 8: byte(rnd.IntN(256)), 15: byte(rnd.IntN(256))})
		}
		all = append(all, netip.PrefixFrom(a, rnd.IntN(a.BitLen()+1)).Masked())
	}
	for _, a := range all {
		for _, b := range all {
			if got, want := placeOf(a, nil).compare(placeOf(b, nil)), a.Compare(b); cmp.Compare(got, 0) != want {
				t.Fatalf("%v and %v: %d, want %d", a, b, got, want)
			}
		}
	}
}

// Who reads rows holds nobody up, gets no row of what ends meanwhile, and may stop.
func TestRowsWhileBansEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New([]Method{newWay("way", nil)}, nil, Plan{}, &ledger{})
		const many = 2*rowsAtOnce + 10
		for i := range many {
			src := netip.AddrFrom4([4]byte{203, 0, byte(113 + i>>8), byte(i)})
			answer(r, verdict(src.String(), judge.Soft, config.BlockBan), false, never(t))
		}
		l := r.Listing()
		for range l.Rows() {
			break
		}
		var got []netip.Prefix
		for row := range l.Rows() {
			if got = append(got, row.Ban.Prefix); len(got) == 1 {
				lifted, err := r.Unban(t.Context(), netip.MustParseAddr("203.0.114.0"), End{})
				if err != nil || len(lifted) != 1 {
					t.Fatalf("%d lifted, %v", len(lifted), err)
				}
			}
		}
		if len(got) != many-1 || !slices.IsSortedFunc(got, netip.Prefix.Compare) {
			t.Errorf("%d rows, %v", len(got), got)
		}
		rows := 0
		for range l.Rows() {
			if rows++; rows == 1 {
				time.Sleep(1000 * time.Hour) // of the bubble: all have ended
			}
		}
		if rows != rowsAtOnce {
			t.Errorf("%d rows, want those of the first turn, %d", rows, rowsAtOnce)
		}
	})
}
