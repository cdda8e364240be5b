package respond

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// way is a method with a character.
type way struct {
	mu sync.Mutex // guards fakeMethod and stuck, which Run uses too
	fakeMethod
	name  string
	takes func(*Ban) bool
	dry   bool
	lets  bool // in whom to spare
	stays bool // its bans do not end by themselves
	stuck int  // how many Unbans fail
}

func newWay(name string, takes func(*Ban) bool) *way {
	return &way{name: name, takes: takes, fakeMethod: fakeMethod{bans: map[netip.Prefix]Ban{}}}
}

func (w *way) Name() string      { return w.name }
func (w *way) Takes(b *Ban) bool { return w.takes == nil || w.takes(b) }
func (w *way) Enforces() bool    { return !w.dry }
func (w *way) Spares() bool      { return w.lets }
func (w *way) Ends() bool        { return !w.stays }

func (w *way) BanAll(ctx context.Context, bans []Ban) error {
	for _, b := range bans {
		if !w.Takes(&b) {
			panic(fmt.Sprintf("%s was asked for %+v, which it does not take", w.name, b))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fakeMethod.BanAll(ctx, bans)
}

// held are the bans that it holds.
func (w *way) held() map[netip.Prefix]Ban {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.bans)
}

// tries is how many more Unbans fail.
func (w *way) tries() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stuck
}

// stick lets n more Unbans fail.
func (w *way) stick(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stuck = n
}

func (w *way) Unban(_ context.Context, b Ban) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck > 0 {
		w.stuck--
		return errors.New("no answer")
	}
	delete(w.bans, b.Prefix)
	return nil
}

// coarse is what cannot tell existing connections, nor protocols.
func coarse(b *Ban) bool { return b.Strength >= judge.Soft && b.Scope == judge.AllProtocols }

func names(r *Responder) []string {
	var out []string
	for _, row := range r.List() {
		out = append(out, row.Methods...)
	}
	return out
}

// running runs r until the test ends.
func running(t *testing.T, r *Responder) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go r.Run(ctx)
}

func TestOnlyThoseThatTakeTheBan(t *testing.T) {
	fine, rough := newWay("fine", nil), newWay("rough", coarse)
	r := New([]Method{fine, rough}, nil, Plan{}, &ledger{})
	v := verdict(scanner, judge.Limited, config.BlockBan)
	if o, _ := answer(r, v, false, never(t)); len(o.Actions) != 1 || !o.Blocked || !slices.Equal(names(r), []string{"fine"}) {
		t.Errorf("limited: %+v, held by %v", o, names(r))
	}
	v = verdict(scanner, judge.Soft, config.BlockBan)
	if o, _ := answer(r, v, false, never(t)); len(o.Actions) != 2 || !slices.Equal(names(r), []string{"fine", "rough"}) {
		t.Errorf("soft: %+v, held by %v", o, names(r))
	}
	if _, err := r.Unban(t.Context(), v.Sighting.Src, End{}); err != nil || len(fine.held())+len(rough.held()) > 0 {
		t.Errorf("lifted: %v, %v, %v", err, fine.held(), rough.held())
	}
}

// Where no method takes the ban, the owner's steps are run as if there were none.
func TestNobodyTakesTheBan(t *testing.T) {
	rough, q := newWay("rough", coarse), &fakeRunner{room: 9}
	r := New([]Method{rough}, q, fullPlan, &ledger{})
	v := verdict(scanner, judge.Soft, config.BlockCommand)
	v.Scope = judge.TCPOnly
	var got Outcome
	o, deferred := answer(r, v, false, func(o Outcome) { got = o })
	if !deferred || o.Blocked || len(o.Actions) > 0 || rough.n > 0 || r.Dropped(v.Sighting.Src, judge.Nothing, judge.E1, judge.TCPOnly, v.Sighting.Time+1) {
		t.Fatalf("%+v, deferred %v, asked %d times", o, deferred, rough.n)
	}
	if q.finish(0); !got.Blocked {
		t.Errorf("after its command: %+v", got)
	}
}

