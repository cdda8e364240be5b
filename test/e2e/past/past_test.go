package past_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portsentry/internal/view"
	"portsentry/test/lab"
)

// nmap scans the host from the scanner's address, one packet a port.
func (s *stage) nmap(args ...string) {
	s.t.Helper()
	lab.Nmap(s.t, s.Scanner.NS, append(append([]string{"--max-retries", "0", "-r"}, args...), s.Host.Addr4().String())...)
}

// Four probes of three traps, and one of UDP: everything that is asked says so, exactly.
func TestLogOnly(t *testing.T) {
	t.Parallel()
	s := newStage(t, map[string]string{"SCAN_DETECT": "traps"})
	lab.NeedProgram(t, "nmap", "nmap")
	who := s.Scanner.Addr4()
	s.nmap("-sS", "-p", "1,11,23,80")
	s.nmap("-sF", "-p", "11")
	s.nmap("-sU", "-p", "7")

	var sources view.SourceList
	lab.Wait(t, soon, "five packets", func() bool {
		s.ask("SourceList", &sources, "sources")
		return len(sources.Sources) == 1 && sources.Sources[0].Probes >= 5
	})
	seen := sources.Sources[0]
	slices.Sort(seen.Kinds)
	if seen.Address != who || seen.Probes != 5 || seen.Banned || seen.Bans != 0 || seen.Evidence != "E1" || strings.Join(seen.Kinds, " ") != "fin syn udp" {
		t.Errorf("source %+v", seen)
	}

	var events view.EventList
	s.ask("EventList", &events, "events", "--since", "1h", "--source", "10.77.0.0/16")
	var got []string
	for _, e := range events.Events {
		got = append(got, fmt.Sprintf("%s %s %s %s %d packets, %d ports, first %d", e.Type, e.Source, e.Kind, e.Protocol, e.Count, e.Ports, e.Port))
	}
	slices.Sort(got)
	want := []string{
		fmt.Sprintf("probes %s fin tcp 1 packets, 1 ports, first 11", who),
		fmt.Sprintf("probes %s syn tcp 3 packets, 3 ports, first 1", who),
		fmt.Sprintf("probes %s udp udp 1 packets, 1 ports, first 7", who),
	}
	if !slices.Equal(got, want) {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	s.ask("EventList", &events, "events", "--kind", "fin")
	if len(events.Events) != 1 || events.More {
		t.Errorf("of kind fin: %+v", events)
	}
	s.ask("EventList", &events, "events", "--source", "192.0.2.0/24")
	if len(events.Events) != 0 {
		t.Errorf("of somebody else: %+v", events)
	}
	s.ask("EventList", &events, "events", "-n", "2")
	if len(events.Events) != 2 || !events.More {
		t.Errorf("two of three: %+v", events)
	}

	var y view.Why
	s.ask("Why", &y, "why", who.String())
	ports := []uint16{}
	for _, p := range y.Packets {
		ports = append(ports, p.DestinationPort)
	}
	if y.Verdict != view.VerdictSeen || y.Ban != nil || !slices.Equal(ports, []uint16{1, 11, 23, 11, 7}) {
		t.Errorf("why %+v", y)
	}
	if !slices.ContainsFunc(y.Rules, func(r view.Rule) bool {
		return r.Key == "BLOCK_TCP" && r.Value == "0" && strings.Contains(r.Where, "portsentry.conf:")
	}) {
		t.Errorf("rules %+v", y.Rules)
	}
	if said := s.say("why", who.String()); !strings.HasPrefix(said, who.String()+" was seen, and is not banned\n") || !strings.Contains(said, "BLOCK_TCP=0") {
		t.Error(said)
	}

	var r view.Report
	s.ask("Report", &r, "report")
	if r.Probes != 5 || r.Sources != 1 || r.Triggered != 5 || r.Begun != 0 || len(r.TopSources) != 1 || r.TopSources[0].Probes != 5 {
		t.Errorf("report %+v", r)
	}
	if want := []view.Tally{{What: "11/tcp", Count: 2}}; len(r.TopPorts) != 4 || r.TopPorts[0] != want[0] {
		t.Errorf("top ports %+v", r.TopPorts)
	}
	for _, format := range []string{"text", "markdown", "html"} {
		if said := s.say("report", "--format", format); !strings.Contains(said, "5 packets of 1 source; 5 of them counted as a scan") || !strings.Contains(said, who.String()) {
			t.Errorf("%s:\n%s", format, said)
		}
	}
}

// Who scans is banned; why says by what, how long and by which setting, and gives the
// packet. What people change is told as well, and the answers fit their schemas.
func TestBanned(t *testing.T) {
	t.Parallel()
	s := newStage(t, map[string]string{"BLOCK_TCP": "1", "BLOCK_METHOD": "nftables", "BAN_TIME_UNVERIFIED": "5m"})
	lab.NeedProgram(t, "nmap", "nmap")
	lab.NeedProgram(t, "tcpdump", "tcpdump")
	who := s.Scanner.Addr4()
	followers := s.follow()

	s.nmap("-sS", "-p", "1-30")
	var y view.Why
	lab.Wait(t, soon, "a ban", func() bool {
		s.ask("BanList", nil, "bans")
		out, _ := s.Command(t.Context(), "why", who.String(), "--json")
		y = view.Why{}
		return json.Unmarshal(out, &y) == nil && y.Verdict == view.VerdictBanned && len(y.Packets) > 0
	})
	s.ask("Why", &y, "why", who.String())
	if p := y.Packets[0]; p.DestinationPort != 1 || p.Source != who || p.Flags != "SYN" || p.Text != "trap port; the ban began with it" {
		t.Errorf("the packet that decided: %+v", p)
	}
	if len(y.Arithmetic) != 1 || y.Arithmetic[0] != "BAN_TIME_UNVERIFIED 5m" || y.Summary != "it sent syn to trap port 1, unverified" {
		t.Errorf("%q, %q", y.Arithmetic, y.Summary)
	}
	if !slices.ContainsFunc(y.Rules, func(r view.Rule) bool { return r.Key == "BAN_TIME_UNVERIFIED" && strings.Contains(r.Where, ":") }) {
		t.Errorf("rules %+v", y.Rules)
	}
	s.pcap(who, len(y.Packets))

	hand := netip.MustParseAddr("192.0.2.77")
	s.ask("Changed", nil, "ban", hand.String(), "--for", "2h")
	s.ask("Why", &y, "why", hand.String())
	if y.Verdict != view.VerdictBanned || y.Ban.By != "uid 0" || strings.Join(y.Arithmetic, "") != "2h, as was asked for" || len(y.Rules) != 0 {
		t.Errorf("banned by hand: %+v", y)
	}
	s.ask("Unbanned", nil, "unban", who.String())
	lab.Wait(t, soon, "the end of the ban", func() bool {
		s.ask("Why", &y, "why", who.String())
		return y.Verdict == view.VerdictSeen && len(y.Past) == 1
	})
	if p := y.Past[0]; p.Ending != "lifted" || p.EndedBy != "uid 0" || p.Ended == nil {
		t.Errorf("the ban that ended: %+v", p)
	}
	var r view.Report
	s.ask("Report", &r, "report", "--since", "1h")
	if r.Begun != 2 || r.Ended != 1 || r.Stand != 1 || len(r.Bans) != 2 {
		t.Errorf("report: %d began, %d ended, %d stand, %d shown", r.Begun, r.Ended, r.Stand, len(r.Bans))
	}
	var events view.EventList
	s.ask("EventList", &events, "events", "--kind", "end")
	if len(events.Events) != 1 || !strings.HasPrefix(events.Events[0].Text, "lifted by uid 0 after ") {
		t.Errorf("ends: %+v", events)
	}

	for noun, args := range map[string][]string{"Status": {"status"}, "Health": {"health"}} {
		s.ask(noun, nil, args...)
	}
	s.changes()
	out, err := s.Command(t.Context(), "why", "192.0.2.1", "--json")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("an unknown address: %v", err)
	}
	s.fits("Why", out)
	s.refusals()

	check(t, s.Stop())
	f := <-followers
	if exit, ok := errors.AsType[*exec.ExitError](f.err); !ok || exit.ExitCode() != 1 {
		t.Errorf("who follows ends with %v when the daemon has gone", f.err)
	}
	var kinds []string
	for line := range bytes.Lines(f.told) {
		s.fits("Event", line)
		var e view.Event
		check(t, json.Unmarshal(line, &e))
		kinds = append(kinds, e.Type+" "+e.Source)
	}
	for _, want := range []string{"probes " + who.String(), "ban " + who.String(), "ban " + hand.String(), "end " + who.String(), "change "} {
		if !slices.Contains(kinds, want) {
			t.Errorf("no %s among %q", want, kinds)
		}
	}
}

