package cli

import (
	"bytes"
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"portsentry/internal/detect"
	"portsentry/internal/view"
)

var scanTime = time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC).UnixNano()

// aScan is a scan of the given kind by 203.0.113.9.
func aScan(k detect.Kind) *detect.Scan {
	return &detect.Scan{
		Source: netip.MustParseAddr("203.0.113.9"), Kind: k, Proto: 6, First: scanTime, Last: scanTime + 1.6e9, Found: scanTime + 5e6,
		Ports: 1000, Targets: 1, Probes: 1004, Failed: 998, Score: 41.23456, Reason: "tried 1000 ports",
	}
}

func replayed(t *testing.T, r *Replay) string {
	t.Helper()
	t.Setenv("COLUMNS", "")
	var b bytes.Buffer
	if err := WriteReplay(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReplayText(t *testing.T) {
	late, six, verified := aScan(detect.KindFIN), aScan(detect.KindEcho), aScan(detect.KindSYN)
	late.First += 1e9
	six.First, six.Last, six.Proto = scanTime-1e9, scanTime+3600e9, 58
	six.Source, six.Direction, six.Targets = netip.MustParseAddr("2001:db8::9"), detect.Horizontal, 2540
	verified.Verified, verified.Tool, verified.Campaign, verified.Failed = true, "nmap", 0x1234, 1004
	got := replayed(t, &Replay{
		Scans: []*detect.Scan{late, verified, six}, Packets: 4023, Length: 36139 * time.Millisecond,
		Inside: func(a netip.Addr) bool { return a.Is6() },
	})
	want := `2001:db8::9 horizontal ICMP echo sweep of 2,540 addresses in 1 h
    from 2026-03-04 05:06:06.000 UTC, from inside, 1,004 probes, 998 of them failed, unverified
    tried 1000 ports
203.0.113.9 vertical SYN scan of 1,000 TCP ports of one address in 1.6 s, with nmap
    from 2026-03-04 05:06:07.000 UTC, from outside, 1,004 probes, verified, campaign
    0000000000001234
    tried 1000 ports
203.0.113.9 vertical FIN scan of 1,000 TCP ports of one address in 600 ms
    from 2026-03-04 05:06:08.000 UTC, from outside, 1,004 probes, 998 of them failed, unverified
    tried 1000 ports
2 scanners, 3 scans in 4,023 packets over 36.1 s
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// Every kind has a name of its own, and its longest entry fits.
func TestReplayKinds(t *testing.T) {
	names := make(map[string]detect.Kind)
	for k := detect.KindSYN; k <= detect.KindWorm; k++ {
		name, _ := kindWords(k)
		if other, ok := names[name]; ok || name == "scan" {
			t.Errorf("%v is called %q, as %v is", k, name, other)
		}
		names[name] = k
		s := aScan(k)
		s.Source, s.Tool = netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666"), "a tool that nobody has\x1b[2J heard of"
		s.Ports, s.Targets, s.Probes, s.Campaign = 65535, 1<<20, 1<<30, math.MaxUint64
		s.Reason = strings.Repeat("because ", 40)
		for line := range strings.Lines(replayed(t, &Replay{Scans: []*detect.Scan{s}, Packets: 1})) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > replayWidth || strings.Contains(line, "\x1b") {
				t.Errorf("%d columns: %q", n, line)
			}
		}
	}
}

func TestReplayWords(t *testing.T) {
	for _, c := range []struct {
		change func(s *detect.Scan)
		want   string
	}{
		{func(s *detect.Scan) { s.Ports, s.Last = 1, s.First }, "vertical SYN scan of 1 TCP port of one address"},
		{func(s *detect.Scan) { s.Kind, s.Proto = detect.KindUDP, 17 }, "vertical UDP scan of 1,000 ports of one address in 1.6 s"},
		{func(s *detect.Scan) { s.Kind, s.Proto, s.Ports = detect.KindProto, 0, 256 }, "vertical IP protocol scan of 256 protocols of one address in 1.6 s"},
		{func(s *detect.Scan) { s.Direction, s.Targets, s.Ports = detect.Block, 20, 30 }, "block SYN scan of 30 TCP ports of 20 addresses in 1.6 s"},
		{func(s *detect.Scan) { s.Last = s.First + 1e5 }, "vertical SYN scan of 1,000 TCP ports of one address in less than 1 ms"},
		{func(s *detect.Scan) { s.Ports, s.Targets = 0, 0 }, "vertical SYN scan of 1 TCP port of one address in 1.6 s"},
	} {
		s := aScan(detect.KindSYN)
		c.change(s)
		if got := scanWords(s); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestReplayNothingFound(t *testing.T) {
	for want, r := range map[string]*Replay{
		"no scan found in 1 packet over less than 1 ms\n":    {Packets: 1},
		"no scan found in 61,204 packets over 2 days, 3 h\n": {Packets: 61204, Length: 51 * time.Hour},
		"no scan found, and no packet to find one in\n":      {},
		"": {Packets: 7, JSON: true},
	} {
		if got := replayed(t, r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestReplayJSON(t *testing.T) {
	plain, rich, odd := aScan(detect.KindSYN), aScan(detect.KindConnect), aScan(detect.KindProto)
	rich.First++
	rich.Verified, rich.Tool, rich.Campaign, rich.Direction, rich.Reason = true, "masscan", 1<<63, detect.Distributed, `<"why">`
	odd.First += 2
	odd.Score, odd.Proto = math.Inf(1), 0
	lines := strings.Split(replayed(t, &Replay{JSON: true, Scans: []*detect.Scan{odd, rich, plain}}), "\n")
	want := []string{
		`{"event":"scan","time":"2026-03-04T05:06:07.005000008Z","source":"203.0.113.9","kind":"syn","direction":"vertical","proto":"tcp","evidence":"E1",` +
			`"first":"2026-03-04T05:06:07.000000008Z","last":"2026-03-04T05:06:08.600000008Z","ports":1000,"targets":1,"probes":1004,"failed":998,"score":41.23,"reason":"tried 1000 ports"}`,
		`{"event":"scan","time":"2026-03-04T05:06:07.005000008Z","source":"203.0.113.9","kind":"connect","direction":"distributed","proto":"tcp","evidence":"E2",` +
			`"first":"2026-03-04T05:06:07.000000009Z","last":"2026-03-04T05:06:08.600000008Z","ports":1000,"targets":1,"probes":1004,"failed":998,"score":41.23,` +
			`"tool":"masscan","campaign":"8000000000000000","reason":"<\"why\">"}`,
		`{"event":"scan","time":"2026-03-04T05:06:07.005000008Z","source":"203.0.113.9","kind":"ip-protocol","direction":"vertical","proto":"several","evidence":"E1",` +
			`"first":"2026-03-04T05:06:07.000000010Z","last":"2026-03-04T05:06:08.600000008Z","ports":1000,"targets":1,"probes":1004,"failed":998,"score":0,"reason":"tried 1000 ports"}`,
		"",
	}
	for i := range want {
		if i >= len(lines) || lines[i] != want[i] {
			t.Fatalf("%q\nwant\n%q", lines, want)
		}
	}
	var any map[string]any
	if err := json.Unmarshal([]byte(lines[1]), &any); err != nil {
		t.Error(err)
	}
	for proto, want := range map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp", 47: "ip-47"} {
		if got := view.Proto(proto); got != want {
			t.Errorf("%d is %s", proto, got)
		}
	}
}
