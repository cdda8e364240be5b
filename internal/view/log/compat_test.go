package log

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// oldLine is a line of PortSentry and what became of it: what makes us write it,
// or why nothing does.
type oldLine struct {
	line  string // the wording, with the values of the event of by
	by    func(*Writer)
	never string
}

func scanOf(r *store.Record) func(*Writer) { return func(w *Writer) { w.Scan(r) } }
func actionOf(a respond.Action) func(*Writer) {
	return func(w *Writer) { w.Actions(source, []respond.Action{a}) }
}
func watchingOf(c *config.Config) func(*Writer) { return func(w *Writer) { w.Watching(c, inUse) } }
func inUse(udp bool, port uint16) bool          { return port == 15 || udp && port == 69 }
func modes(tcp, udp config.Mode) *config.Config {
	return &config.Config{TCPPorts: ports(11, 15), UDPPorts: ports(7, 69), Modes: config.Modes{TCP: tcp, UDP: udp}}
}
func with(r *store.Record, edit func(*store.Record)) *store.Record { edit(r); return r }

func ports(list ...uint16) (s config.PortSet) {
	for _, p := range list {
		s = append(s, config.PortRange{First: p, Last: p})
	}
	return s
}

func udp(r *store.Record) {
	r.Verdict.Sighting.Proto, r.Verdict.Sighting.Kind = decode.ProtoUDP, detect.KindUDP
}

// connect is what a trap socket took.
func connect(r *store.Record) {
	r.Verdict.Sighting.Kind, r.Verdict.Sighting.IPOptions = detect.KindConnect, decode.NotKnown
}

func advanced() *config.Config {
	c := modes(config.Advanced, config.Advanced)
	c.AdvancedPortsTCP, c.AdvancedExcludeTCP = 1000, ports(113, 139)
	return c
}

func options(r *store.Record) { r.Verdict.Sighting.IPOptions = decode.Yes }

func failing() *store.Record { return banning(respond.Outcome{Actions: []respond.Action{missing}}) }
func again() *store.Record   { return banning(respond.Outcome{Blocked: true, Already: true}) }

// accepted is why nobody is unknown.
const accepted = "a connection that was reset before it was accepted has its address all the same"

