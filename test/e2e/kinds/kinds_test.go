package kinds_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"portsentry/test/lab"
)

// scan is what is to be said of one kind of probe.
type scan struct {
	kind, direction, tool string
	ports, most           int // distinct ones: from ports to most; most 0: ports exactly
	targets               int
}

// run is one run of nmap's.
type run struct {
	name string
	args []string // behind nmap -n
	// want is what is to be said of the scanner, and also what may be said besides:
	// what nmap sends by the way is a probe as well.
	want []scan
	also []string
}

// nmap is a run with these arguments; no word of them has a blank in it.
func nmap(name, args string, want ...scan) run {
	return run{name: name, args: words(args), want: want}
}

// besides is r with more kinds that may be named.
func (r run) besides(kinds string) run {
	r.also = words(kinds)
	return r
}

func vertical(kind, tool string, ports int) scan {
	return scan{kind: kind, direction: "vertical", tool: tool, ports: ports, targets: 1}
}

// some is vertical where it is up to nmap how many ports are tried that way.
func some(kind, tool string, least, most int) scan {
	return scan{kind: kind, direction: "vertical", tool: tool, ports: least, most: most, targets: 1}
}

func horizontal(kind, tool string, targets int) scan {
	return scan{kind: kind, direction: "horizontal", tool: tool, targets: targets}
}

// words splits the arguments of a command line that has no quotes.
func words(line string) []string { return strings.Fields(line) }

const (
	host4 = "10.77.0.1"
	host6 = "fd77::1"
)

// Each way to scan that nmap knows is found and named rightly, and nobody but who
// scanned is a scanner: the host, which answers it all, is none.
func TestKinds(t *testing.T) {
	t.Parallel()
	for _, r := range []run{
		nmap("-sS", "-Pn -sS -p1-60 "+host4, vertical("syn", "nmap", 60)),
		nmap("-sS, closed only", "-Pn -sS -p100-120 "+host4, vertical("syn", "nmap", 21)),
		nmap("-sT", "-Pn -sT -p1-60 "+host4, vertical("connect", "", 60)),
		nmap("-sF", "-Pn -sF -p1-40 "+host4, vertical("fin", "nmap", 40)),
		nmap("-sN", "-Pn -sN -p1-40 "+host4, vertical("null", "nmap", 40)),
		nmap("-sX", "-Pn -sX -p1-40 "+host4, vertical("xmas", "nmap", 40)),
		nmap("-sM", "-Pn -sM -p1-40 "+host4, vertical("maimon", "nmap", 40)),
		nmap("-sA", "-Pn -sA -p1-40 "+host4, vertical("ack", "nmap", 40)),
		nmap("-sW", "-Pn -sW -p1-40 "+host4, vertical("ack", "nmap", 40)),
		nmap("-sU", "-Pn -sU -p41-80 "+host4, vertical("udp", "", 40)),
		// Source ports that careless firewalls let pass: as if they were answers. Who sees
		// them at the start of a capture cannot know that nobody had asked.
		nmap("-sU -g 53", "-Pn -sU -g 53 --scan-delay 200ms --max-scan-delay 200ms -p1030-1055 "+host4, some("udp", "", 6, 26)),
		nmap("-sS -g 80", "-Pn -sS -g 80 -p1030-1070 "+host4, vertical("syn", "nmap", 41)),
		nmap("odd flags", "-Pn -sS --scanflags URGPSH -p1-40 "+host4, vertical("odd", "", 40)),
		nmap("-sF -f", "-Pn -sF -f -p1-40 "+host4, vertical("fin", "nmap", 40)),
		nmap("-sY", "-Pn -sY -p1-30 "+host4, vertical("sctp-init", "", 30)),
		nmap("-sZ", "-Pn -sZ -p1-30 "+host4, vertical("sctp-cookie", "", 30)),
		nmap("-sO", "-Pn -sO --max-retries 1 -p55-87 "+host4, vertical("ip-protocol", "", 33)),
		nmap("-sn -PE", "-sn -PE --max-retries 1 "+area.String(), horizontal("icmp-sweep", "", 16)),
		nmap("-sn -PP", "-sn -PP --max-retries 1 "+area.String(), horizontal("icmp-timestamp", "", 16)),
		// Each address is asked four ways: ICMP twice, a SYN to 443, an ACK to 80.
		nmap("-sn", "-sn --max-retries 1 "+area.String(), horizontal("icmp-sweep", "nmap", 16)).besides("icmp-timestamp syn ack"),
		nmap("-sV", "-Pn -sV -p20-60,80 "+host4, vertical("syn", "nmap", 42), some("version", "nmap", 1, 3)),
		nmap("-O", "-Pn -O --max-os-tries 1 -p20-60,80 "+host4, vertical("syn", "nmap", 42), some("os-detection", "nmap", 1, 2)),
		nmap("-f", "-Pn -sS -f -p1-60 "+host4, vertical("syn", "nmap", 60)),
		nmap("-T1, hurried", "-Pn -sS -T1 --scan-delay 200ms --max-scan-delay 200ms -p70-84 "+host4, vertical("syn", "nmap", 15)),
		nmap("-6 -sS", "-6 -Pn -sS -p1-60 "+host6, vertical("syn", "nmap", 60)),
		nmap("-6 -sT", "-6 -Pn -sT -p1-60 "+host6, vertical("connect", "", 60)),
		nmap("-6 -sU", "-6 -Pn -sU -p41-80 "+host6, vertical("udp", "", 40)),
		nmap("-6 -sX", "-6 -Pn -sX -p1-40 "+host6, vertical("xmas", "nmap", 40)),
		nmap("-6 -sM", "-6 -Pn -sM -p1-40 "+host6, vertical("maimon", "nmap", 40)),
		nmap("-6 -sY", "-6 -Pn -sY -p1-30 "+host6, vertical("sctp-init", "", 30)),
		nmap("-6 -O", "-6 -Pn -O --max-os-tries 1 -p20-60,80 "+host6, vertical("syn", "nmap", 42), some("os-detection", "nmap", 1, 2)),
		nmap("-6 -sA", "-6 -Pn -sA -p1-40 "+host6, vertical("ack", "nmap", 40)),
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.check(newStage(t))
		})
	}
}

