package respond

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
)

// fakeMethod keeps bans as a kernel would.
type fakeMethod struct {
	err  error
	bad  netip.Prefix // of a ban that is refused
	bans map[netip.Prefix]Ban
	n    int
}

func (m *fakeMethod) Name() string    { return "fake" }
func (m *fakeMethod) Takes(*Ban) bool { return true }
func (m *fakeMethod) Enforces() bool  { return true }
func (m *fakeMethod) Ends() bool      { return true }
func (m *fakeMethod) BanAll(_ context.Context, bans []Ban) error {
	m.n++
	if m.err != nil {
		return m.err
	}
	for _, b := range bans {
		if b.Prefix == m.bad {
			return errors.New("refused")
		}
	}
	for _, b := range bans {
		m.bans[b.Prefix] = b
	}
	return nil
}

func (m *fakeMethod) Unban(_ context.Context, b Ban) error {
	delete(m.bans, b.Prefix)
	return m.err
}

// fakeRunner takes as many orders as it has room for and finishes them when told.
type fakeRunner struct {
	busy   bool
	room   int
	orders []Order
	done   []func([]Action)
}

func (r *fakeRunner) Busy() bool { return r.busy }

func (r *fakeRunner) Submit(o Order, done func([]Action)) bool {
	if len(r.orders) >= r.room {
		return false
	}
	r.orders, r.done = append(r.orders, o), append(r.done, done)
	return true
}

// finish ends the i-th order; failing names the steps that fail.
func (r *fakeRunner) finish(i int, failing ...Step) {
	var actions []Action
	for _, s := range r.orders[i].Steps {
		a := Action{Step: s, Host: r.orders[i].Host}
		if slices.Contains(failing, s) {
			a.Err = errors.New("exit status 1")
		}
		actions = append(actions, a)
	}
	r.done[i](actions)
}

type ledger struct {
	began, ended []netip.Addr
	last         Ban // that began
}

func (l *ledger) Began(b Ban, host netip.Addr)                    { l.began, l.last = append(l.began, host), b }
func (l *ledger) Ended(_ Ban, host netip.Addr, _ End, _ []Action) { l.ended = append(l.ended, host) }

func verdict(src string, strength judge.Strength, block config.Block) *judge.Verdict {
	a := netip.MustParseAddr(src)
	return &judge.Verdict{
		Sighting: detect.Sighting{Time: time.Now().UnixNano(), Src: a, DstPort: 1, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Triggered: true},
		Evidence: judge.E1, Strength: strength, Block: block, Prefix: netip.PrefixFrom(a, a.BitLen()), Length: 10 * time.Minute,
	}
}

// answer is Answer with its Commit.
func answer(r *Responder, v *judge.Verdict, kernelSays bool, later func(Outcome)) (Outcome, bool) {
	o, deferred := r.Answer(v, kernelSays, later)
	r.Commit(context.Background())
	o.Settle()
	return o, deferred
}

const scanner = "203.0.113.9"

// bans is how often a is known to have been banned, on whatever evidence.
func bans(r *Responder, a netip.Addr) int { return r.Bans(netip.PrefixFrom(a, a.BitLen()), false) }

func never(t *testing.T) func(Outcome) {
	return func(Outcome) { t.Helper(); t.Error("nothing was to come later") }
}

func TestNativeBanBeginsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := &fakeMethod{bans: map[netip.Prefix]Ban{}}, &ledger{}
		r := New([]Method{m}, nil, Plan{}, l)
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)

		v := verdict(scanner, judge.Soft, config.BlockBan)
		o, deferred := answer(r, v, false, never(t))
		if deferred || !o.Blocked || o.Already || len(o.Actions) != 1 || o.Actions[0].Step != StepNative {
			t.Fatalf("first hit: %+v, deferred %v", o, deferred)
		}
		if b := m.bans[v.Prefix]; b.Strength != judge.Soft || b.Until.Sub(b.Since) != 10*time.Minute || b.Times != 1 {
			t.Errorf("the method was asked for %+v", b)
		}
		if o, _ := answer(r, v, false, never(t)); !o.Blocked || !o.Already || m.n != 1 {
			t.Errorf("second hit: %+v after %d calls of the method", o, m.n)
		}
		src := v.Sighting.Src
		if r.Dropped(src, judge.Nothing, judge.E1, judge.TCPOnly, v.Sighting.Time) || !r.Dropped(src, judge.Nothing, judge.E1, judge.TCPOnly, v.Sighting.Time+1) {
			t.Error("the deciding packet is itemised, the next runs into the ban")
		}
		if len(r.List()) != 1 {
			t.Errorf("List = %+v", r.List())
		}
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if len(r.List()) != 0 || r.Dropped(src, judge.Nothing, judge.E1, judge.TCPOnly, time.Now().UnixNano()) || len(l.ended) != 1 {
			t.Errorf("after its time: %+v, ended %v", r.List(), l.ended)
		}
		if n := bans(r, src); n != 1 {
			t.Errorf("%d earlier bans remembered, want 1", n)
		}
		if answer(r, v, false, never(t)); m.bans[v.Prefix].Times != 2 {
			t.Errorf("banned again as number %d, want 2", m.bans[v.Prefix].Times)
		}
		time.Sleep(10*time.Minute + defaultKeep + 2*time.Second)
		synctest.Wait()
		if n := bans(r, src); n != 0 {
			t.Errorf("after all that is kept %d bans are remembered", n)
		}
		cancel()
		synctest.Wait()
	})
}

func TestStrongerVerdictReplaces(t *testing.T) {
	m := &fakeMethod{bans: map[netip.Prefix]Ban{}}
	r := New([]Method{m}, nil, Plan{}, &ledger{})
	for _, s := range []judge.Strength{judge.Limited, judge.Soft, judge.Limited} {
		answer(r, verdict(scanner, s, config.BlockBan), false, never(t))
	}
	if b := m.bans[netip.MustParsePrefix(scanner+"/32")]; m.n != 2 || b.Strength != judge.Soft || len(r.List()) != 1 {
		t.Errorf("%d calls, now %v, %d rows; a weaker verdict changes nothing", m.n, b.Strength, len(r.List()))
	}
}

func TestProtocolBanLeavesTheOtherAlone(t *testing.T) {
	m := &fakeMethod{bans: map[netip.Prefix]Ban{}}
	r := New([]Method{m}, nil, Plan{}, &ledger{})
	v := verdict(scanner, judge.Soft, config.BlockCommand)
	v.Scope = judge.TCPOnly
	answer(r, v, false, never(t))
	if t0 := v.Sighting.Time + 1; !r.Dropped(v.Sighting.Src, judge.Nothing, judge.E1, judge.TCPOnly, t0) || r.Dropped(v.Sighting.Src, judge.Nothing, judge.E1, judge.UDPOnly, t0) {
		t.Error("a ban of TCP covers TCP and nothing else")
	}
	v.Scope = judge.UDPOnly
	answer(r, v, false, never(t))
	if b := m.bans[v.Prefix]; b.Scope != judge.AllProtocols || !r.Dropped(v.Sighting.Src, judge.Nothing, judge.E1, judge.TCPOnly, v.Sighting.Time+1) {
		t.Errorf("first TCP, then UDP: the ban covers %v", b.Scope)
	}
}

// What the kernel reports first is still itemised once, with what was done.
func TestKernelReportFirst(t *testing.T) {
	m := &fakeMethod{bans: map[netip.Prefix]Ban{}}
	r := New([]Method{m}, nil, Plan{}, &ledger{})
	v := verdict(scanner, judge.Soft, config.BlockBan)
	answer(r, v, true, never(t))
	if r.Dropped(v.Sighting.Src, judge.Nothing, judge.E1, judge.TCPOnly, v.Sighting.Time+1) {
		t.Error("the sighting of the packet that the kernel reported would be swallowed")
	}
	o, _ := answer(r, v, false, never(t))
	if !o.Blocked || o.Already || len(o.Actions) != 1 {
		t.Errorf("its sighting: %+v", o)
	}
	if o, _ := answer(r, v, true, never(t)); !o.Already || m.n != 1 {
		t.Errorf("a second report: %+v, %d calls", o, m.n)
	}
}

