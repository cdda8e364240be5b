package respond

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

func nobodySpared(netip.Prefix) bool { return false }

// A ban that one method has refused is given to it when it works again, with the rest of
// its time; one that goes on refusing is asked seldom.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := newWay("good", nil), newWay("bad", nil)
		r := New([]Method{bad, good}, nil, Plan{}, &ledger{})
		running(t, r)
		bad.err = errors.New("refused")
		var all []netip.Prefix
		for i := range 2 * sharedAtOnce {
			v := verdict(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String(), judge.Full, config.BlockBan)
			v.Evidence, v.Length = judge.E2, time.Hour
			answer(r, v, false, never(t))
			all = append(all, v.Prefix)
		}
		share := func(want int) {
			t.Helper()
			if given := r.Share(t.Context(), nobodySpared); given["bad"] != want || given["good"] != 0 {
				t.Errorf("%v, want %d", given, want)
			}
		}
		if n, m := r.HeldWithout("good", "bad"), r.HeldWithout("bad", "good"); n != len(all) || m != 0 {
			t.Errorf("%d are held by the good one alone, %d by the other", n, m)
		}
		asked := bad.n
		for range 150 { // ten minutes
			share(0)
			time.Sleep(4 * time.Second)
		}
		if n := bad.n - asked; n == 0 || n > 16*(1+maxRefused) {
			t.Errorf("asked %d times", n)
		}
		if _, err := r.Lift(t.Context(), all[0], End{}); err != nil {
			t.Fatal(err)
		}
		bad.err = nil
		time.Sleep(maxRest)
		share(len(all) - 1)
		if n := r.HeldWithout("good", "bad"); n != 0 {
			t.Errorf("%d are held by the good one alone", n)
		}
		if !maps.Equal(bad.held(), good.held()) {
			t.Error("they do not hold the same")
		}
		for _, row := range r.List() {
			if !slices.Equal(row.Methods, []string{"bad", "good"}) {
				t.Fatalf("%v is held by %v", row.Ban.Prefix, row.Methods)
			}
		}
		share(0)
		time.Sleep(time.Hour)
		synctest.Wait()
		if r.Size() != 0 || len(r.book.lacking) != 0 {
			t.Errorf("after their time there are %d, and %v lack", r.Size(), r.book.lacking)
		}
	})
}

// Of what a method takes, it refuses some for good: the others come to it.
func TestShareRefusesSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nft, route := newWay("nft", nil), newWay("route", coarse)
		route.err = errors.New("refused")
		r := New([]Method{nft, route}, nil, Plan{}, &ledger{})
		running(t, r)
		for i := range 300 {
			v := verdict(fmt.Sprintf("203.0.%d.%d", 112+i/256, i%256), judge.Soft, config.BlockBan)
			v.Length = time.Hour
			if i%3 == 0 {
				v.Strength = judge.Limited // which it does not take
			}
			answer(r, v, false, never(t))
			time.Sleep(time.Millisecond)
		}
		route.err, route.bad = nil, netip.MustParsePrefix("203.0.112.7/32")
		for range 3 {
			r.Share(t.Context(), nobodySpared)
			time.Sleep(maxRest)
		}
		if n := len(route.held()); n != 199 {
			t.Errorf("it holds %d", n)
		}
		if _, lacks := route.held()[route.bad]; lacks || len(r.book.lacking) != 1 {
			t.Errorf("lacking: %v", r.book.lacking)
		}
	})
}

// What another method is to hold from now on, or the kernel has kept for one alone, is
// shared; what is the owner's own, what only a dry run holds and a network in which
// somebody is to be spared are not given to whom they are not for.
func TestShareNotAll(t *testing.T) {
	nft, route, dry := newWay("nft", nil), newWay("route", coarse), newWay("dryrun", nil)
	nft.lets, dry.dry = true, true
	r := New([]Method{nft, dry}, nil, Plan{}, &ledger{})
	now := time.Now()
	ban := func(p string, until time.Time, by ...string) InForce {
		return InForce{Methods: by, Ban: Ban{Prefix: netip.MustParsePrefix(p), Strength: judge.Full, Evidence: judge.E2, Since: now, Until: until}}
	}
	r.Restore([]InForce{
		ban("203.0.113.1/32", now.Add(time.Hour), "nft"),
		ban("203.0.113.2/32", time.Time{}, "nft"),
		ban("203.0.113.3/32", now.Add(time.Hour), "dryrun"),
		ban("198.51.100.0/24", now.Add(time.Hour), "nft"),
		ban("192.0.2.0/24", now.Add(time.Hour), "nft"),
	})
	r.SetMethods([]Method{route, nft})
	given := r.Share(t.Context(), func(p netip.Prefix) bool { return p.Addr() == netip.MustParseAddr("192.0.2.0") })
	if !maps.Equal(given, map[string]int{"route": 2}) {
		t.Errorf("given: %v", given)
	}
	want := []string{"198.51.100.0/24", "203.0.113.1/32"}
	var got []string
	for p := range route.held() {
		got = append(got, p.String())
	}
	if slices.Sort(got); !slices.Equal(got, want) || len(nft.held()) != 0 {
		t.Errorf("route got %v; nft %v, which held them before", got, nft.held())
	}
	if rows := r.List(); !slices.Equal(rows[3-1].Methods, []string{"route", "nft"}) {
		t.Errorf("held by %v", rows[2].Methods)
	}
}
