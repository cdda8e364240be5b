package app

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

const whyConf = `TCP_PORTS="1,11,23"
UDP_PORTS="7"
IGNORE_FILE="/etc/portsentry/portsentry.ignore"
BLOCK_TCP="1"
BLOCK_METHOD="nftables"
BAN_TIME_MAX="3h"
`

// asked is what is known, said about 203.0.113.9 at a fixed time.
func newInquiry(t *testing.T, change func(q *inquiry, b *respond.Ban)) view.Why {
	t.Helper()
	c, err := config.Parse("portsentry.conf", []byte(whyConf))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 21, 9, 14, 2, 0, time.UTC)
	row := respond.InForce{Methods: []string{"nftables"}, Ban: respond.Ban{
		Prefix: netip.MustParsePrefix("203.0.113.9/32"), Strength: judge.Soft, Evidence: judge.E1, Since: at, Until: at.Add(10 * time.Minute),
		Times: 1, Reason: "syn to trap port 1, unverified", Port: 1, Proto: decode.ProtoTCP, Kind: "syn",
	}}
	packet := func(ms int, port uint16) store.Packet {
		return store.Packet{
			Time: at.Add(time.Duration(ms) * time.Millisecond).UnixNano(), IfIndex: 2, Src: row.Ban.Prefix.Addr(), Dst: netip.MustParseAddr("10.0.0.5"),
			SrcPort: 40000, DstPort: port, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Flags: decode.SYN, TTL: 52,
		}
	}
	q := &inquiry{a: row.Ban.Prefix.Addr(), conf: c, tcp: c.TrapsTCP(), udp: c.TrapsUDP(), standing: &row, interfaceName: func(int32) string { return "eth0" }}
	q.policy = new(daemon).policy(c)
	q.recent = []store.Packet{packet(-1, 1), packet(3, 23), packet(-20, 11)}
	change(q, &row.Ban)
	return q.answer()
}