var fullPlan = PlanFrom(&config.Config{KillRoute: "r", KillHostsDeny: "h", KillRunCmd: "c", KillRunCmdUndo: "u"})

func TestPlanOrder(t *testing.T) {
	c := &config.Config{KillRoute: "r", KillHostsDeny: "h", KillRunCmd: "c"}
	if got, want := PlanFrom(c).Ban, []Step{StepHostsDeny, StepRoute, StepCommand}; !slices.Equal(got, want) {
		t.Errorf("KILL_RUN_CMD_FIRST=0: %v, want %v", got, want)
	}
	c.KillRunCmdFirst = true
	if got, want := PlanFrom(c).Ban, []Step{StepCommand, StepHostsDeny, StepRoute}; !slices.Equal(got, want) {
		t.Errorf("KILL_RUN_CMD_FIRST=1: %v, want %v", got, want)
	}
	if got := PlanFrom(c).Command; !slices.Equal(got, []Step{StepCommand}) {
		t.Errorf("BLOCK=2: %v", got)
	}
}

// Without a native method the sighting waits for the commands; it is blocked
// when one of them succeeded, and a failed one is tried again with the next hit.
func TestCommandsAlone(t *testing.T) {
	l, q := &ledger{}, &fakeRunner{room: 9}
	r := New(nil, q, fullPlan, l)
	v := verdict(scanner, judge.Soft, config.BlockBan)
	var got []Outcome
	later := func(o Outcome) { got = append(got, o) }

	if o, deferred := answer(r, v, false, later); !deferred || o.Blocked {
		t.Fatalf("first hit: %+v, deferred %v", o, deferred)
	}
	if o, deferred := answer(r, v, false, later); deferred || o.Blocked || len(q.orders) != 1 {
		t.Errorf("a hit while they run: %+v, deferred %v, %d orders", o, deferred, len(q.orders))
	}
	q.finish(0, StepHostsDeny, StepRoute, StepCommand)
	if o := got[0]; o.Blocked || !o.Deferred || len(o.Actions) != 3 || len(l.began) != 0 {
		t.Errorf("all failed: %+v, began %v; a failed command blocks nobody", o, l.began)
	}
	if _, deferred := answer(r, v, false, later); !deferred || len(q.orders) != 2 {
		t.Fatalf("the next hit did not try again")
	}
	q.finish(1, StepRoute)
	if o := got[1]; !o.Blocked || len(l.began) != 1 {
		t.Errorf("two of three: %+v, began %v", o, l.began)
	}
	if o, _ := answer(r, v, false, later); !slices.Equal(q.orders[2].Steps, []Step{StepRoute}) || o.Already {
		t.Errorf("only what failed is tried again: %v, %+v", q.orders[2].Steps, o)
	}
	q.finish(2)
	if o, deferred := answer(r, v, false, later); deferred || !o.Already || !o.Blocked || len(q.orders) != 3 {
		t.Errorf("all done: %+v, %d orders", o, len(q.orders))
	}
	if r.Stats().StepsFailed != 4 {
		t.Errorf("%d failures counted, want 4", r.Stats().StepsFailed)
	}
}

func TestWeakEvidenceRunsNoCommands(t *testing.T) {
	q := &fakeRunner{room: 9}
	r := New(nil, q, fullPlan, &ledger{})
	o, deferred := answer(r, verdict(scanner, judge.Limited, config.BlockBan), false, never(t))
	if deferred || o.Blocked || len(q.orders) != 0 {
		t.Errorf("limited: %+v, %d orders", o, len(q.orders))
	}
}

