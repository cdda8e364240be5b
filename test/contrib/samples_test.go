// Package contrib tests the rules in contrib/ on lines of both dialects: with
// the programs they are for where those are installed, and without them always.
package contrib

import (
	"os"
	"path/filepath"
	"testing"
)

// sample is one line and what everybody is to make of it.
type sample struct {
	line     string // as syslog has it, behind "portsentry[1]: "
	ban      string // whom fail2ban bans; "": nobody
	logcheck string // section of the report, "": none
	decoder  string // of Wazuh, and the fields it finds
	rule     string // of Wazuh: the last one that matches
}

// Sections of logcheck's report.
const (
	attack    = "Security Alerts"
	violation = "Security Events"
	event     = "System Events"
)

const (
	scan2x  = "Scan from: [203.0.113.9] (203.0.113.9) protocol: [TCP] port: [1] type: [TCP SYN/Normal scan] IP opts: [not set] "
	scan2x6 = "Scan from: [2001:db8::9] (2001:db8::9) protocol: [UDP] port: [7] type: [UDP] IP opts: [unknown] "
	connect = "Scan from: [203.0.113.10] (scanner.example.net) protocol: [TCP] port: [11] type: [Connect] IP opts: [unknown] "
	odd2x   = "Scan from: [203.0.113.12] (203.0.113.12) protocol: [TCP] port: [11] type: [Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 0] IP opts: [set] "

	fields9  = "portsentry-scan srcip=203.0.113.9 protocol=TCP dstport=1"
	fields10 = "portsentry-scan srcip=203.0.113.10 protocol=TCP dstport=11"
	fields6  = "portsentry-scan srcip=2001:db8::9 protocol=UDP dstport=7"
)

var samples = []sample{
	// 2.x
	{scan2x + "ignored: [false] triggered: [true] noblock: [true] blocked: [false]", "203.0.113.9", attack, fields9, "100902"},
	{scan2x6 + "ignored: [false] triggered: [true] noblock: [false] blocked: [true]", "2001:db8::9", attack, fields6, "100903"},
	{connect + "ignored: [false] triggered: [true] noblock: [false] blocked: [false]", "203.0.113.10", attack, fields10, "100902"},
	{odd2x + "ignored: [false] triggered: [true] noblock: [true] blocked: [false]", "203.0.113.12", attack,
		"portsentry-scan srcip=203.0.113.12 protocol=TCP dstport=11", "100902"},
	{scan2x + "ignored: [false] triggered: [false] noblock: [unset] blocked: [unset]", "", "", fields9, "100901"},
	{scan2x6 + "ignored: [true] triggered: [unset] noblock: [unset] blocked: [unset]", "", "", fields6, "100901"},
	{scan2x + "ignored: [true] triggered: [true] noblock: [true] blocked: [false]", "", "", fields9, "100901"},
	{"Portsentry 3.0.0 (4f1c2ab)", "", "", "", "100900"},
	{"Listen on AF_INET6: TCP port: 11", "", "", "", "100900"},
	{"watching eth0 (AF_PACKET), 72 TCP and 38 UDP ports, IPv4 and IPv6", "", "", "", "100900"},
	{"Portsentry is now active and listening.", "", "", "", "100900"},
	{"Portsentry is shutting down", "", "", "", "100908"},
	{"Host 203.0.113.9 already in hosts.deny file, skipping.", "", "", "", "100900"},
	{"attackalert: Error during target dispose 203.0.113.9/203.0.113.9!", "", attack, "", "100907"},

	// 1.x
	{"attackalert: Connect from host: 10.77.0.2/10.77.0.2 to TCP port: 11", "10.77.0.2", attack, "stock", "100904"},
	{"attackalert: Host: 10.77.0.2 is already blocked. Ignoring", "", attack, "stock", "100900"},
	{"attackalert: TCP SYN/Normal scan from host: 10.77.0.3/10.77.0.3 to TCP port: 1", "10.77.0.3", attack,
		"portsentry-scan-1x srcip=10.77.0.3 protocol=TCP dstport=1", "100904"},
	{"attackalert: Host: 10.77.0.3/10.77.0.3 is already blocked Ignoring", "", attack, "portsentry-already srcip=10.77.0.3", "100900"},
	{"attackalert:  TCP NULL scan from host: 10.77.0.4/10.77.0.4 to TCP port: 11", "10.77.0.4", attack,
		"portsentry-scan-1x srcip=10.77.0.4 protocol=TCP dstport=11", "100904"},
	{"attackalert: Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 0 from host: 10.77.0.5/10.77.0.5 to TCP port: 11", "10.77.0.5", attack,
		"portsentry-scan-1x srcip=10.77.0.5 protocol=TCP dstport=11", "100904"},
	{"attackalert: UDP scan from host: scanner.example.net/10.77.0.6 to UDP port: 7", "10.77.0.6", attack,
		"portsentry-scan-1x srcip=10.77.0.6 protocol=UDP dstport=7", "100904"},
	{"attackalert: Packet from host: 10.77.0.6/10.77.0.6 to TCP port: 11 has IP options set (detection avoidance technique).", "", attack, "", "100900"},
	{"attackalert: Ignoring TCP response per configuration file setting.", "", attack, "", "100900"},
	{`attackalert: Host 10.77.0.6 has been blocked via wrappers with string: "ALL: 10.77.0.6"`, "", attack, "portsentry-done srcip=10.77.0.6", "100905"},
	{"attackalert: Host 10.77.0.6 has been blocked via nftables for 10m0s (new connections; unverified)", "", attack, "portsentry-done srcip=10.77.0.6", "100905"},
	{"adminalert: Host 10.77.0.6 is no longer blocked via nftables", "", "", "portsentry-done srcip=10.77.0.6", "100906"},
	{"adminalert: 203.0.113.9 is no longer banned, by uid 0 (pid 4711)", "", event, "", "100906"},
	{`adminalert: External undo command run for host: 10.77.0.6 using command: "true"`, "", "", "", "100900"},
	{`adminalert: KILL_ROUTE failed for 10.77.0.6: exit status 127 (not found): "x"`, "", event, "", "100907"},
	{"attackalert: ERROR: Could not block host 10.77.0.6/10.77.0.6 !!", "", attack, "", "100907"},
	{"adminalert: the configuration has been read again and is in force", "", "", "", "100900"},
	{"adminalert: the configuration was not read again; the one from before stays in force", "", event, "", "100900"},
	{"adminalert: PortSentry 3.0.0 is starting.", "", "", "", "100900"},
	{"adminalert: Going into listen mode on TCP port: 11", "", "", "", "100900"},
	{"adminalert: Going into stealth listen mode on UDP port: 7", "", "", "", "100900"},
	{"adminalert: Advanced mode will monitor first 1024 ports", "", "", "", "100900"},
	{"adminalert: Advanced mode will manually exclude port: 113 ", "", "", "", "100900"},
	{"adminalert: Advanced mode will manually exclude no ports", "", "", "", "100900"},
	{"adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 22", "", "", "", "100900"},
	{"adminalert: PortSentry is now active and listening.", "", "", "", "100900"},
	{"securityalert: PortSentry is shutting down", "", "", "", "100908"},
	{"adminalert: PortSentry is shutting down", "", "", "", "100908"},
	{"securityalert: ERROR: There was an error trying to block host 10.77.0.6", "", violation, "", "100900"},
	{"adminalert: ERROR: There was an error trying to run command (exec fail) 10.77.0.6", "", event, "", "100900"},
}