// One failing method does not keep the other from banning, and is not asked to
// take out what it never had.
func TestOneMethodFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := newWay("good", nil), newWay("bad", nil)
		bad.err = errors.New("refused")
		r := New([]Method{bad, good}, nil, Plan{}, &ledger{})
		v := verdict(scanner, judge.Soft, config.BlockBan)
		if o, _ := answer(r, v, false, never(t)); !o.Blocked || o.Actions[0].Err == nil || o.Actions[1].Err != nil {
			t.Errorf("%+v", o)
		}
		if !slices.Equal(names(r), []string{"good"}) || r.Stats().NativeFailed != 1 {
			t.Errorf("held by %v, %+v", names(r), r.Stats())
		}
		other := verdict("203.0.113.10", judge.Soft, config.BlockBan)
		if o, _ := answer(r, other, false, never(t)); !o.Blocked || len(o.Actions) != 1 || bad.n != 1 {
			t.Errorf("at once after the failure: %+v, asked %d times", o, bad.n)
		}
		bad.stuck = 1
		if _, err := r.Unban(t.Context(), v.Sighting.Src, End{}); err != nil {
			t.Errorf("the method that failed was asked to lift the ban: %v", err)
		}
		time.Sleep(time.Second)
		bad.err = nil
		if answer(r, v, false, never(t)); !slices.Equal(names(r), []string{"bad", "good", "good"}) {
			t.Errorf("a second later: held by %v", names(r))
		}
	})
}

// A replacement that every method refuses leaves the ban of before in force.
func TestReplacementRefused(t *testing.T) {
	w, l := newWay("w", nil), &ledger{}
	r := New([]Method{w}, nil, Plan{}, l)
	answer(r, verdict(scanner, judge.Limited, config.BlockBan), false, never(t))
	w.err = errors.New("refused")
	v := verdict(scanner, judge.Full, config.BlockBan)
	o, _ := answer(r, v, false, never(t))
	if rows := r.List(); o.Blocked || len(rows) != 1 || rows[0].Ban.Strength != judge.Limited || len(l.began) != 1 || len(l.ended) != 0 {
		t.Errorf("%+v; the book has %+v", o, rows)
	}
	w.err = nil
	if _, err := r.Unban(t.Context(), v.Sighting.Src, End{}); err != nil || len(w.held()) != 0 {
		t.Errorf("lifted: %v, left %v", err, w.held())
	}
}

// A ban that a method does not take any more when it is replaced is taken out of
// it, once the new one is in force.
func TestReplacedElsewhere(t *testing.T) {
	part := newWay("part", func(b *Ban) bool { return b.Scope != judge.AllProtocols })
	whole := newWay("whole", func(b *Ban) bool { return b.Scope == judge.AllProtocols })
	r := New([]Method{part, whole}, nil, Plan{}, &ledger{})
	v := verdict(scanner, judge.Soft, config.BlockCommand)
	v.Scope = judge.TCPOnly
	r.Answer(v, false, never(t)) // both within one batch
	w := verdict(scanner, judge.Soft, config.BlockCommand)
	w.Scope = judge.UDPOnly
	answer(r, w, false, never(t))
	if len(part.held()) != 0 || len(whole.held()) != 1 || !slices.Equal(names(r), []string{"whole"}) {
		t.Errorf("part %v, whole %v, the book %v", part.held(), whole.held(), names(r))
	}
}

// A dry run is listed, but hides nothing, claims nothing and ends on time.
func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dry, l := newWay("dryrun", nil), &ledger{}
		dry.dry = true
		r := New([]Method{dry}, nil, Plan{}, l)
		running(t, r)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		o, _ := answer(r, v, false, never(t))
		if o.Blocked || o.Already || len(o.Actions) != 1 || !o.Actions[0].Skipped || o.Actions[0].Text != "dryrun for 10m0s (new connections; unverified)" {
			t.Errorf("first hit: %+v", o)
		}
		if o, _ := answer(r, v, false, never(t)); o.Blocked || o.Already || len(o.Actions) != 0 || dry.n != 1 {
			t.Errorf("second hit: %+v, asked %d times", o, dry.n)
		}
		if r.Dropped(v.Sighting.Src, judge.Nothing, judge.E1, judge.TCPOnly, v.Sighting.Time+1) || r.Count() != 0 || r.Stats().Bans != 0 || !slices.Equal(names(r), []string{"dryrun"}) {
			t.Errorf("%d in force, %+v, listed %v", r.Count(), r.Stats(), names(r))
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if len(r.List()) != 0 || len(l.began)+len(l.ended) != 0 {
			t.Errorf("after its time: %v, the ledger heard of %v and %v", r.List(), l.began, l.ended)
		}
	})
}

