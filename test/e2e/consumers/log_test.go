package consumers_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	ourLog = "/var/log/portsentry.syslog" // as packaging/rsyslog has it
	usual  = "/var/log/syslog"
)

// speakers are the ways to make portsentry write to syslog.
var speakers = []struct {
	name  string
	flags []string
	old   bool   // detaches
	alert string // a line about a scan, by host and protocol
	ready string
}{
	{"1.x", []string{"-stcp", "-sudp"}, true, `attackalert: (TCP SYN/Normal|UDP) scan from host: `, "PortSentry is now active and listening."},
	{"1.x connect", []string{"-tcp", "-udp"}, true, `attackalert: Connect from host: `, "PortSentry is now active and listening."},
	{"2.x", []string{"-l", "syslog", "-l", "stdout"}, false, `Scan from: \[10\.77\.8\.[78]\]`, "Portsentry is now active and listening."},
}

// scanned starts rsyslog and portsentry, and has both attackers, an ignored and
// a hesitant host probe; it waits until all of it is in the log.
func (s *stage) scanned(flags []string, old bool, alert string) []string {
	s.t.Helper()
	s.rsyslogd()
	s.conf(map[string]string{"SCAN_TRIGGER": "2", "BLOCK_TCP": "2", "BLOCK_UDP": "2", "KILL_RUN_CMD": "true $TARGET$"})
	if old {
		s.start1x(flags...)
	} else {
		s.start2x(flags...)
	}
	s.logged(ourLog, `ort[Ss]entry is now active and listening\.`, 1)
	s.probe("tcp", ignored, trap)
	s.probe("tcp", hesitant, trap)
	for range 3 {
		s.probe("tcp", attacker, trap)
		s.probe("udp", attacker2, trap)
	}
	s.logged(ourLog, `External command run for host: `+regexp.QuoteMeta(attacker.String()), 1)
	s.logged(ourLog, `External command run for host: `+regexp.QuoteMeta(attacker2.String()), 1)
	return s.logged(ourLog, alert, 4)
}

// worth is what packaging/rsyslog leaves in the usual log as well.
var worth = regexp.MustCompile(`alert: | ignored: \[false\] triggered: \[true\] `)

// Rsyslog takes our lines from /dev/log and files them as packaging/rsyslog
// says: all in a file of their own, what a log watcher is to see in the usual log
// as well.
func TestRsyslog(t *testing.T) {
	for _, sp := range speakers {
		t.Run(sp.name, func(t *testing.T) {
			s := newStage(t, []string{"rsyslogd"})
			lines := s.scanned(sp.flags, sp.old, sp.alert)
			form := regexp.MustCompile(`^\S+T\S+ machine portsentry\[\d+\]: ( ?[A-Za-z].*[^ ]) ?\n$`)
			var want []string
			for _, l := range lines {
				if !form.MatchString(l) {
					t.Errorf("line %q", l)
				}
				if worth.MatchString(l) {
					want = append(want, l)
				}
			}
			if len(want) < 4 || sp.name == "2.x" && len(want) == len(lines) {
				t.Errorf("%d of %d lines are worth it", len(want), len(lines))
			}
			both := slices.DeleteFunc(s.logged(usual, worth.String(), len(want)), func(l string) bool {
				return !strings.Contains(l, " portsentry[")
			})
			if len(both) < len(want) || !slices.Equal(both[:len(want)], want) { // more may have come
				t.Errorf("in the usual log\n%swant\n%s", strings.Join(both, ""), strings.Join(want, ""))
			}
			out := s.Run("stat", "-c", "%a %U %G", ourLog)
			if out != "640 root adm\n" { // as Debian has its logs: logcheck is in adm
				t.Errorf("%s: %s", ourLog, out)
			}
		})
	}
}

// Logcheck reports scans as attacks and does not mention the rest.
func TestLogcheck(t *testing.T) {
	for _, sp := range speakers {
		t.Run(sp.name, func(t *testing.T) {
			s := newStage(t, []string{"rsyslogd", "logcheck", "setpriv"}, "/etc/logcheck")
			for _, dir := range []string{"cracking.d", "violations.d", "violations.ignore.d", "ignore.d.server"} {
				s.install("contrib/logcheck/"+dir+"/portsentry", "/etc/logcheck/"+dir+"/portsentry")
			}
			s.Write("/etc/logcheck/logcheck.logfiles.d/journal.logfiles", "") // there is none here
			s.Write("/var/log/auth.log", "")
			s.Run("install", "-d", "-o", "logcheck", "-g", "logcheck", "/var/lib/logcheck", "/run/lock/logcheck")
			s.scanned(sp.flags, sp.old, sp.alert)
			report := s.Run("setpriv", "--reuid=logcheck", "--regid=logcheck", "--init-groups", "--", "logcheck", "-o", "-t")
			attacks, rest, ok := cutSection(report, "Security Alerts")
			if !ok || strings.Contains(rest, "portsentry[") {
				t.Errorf("logcheck reports\n%s", report)
			}
			if n := len(regexp.MustCompile(sp.alert).FindAllString(attacks, -1)); n < 4 {
				t.Errorf("%d scans among the attacks\n%s", n, report)
			}
			if attack := once(attacks); attack != "" {
				t.Errorf("reported twice: %s\n%s", attack, report)
			}
			for _, quiet := range []string{"listening", "starting", ignored.String(), hesitant.String()} {
				if strings.Contains(report, quiet) {
					t.Errorf("%s is reported\n%s", quiet, report)
				}
			}
		})
	}
}