// Behind a queue of slow commands a sighting is recorded at once.
func TestBusyCommandsHoldNothingUp(t *testing.T) {
	q := &fakeRunner{room: 9, busy: true}
	r := New(nil, q, fullPlan, &ledger{})
	var got []Outcome
	o, deferred := answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, func(o Outcome) { got = append(got, o) })
	if deferred || o.Blocked || len(q.orders) != 1 {
		t.Fatalf("%+v, deferred %v, %d orders", o, deferred, len(q.orders))
	}
	q.finish(0)
	if len(got) != 1 || got[0].Deferred || !got[0].Blocked {
		t.Errorf("when they have ended: %+v", got)
	}
}

func TestQueueFull(t *testing.T) {
	q := &fakeRunner{room: 1}
	r := New(nil, q, fullPlan, &ledger{})
	answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, nil)
	v := verdict("203.0.113.10", judge.Soft, config.BlockBan)
	o, deferred := answer(r, v, false, never(t))
	if deferred || o.Blocked || len(o.Actions) != 1 || !errors.Is(o.Actions[0].Err, ErrBusy) || r.Stats().RefusedBusy != 1 {
		t.Errorf("no room: %+v, deferred %v, %+v", o, deferred, r.Stats())
	}
	q.room = 9
	if _, deferred := answer(r, v, false, nil); !deferred {
		t.Error("with room again the next hit is answered")
	}
}

// When the time is up, what can be undone is; a route without an undo stays and
// the book goes on saying so.
func TestEndUndoes(t *testing.T) {
	for _, c := range []struct {
		name string
		plan Plan
		undo []Step
		rows int
	}{
		{"all of it", PlanFrom(&config.Config{KillRoute: "r", KillRouteUndo: "u", KillHostsDeny: "h"}), []Step{StepRouteUndo, StepHostsDenyUndo}, 0},
		{"hosts.deny", PlanFrom(&config.Config{KillHostsDeny: "h"}), []Step{StepHostsDenyUndo}, 0},
		{"a route for good", PlanFrom(&config.Config{KillRoute: "r"}), nil, 1},
		{"a route for good, and hosts.deny", PlanFrom(&config.Config{KillRoute: "r", KillHostsDeny: "h"}), nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, q := &ledger{}, &fakeRunner{room: 9}
				r := New(nil, q, c.plan, l)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go r.Run(ctx)
				answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, func(Outcome) {})
				q.finish(0)
				time.Sleep(11 * time.Minute)
				synctest.Wait()
				var undo []Step
				if len(q.orders) > 1 {
					undo = q.orders[1].Steps
					q.finish(1)
				}
				if !slices.Equal(undo, c.undo) || len(r.List()) != c.rows || len(l.ended) != 1-c.rows {
					t.Errorf("undone %v, %d rows, ended %v; want %v, %d rows", undo, len(r.List()), l.ended, c.undo, c.rows)
				}
			})
		})
	}
}

func TestUnban(t *testing.T) {
	m, l, q := &fakeMethod{bans: map[netip.Prefix]Ban{}}, &ledger{}, &fakeRunner{room: 9}
	r := New([]Method{m}, q, fullPlan, l)
	v := verdict(scanner, judge.Soft, config.BlockBan)
	answer(r, v, false, func(Outcome) {})
	q.finish(0)
	lifted, err := r.Unban(t.Context(), v.Sighting.Src, End{})
	if err != nil || len(lifted) != 1 || !slices.Equal(lifted[0].Lasting, []Step{StepRoute}) {
		t.Fatalf("Unban = %+v, %v; a route without undo is left", lifted, err)
	}
	if len(m.bans) != 0 || len(r.List()) != 0 || !slices.Equal(q.orders[1].Steps, []Step{StepCommandUndo, StepHostsDenyUndo}) {
		t.Errorf("left %v, %v; undone %v", m.bans, r.List(), q.orders[1].Steps)
	}
	if bans(r, v.Sighting.Src) != 0 {
		t.Error("a person forgave it: the next ban is a first one")
	}
	if lifted, err := r.Unban(t.Context(), v.Sighting.Src, End{}); len(lifted) != 0 || err != nil {
		t.Errorf("a second Unban = %v, %v", lifted, err)
	}
}

