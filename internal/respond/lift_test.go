package respond

import (
	"net/netip"
	"slices"
	"testing"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// Who is to be spared now is let in by every method, whole networks too; the one
// that does not take a ban out is asked again.
func TestSpare(t *testing.T) {
	nft, stuck, l := newWay("nft", nil), newWay("stuck", nil), &ledger{}
	r := New([]Method{nft, stuck}, nil, Plan{}, l)
	one, other := verdict(scanner, judge.Soft, config.BlockBan), verdict("203.0.113.10", judge.Soft, config.BlockBan)
	net := verdict("2001:db8::7", judge.Soft, config.BlockBan)
	net.Prefix = netip.MustParsePrefix("2001:db8::/64")
	for _, v := range []*judge.Verdict{one, other, net} {
		answer(r, v, false, never(t))
	}
	spared := func(p netip.Prefix) bool { return p != other.Prefix }
	stuck.stuck = 1
	rows, err := r.Spare(t.Context(), spared)
	if err == nil || len(rows) != 1 {
		t.Errorf("one of two could not be lifted: %v, %v", rows, err)
	}
	if rows, err = r.Spare(t.Context(), spared); err != nil || len(rows) != 1 || len(r.List()) != 1 {
		t.Errorf("again: %v, %v; listed %v", rows, err, r.List())
	}
	if len(nft.held()) != 1 || len(stuck.held()) != 1 || len(l.ended) != 2 {
		t.Errorf("held: %v, %v; ended: %v", nft.held(), stuck.held(), l.ended)
	}
}

// A ledger with another file hears of those it was told of, by the same address:
// a dry run is none of them.
func TestRelist(t *testing.T) {
	nft, dry, l := newWay("nft", func(b *Ban) bool { return b.Prefix.Addr().Is6() }), newWay("dryrun", nil), &ledger{}
	dry.dry = true
	r := New([]Method{nft, dry}, nil, Plan{}, l)
	net := verdict("2001:db8::7", judge.Soft, config.BlockBan)
	net.Prefix = netip.MustParsePrefix("2001:db8::/64")
	answer(r, net, false, never(t))
	answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, never(t))
	l.began = nil
	if r.Relist(l.Began); !slices.Equal(l.began, []netip.Addr{net.Sighting.Src}) {
		t.Errorf("listed: %v", l.began)
	}
}
