package respond

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/judge"
)

// holder is a Method that can be asked, and robbed.
type holder struct {
	held      map[netip.Prefix]Ban
	takes     func(*Ban) bool
	ask, make error
	asked     int
}

func (h *holder) Name() string      { return "holder" }
func (h *holder) Takes(b *Ban) bool { return h.takes == nil || h.takes(b) }
func (h *holder) Enforces() bool    { return true }
func (h *holder) Ends() bool        { return true }
func (h *holder) rob(p ...netip.Prefix) {
	for _, p := range p {
		delete(h.held, p)
	}
}

func (h *holder) BanAll(_ context.Context, bans []Ban) error {
	if h.make != nil {
		return h.make
	}
	for _, b := range bans {
		h.held[b.Prefix] = b
	}
	return nil
}

func (h *holder) Unban(_ context.Context, b Ban) error { delete(h.held, b.Prefix); return nil }

func (h *holder) Holds(_ context.Context, bans []Ban) (missing []int, err error) {
	for i, b := range bans {
		h.asked++
		if _, there := h.held[b.Prefix]; !there {
			missing = append(missing, i)
		}
	}
	return missing, h.ask
}

// What somebody took out is found and made again, with the rest of its time; what
// cannot be made again is lacking.
func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{held: make(map[netip.Prefix]Ban)}
		r := New([]Method{h}, nil, Plan{}, new(quietLedger))
		running(t, r)
		var prefixes []netip.Prefix
		for i := range 300 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(i / 256), byte(i)}), 32)
			prefixes = append(prefixes, p)
			if _, err := r.Order(t.Context(), Ban{Prefix: p, Strength: judge.Full, Until: time.Now().Add(time.Hour), By: "uid 0"}, p.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		most := 1000
		check := func(want Checked) error {
			t.Helper()
			got, err := r.Check(t.Context(), func(string) int { return most })
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			return err
		}
		ok := func(want Checked) {
			t.Helper()
			if err := check(want); err != nil {
				t.Error(err)
			}
		}
		ok(Checked{Bans: 300})
		time.Sleep(10 * time.Minute)
		h.rob(prefixes[3], prefixes[200])
		ok(Checked{Bans: 300, Missing: 2, Remade: 2})
		if b := h.held[prefixes[200]]; time.Until(b.Until) != 50*time.Minute {
			t.Errorf("made again until %v", b.Until)
		}
		h.rob(prefixes...)
		most, h.asked = 40, 0
		ok(Checked{Bans: 300, Missing: 40, Remade: 40})
		if h.asked != 40 {
			t.Errorf("asked for %d", h.asked)
		}
		most = 1000
		ok(Checked{Bans: 300, Missing: 260, Remade: 260})

		h.make = errors.New("no")
		h.rob(prefixes[7])
		if err := check(Checked{Bans: 300, Missing: 1, Lacking: 1}); !errors.Is(err, h.make) {
			t.Error(err)
		}
		h.make, h.ask = nil, errors.New("what?")
		if err := check(Checked{Bans: 300, Lacking: 300}); !errors.Is(err, h.ask) {
			t.Error(err)
		}
		h.ask = nil
		h.takes = func(b *Ban) bool { return !slices.Contains(prefixes[:5], b.Prefix) }
		ok(Checked{Bans: 300, Missing: 1, Remade: 1, Lacking: 5})

		time.Sleep(50*time.Minute - soon/2) // they may end at any moment
		h.rob(prefixes...)
		ok(Checked{Bans: 300})
		time.Sleep(soon)
		synctest.Wait()
		ok(Checked{})
	})
}

type quietLedger struct{}

func (*quietLedger) Began(Ban, netip.Addr)                {}
func (*quietLedger) Ended(Ban, netip.Addr, End, []Action) {}