// lines1x is every line of 1.2.
func lines1x() []oldLine {
	const (
		me        = "203.0.113.9/203.0.113.9"
		badConfig = "a mistake in the configuration keeps the daemon from starting, with its line"
		socket    = "no socket like it: packets are captured, and what cannot be opened is an error at the start, with its reason"
		goesOn    = "what somebody else serves is no trap, and becomes one when he ends: that is no reason not to watch"
	)
	connected := func(edits ...func(*store.Record)) func(*Writer) {
		r := record(detect.KindSYN)
		for _, e := range append([]func(*store.Record){connect}, edits...) {
			e(r)
		}
		return scanOf(r)
	}
	return []oldLine{
		{line: "adminalert: PortSentry 3.0.0 is starting.", by: func(w *Writer) { w.Starting("3.0.0", "4f1c2ab") }},
		{line: "adminalert: Going into listen mode on TCP port: 11", by: watchingOf(modes(config.Connect, 0))},
		{line: "adminalert: Going into listen mode on UDP port: 7", by: watchingOf(modes(0, config.Connect))},
		{line: "adminalert: Going into stealth listen mode on TCP port: 11", by: watchingOf(modes(config.Stealth, 0))},
		{line: "adminalert: Going into stealth listen mode on UDP port: 7", by: watchingOf(modes(0, config.Stealth))},
		{line: "adminalert: Advanced mode will monitor first 1000 ports", by: watchingOf(advanced())},
		{line: "adminalert: Advanced mode will monitor first 1024 ports", by: watchingOf(advanced())},
		{line: "adminalert: Advanced mode will manually exclude port: 113 ", by: watchingOf(advanced())},
		{line: "adminalert: Advanced mode will manually exclude no ports", by: watchingOf(advanced())},
		{line: "adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 15", by: watchingOf(advanced())},
		{line: "adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 113", by: watchingOf(advanced())},
		{line: "adminalert: Advanced Stealth scan detection mode activated. Ignored UDP port: 69", by: watchingOf(advanced())},
		{line: "adminalert: PortSentry is now active and listening.", by: (*Writer).Active},
		{line: "securityalert: PortSentry is shutting down", by: (*Writer).Stopping},
		{line: "adminalert: PortSentry is shutting down", by: (*Writer).Stopping},

		{line: "attackalert: Connect from host: " + me + " to TCP port: 1", by: connected()},
		{line: "attackalert: Connect from host: " + me + " to UDP port: 1", by: connected(func(r *store.Record) { r.Verdict.Sighting.Proto = decode.ProtoUDP })},
		{line: "attackalert: Connect from host: scan.example/203.0.113.9 to TCP port: 1", by: connected(func(r *store.Record) { r.Name = "scan.example" })},
		{line: "attackalert: TCP SYN/Normal scan from host: " + me + " to TCP port: 1", by: scanOf(record(detect.KindSYN))},
		{line: "attackalert: TCP FIN scan from host: " + me + " to TCP port: 1", by: scanOf(record(detect.KindFIN))},
		{line: "attackalert: TCP XMAS scan from host: " + me + " to TCP port: 1", by: scanOf(record(detect.KindXMAS))},
		{line: "attackalert:  TCP NULL scan from host: " + me + " to TCP port: 1", by: scanOf(record(detect.KindNULL))},
		{line: "attackalert: Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 0 from host: " + me + " to TCP port: 1", by: scanOf(record(detect.KindOdd))},
		{line: "attackalert: UDP scan from host: " + me + " to UDP port: 1", by: scanOf(record(detect.KindUDP))},
		{line: "attackalert: Packet from host: " + me + " to TCP port: 1 has IP options set (detection avoidance technique).", by: scanOf(with(record(detect.KindSYN), options))},
		{line: "attackalert: Packet from host: " + me + " to UDP port: 1 has IP options set (detection avoidance technique).", by: scanOf(with(record(detect.KindUDP), options))},
		{line: "attackalert: Possible stealth scan from unknown host to TCP port: 1 (accept failed)", never: accepted},
		{line: "attackalert: Illegal IP header length detected in TCP packet: %d from (possible) host: %s", never: "no host takes such a packet; it is counted"},
		{line: "attackalert: Host: 203.0.113.9 is already blocked. Ignoring", by: scanOf(with(again(), connect))},
		{line: "attackalert: Host: " + me + " is already blocked Ignoring", by: scanOf(again())},

		{line: `attackalert: Host 203.0.113.9 has been blocked via dropped route using command: "/sbin/ip route add blackhole 203.0.113.9"`, by: actionOf(route)},
		{line: `attackalert: Host 203.0.113.9 has been blocked via wrappers with string: "ALL: 203.0.113.9"`, by: actionOf(denied)},
		{line: `attackalert: External command run for host: 203.0.113.9 using command: "/bin/mail 203.0.113.9"`, by: actionOf(command)},
		{line: "attackalert: Ignoring TCP response per configuration file setting.", by: scanOf(record(detect.KindSYN))},
		{line: "attackalert: Ignoring UDP response per configuration file setting.", by: scanOf(record(detect.KindUDP))},
		{line: "attackalert: ERROR: Could not block host 203.0.113.9 !!", by: scanOf(with(failing(), connect))},
		{line: "attackalert: ERROR: Could not block host " + me + " !!", by: scanOf(failing())},
		{line: "attackalert: ERROR: Could not block host " + me + "!!", by: scanOf(with(failing(), udp))},
		{line: "attackalert: ERROR: cannot open ignore file. Blocking host anyway.", never: "1.x opened it for every event; ours is read when it changes, and what is wrong with it is said once"},
		{line: "attackalert: ERROR: Error resolving host. \\\t\t\tresolving disabled for this host.", never: "it was about an address that is none; where a name cannot be found the address stands"},
		{line: "adminalert: ERROR: There was an error trying to block host (exec fail) 203.0.113.9", by: actionOf(missing)},
		{line: "adminalert: ERROR: There was an error trying to block host (system fail) 203.0.113.9", by: actionOf(respond.Action{Step: respond.StepRoute, Err: respond.ErrBusy})},
		{line: "adminalert: ERROR: There was an error trying to run command (exec fail) 203.0.113.9", by: actionOf(respond.Action{Step: respond.StepCommand, Err: errExit})},
		{line: "adminalert: ERROR: There was an error trying to run command (system fail) 203.0.113.9", by: actionOf(respond.Action{Step: respond.StepCommand, Err: respond.ErrBusy})},
		{line: "adminalert: No target variable specified in KILL_ROUTE option. Skipping.", never: badConfig},
		{line: "adminalert: No target variable specified in KILL_HOSTS_DENY option. Skipping.", never: badConfig},
		{line: "adminalert: Error trying to parse $TARGET$ Token for KILL_ROUTE. Skipping.", never: "values are put in where there is room for any of them"},
		{line: "adminalert: cannot open hosts.deny file: /etc/hosts.deny for blocking.", by: actionOf(respond.Action{Step: respond.StepHostsDeny, Err: syscall.EACCES})},
		{line: "securityalert: ERROR: There was an error trying to block host 203.0.113.9", by: actionOf(respond.Action{Step: respond.StepHostsDeny, Err: syscall.EACCES})},

		{line: "adminalert: ERROR: Socket 15 is in use and will not be monitored. Attempting to continue", by: watchingOf(modes(config.Stealth, 0))},
		{line: "adminalert: ERROR: could not bind TCP socket: 15. Attempting to continue", by: watchingOf(modes(config.Connect, 0))},
		{line: "adminalert: ERROR: could not bind UDP socket: 69. Attempting to continue", by: watchingOf(modes(0, config.Connect))},
		{line: "adminalert: ERROR: could not bind ANY TCP sockets. Shutting down.", never: goesOn},
		{line: "adminalert: ERROR: All supplied TCP sockets are in use and will not be listened to. Shutting down.", never: goesOn},
		{line: "adminalert: ERROR: could not open RAW TCP socket. Aborting.", never: socket},
		{line: "adminalert: ERROR: could not go into PortSentry mode. Shutting down.", never: socket},
		{line: "adminalert: ERROR: select call failed. Shutting down.", never: "there is no select"},
		{line: "adminalert: ERROR: could not accept incoming socket for UDP port: %d", never: "nobody is behind such an error; it is counted"},
		{line: "adminalert: ERROR: Cannot open blocked file: /x.", by: func(w *Writer) { w.CannotOpen("blocked", "/x") }},
		{line: "adminalert: ERROR: Cannot open history file: /x.", by: func(w *Writer) { w.CannotOpen("history", "/x") }},
		{line: "adminalert: Invalid netmask in config file: %s  Ignoring entry.", never: "the line is named, with what is wrong with it"},
		{line: "adminalert: Quotes missing from %s token. Option skipped", never: badConfig},
		{line: "securityalert: WARNING: Trigger value %d is larger than state engine capacity of %d.", never: "SCAN_TRIGGER has no upper bound"},
		{line: "securityalert: Blocking host anyway because of invalid trigger value", never: "SCAN_TRIGGER has no upper bound"},
		{line: "InitConfig: Cannot retrieve BLOCKED_FILE option! Aborting", never: "no key has to be there"},
	}
}

