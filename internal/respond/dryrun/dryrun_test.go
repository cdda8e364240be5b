package dryrun

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

type ledger struct{ t *testing.T }

func (l ledger) Began(b respond.Ban, _ netip.Addr) {
	l.t.Errorf("%v is put on the blocked file", b.Prefix)
}

func (l ledger) Ended(b respond.Ban, _ netip.Addr, _ respond.End, _ []respond.Action) {
	l.t.Errorf("%v is taken off the blocked file", b.Prefix)
}

// A dry run is listed and said once; every sighting goes on being shown, and
// none of them says that somebody was blocked.
func TestNobodyIsBlocked(t *testing.T) {
	r := respond.New([]respond.Method{New()}, nil, respond.Plan{}, ledger{t})
	src := netip.MustParseAddr("203.0.113.9")
	for i := range 3 {
		rec := store.Record{Verdict: judge.Verdict{
			Sighting: detect.Sighting{Time: time.Now().UnixNano(), Src: src, Proto: decode.ProtoTCP, Triggered: true},
			Strength: judge.Soft, Evidence: judge.E1, Block: config.BlockBan, Prefix: netip.PrefixFrom(src, 32), Length: time.Minute,
		}}
		if r.Dropped(src, judge.Nothing, judge.E1, judge.TCPOnly, rec.Verdict.Sighting.Time+1) {
			t.Fatalf("sighting %d would not be shown", i)
		}
		rec.Outcome, _ = r.Answer(&rec.Verdict, false, nil)
		r.Commit(t.Context())
		rec.Outcome.Settle()
		if want := (store.Flags{Ignored: decode.No, Triggered: decode.Yes, NoBlock: decode.No, Blocked: decode.No}); rec.Flags() != want {
			t.Errorf("sighting %d is shown with %+v, want %+v", i, rec.Flags(), want)
		}
		switch a := rec.Outcome.Actions; {
		case i > 0 && len(a) > 0:
			t.Errorf("sighting %d: said again: %+v", i, a)
		case i == 0 && (len(a) != 1 || !a[0].Skipped || a[0].Text != "dryrun for 1m0s (new connections; unverified)"):
			t.Errorf("what would be done: %+v", a)
		}
	}
	if rows := r.List(); len(rows) != 1 || len(rows[0].Methods) != 1 || rows[0].Methods[0] != "dryrun" || r.Count() != 0 {
		t.Errorf("bans lists %+v, and %d are in force", rows, r.Count())
	}
	if lifted, err := r.Unban(t.Context(), src, respond.End{}); len(lifted) != 1 || err != nil || len(r.List()) != 0 {
		t.Errorf("lifted %+v, %v", lifted, err)
	}
}
