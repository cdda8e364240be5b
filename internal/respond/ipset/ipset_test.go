package ipset

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/test/banlab"
)

func TestNewConnectionsStop(t *testing.T) {
	l := newLab(t)
	s := l.open()
	l.rules(s)
	until := time.Now().Add(time.Minute)
	old4, old6 := l.Dial(banlab.Near4), l.Dial(banlab.Near6)
	if old4 == nil || old6 == nil || !l.Answered(banlab.Far6) {
		t.Fatal("no answer before any ban")
	}
	bans := []respond.Ban{banlab.Ban(banlab.Single(banlab.Near4), until), banlab.Ban(banlab.Single(banlab.Near6), until), banlab.Ban(netip.PrefixFrom(banlab.Far6, 64), until)}
	if err := s.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	for src, want := range map[netip.Addr]bool{
		banlab.Near4: false, banlab.Near6: false, banlab.Far6: false, banlab.Far6.Next(): false, banlab.Far4: true, banlab.Gateway4: true, banlab.Gateway6: true,
	} {
		if l.Answered(src) != want {
			t.Errorf("%v is answered %v, want %v\n%s", src, !want, want, l.Run("ipset", "list"))
		}
	}
	if !banlab.GoesOn(old4) || !banlab.GoesOn(old6) {
		t.Error("a connection from before the ban was cut")
	}
	for _, b := range bans {
		for range 2 { // a missing one is no error
			if err := s.Unban(t.Context(), b); err != nil {
				t.Error(err)
			}
		}
	}
	for _, src := range []netip.Addr{banlab.Near4, banlab.Near6, banlab.Far6} {
		if !l.Answered(src) {
			t.Errorf("%v is not answered after its ban", src)
		}
	}
}