// Beside a dry run the owner's steps do what they always did: the sighting waits
// for them, and shows both.
func TestDryRunWithSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dry, l, q := newWay("dryrun", nil), &ledger{}, &fakeRunner{room: 9}
		dry.dry = true
		r := New([]Method{dry}, q, PlanFrom(&config.Config{KillHostsDeny: "h"}), l)
		running(t, r)
		var got []Outcome
		later := func(o Outcome) { got = append(got, o) }
		v := verdict(scanner, judge.Soft, config.BlockBan)
		if _, deferred := answer(r, v, false, later); !deferred {
			t.Fatal("the sighting does not wait for what alone blocks")
		}
		q.finish(0, StepHostsDeny)
		if o := got[0]; o.Blocked || len(o.Actions) != 2 || !o.Deferred || len(l.began) != 0 {
			t.Errorf("failed: %+v, began %v", o, l.began)
		}
		if _, deferred := answer(r, v, false, later); !deferred {
			t.Fatal("the failed step is not tried again")
		}
		q.finish(1)
		if o := got[1]; !o.Blocked || len(l.began) != 1 || r.Count() != 1 {
			t.Errorf("done: %+v, began %v", o, l.began)
		}
		if o, _ := answer(r, v, false, later); !o.Blocked || !o.Already {
			t.Errorf("the next hit: %+v", o)
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if len(q.orders) != 3 || len(r.List()) != 0 {
			t.Fatalf("%d orders, %v", len(q.orders), r.List())
		}
		if q.finish(2); len(l.ended) != 1 {
			t.Errorf("ended %v", l.ended)
		}
	})
}

// A ban that does not end by itself is taken out when its time has come; what
// fails is counted, tried again, and in force until then.
func TestTakenOut(t *testing.T) {
	for _, c := range []struct {
		stuck           int
		failed, givenUp uint64
		rows            int // after a minute
	}{{0, 0, 0, 0}, {3, 3, 0, 0}, {8, 6, 0, 1}, {1000, 6, 0, 1}} {
		t.Run(fmt.Sprint(c.stuck), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, l := newWay("route", nil), &ledger{}
				w.stays, w.stuck = true, c.stuck
				r := New([]Method{w, newWay("nft", nil)}, nil, Plan{}, l)
				running(t, r)
				v := verdict(scanner, judge.Soft, config.BlockBan)
				answer(r, v, false, never(t))
				time.Sleep(10*time.Minute - time.Second)
				synctest.Wait()
				if len(w.held()) != 1 || w.tries() != c.stuck {
					t.Fatal("taken out before its time")
				}
				time.Sleep(time.Minute + time.Second)
				synctest.Wait()
				s := r.Stats()
				if s.UnbanFailed != c.failed || s.UnbanGivenUp != c.givenUp || len(r.List()) != c.rows || len(w.held()) != c.rows || len(l.ended) != 1-c.rows {
					t.Errorf("a minute later: %+v, listed %v, held %v, ended %v", s, names(r), w.held(), l.ended)
				}
				if c.rows > 0 && !slices.Equal(names(r), []string{"route"}) {
					t.Errorf("held by %v, want route alone", names(r))
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if given := r.Stats().UnbanGivenUp; len(r.List()) != 0 || (c.stuck > maxTries) != (given == 1) {
					t.Errorf("an hour later: %+v, listed %v", r.Stats(), names(r))
				}
			})
		})
	}
}