// pcap writes the packets of who as a capture, which tcpdump and replay have to read.
func (s *stage) pcap(who netip.Addr, packets int) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "why.pcap")
	s.say("why", who.String(), "--pcap", path)
	out, err := exec.Command("tcpdump", "-n", "-r", path).Output()
	want := fmt.Sprintf("%s.1: Flags [S]", s.Host.Addr4())
	if lines := bytes.Count(out, []byte("\n")); err != nil || lines != packets || !bytes.Contains(out, []byte(want)) {
		s.t.Errorf("tcpdump: %v, %d packets of %d, no %q in\n%s", err, lines, packets, want, out)
	}
	if said := s.say("replay", path); !strings.Contains(said, fmt.Sprintf("in %d packet", packets)) {
		s.t.Errorf("replay: %s", said)
	}
}

// follow has somebody follow what happens. What he was told, and how that ended, come
// when it has.
func (s *stage) follow() <-chan followed {
	s.t.Helper()
	done := make(chan followed, 1)
	go func() {
		out, err := s.Command(s.t.Context(), "events", "-f", "--json")
		done <- followed{out, err}
	}()
	lab.Wait(s.t, soon, "who follows", func() bool {
		st, err := s.Status(s.t.Context())
		check(s.t, err)
		n, _ := st.Counter("followers")
		return n == 1
	})
	return done
}