// lines2x is every line of 2.0.7.
func lines2x() []oldLine {
	const scan = "Scan from: [203.0.113.9] (203.0.113.9) protocol: [TCP] port: [1] type: [TCP SYN/Normal scan] IP opts: [not set] "
	spared := func(s judge.Spared) func(*store.Record) { return func(r *store.Record) { r.Verdict.Spared = s } }
	same := func(r *store.Record) { r.Verdict.Spared, r.Verdict.Sighting.Dst = judge.Own, source }
	return []oldLine{
		{line: "Portsentry 3.0.0 (4f1c2ab)", by: func(w *Writer) { w.Starting("3.0.0", "4f1c2ab") }},
		{line: "Listen on AF_INET6: TCP port: 11", by: watchingOf(modes(config.Connect, 0))},
		{line: "Listen on AF_INET6: UDP port: 7", by: watchingOf(modes(0, config.Connect))},
		{line: "Portsentry is now active and listening.", by: (*Writer).Active},
		{line: scan + "ignored: [false] triggered: [true] noblock: [true] blocked: [false]", by: scanOf(record(detect.KindSYN))},
		{line: scan + "ignored: [false] triggered: [false] noblock: [unset] blocked: [unset]", by: scanOf(with(record(detect.KindSYN), func(r *store.Record) { r.Verdict.Sighting.Triggered = false }))},
		{line: scan + "ignored: [true] triggered: [unset] noblock: [unset] blocked: [unset]", by: scanOf(with(record(detect.KindSYN), spared(judge.Ignored)))},
		{line: scan + "ignored: [true] triggered: [true] noblock: [true] blocked: [false]", by: scanOf(with(record(detect.KindSYN), same))},
		{line: scan + "ignored: [false] triggered: [true] noblock: [false] blocked: [true]", by: scanOf(again())},
		{line: "Scan from: [203.0.113.9] (203.0.113.9) protocol: [TCP] port: [1] type: [Connect] IP opts: [unknown] ignored: [false] triggered: [true] noblock: [true] blocked: [false]",
			by: scanOf(with(record(detect.KindSYN), connect))},
		{line: "Scan from: [203.0.113.9] (scan.example) protocol: [UDP] port: [1] type: [UDP] IP opts: [set] ignored: [false] triggered: [true] noblock: [true] blocked: [false]",
			by: scanOf(with(record(detect.KindUDP), func(r *store.Record) { options(r); r.Name = "scan.example" }))},
		{line: "attackalert: Host: 203.0.113.9/203.0.113.9 is already blocked Ignoring", by: scanOf(again())},
		{line: "attackalert: Host: 203.0.113.9/203.0.113.9 is already blocked Ignoring", by: scanOf(with(again(), connect))},
		{line: `attackalert: Host 203.0.113.9 has been blocked via dropped route using command: "/sbin/ip route add blackhole 203.0.113.9"`, by: actionOf(route)},
		{line: `attackalert: Host 203.0.113.9 has been blocked via wrappers with string: "ALL: 203.0.113.9"`, by: actionOf(denied)},
		{line: `attackalert: External command run for host: 203.0.113.9 using command: "/bin/mail 203.0.113.9"`, by: actionOf(command)},
		{line: "attackalert: Error during target dispose 203.0.113.9/203.0.113.9!", by: scanOf(failing())},
		{line: "attackalert: Possible stealth scan from unknown host to TCP port: 1 (accept failed 103: Software caused connection abort)", never: accepted},
		{line: "Host 203.0.113.9 already in hosts.deny file, skipping.", by: actionOf(already)},
		{line: "Ignoring packet from %s to destination port %d, a service is running", never: "one line for each packet of a client: they are counted"},
		{line: "Host: 203.0.113.9 found in ignore file /etc/portsentry/portsentry.ignore, aborting actions", by: scanOf(with(record(detect.KindSYN), spared(judge.Ignored)))},
		{line: "Ignoring IP: 10.77.0.0/255.255.255.0", by: func(w *Writer) { w.Ignored([]netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}) }},
		{line: "Ignoring IP: fd77::/ffff:ffff:ffff:ffff::", by: func(w *Writer) { w.Ignored([]netip.Prefix{netip.MustParsePrefix("fd77::/64")}) }},
		{line: "Ignoring IP: ::/::", by: func(w *Writer) { w.Ignored([]netip.Prefix{netip.MustParsePrefix("::/0")}) }},
		{line: "debug: Source address 203.0.113.9 same as destination address 203.0.113.9, skipping", by: scanOf(with(record(detect.KindSYN), same))},
		{line: "Portsentry is shutting down", by: (*Writer).Stopping},
	}
}