// A host that is banned again while its old ban could not be taken out keeps the
// new one.
func TestBannedAgainMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWay("route", nil)
		w.stays, w.stuck = true, 2
		r := New([]Method{w}, nil, Plan{}, &ledger{})
		running(t, r)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		answer(r, v, false, never(t))
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		synctest.Wait()
		if w.tries() != 1 {
			t.Fatal("it was not tried")
		}
		if o, _ := answer(r, v, false, never(t)); !o.Blocked || o.Already {
			t.Errorf("again: %+v", o)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if len(w.held()) != 1 || w.tries() != 1 || len(r.List()) != 1 {
			t.Errorf("held %v, listed %v: the new ban went with the old", w.held(), r.List())
		}
	})
}

// Whoever changes bans between Answer and Commit finds them in force.
func TestBetweenAnswerAndCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newWay("w", nil), &ledger{}
		r := New([]Method{w}, nil, Plan{}, l)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		r.Answer(v, false, never(t))
		if lifted, err := r.Unban(t.Context(), v.Sighting.Src, End{}); len(lifted) != 1 || err != nil {
			t.Errorf("lifted %v, %v", lifted, err)
		}
		if r.Commit(t.Context()); len(w.held()) != 0 || len(r.List()) != 0 || len(l.began) != 1 || len(l.ended) != 1 {
			t.Errorf("lifted before Commit: held %v, listed %v", w.held(), r.List())
		}
		r.Answer(v, false, never(t))
		r.Relax(t.Context(), []netip.Addr{v.Sighting.Src})
		if r.Commit(t.Context()); w.held()[v.Prefix].Strength != judge.Limited {
			t.Errorf("relaxed before Commit: held %v", w.held())
		}
		time.Sleep(11 * time.Minute)
		r.Answer(v, false, never(t))
		r.expire(t.Context()) // the old one is due
		if r.Commit(t.Context()); len(r.List()) != 1 {
			t.Errorf("banned again when the old ban was due: held %v, listed %v", w.held(), r.List())
		}
	})
}

// A method without limited bans lifts what is relaxed; with no other the ban
// ends there.
func TestRelaxLifts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fine, rough, l := newWay("fine", nil), newWay("rough", coarse), &ledger{}
		r := New([]Method{rough}, nil, Plan{}, l)
		running(t, r)
		one, two := verdict(scanner, judge.Soft, config.BlockBan), verdict("203.0.113.10", judge.Soft, config.BlockBan)
		answer(r, one, false, never(t))
		r.SetMethods([]Method{fine, rough})
		answer(r, two, false, never(t))
		rough.stick(1)
		if err := r.Relax(t.Context(), []netip.Addr{one.Sighting.Src, two.Sighting.Src}); err != nil {
			t.Fatal(err)
		}
		if b := fine.held()[two.Prefix]; b.Strength != judge.Limited || len(fine.held()) != 1 || len(rough.held()) != 1 {
			t.Errorf("fine has %v, rough has %v", fine.held(), rough.held())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(rough.held()) != 0 || !slices.Equal(names(r), []string{"fine"}) || !slices.Equal(l.ended, []netip.Addr{one.Sighting.Src}) {
			t.Errorf("two seconds later rough has %v, listed %v, ended %v", rough.held(), names(r), l.ended)
		}
	})
}

func TestRestoreSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		route, nft, l := newWay("route", nil), newWay("nft", nil), &ledger{}
		route.stays = true
		r := New([]Method{route, nft}, nil, Plan{}, l)
		running(t, r)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		b := Ban{Prefix: v.Prefix, Strength: judge.Soft, Until: time.Now().Add(time.Minute), Times: 1}
		route.bans[v.Prefix], nft.bans[v.Prefix] = b, b
		r.Restore([]InForce{
			{Ban: b, Methods: []string{"nft", "route", "gone"}},
			{Ban: Ban{Prefix: netip.MustParsePrefix("203.0.113.77/32"), Until: b.Until}, Methods: []string{"gone"}},
		})
		if !slices.Equal(names(r), []string{"nft", "route"}) || r.Count() != 1 {
			t.Errorf("held by %v", names(r))
		}
		if o, _ := answer(r, v, false, never(t)); !o.Already {
			t.Errorf("%+v", o)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(route.held()) != 0 || len(nft.held()) != 1 || len(l.ended) != 1 {
			t.Errorf("at its end: route %v, nft %v (the kernel ends it), ended %v", route.held(), nft.held(), l.ended)
		}
	})
}