// They are found and named as well where a firewall leaves them without an answer.
func TestMute(t *testing.T) {
	t.Parallel()
	for _, r := range []run{
		nmap("-sS", "-Pn -sS --max-retries 1 -p1-40 "+host4, vertical("syn", "nmap", 40)),
		nmap("-sT", "-Pn -sT --max-retries 1 -p1-40 "+host4, vertical("connect", "", 40)),
		nmap("-sF", "-Pn -sF --max-retries 1 -p1-40 "+host4, vertical("fin", "nmap", 40)),
		nmap("-sA", "-Pn -sA --max-retries 1 -p1-40 "+host4, vertical("ack", "nmap", 40)),
		nmap("-sM", "-Pn -sM --max-retries 1 -p1-40 "+host4, vertical("maimon", "nmap", 40)),
		nmap("-sU", "-Pn -sU --max-retries 1 -p41-80 "+host4, vertical("udp", "", 40)),
		nmap("-sY", "-Pn -sY --max-retries 1 -p1-30 "+host4, vertical("sctp-init", "", 30)),
		nmap("-sO", "-Pn -sO --max-retries 1 -p55-87 "+host4, vertical("ip-protocol", "", 33)),
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.mute()
			r.check(s)
		})
	}
}

// As slow as nmap -T1 really is: one probe in 15 seconds, and as long again for each that is
// not answered at once.
func TestSlow(t *testing.T) {
	if os.Getenv("PORTSENTRY_LONG") == "" {
		t.Skip("runs in make test-long")
	}
	t.Parallel()
	nmap("-T1", "-Pn -sS -T1 -p70-75 "+host4, vertical("syn", "nmap", 6)).check(newStage(t))
}

// check has nmap scan, and looks at what is said of it.
func (r run) check(s *stage) {
	t := s.t
	t.Helper()
	lab.NeedProgram(t, "nmap", "nmap")
	if slices.Contains(r.args, area.String()) {
		s.settle()
	}
	s.command(s.scanner, slices.Concat(words("timeout 200 nmap -n"), r.args)...)
	scans, campaigns, notices := replay(t, s.eye.capture(s.scanner))
	from := s.scanner.Addr4()
	if slices.Contains(r.args, "-6") {
		from = s.scanner.Addr6()
	}
	for _, want := range r.want {
		i := slices.IndexFunc(scans, func(e event) bool { return e.Source == from.String() && e.Kind == want.kind })
		if i < 0 {
			t.Errorf("no %s scan of %s", want.kind, from)
			continue
		}
		e := scans[i]
		if e.Direction != want.direction || e.Tool != want.tool || e.Targets != want.targets {
			t.Errorf("%s scan: direction %s, tool %q, %d targets; want %s, %q, %d", e.Kind, e.Direction, e.Tool, e.Targets, want.direction, want.tool, want.targets)
		}
		if most := max(want.ports, want.most); e.Ports < want.ports || e.Ports > most {
			t.Errorf("%s scan: %d ports; want %d to %d", e.Kind, e.Ports, want.ports, most)
		}
	}
	for _, e := range scans {
		if e.Source != from.String() {
			t.Errorf("%s is called a scanner (%s: %s)", e.Source, e.Kind, e.Reason)
		} else if !slices.ContainsFunc(r.want, func(w scan) bool { return w.kind == e.Kind }) && !slices.Contains(r.also, e.Kind) {
			t.Errorf("there was no %s scan (%s)", e.Kind, e.Reason)
		}
	}
	// One source is no crowd.
	if len(campaigns)+len(notices) > 0 {
		t.Errorf("campaigns %+v, notices %+v", campaigns, notices)
	}
}