// produced is what w writes, by line.
func produced(t *testing.T, o Options, by func(*Writer)) []string {
	t.Helper()
	var out bytes.Buffer
	o.Stdout, o.Stderr = &out, &out
	w := New(o)
	by(w)
	closed(t, w)
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func TestLinesOfOld(t *testing.T) {
	for format, table := range map[config.LogFormat][]oldLine{config.Log1x: lines1x(), config.Log2x: lines2x()} {
		o := Options{
			Format: format, Modes: config.Modes{TCP: config.Stealth, UDP: config.Stealth},
			Verbose: true, Debug: true, IgnoreFile: "/etc/portsentry/portsentry.ignore",
		}
		for _, l := range table {
			if (l.by == nil) != (l.never != "") {
				t.Errorf("%s %q: either something writes it or there is a reason", format, l.line)
			} else if l.by != nil && !slices.Contains(produced(t, o, l.by), l.line) {
				t.Errorf("%s: %q is not in %q", format, l.line, produced(t, o, l.by))
			}
		}
	}
}

// -atcp of 1.x has no space where -stcp has one.
func TestCouldNotBlockInAdvancedMode(t *testing.T) {
	got := produced(t, Options{Format: config.Log1x, Modes: config.Modes{TCP: config.Advanced}}, scanOf(failing()))
	if want := "attackalert: ERROR: Could not block host 203.0.113.9/203.0.113.9!!"; got[len(got)-1] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What 2.x said only when it was asked to.
func TestQuiet2x(t *testing.T) {
	for _, o := range []Options{{Format: config.Log2x}, {Format: config.Log1x, Verbose: true, Debug: true}, {Format: config.LogJSON, Verbose: true, Debug: true}} {
		got := produced(t, o, func(w *Writer) {
			w.Ignored([]netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")})
			w.Scan(with(record(detect.KindSYN), func(r *store.Record) { r.Verdict.Spared = judge.Ignored }))
			w.Scan(with(record(detect.KindSYN), func(r *store.Record) { r.Verdict.Spared, r.Verdict.Sighting.Dst = judge.Own, source }))
		})
		for _, line := range got {
			if strings.HasPrefix(line, "Ignoring") || strings.HasPrefix(line, "Host:") || strings.HasPrefix(line, "debug:") {
				t.Errorf("%s: %q", o.Format, line)
			}
		}
	}
}
