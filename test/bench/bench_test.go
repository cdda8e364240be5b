package main

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestTotal(t *testing.T) {
	s := harness.Status{}
	for i, c := range losses() {
		s.Counters = append(s.Counters, view.Counter{Name: c.name, Value: 1 << i})
	}
	if n, err := total(&s, losses()); n != 15 || err != nil {
		t.Errorf("lost %d, %v", n, err)
	}
	if n, err := total(&s, counts()); n != 0 || err != nil {
		t.Errorf("without an optional counter: %d, %v", n, err)
	}
	s.Counters = append(s.Counters, view.Counter{Name: "probes_counted_total", Value: 7})
	if n, err := total(&s, counts()); n != 7 || err != nil {
		t.Errorf("counted %d, %v", n, err)
	}
	s.Counters = s.Counters[1:]
	if _, err := total(&s, losses()); err == nil {
		t.Error("a missing counter is no error")
	}
}

func TestAccount(t *testing.T) {
	a := account{arrived: 1000, itemised: 900, lost: 60}
	if a.missing() != 40 || a.share() != 90 {
		t.Errorf("%v", a)
	}
	a = account{arrived: 1000, itemised: 300, counted: 600, lost: 100}
	if a.missing() != 0 || a.share() != 30 || a.recorded() != 900 {
		t.Errorf("%v", a)
	}
	if f := (flooded{account: a, cpu: 1800 * time.Microsecond}); f.perMillion() != 2 {
		t.Errorf("%v s per million", f.perMillion())
	}
	if a = (account{}); a.share() != 0 {
		t.Errorf("nothing sent: %v", a)
	}
}

// Strangers come to ports that are no traps and not served, in names of their own.
func TestStrangers(t *testing.T) {
	ports := closedPorts()
	if len(ports) != 1000 {
		t.Errorf("%d ports", len(ports))
	}
	for trap := range strings.SplitSeq(trapPorts, ",") {
		if n, err := strconv.Atoi(trap); err != nil || slices.Contains(ports, uint16(n)) {
			t.Errorf("%s is a trap: %v", trap, err)
		}
	}
	if slices.Contains(ports, servedPort) {
		t.Error("the served port is among them")
	}
	all, too := netip.MustParsePrefix(forged), netip.MustParsePrefix(forgedToo)
	a, b := all.Addr().As4(), too.Addr().As4()
	if apart := binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(a[:]); !all.Contains(too.Addr()) || apart < millionSources || 1<<(32-too.Bits()) < millionSources {
		t.Errorf("the million of %v are not other ones of %v", too, all)
	}
	s := harness.Status{}
	for i, c := range append(looked(), unlooked()...) {
		s.Counters = append(s.Counters, view.Counter{Name: c.name, Value: 1 << i})
	}
	if n, err := total(&s, looked()); n != 1 || err != nil {
		t.Errorf("looked at %d, %v", n, err)
	}
	if n, err := total(&s, unlooked()); n != 30 || err != nil {
		t.Errorf("lost %d, %v", n, err)
	}
	if got, want := met(account{arrived: 1000, itemised: 900, lost: 60}), "900 of 1,000 looked at (90.0 %), 60 counted as lost, 40 without a number"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWithin(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		once, twice int64
		want        bool
	}{{60 * mib, 60 * mib, true}, {60 * mib, 66 * mib, true}, {60 * mib, 67 * mib, false}, {90 * mib, 97 * mib, false}, {97 * mib, 50 * mib, false}} {
		if within(c.once, c.twice) != c.want {
			t.Errorf("%d, then %d: %v", c.once, c.twice, !c.want)
		}
	}
}

func TestWays(t *testing.T) {
	if all, err := chooseWays(wayNames()); err != nil || !slices.Equal(all, ways()) {
		t.Errorf("%v, %v", all, err)
	}
	chosen, err := chooseWays("afpacket")
	if err != nil || len(chosen) != 1 {
		t.Fatalf("%v, %v", chosen, err)
	}
	c := chosen[0].banning()
	if c["CAPTURE"] != "afpacket" || c["BLOCK_METHOD"] != "nftables" || c["BLOCK_TCP"] != "1" {
		t.Errorf("%v", c)
	}
	if c := chosen[0].logOnly(); c["BLOCK_TCP"] != "0" || c["BLOCK_METHOD"] != "" {
		t.Errorf("%v", c)
	}
	if _, ok := (way{}).logOnly()["CAPTURE"]; ok {
		t.Error("the zero way has a word about capture")
	}
	var got []string
	b := bench{ways: ways()}
	err = b.each(func(w way) error { got = append(got, w.name); return nil })
	if err != nil || strings.Join(got, ",") != wayNames() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSpread(t *testing.T) {
	if got, want := spread([]float64{1, 0.5, 0.9, 1.2, 0.8}), "90.0 % (half of 5 rounds within 80.0 to 100.0)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestTraffic has a little of each load get through both cables, with an XDP
// program on the host and without.
func TestTraffic(t *testing.T) {
	lab.NeedRoot(t)
	t.Log("as root in a network namespace of its own")
	for name, join := range map[string]cable{"card": card, "plain": plain} {
		w, err := newWorld(join)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range loads() {
			if rate, err := w.slice(t.Context(), l); err != nil || rate <= 0 {
				t.Errorf("%s: %s: %v, %v", name, l.what, rate, err)
			}
		}
		if err := w.passAll(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, l := range loads() {
			if rate, err := w.slice(t.Context(), l); err != nil || rate <= 0 {
				t.Errorf("%s with XDP: %s: %v, %v", name, l.what, rate, err)
			}
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
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
	if got := midmean([]float64{100, 2, 0, 1}); got != 1.5 {
		t.Errorf("midmean %v", got)
	}
}

func TestRowsAndFlags(t *testing.T) {
	var out bytes.Buffer
	b := bench{out: &out}
	b.row("xdp", "a", "at most 1", true, "%d", 1)
	b.row("", "b", "at most 1", false, "%d", 2)
	b.note("xdp", "c", "%d", 3)
	if lines := strings.Split(out.String(), "\n"); len(lines) != 4 || strings.Index(lines[0], "a  ") != strings.Index(lines[1], "b  ") || b.misses != 1 ||
		!strings.HasPrefix(lines[0], "ok") || !strings.HasPrefix(lines[1], "MISS") {
		t.Errorf("%d misses, %q", b.misses, out.String())
	}
	if _, err := run(t.Context(), []string{"-only", "no"}, &out); err == nil || !strings.Contains(err.Error(), "attackers") {
		t.Errorf("an unknown section: %v", err)
	}
	if _, err := run(t.Context(), []string{"-ways", "no"}, &out); err == nil || !strings.Contains(err.Error(), "afpacket") {
		t.Errorf("an unknown way: %v", err)
	}
	if got := memoryOf(harness.Usage{RSS: 3 << 20, Maps: 1 << 20}); got != "4.0 MiB (3.0 resident, 1.0 BPF maps)" {
		t.Errorf("memory is %s", got)
	}
}
