package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/harness"
)

func TestLost(t *testing.T) {
	s := harness.Status{}
	for i, name := range lossNames() {
		s.Counters = append(s.Counters, view.Counter{Name: name, Value: 1 << i})
	}
	if n, err := lost(&s); n != 15 || err != nil {
		t.Errorf("lost %d, %v", n, err)
	}
	s.Counters = s.Counters[1:]
	if _, err := lost(&s); err == nil {
		t.Error("a missing counter is no error")
	}
}

func TestAccount(t *testing.T) {
	a := account{arrived: 1000, itemised: 900, lost: 60}
	if a.missing() != 40 || a.share() != 90 {
		t.Errorf("%v", a)
	}
	if a = (account{}); a.share() != 0 {
		t.Errorf("nothing sent: %v", a)
	}
}

func TestOpen(t *testing.T) {
	x, y := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	synack := func(to netip.Addr, port uint16) pktgen.Answer {
		return pktgen.Answer{Dst: to, SrcPort: servedPort, DstPort: port, Proto: pktgen.ProtoTCP, Flags: pktgen.SYN | pktgen.ACK}
	}
	reset := synack(y, 4)
	reset.Flags = pktgen.RST | pktgen.ACK
	other := synack(y, 5)
	other.SrcPort = 81
	var sent []pktgen.Packet
	for port := range uint16(6) {
		sent = append(sent, pktgen.Packet{Src: x, SrcPort: port}, pktgen.Packet{Src: y, SrcPort: port})
	}
	before := synack(netip.MustParseAddr("192.0.2.9"), 1) // repeated to a source of an earlier run
	got := open(sent, []pktgen.Answer{synack(x, 1), synack(x, 1), synack(x, 2), reset, other, before})
	if len(got) != 1 || got[x] != 2 {
		t.Errorf("%v", got)
	}
}

func TestNth(t *testing.T) {
	for _, c := range []struct {
		base string
		i    int
		want string
	}{
		{"203.0.113.0", 200, "203.0.113.200"},
		{"198.18.0.0", 300, "198.18.1.44"},
		{"2001:db8:a::", 3, "2001:db8:a:3::1"},
	} {
		if got := nth(netip.MustParseAddr(c.base), c.i).String(); got != c.want {
			t.Errorf("%s and %d: %s, want %s", c.base, c.i, got, c.want)
		}
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	if got := cpuModel("processor\t: 0\nmodel name\t: X: 1\n"); got != "X: 1" {
		t.Errorf("model %q", got)
	}
	if got := cpuModel(""); got == "" {
		t.Error("no model and no word about it")
	}
	if got := firstField("0.5 1 2"); got != "0.5" {
		t.Errorf("load %q", got)
	}
	if got := middle([]time.Duration{3, 1, 2}); got != 2 {
		t.Errorf("median %d", got)
	}
}

func TestRowsAndFlags(t *testing.T) {
	var out bytes.Buffer
	b := bench{out: &out}
	b.row("a", "at most 1", true, "%d", 1)
	b.row("b", "at most 1", false, "%d", 2)
	if lines := strings.Split(out.String(), "\n"); len(lines) != 3 || b.misses != 1 ||
		!strings.HasPrefix(lines[0], "ok") || !strings.HasPrefix(lines[1], "MISS") {
		t.Errorf("%d misses, %q", b.misses, out.String())
	}
	if _, err := run(t.Context(), []string{"-only", "no"}, &out); err == nil || !strings.Contains(err.Error(), "attackers") {
		t.Errorf("an unknown section: %v", err)
	}
}