// once gives the first line that is there more often than it is in our log; "" if
// there is none. Times of rsyslog are exact to the microsecond.
func once(report string) (again string) {
	seen := make(map[string]bool)
	for l := range strings.Lines(report) {
		if strings.Contains(l, " portsentry[") && seen[l] {
			return l
		}
		seen[l] = true
	}
	return ""
}

// cutSection takes one section out of logcheck's report.
func cutSection(report, name string) (section, rest string, ok bool) {
	before, after, ok := strings.Cut(report, name)
	if !ok {
		return "", report, false
	}
	if i := regexp.MustCompile(`(?m)^(Security|System) Events`).FindStringIndex(after); i != nil {
		return after[:i[0]], before + after[i[0]:], true
	}
	return after, before, true
}

// Logwatch sums up scans and blocks: with the script it brings for 1.x, with
// ours for both dialects.
func TestLogwatch(t *testing.T) {
	for _, sp := range speakers {
		t.Run(sp.name, func(t *testing.T) {
			s := newStage(t, []string{"rsyslogd", "logwatch"}, "/etc/logwatch")
			s.Run("mkdir", "-p", "/var/cache/logwatch")
			s.scanned(sp.flags, sp.old, sp.alert)
			watch := func() string {
				return s.Run("logwatch", "--service", "portsentry", "--range", "all", "--detail", "med", "--output", "stdout")
			}
			wanted := []string{attacker.String(), attacker2.String(), "TCP/11", "UDP/11"}
			s.install("contrib/logwatch/scripts/services/portsentry", "/etc/logwatch/scripts/services/portsentry")
			s.install("contrib/logwatch/conf/logfiles/portsentry.conf", "/etc/logwatch/conf/logfiles/portsentry.conf")
			s.install("contrib/logwatch/conf/services/portsentry.conf", "/etc/logwatch/conf/services/portsentry.conf")
			summary := watch()
			for _, w := range wanted {
				if !strings.Contains(summary, w) {
					t.Errorf("our script does not say %s:\n%s", w, summary)
				}
			}
			if strings.Contains(summary, ignored.String()) || strings.Contains(summary, "Unmatched") {
				t.Errorf("our script says\n%s", summary)
			}
			if sp.name != "1.x" {
				return
			}
			check(t, os.Remove(s.Path("/etc/logwatch/scripts/services/portsentry")))
			summary = watch()
			for _, w := range wanted[:2] {
				if !strings.Contains(summary, w) {
					t.Errorf("its own script does not say %s:\n%s", w, summary)
				}
			}
		})
	}
}

// The decoders that OSSEC and Wazuh have had for 1.x, on lines of connect mode.
func TestDecoders(t *testing.T) {
	s := newStage(t, []string{"rsyslogd"})
	s.scanned([]string{"-tcp", "-udp"}, true, `attackalert: Connect from host: `)
	// A hit while the command runs is not called blocked; this one is.
	s.probe("tcp", attacker, trap)
	s.probe("udp", attacker2, trap)
	s.logged(ourLog, regexp.QuoteMeta(attacker.String())+` is already blocked\. Ignoring`, 1)
	lines := s.logged(ourLog, regexp.QuoteMeta(attacker2.String())+` is already blocked\. Ignoring`, 1)
	program := regexp.MustCompile(`^\S+ \S+ (portsentry)\[\d+\]: (.*)\n$`)
	connect := regexp.MustCompile(`attackalert: Connect from host: (\S+)/\S+ to (\S+) port: (\d+)$`)
	blocked := regexp.MustCompile(`Host: (\S+) is already blocked\. Ignoring$`)
	got := make(map[string]int)
	for _, l := range lines {
		m := program.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("no program name in %q", l)
		}
		if f := connect.FindStringSubmatch(m[2]); f != nil {
			got[strings.Join(f[1:], " ")]++
		}
		if f := blocked.FindStringSubmatch(m[2]); f != nil {
			got["blocked "+f[1]]++
		}
	}
	for _, want := range []string{
		attacker.String() + " TCP 11", attacker2.String() + " UDP 11",
		"blocked " + attacker.String(), "blocked " + attacker2.String(),
	} {
		if got[want] == 0 {
			t.Errorf("no %q in %v", want, got)
		}
	}
}
