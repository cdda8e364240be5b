package respond

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

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

// A network that a person banned stays with those that let in whom to spare inside it.
func TestSpareInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nft, route, l := newWay("nft", nil), newWay("route", nil), &ledger{}
		nft.lets = true
		r := New([]Method{nft, route}, nil, Plan{}, l)
		running(t, r)
		for _, network := range []string{"198.51.100.0/24", "203.0.113.0/24"} {
			b := Ban{Prefix: netip.MustParsePrefix(network), Until: time.Now().Add(time.Hour), By: "uid 0"}
			if _, err := r.Order(t.Context(), b, b.Prefix.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		spared := func(p netip.Prefix) bool { return p.Addr() == netip.MustParseAddr("203.0.113.0") }
		route.stick(1)
		for range 2 { // the second time there is nothing to do
			if rows, err := r.Spare(t.Context(), spared); len(rows) > 0 || err != nil {
				t.Errorf("%+v, %v", rows, err)
			}
			time.Sleep(2 * time.Second) // it is tried again
			synctest.Wait()
			if len(nft.held()) != 2 || len(route.held()) != 1 || !slices.Equal(names(r), []string{"nft", "route", "nft"}) || len(l.ended) > 0 {
				t.Errorf("nft %v, route %v, listed %v, ended %v", nft.held(), route.held(), names(r), l.ended)
			}
		}
		nft.lets = false
		if rows, err := r.Spare(t.Context(), spared); len(rows) != 1 || err != nil || len(nft.held()) != 1 || len(l.ended) != 1 {
			t.Errorf("with nothing that lets in: %+v, %v; nft %v, ended %v", rows, err, nft.held(), l.ended)
		}
	})
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

// lifter lifts many at once.
type lifter struct {
	*way
	calls, most int
	err         error
}

func (l *lifter) UnbanAll(ctx context.Context, bans []Ban) error {
	if l.calls, l.most = l.calls+1, max(l.most, len(bans)); l.err != nil {
		return l.err
	}
	for _, b := range bans {
		if err := l.Unban(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// Many bans are lifted in few calls, others get a turn in between, and the ledger hears of
// each. Where a method fails, what it holds stays in the book.
func TestLiftMany(t *testing.T) {
	const n = 10_000
	bulk, single, l := &lifter{way: newWay("bulk", nil)}, newWay("single", nil), &ledger{}
	r := New([]Method{bulk, single}, nil, Plan{}, l)
	rows := crowd(n, false)
	for i := range rows {
		rows[i].Methods = []string{"bulk", "single"}
		bulk.bans[rows[i].Ban.Prefix], single.bans[rows[i].Ban.Prefix] = rows[i].Ban, rows[i].Ban
	}
	r.Restore(rows)
	bulk.err = errors.New("not together")
	bulk.stuck = 1
	lifted, err := r.Lift(t.Context(), netip.Prefix{}, End{})
	if err == nil || len(lifted) != liftedAtOnce-1 || len(l.ended) != len(lifted) || r.Size() != n-len(lifted) || len(bulk.held()) != r.Size() {
		t.Fatalf("one refused: %v; %d lifted, %d told, %d in the book, %d held", err, len(lifted), len(l.ended), r.Size(), len(bulk.held()))
	}
	if got := names(r); len(got) != 2*r.Size()-1 || len(single.held()) != r.Size()-1 {
		t.Errorf("%d in the book are held %d times", r.Size(), len(got))
	}
	bulk.err, bulk.calls = nil, 0
	if lifted, err = r.Lift(t.Context(), netip.Prefix{}, End{}); err != nil || len(lifted) != n-liftedAtOnce+1 || r.Size() != 0 {
		t.Errorf("%v; %d lifted, %d left", err, len(lifted), r.Size())
	}
	if len(l.ended) != n || len(bulk.held())+len(single.held()) > 0 || bulk.calls > n/liftedAtOnce+1 || bulk.most > liftedAtOnce {
		t.Errorf("%d told; %d and %d held; %d calls of %d at most", len(l.ended), len(bulk.held()), len(single.held()), bulk.calls, bulk.most)
	}
}