func TestUnbanLiftsThe64Too(t *testing.T) {
	m := &fakeMethod{bans: map[netip.Prefix]Ban{}}
	r := New([]Method{m}, nil, Plan{}, &ledger{})
	one, two := verdict("2001:db8::9", judge.Soft, config.BlockBan), verdict("2001:db8::a", judge.Soft, config.BlockBan)
	answer(r, one, false, never(t))
	if r.Neighbours(two.Sighting.Src) != 1 || r.Neighbours(one.Sighting.Src) != 0 {
		t.Errorf("neighbours: %d and %d, want 1 and 0", r.Neighbours(two.Sighting.Src), r.Neighbours(one.Sighting.Src))
	}
	two.Prefix = netip.MustParsePrefix("2001:db8::/64")
	answer(r, two, false, never(t))
	if o, _ := answer(r, verdict("2001:db8::b", judge.Soft, config.BlockBan), false, never(t)); !o.Already {
		t.Error("a third address of a banned /64 is not seen as banned")
	}
	if lifted, err := r.Unban(t.Context(), one.Sighting.Src, End{}); err != nil || len(lifted) != 2 || len(m.bans) != 0 {
		t.Errorf("lifted %v, %v; left %v", lifted, err, m.bans)
	}
}

// A native method that fails is not asked for every packet of a flood, and the
// owner's commands run all the same.
func TestNativeFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, q := &fakeMethod{err: errors.New("refused"), bans: map[netip.Prefix]Ban{}}, &fakeRunner{room: 9}
		r := New([]Method{m}, q, fullPlan, &ledger{})
		o, _ := answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, func(Outcome) {})
		if o.Blocked || o.Actions[0].Err == nil || len(q.orders) != 1 {
			t.Errorf("%+v, %d orders", o, len(q.orders))
		}
		for i := range 100 {
			answer(r, verdict(fmt.Sprintf("203.0.113.%d", i+20), judge.Limited, config.BlockBan), false, nil)
		}
		if m.n != 1 || r.Stats().NativeFailed != 1 {
			t.Errorf("the method was asked %d times within a second of its failure", m.n)
		}
		time.Sleep(time.Second)
		m.err = nil
		if o, _ := answer(r, verdict("203.0.113.200", judge.Soft, config.BlockBan), false, nil); !o.Blocked {
			t.Errorf("a second later: %+v", o)
		}
	})
}

// One ban that the method refuses does not keep the others of its batch out.
func TestCommitOneByOne(t *testing.T) {
	m := &fakeMethod{bans: map[netip.Prefix]Ban{}, bad: netip.MustParsePrefix("203.0.113.11/32")}
	r := New([]Method{m}, nil, Plan{}, &ledger{})
	var got []Outcome
	for _, a := range []string{"203.0.113.10", "203.0.113.11", "203.0.113.12"} {
		o, _ := r.Answer(verdict(a, judge.Soft, config.BlockBan), false, never(t))
		got = append(got, o)
	}
	r.Commit(t.Context())
	for i := range got {
		got[i].Settle()
	}
	if !got[0].Blocked || got[1].Blocked || !got[2].Blocked || len(m.bans) != 2 || len(r.List()) != 2 || r.Stats().NativeFailed != 1 {
		t.Errorf("%+v, %v", got, m.bans)
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMethod{bans: map[netip.Prefix]Ban{}}
		r := New([]Method{m}, nil, Plan{}, &ledger{})
		for i := range banBurst + 500 {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			answer(r, verdict(a.String(), judge.Soft, config.BlockBan), false, nil)
		}
		if len(m.bans) != banBurst || r.Stats().RefusedLimits != 500 {
			t.Errorf("%d bans, %d refused at once; want %d and 500", len(m.bans), r.Stats().RefusedLimits, banBurst)
		}
		for i := range MaxUnproved + 100_000 {
			if i%bansPerSec == 0 {
				time.Sleep(time.Second)
			}
			a := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
			v := verdict(a.String(), judge.Soft, config.BlockBan)
			v.Length = time.Hour
			answer(r, v, false, nil)
		}
		if r.book.entries.number != MaxUnproved {
			t.Errorf("%d entries, want the most there may be: %d", r.book.entries.number, MaxUnproved)
		}
		proved := verdict(scanner, judge.Soft, config.BlockBan)
		proved.Evidence = judge.E2
		if o, _ := answer(r, proved, false, nil); !o.Blocked {
			t.Errorf("on proof: %+v; whoever forges sources keeps it from being made", o)
		}
		by := Ban{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Until: time.Now().Add(time.Hour), By: "uid 0"}
		if _, err := r.Order(t.Context(), by, by.Prefix.Addr()); err != nil {
			t.Errorf("by a person: %v", err)
		}
	})
}