// A ban ends without us, and one that is made again lasts as long as it says.
func TestEndsByItself(t *testing.T) {
	l := newLab(t)
	s := l.open()
	l.rules(s)
	b := banlab.Ban(banlab.Single(banlab.Near4), time.Now().Add(time.Hour))
	for _, until := range []time.Time{b.Until, time.Now().Add(time.Second)} {
		b.Until = until
		if err := s.BanAll(t.Context(), []respond.Ban{b}); err != nil {
			t.Fatal(err)
		}
	}
	if l.Answered(banlab.Near4) {
		t.Fatal("not banned")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of a ban of a second", func() bool { return l.Answered(banlab.Near4) })
}

func TestRestart(t *testing.T) {
	l := newLab(t)
	first := l.open()
	l.rules(first)
	until := time.Now().Add(time.Hour)
	want := map[netip.Prefix]bool{banlab.Single(banlab.Near4): true, banlab.Single(banlab.Near6): true, netip.PrefixFrom(banlab.Far6, 64).Masked(): true}
	for p := range want {
		if err := first.BanAll(t.Context(), []respond.Ban{banlab.Ban(p, until)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l.Run("ipset", "add", "portsentry4", "192.0.2.77") // for ever: the owner's own
	second := l.open()
	bans, err := second.Existing(t.Context())
	if err != nil || len(bans) != len(want) {
		t.Fatalf("Existing = %+v, %v; want %v", bans, err, want)
	}
	for _, b := range bans {
		if d := until.Sub(b.Until).Abs(); !want[b.Prefix] || d > 3*time.Second || b.Strength != judge.Soft {
			t.Errorf("%+v, want it until %v", b, until)
		}
	}
	if l.Answered(banlab.Near4) {
		t.Error("a ban did not outlive the run that made it")
	}
}

// A set without room refuses, and of what was asked for nothing stays.
func TestFull(t *testing.T) {
	l := newLab(t)
	l.Run("ipset", "create", "portsentry4", "hash:ip", "maxelem", "64", "timeout", "0")
	s := l.open()
	until := time.Now().Add(time.Minute)
	if err := s.BanAll(t.Context(), []respond.Ban{banlab.Ban(banlab.Single(banlab.Near4), until)}); err != nil {
		t.Fatal(err)
	}
	var bans []respond.Ban
	for a := banlab.Far4; len(bans) < 64; a = a.Next() {
		bans = append(bans, banlab.Ban(banlab.Single(a), until))
	}
	if err := s.BanAll(t.Context(), bans); !errors.Is(err, ErrFull) {
		t.Errorf("65 bans in a set for 64: %v", err)
	}
	if got, err := s.Existing(t.Context()); err != nil || len(got) != 1 || got[0].Prefix != banlab.Single(banlab.Near4) {
		t.Errorf("what stays is %+v, %v; want %v", got, err, banlab.Near4)
	}
	if err := s.BanAll(t.Context(), bans[:63]); err != nil {
		t.Errorf("64 bans in a set for 64: %v", err)
	}
}

func TestForeignSets(t *testing.T) {
	l := newLab(t)
	l.Run("ipset", "create", "others", "hash:ip", "timeout", "600")
	l.Run("ipset", "add", "others", banlab.Far4.String())
	l.Run("ipset", "create", "portsentry6", "hash:ip", "family", "inet6", "timeout", "600")
	err := l.Host.Do(func() error {
		s, err := Open()
		if err == nil {
			s.Close()
		}
		return err
	})
	if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "portsentry6") {
		t.Errorf("a set that holds no /64: %v", err)
	}
	l.Run("ipset", "destroy", "portsentry6")
	s := l.open()
	b := banlab.Ban(banlab.Single(banlab.Far4), time.Now().Add(time.Minute))
	if err := errors.Join(s.BanAll(t.Context(), []respond.Ban{b}), s.Unban(t.Context(), b)); err != nil {
		t.Fatal(err)
	}
	if out := l.Run("ipset", "test", "others", banlab.Far4.String()); !strings.Contains(out, "is in set") {
		t.Error(out)
	}
	l.Run("ipset", "destroy", "portsentry4")
	if err := s.BanAll(t.Context(), []respond.Ban{b}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a set that somebody destroyed: %v", err)
	}
	if v4, _, err := s.Referenced(); v4 || err == nil {
		t.Errorf("a set that is gone: used %v, %v", v4, err)
	}
}

type ledger struct{ began []netip.Addr }

func (l *ledger) Began(_ respond.Ban, a netip.Addr)                            { l.began = append(l.began, a) }
func (l *ledger) Ended(respond.Ban, netip.Addr, respond.End, []respond.Action) {}

// Nothing is hidden, and nobody called blocked, as long as no rule uses the set.
func TestNoRuleNoClaim(t *testing.T) {
	l := newLab(t)
	s, led := l.open(), &ledger{}
	r := respond.New([]respond.Method{s}, nil, respond.Plan{}, led)
	hit := func() (o respond.Outcome, dropped bool) {
		v := judge.Verdict{
			Sighting: detect.Sighting{Time: time.Now().UnixNano(), Src: banlab.Near4, Proto: decode.ProtoTCP, Triggered: true},
			Strength: judge.Full, Evidence: judge.E2, Block: config.BlockBan, Prefix: banlab.Single(banlab.Near4), Length: time.Minute,
		}
		o, _ = r.Answer(&v, false, nil)
		r.Commit(t.Context())
		o.Settle()
		return o, r.Dropped(banlab.Near4, judge.Nothing, judge.E1, judge.TCPOnly, v.Sighting.Time+1)
	}
	if o, dropped := hit(); o.Blocked || len(o.Actions) > 0 || dropped || len(led.began) > 0 || len(r.List()) > 0 {
		t.Errorf("no rule: %+v, dropped %v, %v", o, dropped, r.List())
	}
	asked := time.Now()
	for _, rule := range s.Rules() {
		l.Run(strings.Fields(rule)...)
	}
	var o respond.Outcome
	var dropped bool
	eventually(t, "the rule is noticed", func() bool { o, dropped = hit(); return o.Blocked })
	if took := time.Since(asked); took >= usedFor {
		t.Errorf("a rule was noticed after %v", took)
	}
	if !dropped || len(led.began) != 1 ||
		len(o.Actions) != 1 || o.Actions[0].Text != "ipset for 1m0s (new connections; verified)" {
		t.Errorf("with the rule: %+v, dropped %v", o, dropped)
	}
	l.Run("iptables", "-t", "mangle", "-F")
	if v4, v6, err := s.Referenced(); v4 || !v6 || err != nil {
		t.Fatalf("Referenced = %v, %v, %v; want the IPv6 rule only", v4, v6, err)
	}
	if o, dropped := hit(); o.Blocked || dropped {
		t.Errorf("the rule was taken away: %+v, dropped %v", o, dropped)
	}
	l.Run(strings.Fields(s.Rules()[0])...)
	eventually(t, "the rule is noticed", func() bool { _, dropped := hit(); return dropped })
	if l.Answered(banlab.Near4) {
		t.Error("the set did not keep the ban")
	}
}

func TestTakes(t *testing.T) {
	until := time.Now().Add(time.Minute)
	s := &Sets{v4: set{used: true, asked: until}, v6: set{nets: true, used: true, asked: until}} // v4: a hash:ip
	for _, c := range []struct {
		prefix   string
		scope    judge.Scope
		strength judge.Strength
		until    time.Time
		want     bool
	}{
		{"203.0.113.9/32", judge.AllProtocols, judge.Soft, until, true},
		{"203.0.113.9/32", judge.AllProtocols, judge.Full, until, true},
		{"2001:db8::/64", judge.AllProtocols, judge.Soft, until, true},
		{"203.0.113.9/32", judge.AllProtocols, judge.Limited, until, false},
		{"203.0.113.9/32", judge.UDPOnly, judge.Soft, until, false},
		{"203.0.113.0/24", judge.AllProtocols, judge.Soft, until, false},
		{"2001:db8::/48", judge.AllProtocols, judge.Soft, until, true},
		{"::/0", judge.AllProtocols, judge.Soft, until, false},
		{"::ffff:203.0.113.9/128", judge.AllProtocols, judge.Soft, until, false},
		{"203.0.113.9/32", judge.AllProtocols, judge.Soft, time.Time{}, false},
		{"203.0.113.9/32", judge.AllProtocols, judge.Soft, time.Now().Add(maxTimeout + time.Minute), false},
	} {
		b := respond.Ban{Prefix: netip.MustParsePrefix(c.prefix), Scope: c.scope, Strength: c.strength, Until: c.until}
		if s.Takes(&b) != c.want {
			t.Errorf("%+v: taken %v, want %v", c, !c.want, c.want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		-time.Hour: 1, 0: 1, time.Second: 1, time.Second + 1: 2, time.Hour: 3600, 1000 * time.Hour: 2147483,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%v: %d s, want %d", d, got, want)
		}
	}
}

// Whatever bytes come, what is read is a prefix with an end that is to come.
func FuzzElements(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 32, 0, 8, 128, 28, 0, 7, 128, 12, 0, 1, 128, 8, 0, 1, 64, 203, 0, 113, 9, 8, 0, 6, 64, 0, 0, 0, 60})
	now := time.Now()
	if bans, err := appendElements(nil, []byte{2, 0, 0, 0, 28, 0, 8, 128, 24, 0, 7, 128, 12, 0, 1, 128, 8, 0, 1, 64, 203, 0, 113, 9, 8, 0, 6, 64, 0, 0, 0, 60}, now); err != nil ||
		len(bans) != 1 || bans[0].Prefix.String() != "203.0.113.9/32" || bans[0].Until.Sub(now) != time.Minute {
		f.Fatalf("a well-formed element: %+v, %v", bans, err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		bans, _ := appendElements(nil, b, now)
		for _, b := range bans {
			if !b.Prefix.IsValid() || !b.Until.After(now) {
				t.Errorf("%+v", b)
			}
		}
	})
}