type followed struct {
	told []byte
	err  error
}

// changes that wait to be confirmed, or do not.
func (s *stage) changes() {
	s.t.Helper()
	var list view.PendingList
	if s.ask("PendingList", &list, "pending"); len(list.Pending) > 0 {
		s.t.Errorf("nothing waits: %+v", list)
	}
	s.ask("Changed", nil, "reload")
	numbers := make(map[uint64]bool)
	for noun, args := range map[string][]string{"Changed": {"reload"}, "Unbanned": {"unban", "192.0.2.77"}} {
		var c view.Changed
		if s.ask(noun, &c, append(args, "--confirm-within", "1h")...); c.Pending == 0 || c.Confirm == nil {
			s.t.Errorf("%q: %+v", args, c)
		}
		numbers[c.Pending] = true
	}
	if s.ask("PendingList", &list, "pending"); len(list.Pending) != 2 {
		s.t.Errorf("two wait: %+v", list)
	}
	for _, p := range list.Pending {
		var confirmed view.Pending
		s.ask("Pending", &confirmed, "confirm", strconv.FormatUint(p.Number, 10))
		if !numbers[p.Number] || confirmed.Number != p.Number {
			s.t.Errorf("%+v is confirmed: %+v", p, confirmed)
		}
	}
}

// refusals are answers, too.
func (s *stage) refusals() {
	s.t.Helper()
	for _, args := range [][]string{{"ban", s.Host.Addr4().String()}, {"confirm", "4711"}} {
		out, err := s.Command(s.t.Context(), append(args, "--json")...)
		if err == nil {
			s.t.Errorf("%q is done", args)
		}
		s.fits("Refusal", out)
	}
}