func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := &fakeMethod{bans: map[netip.Prefix]Ban{}}, &ledger{}
		r := New([]Method{m}, nil, Plan{}, l)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		r.Restore([]InForce{{Ban: Ban{Prefix: v.Prefix, Strength: judge.Soft, Until: time.Now().Add(time.Minute), Times: 1}, Methods: []string{"fake"}}})
		if o, _ := answer(r, v, false, never(t)); !o.Already || m.n != 0 {
			t.Errorf("a restored ban: %+v, %d calls", o, m.n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(l.ended) != 1 || len(r.List()) != 0 {
			t.Errorf("its end: %v, %v", l.ended, r.List())
		}
	})
}

// A line that the administrator wrote himself keeps the host out, and stays
// when our ban ends.
func TestForeignHostsDenyLineStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeRunner{room: 9}
		r := New(nil, q, PlanFrom(&config.Config{KillHostsDeny: "h"}), &ledger{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx)
		v := verdict(scanner, judge.Soft, config.BlockBan)
		var got Outcome
		answer(r, v, false, func(o Outcome) { got = o })
		q.done[0]([]Action{{Step: StepHostsDeny, Host: v.Sighting.Src, Skipped: true}})
		if !got.Blocked || len(r.List()) != 1 {
			t.Errorf("a host that is kept out already: %+v, %d rows", got, len(r.List()))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(q.orders) != 1 || len(r.List()) != 0 {
			t.Errorf("%d orders, %d rows; somebody else's line is not ours to take out", len(q.orders), len(r.List()))
		}
	})
}

// What a ban has become is in the kernel, and is told to the ledger: a reboot is to bring
// back nothing harder.
func TestRelax(t *testing.T) {
	m, l := &fakeMethod{bans: map[netip.Prefix]Ban{}}, &ledger{}
	r := New([]Method{m}, nil, Plan{}, l)
	v := verdict(scanner, judge.Soft, config.BlockBan)
	answer(r, v, false, never(t))
	was := l.last
	addrs := []netip.Addr{v.Sighting.Src, netip.MustParseAddr("198.51.100.1")}
	m.err = errors.New("refused")
	if err := r.Relax(t.Context(), addrs); err == nil || len(l.began) != 1 {
		t.Errorf("refused: %v, told %+v", err, l)
	}
	m.err = nil
	if err := r.Relax(t.Context(), addrs); err != nil {
		t.Fatal(err)
	}
	if b := m.bans[v.Prefix]; b.Strength != judge.Limited || b.Until != was.Until || len(m.bans) != 1 {
		t.Errorf("relaxed to %+v", b)
	}
	if b := l.last; len(l.began) != 2 || len(l.ended) != 0 || b.Prefix != v.Prefix || b.Strength != judge.Limited || !b.Until.Equal(was.Until) || !b.Since.Equal(was.Since) || b.Times != was.Times {
		t.Errorf("told of %+v, before of %+v; %v began, %v ended", b, was, l.began, l.ended)
	}
	if err := r.Relax(t.Context(), addrs); err != nil || len(l.began) != 2 {
		t.Errorf("once more: %v, told %+v", err, l)
	}
}
