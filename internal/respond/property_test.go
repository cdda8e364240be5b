package respond

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// hand does at random what can be done with a Responder.
type hand struct {
	t       *testing.T
	rand    *rand.Rand
	r       *Responder
	ways    []*way
	failing bool
	did     []string
	ordered map[netip.Prefix]Ban // by a person, and not lifted since
}

func (h *hand) note(format string, args ...any) { h.did = append(h.did, fmt.Sprintf(format, args...)) }

// addr is one of few, so that much of what is done is about the same.
func (h *hand) addr() netip.Addr {
	if h.rand.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(h.rand.IntN(6))})
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 6: byte(h.rand.IntN(2)), 7: byte(h.rand.IntN(2)), 15: byte(h.rand.IntN(3))})
}

func (h *hand) prefix() netip.Prefix {
	a := h.addr()
	bits := []int{32, 32, 31, 24, 0}
	if a.Is6() {
		bits = []int{128, 128, 64, 56, 48}
	}
	p, _ := a.Prefix(bits[h.rand.IntN(len(bits))])
	return p
}

func (h *hand) forget(within netip.Prefix) {
	for p := range h.ordered {
		if !within.IsValid() || p.Overlaps(within) {
			delete(h.ordered, p)
		}
	}
}

func (h *hand) act(ctx context.Context) {
	switch h.rand.IntN(13) {
	case 0, 1, 2, 3:
		a := h.addr()
		v := verdict(a.String(), judge.Strength(1+h.rand.IntN(3)), config.BlockBan)
		v.Evidence = judge.E1 + judge.Evidence(h.rand.IntN(2))
		if v.Strength != judge.Full {
			v.Scope = judge.Scope(h.rand.IntN(3))
		}
		if a.Is6() && h.rand.IntN(3) == 0 {
			v.Prefix, _ = a.Prefix(64)
		}
		v.Length = time.Duration(1+h.rand.IntN(90)) * time.Second
		h.note("answer %v %v %v %v for %v", v.Prefix, v.Strength, v.Evidence, v.Scope, v.Length)
		h.r.Answer(v, h.rand.IntN(4) == 0, nil)
		if h.rand.IntN(2) == 0 {
			h.r.Commit(ctx)
		}
	case 4, 5:
		b := Ban{Prefix: h.prefix(), By: "uid 0", Until: time.Now().Add(time.Duration(1+h.rand.IntN(200)) * time.Second)}
		row, err := h.r.Order(ctx, b, b.Prefix.Addr())
		h.note("order %v until %v: %v", b.Prefix, b.Until, err)
		if err == nil {
			h.ordered[b.Prefix] = row.Ban
		}
	case 6:
		p := h.prefix()
		_, err := h.r.Lift(ctx, p, End{Ending: Lifted})
		h.note("lift %v: %v", p, err)
		h.forget(p)
	case 7:
		p := h.prefix()
		_, _, err := h.r.LiftOnly(ctx, p, End{Ending: Undone})
		h.note("lift %v alone: %v", p, err)
		delete(h.ordered, p)
	case 8:
		a := h.addr()
		h.note("relax %v: %v", a, h.r.Relax(ctx, []netip.Addr{a}))
	case 9:
		a := h.addr()
		for p := range h.ordered {
			row, _ := h.r.Of(p)
			if p.Contains(a) && (p.IsSingleIP() || !slices.Contains(row.Methods, "fine")) {
				delete(h.ordered, p)
			}
		}
		_, err := h.r.Spare(ctx, func(p netip.Prefix) bool { return p.Contains(a) })
		h.note("spare %v: %v", a, err)
	case 10:
		d := time.Duration(h.rand.IntN(60_000)) * time.Millisecond
		h.note("%v pass", d)
		time.Sleep(d)
	case 11:
		if h.failing && h.rand.IntN(2) == 0 {
			w := h.ways[h.rand.IntN(len(h.ways))]
			w.mu.Lock()
			if w.err = nil; h.rand.IntN(2) == 0 {
				w.err = errors.New("refused")
			}
			w.stuck = h.rand.IntN(3)
			h.note("%s: %v, and %d times it does not lift", w.name, w.err, w.stuck)
			w.mu.Unlock()
			return
		}
		some := []Method{h.ways[h.rand.IntN(len(h.ways))], h.ways[0]}
		if some[0] == some[1] {
			some = some[:1]
		}
		h.note("methods are %d", len(some))
		h.r.SetMethods(some)
	case 12:
		h.note("shared: %v", h.r.Share(ctx, func(netip.Prefix) bool { return false }))
		if !h.failing {
			h.shared()
		}
	}
}