// One prefix in two rows is one ban, as wide and as long as the two.
func TestRestoreMerges(t *testing.T) {
	r := New([]Method{newWay("a", nil), newWay("b", nil)}, nil, Plan{}, &ledger{})
	p, now := netip.MustParsePrefix(scanner+"/32"), time.Now()
	r.Restore([]InForce{
		{Ban: Ban{Prefix: p, Strength: judge.Soft, Scope: judge.TCPOnly, Until: now.Add(time.Hour)}, Methods: []string{"a"}},
		{Ban: Ban{Prefix: p, Strength: judge.Limited, Scope: judge.UDPOnly, Until: now.Add(time.Minute)}, Methods: []string{"a", "b"}},
	})
	if rows := r.List(); len(rows) != 1 || rows[0].Ban.Strength != judge.Soft || rows[0].Ban.Scope != judge.AllProtocols ||
		!rows[0].Ban.Until.Equal(now.Add(time.Hour)) || !slices.Equal(rows[0].Methods, []string{"a", "b"}) {
		t.Errorf("%+v", rows)
	}
}

// What is being reloaded, lifted and asked for at the same time stays of one
// mind with what the methods hold. (Run with -race.)
func TestAllAtOnce(t *testing.T) {
	all := []*way{newWay("a", nil), newWay("b", coarse), newWay("c", nil), newWay("dry", nil)}
	all[1].stays, all[3].dry = true, true
	r := New([]Method{all[0]}, nil, Plan{}, &ledger{})
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i % 64)}) }
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	var wg sync.WaitGroup
	each := func(n int, f func(i int)) {
		wg.Go(func() {
			for i := range n {
				f(i)
			}
		})
	}
	each(3000, func(i int) {
		v := verdict(addr(i*7).String(), judge.Strength(1+i%3), config.BlockBan)
		v.Scope = judge.Scope(i % 3)
		if v.Length = time.Duration(1+i%5) * time.Millisecond; i%2 == 1 { // those that nobody unbans
			v.Length = time.Hour
		}
		if v.Strength == judge.Full {
			v.Scope = judge.AllProtocols
		}
		r.Answer(v, false, nil)
		if i%5 == 0 {
			r.Commit(ctx)
		}
	})
	each(300, func(i int) { r.SetMethods([]Method{all[i%4], all[(i+1)%4]}) })
	each(300, func(i int) { r.SetSteps(nil, Plan{}) })
	each(1000, func(i int) { r.Unban(ctx, addr(2*i), End{}) })
	each(1000, func(i int) { r.Relax(ctx, []netip.Addr{addr(i * 3)}) })
	each(200, func(i int) { r.Share(ctx, nobodySpared) })
	each(1000, func(i int) { r.Dropped(addr(i), judge.Nothing, judge.E1, judge.TCPOnly, time.Now().UnixNano()) })
	each(100, func(int) { r.List(); r.Count(); r.Stats(); r.Plan() })
	wg.Wait()
	r.Commit(ctx)
	stop()
	<-ran

	held := make(map[string]map[netip.Prefix]bool)
	for _, row := range r.List() {
		for _, m := range row.Methods {
			if held[m] == nil {
				held[m] = make(map[netip.Prefix]bool)
			}
			held[m][row.Ban.Prefix] = true
		}
	}
	now := time.Now()
	for _, w := range all {
		for p, b := range w.held() { // what has ended by itself is still in a fake's map
			if b.Until.After(now.Add(time.Minute)) && !held[w.name][p] {
				t.Errorf("%s holds %v, and the book does not know", w.name, p)
			}
		}
		for p := range held[w.name] {
			if _, ok := w.held()[p]; !ok {
				t.Errorf("the book says that %s holds %v", w.name, p)
			}
		}
	}
	if len(r.List()) == 0 {
		t.Error("nothing is left to compare")
	}
}