// files are lines of the history and blocked files, which have a date of their
// own and no program name.
var files = []struct{ line, ban string }{
	{"2026-11-21T00:04:38.815+0000 " + scan2x + "ignored: [false] triggered: [true] noblock: [true] blocked: [false]", "203.0.113.9"},
	{"2026-11-21T00:04:38.815-0930 " + scan2x6 + "ignored: [false] triggered: [true] noblock: [false] blocked: [true]", "2001:db8::9"},
	{"2026-11-21T00:04:38.815+0000 " + connect + "ignored: [false] triggered: [true] noblock: [false] blocked: [true]", "203.0.113.10"},
	{"2026-11-21T00:04:38.815+0000 " + scan2x + "ignored: [false] triggered: [false] noblock: [unset] blocked: [unset]", ""},
	{"2026-11-21T00:04:38.815+0000 " + scan2x + "ignored: [true] triggered: [unset] noblock: [unset] blocked: [unset]", ""},
	{"1795218968 - 11/20/2026 23:56:08 Host: 10.77.0.2/10.77.0.2 Port: 1 TCP Blocked", "10.77.0.2"},
	{"1795218968 - 11/20/2026 23:56:08 Host: scanner.example.net/10.77.0.3 Port: 7 UDP Blocked", "10.77.0.3"},
	{"1795218968 - 11/20/2026 23:56:08 Host: 2001:db8::7/2001:db8::7 Port: 7 UDP Blocked", "2001:db8::7"},
	{"1795218968 - 11/20/2026 23:56:08 Host: 10.77.0.2/10.77.0.2 Port: 1 TCP Blocked by hand", ""},
}

// syslog is the line as a log file has it, with the time stamp of old or of new.
func (s sample) syslog(iso bool) string {
	if iso {
		return "2026-11-20T23:56:08.123456+00:00 srv portsentry[1]: " + s.line
	}
	return "Nov 20 23:56:08 srv portsentry[1]: " + s.line
}

func contribFile(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "contrib"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// missing skips where a program that is not ours is not installed, and fails
// where everything is to be there: the long run of the CI.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" && os.Getenv("PORTSENTRY_LONG") != "" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}