// shared looks for bans that a method takes and does not hold.
func (h *hand) shared() {
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	for e := range h.r.book.entries.all {
		for _, m := range h.r.methods {
			if h.r.lacks(m, e) && e.staging == nil && e.native(time.Now().Add(soon)) {
				h.t.Errorf("%s lacks %+v", m.Name(), e.ban())
			}
		}
	}
}

// agree compares what the book says with what the methods hold.
func (h *hand) agree() {
	h.t.Helper()
	now := time.Now()
	rows := make(map[netip.Prefix]InForce)
	for _, row := range h.r.List() {
		rows[row.Ban.Prefix] = row
	}
	for _, w := range h.ways {
		held := w.held()
		for p, b := range held {
			row, listed := rows[p]
			switch over := !now.Before(b.Until); {
			case over && w.Ends(): // a kernel has forgotten it by itself
			case !listed || !slices.Contains(row.Methods, w.name):
				h.t.Errorf("%s holds %+v, and the book does not say so: %+v", w.name, b, row)
			case !h.failing && !over && (row.Ban.Strength != b.Strength || row.Ban.Scope != b.Scope || !row.Ban.Until.Equal(b.Until)):
				h.t.Errorf("%s holds %+v, and the book says %+v", w.name, b, row.Ban)
			}
		}
		for p, row := range rows {
			if _, holds := held[p]; !holds && slices.Contains(row.Methods, w.name) {
				h.t.Errorf("the book says that %s holds %+v", w.name, row.Ban)
			}
		}
	}
	for p, b := range h.ordered {
		row, stands := rows[p]
		switch {
		case !now.Before(b.Until):
			delete(h.ordered, p)
		case !stands || row.Ban.By != b.By || row.Ban.Strength != judge.Full || row.Ban.Scope != judge.AllProtocols || !row.Ban.Until.Equal(b.Until):
			h.t.Errorf("a person asked for %+v; now it is %+v", b, row.Ban)
		}
	}
	var inside, unproved int
	size := h.r.Size()
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	for e := range h.r.book.entries.all {
		if e.prefix.Addr().Is6() && e.prefix.IsSingleIP() {
			inside++
		}
		if e.unproved {
			unproved++
		}
	}
	for _, n := range h.r.book.inside {
		inside -= int(n)
	}
	held := make(map[*holders]int)
	for e := range h.r.book.entries.all {
		held[e.holders]++
	}
	for _, c := range append(h.r.book.combinations, h.r.book.nobody) {
		if held[c] != c.entries {
			h.t.Errorf("%q hold %d, and the book says %d", c.names, held[c], c.entries)
		}
	}
	for m, lacking := range h.r.book.lacking {
		for e := range lacking {
			if h.r.book.entries.of(e.prefix) != e {
				h.t.Errorf("%s lacks %v, which is not in the book", m.Name(), e.prefix)
			}
		}
	}
	if inside != 0 || unproved != h.r.book.unproved || size != h.r.book.entries.number {
		h.t.Errorf("the sums of the book are wrong: %d, %d and %d, %d", inside, unproved, h.r.book.unproved, size)
	}
}

// Whatever happens in whatever order, the book and the methods are of one mind: every
// ban it lists is held by the methods it names, and they hold no other; and what a
// person asked for stays as it is until he lifts it or its time has come.
func TestAnySequence(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			fine, rough := newWay("fine", nil), newWay("rough", coarse)
			narrow := newWay("narrow", func(b *Ban) bool { return b.Prefix.IsSingleIP() || b.Prefix.Bits() == 64 })
			fine.lets, rough.stays = true, true
			h := &hand{
				t: t, rand: rand.New(rand.NewPCG(seed, 1)), ways: []*way{fine, rough, narrow}, failing: seed%3 == 0,
				ordered: make(map[netip.Prefix]Ban),
			}
			h.r = New([]Method{fine, rough, narrow}, nil, Plan{}, &ledger{})
			running(t, h.r)
			for range 60 {
				h.act(t.Context())
				if h.rand.IntN(3) > 0 {
					continue
				}
				h.r.Commit(t.Context())
				synctest.Wait()
				if h.agree(); t.Failed() {
					t.Fatalf("seed %d, after %q", seed, h.did)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}