// tally is a method that counts.
type tally struct {
	*way
	dropped map[string]uint64 // by prefix; the address is alive where it is odd
}

func (c tally) Counts(p netip.Prefix) (dropped uint64, alive, ok bool) {
	n, ok := c.dropped[p.String()]
	return n, n%2 == 1, ok
}

func (c tally) EachCount(tell func(p netip.Prefix, dropped uint64, alive bool)) error {
	for p, n := range c.dropped {
		tell(netip.MustParsePrefix(p), n, n%2 == 1)
	}
	return nil
}

// Many are asked for at once, and come to the same.
func TestCountMany(t *testing.T) {
	one := tally{newWay("one", func(b *Ban) bool { return b.Prefix.Addr().Is4() }), map[string]uint64{"2001:db8::9/128": 9, "192.0.2.1/32": 5}}
	two := tally{newWay("two", nil), make(map[string]uint64)}
	r := New([]Method{one, two}, nil, Plan{}, &ledger{})
	for i := range countMany + 10 {
		src := netip.AddrFrom4([4]byte{203, 0, byte(113 + i>>8), byte(i)})
		answer(r, verdict(src.String(), judge.Soft, config.BlockBan), false, never(t))
		one.dropped[src.String()+"/32"], two.dropped[src.String()+"/32"] = uint64(2*i), 1
	}
	answer(r, verdict("2001:db8::9", judge.Soft, config.BlockBan), false, never(t)) // one does not hold it
	rows := r.List()
	if len(rows) != countMany+11 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		alone := row
		alone.Counted, alone.Dropped, alone.Alive = false, 0, false
		if alone.count(r.counters()); row.Counted != alone.Counted || row.Dropped != alone.Dropped || row.Alive != alone.Alive {
			t.Errorf("%v: %d dropped among many, %d alone", row.Ban.Prefix, row.Dropped, alone.Dropped)
		}
	}
}

// What a ban has dropped comes from the methods that hold it and count.
func TestCounters(t *testing.T) {
	mute := newWay("mute", nil)
	one := tally{newWay("one", func(b *Ban) bool { return b.Prefix.Addr().Is4() }), map[string]uint64{"203.0.113.9/32": 4, "203.0.113.10/32": 6}}
	two := tally{newWay("two", nil), map[string]uint64{"203.0.113.9/32": 3, "203.0.113.11/32": 0}}
	r := New([]Method{mute, one, two}, nil, Plan{}, &ledger{})
	for _, src := range []string{"203.0.113.9", "203.0.113.10", "203.0.113.11", "2001:db8::9"} {
		answer(r, verdict(src, judge.Soft, config.BlockBan), false, never(t))
	}
	one.dropped["2001:db8::9/128"] = 9 // which it does not hold
	check := func(row InForce) {
		t.Helper()
		want := map[string]InForce{
			"203.0.113.9/32": {Counted: true, Dropped: 7, Alive: true}, "203.0.113.10/32": {Counted: true, Dropped: 6},
			"203.0.113.11/32": {Counted: true}, "2001:db8::9/128": {},
		}[row.Ban.Prefix.String()]
		if row.Counted != want.Counted || row.Dropped != want.Dropped || row.Alive != want.Alive {
			t.Errorf("%v: counted %v, %d dropped, alive %v", row.Ban.Prefix, row.Counted, row.Dropped, row.Alive)
		}
	}
	rows := r.List()
	if len(rows) != 4 {
		t.Errorf("%d rows", len(rows))
	}
	for _, row := range rows {
		check(row)
	}
	lifted, err := r.Unban(t.Context(), netip.MustParseAddr("203.0.113.9"), End{})
	if err != nil || len(lifted) != 1 {
		t.Fatalf("%d lifted, %v", len(lifted), err)
	}
	check(lifted[0])
}