func TestWhy(t *testing.T) {
	scan := detect.Found{Kind: detect.KindSYN, Proto: decode.ProtoTCP, Ports: 5, Targets: 1, Probes: 5, Score: 14.93}
	for _, c := range []struct {
		name                        string
		change                      func(q *inquiry, b *respond.Ban)
		verdict, summary, reckoning string
		rules                       string
	}{
		{"trap hit", func(*inquiry, *respond.Ban) {}, "banned", "it sent syn to trap port 1, unverified", "BAN_TIME_UNVERIFIED 10m",
			"SCAN_TRIGGER default, BLOCK_TCP portsentry.conf:4, BLOCK_METHOD portsentry.conf:5, BLOCK_EVIDENCE default, BAN_TIME_UNVERIFIED default, BAN_TIME_FACTOR default, BAN_TIME default"},
		{"second time", func(_ *inquiry, b *respond.Ban) { b.Times, b.Until = 2, b.Since.Add(20*time.Minute) }, "banned", "it sent syn to trap port 1, unverified",
			"BAN_TIME_UNVERIFIED 10m x BAN_TIME_FACTOR 2, once = 20m", ""},
		{"as long as it gets", func(_ *inquiry, b *respond.Ban) { b.Times, b.Until = 9, b.Since.Add(time.Hour) }, "banned", "it sent syn to trap port 1, unverified",
			"BAN_TIME_UNVERIFIED 10m x BAN_TIME_FACTOR 2, 8 times, at most BAN_TIME 1h = 1h", ""},
		{"verified, the third time", func(_ *inquiry, b *respond.Ban) {
			b.Evidence, b.Times, b.Until, b.Reason = judge.E2, 3, b.Since.Add(3*time.Hour), "connect to trap port 1, verified"
			b.Kind = "connect"
		}, "banned", "it sent connect to trap port 1, verified", "BAN_TIME 1h x BAN_TIME_FACTOR 2, twice, at most BAN_TIME_MAX 3h = 3h", ""},
		{"other settings then", func(_ *inquiry, b *respond.Ban) { b.Until = b.Since.Add(37 * time.Minute) }, "banned", "it sent syn to trap port 1, unverified",
			"37m, which is not what the settings of now come to: they were others then, or it took the place of another ban", ""},
		{"scan", func(q *inquiry, b *respond.Ban) {
			b.Reason = "vertical syn scan of 5 ports of one address, unverified"
			q.lives = []store.Life{{Ban: *b, Found: scan, Packets: q.recent[:1]}}
		}, "banned", "a vertical syn scan of 5 ports of 1 address; unverified: the packets may be somebody else's",
			"BAN_TIME_UNVERIFIED 10m; score 14.9, and 13.8 decides; a port at which nobody is adds up to 3.0 (docs/detection.md)",
			"SCAN_DETECT default, BLOCK_TCP portsentry.conf:4, BLOCK_METHOD portsentry.conf:5, BLOCK_EVIDENCE default, BAN_TIME_UNVERIFIED default, BAN_TIME_FACTOR default, BAN_TIME default"},
		{"by hand", func(_ *inquiry, b *respond.Ban) {
			b.By, b.Reason, b.Evidence, b.Prefix = "uid 0", "by hand", judge.E0, netip.MustParsePrefix("203.0.113.0/24")
		}, "banned", "asked for by uid 0: by hand", "10m, as was asked for", ""},
		{"taken over", func(q *inquiry, b *respond.Ban) {
			b.Reason, b.Port, q.recent = "taken over from an earlier run", 0, nil
		}, "banned", "taken over from an earlier run", "", ""},
		{"the whole /64", func(q *inquiry, b *respond.Ban) {
			b.Prefix, b.Reason = netip.MustParsePrefix("2001:db8:1:2::/64"), "syn to trap port 1, unverified; second address of its /64"
			q.a = netip.MustParseAddr("2001:db8:1:2::9")
		}, "banned", "it sent syn to trap port 1, unverified; second address of its /64",
			"BAN_TIME_UNVERIFIED 10m; all of 2001:db8:1:2::/64: one host may have every address of it, and more of them were banned", ""},
		{"ignored", func(q *inquiry, _ *respond.Ban) { q.standing, q.spared, q.ignored = nil, "in the ignore file", true }, "spared", "", "", "IGNORE_FILE portsentry.conf:3"},
		{"gateway", func(q *inquiry, _ *respond.Ban) { q.standing, q.spared = nil, "a gateway of this host" }, "spared", "", "", ""},
		{"seen", func(q *inquiry, _ *respond.Ban) { q.standing = nil }, "seen", "", "", "BLOCK_TCP portsentry.conf:4"},
		{"banned once", func(q *inquiry, b *respond.Ban) {
			q.standing, q.lives = nil, []store.Life{{Ban: *b, Ended: b.Until, End: respond.End{Ending: respond.Lifted, By: "uid 7"}, Packets: q.recent[:1]}}
		}, "seen", "it sent syn to trap port 1, unverified", "", ""},
		{"unknown", func(q *inquiry, _ *respond.Ban) { q.standing, q.recent = nil, nil }, "unknown", "", "", ""},
	} {
		y := newInquiry(t, c.change)
		if got := strings.Join(y.Arithmetic, "; "); y.Verdict != c.verdict || y.Summary != c.summary || got != c.reckoning {
			t.Errorf("%s: %s, %q, %q; want %s, %q, %q", c.name, y.Verdict, y.Summary, got, c.verdict, c.summary, c.reckoning)
		}
		var rules []string
		for _, r := range y.Rules {
			rules = append(rules, r.Key+" "+r.Where)
		}
		if got := strings.Join(rules, ", "); c.rules != "" && got != c.rules || c.verdict == "unknown" && got != "" {
			t.Errorf("%s: rules %s; want %s", c.name, got, c.rules)
		}
	}
}

// Each packet has what came of it, in the order in which they came.
func TestWhyPackets(t *testing.T) {
	y := newInquiry(t, func(q *inquiry, _ *respond.Ban) { q.recent[1].Verified = true })
	var got []string
	for _, p := range y.Packets {
		got = append(got, p.Time.Format("05.000")+" "+p.Flags+" "+p.Interface+" "+p.Text)
	}
	equal(t, got, []string{
		"01.980 SYN eth0 trap port; counted", "01.999 SYN eth0 trap port; the ban began with it",
		"02.003 SYN eth0 trap port; handshake completed: the address is not forged; came while it was banned",
	})
	y = newInquiry(t, func(q *inquiry, b *respond.Ban) {
		q.lives = []store.Life{{Ban: *b, Packets: q.recent[:1]}, {Ban: *b, Ended: b.Since, End: respond.End{Ending: respond.Expired}}}
	})
	if len(y.Packets) != 1 || len(y.Past) != 1 || y.Past[0].Ending != "expired" || y.Ban == nil || y.Ban.Ended != nil {
		t.Errorf("%d packets, past %+v, ban %+v", len(y.Packets), y.Past, y.Ban)
	}
}
