package respond

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// Standing bans stay with the methods that hold them, and end there.
func TestSetMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newWay("old", nil), newWay("next", nil)
		old.stays = true
		r := New([]Method{old}, nil, Plan{}, &ledger{})
		running(t, r)
		one, two := verdict(scanner, judge.Soft, config.BlockBan), verdict("203.0.113.10", judge.Soft, config.BlockBan)
		three := verdict("203.0.113.11", judge.Soft, config.BlockBan)
		for _, v := range []*judge.Verdict{one, two, three} {
			answer(r, v, false, never(t))
		}
		r.SetMethods([]Method{next})
		if !r.Dropped(one.Sighting.Src, judge.Nothing, judge.E1, judge.TCPOnly, time.Now().UnixNano()+1) || len(r.List()) != 3 {
			t.Errorf("bans were lost: %v", r.List())
		}
		if o, _ := answer(r, one, false, never(t)); !o.Already || len(next.held()) != 0 {
			t.Errorf("a standing ban: %+v", o)
		}
		if _, err := r.Unban(t.Context(), two.Sighting.Src, End{}); err != nil || len(old.held()) != 2 {
			t.Errorf("lifted: %v, old holds %v", err, old.held())
		}
		three.Strength = judge.Full
		if answer(r, three, false, never(t)); len(next.held()) != 1 || len(old.held()) != 1 {
			t.Errorf("replaced: next holds %v, old %v", next.held(), old.held())
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if len(old.held()) != 0 || len(r.List()) != 0 {
			t.Errorf("a retired method goes on holding %v; listed %v", old.held(), r.List())
		}
	})
}

// A method that comes in the place of another of its name takes over its bans.
func TestSetMethodsOfTheSameName(t *testing.T) {
	first := newWay("nft", nil)
	second := newWay("nft", nil)
	second.bans = first.bans // one kernel
	r := New([]Method{first}, nil, Plan{}, &ledger{})
	one, two := verdict(scanner, judge.Soft, config.BlockBan), verdict("203.0.113.10", judge.Soft, config.BlockBan)
	answer(r, one, false, never(t))
	answer(r, two, false, never(t))
	first.stuck, first.err = 9, errClosed
	r.SetMethods([]Method{second})
	one.Strength = judge.Full
	if o, _ := answer(r, one, false, never(t)); !o.Blocked || len(second.held()) != 2 {
		t.Errorf("replaced: %+v, the kernel holds %v", o, second.held())
	}
	if _, err := r.Unban(t.Context(), two.Sighting.Src, End{}); err != nil || len(second.held()) != 1 {
		t.Errorf("lifted: %v, the kernel holds %v", err, second.held())
	}
}

const errClosed = errorText("closed")

type errorText string

func (e errorText) Error() string { return string(e) }

// What was a dry run is banned in earnest with the next hit.
func TestSetMethodsAfterADryRun(t *testing.T) {
	dry, real, l := newWay("dryrun", nil), newWay("nft", nil), &ledger{}
	dry.dry = true
	r := New([]Method{dry}, nil, Plan{}, l)
	v := verdict(scanner, judge.Soft, config.BlockBan)
	answer(r, v, false, never(t))
	r.SetMethods([]Method{real})
	if o, _ := answer(r, v, false, never(t)); !o.Blocked || o.Already || len(real.held()) != 1 || len(l.began) != 1 || !slices.Equal(names(r), []string{"nft"}) {
		t.Errorf("%+v, held %v, listed %v", o, real.held(), names(r))
	}
}

