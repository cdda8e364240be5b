package consumers_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"portsentry/test/lab"
)

// jail is all that is added to fail2ban's configuration beside what the case
// installs. The sshd jail of Debian has no log here.
const jail = `[DEFAULT]
allowipv6 = auto
banaction_allports = nftables[type=allports]
banaction = nftables[type=multiport]
[sshd]
enabled = false
`

// Fail2ban bans who scanned, and neither who is ignored nor who stays below the
// trigger: the filter that fail2ban brings on a history of 1.x, and ours on
// both.
func TestFail2ban(t *testing.T) {
	for _, tt := range []struct {
		name, jail string
		ours       bool // our filter and jail
		modes      []string
		old        bool // started as 1.x
	}{
		{"its own filter, 1.x", "[portsentry]\nenabled = true\nbackend = auto\n", false, []string{"-stcp", "-sudp"}, true},
		{"its own filter, connect mode", "[portsentry]\nenabled = true\nbackend = auto\n", false, []string{"-tcp", "-udp"}, true},
		{"our filter, 1.x", "", true, []string{"-stcp", "-sudp"}, true},
		{"our filter, 2.x", "", true, nil, false},
		{"our filter, 2.x connect mode", "", true, []string{"--connect"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, []string{"fail2ban-server", "fail2ban-client", "nft"}, "/etc/fail2ban")
			// A command that works: with BLOCK_TCP="0" nobody is in the history of 1.x.
			s.conf(map[string]string{"SCAN_TRIGGER": "2", "BLOCK_TCP": "2", "BLOCK_UDP": "2", "KILL_RUN_CMD": "true $TARGET$"})
			if tt.old {
				log := s.Syslog()
				s.start1x(tt.modes...)
				log.Wait(patience, "PortSentry is now active and listening.")
			} else {
				s.start2x(tt.modes...)
			}
			s.Write("/etc/fail2ban/jail.local", jail+tt.jail)
			if tt.ours {
				s.install("contrib/fail2ban/filter.d/portsentry.local", "/etc/fail2ban/filter.d/portsentry.local")
				s.install("contrib/fail2ban/jail.d/portsentry.local", "/etc/fail2ban/jail.d/portsentry.local")
			}
			// It does not start without the file.
			if _, err := os.Stat(s.Path(history)); err != nil {
				t.Error(err)
				s.Write(history, "")
			}
			s.fail2ban()

			for range 3 {
				s.probe("tcp", ignored, trap)
				s.probe("udp", ignored, trap)
			}
			s.probe("tcp", hesitant, trap)
			for range 3 {
				s.probe("tcp", attacker, trap)
				s.probe("udp", attacker2, trap)
			}
			banned := func(a netip.Addr) bool { return s.banned()[a.String()] }
			lab.Wait(t, patience, "fail2ban bans both attackers", func() bool { return banned(attacker) && banned(attacker2) })
			for who, a := range map[string]netip.Addr{"the ignored": ignored, "below the trigger": hesitant, "the innocent": innocent} {
				if banned(a) {
					t.Errorf("%s is banned", who)
				}
			}
			lab.Wait(t, patience, "the ban is in the kernel", func() bool {
				rules := s.Run("nft", "list", "ruleset")
				return strings.Contains(rules, attacker.String()) && strings.Contains(rules, attacker2.String())
			})
			if rules := s.Run("nft", "list", "ruleset"); strings.Contains(rules, ignored.String()) || strings.Contains(rules, hesitant.String()) {
				t.Errorf("banned by mistake:\n%s", rules)
			}
		})
	}
}

// fail2ban starts the server.
func (s *stage) fail2ban() {
	s.t.Helper()
	s.Run("mkdir", "-p", "/run/fail2ban", "/var/lib/fail2ban")
	s.Run("fail2ban-client", "--test")
	p := s.Start("fail2ban-server", "-f", "start")
	lab.Wait(s.t, patience, "the jail", func() bool {
		if !p.Running() {
			s.t.Fatalf("fail2ban has ended\n%s\n%s\n%s", text(s.t, p.Out), text(s.t, p.Err), s.Read("/var/log/fail2ban.log"))
		}
		_, code := s.Try("fail2ban-client", "status", "portsentry")
		return code == 0
	})
}

var bannedList = regexp.MustCompile(`Banned IP list:\t(.*)\n`)

// banned is what `fail2ban-client status portsentry` lists.
func (s *stage) banned() map[string]bool {
	s.t.Helper()
	found := make(map[string]bool)
	status := s.Run("fail2ban-client", "status", "portsentry")
	m := bannedList.FindStringSubmatch(status)
	if m == nil {
		s.t.Fatalf("no list of bans in\n%s", status)
	}
	for _, a := range strings.Fields(m[1]) {
		found[a] = true
	}
	return found
}
