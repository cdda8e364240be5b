package app

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

func sampleRecord(src string) *store.Record {
	return &store.Record{Verdict: judge.Verdict{
		Sighting: detect.Sighting{
			Time: 1_795_252_442_113_000_000, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("10.0.0.5"),
			DstPort: 23, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Count: 1, Triggered: true,
		},
		Evidence: judge.E1, Reason: "syn to trap port 23, unverified",
	}}
}

// A follower is told what he asked for, in order, and how much of it he was too slow
// for. Nobody waits for him.
func TestFeed(t *testing.T) {
	var f feed
	all, err := f.follow(view.PastFilter{})
	if err != nil {
		t.Fatal(err)
	}
	some, err := f.follow(view.PastFilter{Source: netip.MustParsePrefix("203.0.113.0/24"), Kind: "syn"})
	if err != nil {
		t.Fatal(err)
	}
	scan := sampleRecord("203.0.113.9")
	scan.Verdict.Sighting.Scan = detect.Found{Kind: detect.KindSYN, Proto: decode.ProtoTCP, Ports: 14, Targets: 1, Probes: 15, Tool: "nmap"}
	f.sighting(sampleRecord("198.51.100.7"))
	f.sighting(scan)
	ban := respond.Ban{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Since: time.Now(), Until: time.Now().Add(time.Hour), Reason: "x", By: "uid 0"}
	f.began(&ban)
	f.ended(&ban, respond.End{Ending: respond.Lifted, By: "uid 0"})
	f.changed("uid 0", "all of it")

	var got []string
	for _, e := range f.take(all) {
		got = append(got, e.Type+" "+e.Source+" "+e.Text)
	}
	want := []string{
		"probes 198.51.100.7 port 23/tcp of 10.0.0.5; unverified", "probes 203.0.113.9 port 23/tcp of 10.0.0.5; unverified",
		"scan 203.0.113.9 vertical syn scan of 14 ports of 1 address, with nmap", "ban 203.0.113.9 for 1h by uid 0: x",
		"end 203.0.113.9 lifted by uid 0 after 0s", "change  all of it, by uid 0",
	}
	equal(t, got, want)
	got = nil
	for _, e := range f.take(some) {
		got = append(got, e.Type+" "+e.Source)
	}
	equal(t, got, []string{"probes 203.0.113.9", "scan 203.0.113.9"})

	for range followerRoom + 7 {
		f.sighting(sampleRecord("203.0.113.9"))
	}
	events := f.take(some)
	if last := events[len(events)-1]; len(events) != followerRoom+1 || last.Type != view.TypeLost || last.Count != 7 {
		t.Errorf("%d events, the last %+v", len(events), last)
	}
	events = f.take(some)
	if n, lost := f.stats(); len(events) != 0 || n != 2 || lost != 14 {
		t.Errorf("%d events more, %d lost by %d", len(events), lost, n)
	}
	f.leave(some)
	f.leave(all)
	if f.wanted() {
		t.Error("somebody follows who has left")
	}
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("%d: %q, want %q", i, g, w)
		}
	}
}

func TestFollowersAreFew(t *testing.T) {
	var f feed
	for range maxFollowers {
		if _, err := f.follow(view.PastFilter{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.follow(view.PastFilter{}); err == nil {
		t.Error("one more may follow")
	}
}

// While nobody follows, nothing is made of what happens.
func TestFeedCostsNothing(t *testing.T) {
	var f feed
	r := sampleRecord("203.0.113.9")
	ban := respond.Ban{Prefix: netip.MustParsePrefix("203.0.113.9/32")}
	if n := testing.AllocsPerRun(100, func() { f.sighting(r); f.began(&ban); f.ended(&ban, respond.End{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLearned(t *testing.T) {
	var l learned
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	a := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}) }
	for i, port := range []uint16{22, 22, 80, 443} {
		l.connected(a(i), port)
	}
	for i := range 3 {
		l.banned(a(i), at.Add(time.Duration(i)*time.Minute))
	}
	l.banned(a(0), at) // once told
	l.banned(a(99), at)
	got := l.tally(at, at.Add(time.Hour))
	if len(got) != 2 || got[0] != (view.Tally{What: "22/tcp", Count: 2}) || got[1] != (view.Tally{What: "80/tcp", Count: 1}) {
		t.Errorf("%+v", got)
	}
	if got := l.tally(at.Add(time.Hour), at.Add(2*time.Hour)); got == nil || len(got) != 0 {
		t.Errorf("%+v", got)
	}
	for i := range 3 * maxOpened {
		l.connected(a(i), 22)
		l.banned(a(i), at)
		l.connected(a(i), 22)
	}
	if len(l.opened) > maxOpened || len(l.told) > maxLessons {
		t.Errorf("%d and %d are kept", len(l.opened), len(l.told))
	}
}
