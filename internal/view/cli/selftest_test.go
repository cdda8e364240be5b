package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// sampleSelftest has a trial of every sort: alike in both families, not so, and
// broken in every column.
func sampleSelftest() *Selftest {
	v4, v6 := netip.MustParseAddr("198.18.1.5"), netip.MustParseAddr("2001:2:0:105::1")
	whole := Promise{Seen: Must, Named: "syn", Evidence: "E1", Banned: Must, Released: Must}
	good := Trial{
		Event: "trial", Probe: "SYN", Source: v4, Seen: true, Kind: "syn", Named: "TCP SYN/Normal scan", Evidence: "E1",
		Banned: true, Silent: "served ports", Methods: []string{"xdp", "nftables"}, Released: true, Promise: whole,
	}
	with := func(change func(*Trial)) Trial {
		t := good
		change(&t)
		return t
	}
	return &Selftest{
		Config: "portsentry.conf", Stage: "TCP stealth, UDP stealth, read by XDP; \x1b[2J", Took: 1234 * time.Millisecond,
		Notes: []string{"not run: KILL_ROUTE"},
		Trials: []Trial{
			good, with(func(t *Trial) { t.Source = v6 }),
			with(func(t *Trial) { t.Probe, t.Silent = "ACK", "closed ports" }),
			with(func(t *Trial) { t.Probe, t.Source, t.Seen, t.Broken = "ACK", v6, false, "it was not seen" }),
			with(func(t *Trial) { t.Probe, t.Kind, t.Evidence, t.Broken = "FIN", "odd", "E2", "it was named odd" }),
			with(func(t *Trial) {
				t.Probe, t.Banned, t.Released, t.Broken, t.Hint = "UDP", false, false, "it was not banned", "do this"
			}),
			with(func(t *Trial) {
				t.Probe, t.Banned, t.Released, t.Broken, t.Hint = "XMAS", false, false, "it was not banned", "do this"
			}),
			with(func(t *Trial) { t.Probe, t.Released, t.Broken = "NULL", false, "it was not let in again" }),
			{Event: "trial", Probe: "as a client", Source: v4, Banned: true, Promise: Promise{Banned: MustNot}, Broken: "it was cut off"},
			{Event: "trial", Probe: "SCTP INITs", Source: v4},
		},
	}
}

func TestWriteSelftest(t *testing.T) {
	var out bytes.Buffer
	if err := buffered(&out, func(w *bufio.Writer) { writeSelftest(w, sampleSelftest(), 0, false) }); err != nil {
		t.Fatal(err)
	}
	const want = `portsentry.conf: TCP stealth, UDP stealth, read by XDP; ?[2J
not run: KILL_ROUTE

probe        seen  named                evidence    banned         released
SYN          yes   TCP SYN/Normal scan  E1          xdp, nftables  yes
ACK v4       yes   TCP SYN/Normal scan  E1          closed ports   yes
ACK v6       NO    TCP SYN/Normal scan  E1          xdp, nftables  yes
FIN          yes   NOT syn: odd         NOT E1: E2  xdp, nftables  yes
UDP          yes   TCP SYN/Normal scan  E1          NO             -
XMAS         yes   TCP SYN/Normal scan  E1          NO             -
NULL         yes   TCP SYN/Normal scan  E1          xdp, nftables  NO
as a client  -     -                    -           CUT OFF        -
SCTP INITs   -     not asked for        -           -              -

ACK: it was not seen
FIN: it was named odd
UDP, XMAS: it was not banned; do this
NULL: it was not let in again
as a client: it was cut off
banned: a served port fell silent for that address (closed ports: the others did, and the served one went on); released: it answered again after unban
3 of 9 as promised, 1.2 s; this machine's own firewall and configuration were not touched
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// On a terminal what is broken is red besides, and nothing moves for it.
func TestSelftestColour(t *testing.T) {
	lines := func(width int, colour bool) (text string) {
		var out bytes.Buffer
		if err := buffered(&out, func(w *bufio.Writer) { writeSelftest(w, sampleSelftest(), width, colour) }); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	coloured := lines(0, true)
	if n := strings.Count(coloured, red); n != 7 {
		t.Errorf("%d cells are red:\n%s", n, coloured)
	}
	if got := strings.NewReplacer(red, "", plain, "").Replace(coloured); got != lines(0, false) {
		t.Errorf("it moves:\n%s", coloured)
	}
	for width := 60; width < 120; width++ {
		for line := range strings.Lines(lines(width, false)) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: %d columns: %s", width, n, line)
			}
		}
	}
}

func TestSelftestJSON(t *testing.T) {
	var out bytes.Buffer
	s := sampleSelftest()
	if err := WriteSelftest(&out, s, true); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	for i := range s.Trials {
		var one Trial
		if err := d.Decode(&one); err != nil || one.Probe != s.Trials[i].Probe || one.Promise != s.Trials[i].Promise {
			t.Errorf("trial %d: %+v, %v", i, one, err)
		}
	}
	var last summary
	if err := d.Decode(&last); err != nil || last != (summary{"selftest", "portsentry.conf", 3, 9, 1.234}) {
		t.Errorf("%+v, %v", last, err)
	}
}