// What the old runner did is undone by the new one; what nobody can undo stays
// in the book.
func TestSetSteps(t *testing.T) {
	both := PlanFrom(&config.Config{KillRoute: "r", KillRouteUndo: "u", KillHostsDeny: "h"})
	for _, c := range []struct {
		name    string
		next    *fakeRunner
		plan    Plan
		undo    []Step
		lasting []Step
	}{
		{"the same", &fakeRunner{room: 9}, both, []Step{StepRouteUndo, StepHostsDenyUndo}, nil},
		{"no undo any more", &fakeRunner{room: 9}, PlanFrom(&config.Config{KillRoute: "r", KillHostsDeny: "h"}), []Step{StepHostsDenyUndo}, []Step{StepRoute}},
		{"no steps any more", &fakeRunner{room: 9}, Plan{}, []Step{StepHostsDenyUndo}, []Step{StepRoute}},
		{"no runner any more", nil, Plan{}, nil, []Step{StepHostsDeny, StepRoute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, l := &fakeRunner{room: 9}, &ledger{}
				r := New(nil, old, both, l)
				running(t, r)
				answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, func(Outcome) {})
				old.finish(0)
				if c.next == nil {
					r.SetSteps(nil, c.plan)
				} else {
					r.SetSteps(c.next, c.plan)
				}
				if len(r.List()) != 1 || len(l.ended) != 0 {
					t.Fatal("the ban was lost")
				}
				time.Sleep(11 * time.Minute)
				synctest.Wait()
				var undo []Step
				if c.next != nil && len(c.next.orders) > 0 {
					undo = c.next.orders[0].Steps
					c.next.finish(0)
				}
				var lasting []Step
				for _, row := range r.List() {
					lasting = row.Lasting
				}
				if !slices.Equal(undo, c.undo) || !slices.Equal(lasting, c.lasting) || len(old.orders) != 1 {
					t.Errorf("undone %v, left %v; want %v, %v; the old runner got %d orders", undo, lasting, c.undo, c.lasting, len(old.orders))
				}
			})
		})
	}
}

// A step that failed under a plan that is gone does not keep the host from being
// answered under the new one.
func TestSetStepsForgetsFailures(t *testing.T) {
	old, next := &fakeRunner{room: 9}, &fakeRunner{room: 9}
	r := New(nil, old, PlanFrom(&config.Config{KillRoute: "r"}), &ledger{})
	v := verdict(scanner, judge.Soft, config.BlockBan)
	answer(r, v, false, func(Outcome) {})
	old.finish(0, StepRoute)
	r.SetSteps(next, PlanFrom(&config.Config{KillHostsDeny: "h"}))
	answer(r, v, false, func(Outcome) {})
	if len(old.orders) != 1 || len(next.orders) != 1 || !slices.Equal(next.orders[0].Steps, []Step{StepHostsDeny}) {
		t.Errorf("the old runner got %v, the new one %v", old.orders, next.orders)
	}
}

// Steps that succeed after a person has lifted the ban are undone at once.
func TestLiftedWhileStepsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := &fakeRunner{room: 9}, &ledger{}
		r := New(nil, q, PlanFrom(&config.Config{KillRoute: "r", KillRouteUndo: "u"}), l)
		running(t, r)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		answer(r, v, false, func(Outcome) {})
		if _, err := r.Unban(t.Context(), v.Sighting.Src, End{}); err != nil {
			t.Fatal(err)
		}
		q.finish(0)
		synctest.Wait()
		if len(q.orders) != 2 || !slices.Equal(q.orders[1].Steps, []Step{StepRouteUndo}) {
			t.Fatalf("orders %v", q.orders)
		}
		if q.finish(1); len(r.List()) != 0 || !slices.Equal(l.ended, []netip.Addr{v.Sighting.Src}) {
			t.Errorf("listed %v, ended %v", r.List(), l.ended)
		}
	})
}

// TestRemake gives a method all that it holds, and nothing of another's.
func TestRemake(t *testing.T) {
	m := &fakeMethod{bans: make(map[netip.Prefix]Ban)}
	r := New([]Method{m}, nil, Plan{}, &ledger{})
	v := verdict("203.0.113.9", judge.Soft, config.BlockBan)
	answer(r, v, false, nil)
	for name, want := range map[string]int{"fake": 1, "another": 0} {
		n, err := r.Remake(t.Context(), name, func(bans []Ban) error {
			if len(bans) != want || want > 0 && bans[0].Prefix != v.Prefix {
				t.Errorf("%s: %v", name, bans)
			}
			return nil
		})
		if n != want || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}
