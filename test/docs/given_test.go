package docs

import (
	"fmt"
	"os/exec"
	"strings"
	"time"

	"portsentry/test/lab"
)

// notRun are the lines that are listed instead of run, with the reason.
var notRun = map[string]string{
	"portsentry top":                    "it wants a terminal and somebody who quits: test/e2e/top is both",
	"sudo /var/ossec/bin/wazuh-logtest": "Wazuh is in no distribution; test/contrib reads its rules and decoders",
}

// notShown are the documents whose plain blocks nobody says here.
var notShown = map[string]string{
	"docs/ossec-wazuh.md": "lines of 1.x, which test/contrib gives to the decoders",
}

// exits are the lines that are to end otherwise than with 0.
var exits = map[string]int{
	"ps -C portsentry -o pid,args": 1, // none is left
}

// given is what has to be so before a line can be typed: the text says it, or
// somebody who types the line has it.
var given = map[string]map[string]func(*stage){
	"README.md": {
		"portsentry check -c /etc/portsentry/portsentry.conf": blocks,
		"portsentry status": (*stage).ban,
	},
	"packaging/man/portsentry.8": {
		"portsentry check -c /etc/portsentry/portsentry.conf": blocks,
		"portsentry unban 203.0.113.9":                        (*stage).ban,
	},
	"docs/fail2ban.md": {
		"sudo fail2ban-client -t":     (*stage).fail2ban,
		"sudo fail2ban-client reload": func(s *stage) { s.must("fail2ban-client start") },
	},
	"docs/from-1.x.md": {
		"sudo cp -a /etc/portsentry /etc/portsentry.1x": func(s *stage) {
			s.m.Write("/etc/default/portsentry", "TCP_MODE=\"tcp\"\nUDP_MODE=\"udp\"\n")
			s.must("service portsentry start")
		},
	},
	"docs/from-2.x.md": {
		"sudo cp -a /etc/portsentry /etc/portsentry.2x": func(s *stage) {
			s.m.Write("/var/log/portsentry.log", "")
			s.must("systemctl start portsentry")
		},
	},
	"docs/logcheck.md": {
		"sudo -u logcheck logcheck -o -t -l /var/log/syslog": func(s *stage) {
			s.must("mkdir -p /var/lib/logcheck /run/lock/logcheck && chown logcheck: /var/lib/logcheck /run/lock/logcheck")
			s.m.Write("/var/log/syslog", s.day())
		},
	},
	"docs/logwatch.md": {
		"sudo logwatch --service portsentry --range today --detail med --output stdout": func(s *stage) {
			s.must("mkdir -p /var/cache/logwatch")
			s.m.Write("/var/log/messages", s.day())
		},
	},
	"docs/ossec-wazuh.md": {
		"sudo cp contrib/wazuh/portsentry_decoders.xml /var/ossec/etc/decoders/portsentry_decoders.xml": func(s *stage) {
			s.must("mkdir -p /var/ossec/etc/decoders /var/ossec/etc/rules")
		},
	},
	"docs/privileges.md": {
		`grep -E 'Cap(Prm|Eff)|NoNewPrivs|Seccomp:' /proc/$(pidof -s portsentry)/status`: func(s *stage) { s.serve() },
	},
	"docs/restoring-access.md": {
		"sudo portsentry bans":                 func(s *stage) { s.serve(blocking...); s.ban() },
		"sudo portsentry unban 203.0.113.0/24": (*stage).ban,
		"sudo portsentry unban all":            (*stage).ban,
		`sudo sed -i '/\/203\.0\.113\.9 /d' /var/lib/portsentry/portsentry.blocked`: func(s *stage) {
			listed := func() bool {
				return strings.Contains(s.m.Read("/var/lib/portsentry/portsentry.blocked"), "/203.0.113.9 ")
			}
			s.must("portsentry unban all")
			// The file follows within a second, so it may still have the ban before.
			lab.Wait(s.t, soon, "no line in the blocked file", func() bool { return !listed() })
			s.ban()
			lab.Wait(s.t, soon, "a line in the blocked file", listed)
		},
		// A daemon that runs puts all of it there again.
		"sudo nft list table inet portsentry":   func(s *stage) { s.ban(); s.must("systemctl stop portsentry") },
		"sudo nft delete table inet portsentry": func(s *stage) { s.must("systemctl stop portsentry") },
		"ip route show proto 112": func(s *stage) {
			s.serve(`BLOCK_TCP="0"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="auto"`, `BLOCK_METHOD="route"`)
			s.ban()
		},
		"sudo iptables -t mangle -I PREROUTING -m set --match-set portsentry4 src -m conntrack --ctstate NEW,INVALID -j DROP": func(s *stage) {
			s.serve(`BLOCK_TCP="0"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="auto"`, `BLOCK_METHOD="ipset"`)
		},
		"sudo ipset list portsentry4": (*stage).ban,
		"sudo fail2ban-client set portsentry unbanip 203.0.113.9": func(s *stage) {
			s.must("cp contrib/fail2ban/filter.d/portsentry.local /etc/fail2ban/filter.d/ && cp contrib/fail2ban/jail.d/portsentry.local /etc/fail2ban/jail.d/")
			s.fail2ban()
			s.must("fail2ban-client start")
		},
		"sudo portsentry bans --exact":   func(s *stage) { s.serve(blocking...); s.ban() },
		"sudo systemctl stop portsentry": (*stage).ban,
	},
	"docs/testing.md": {
		"sudo nmap -Pn -n -sS -r -p 1-100 198.51.100.5":     func(s *stage) { s.serve() },
		"sudo timeout 20 tcpdump -n -c 10 host 203.0.113.9": func(s *stage) { s.knock() },
		"sudo portsentry -i ALL -L":                         func(s *stage) { s.must("systemctl stop portsentry") },
	},
}

// after is what has to be so when the line has been typed.
var after = map[string]map[string]func(*stage){
	"README.md": {"sudo portsentry unban 203.0.113.9": (*stage).free},
	"docs/restoring-access.md": {
		"sudo portsentry unban 203.0.113.9":                                         (*stage).free,
		`sudo sed -i '/\/203\.0\.113\.9 /d' /var/lib/portsentry/portsentry.blocked`: (*stage).free,
		`sudo nft delete element inet portsentry soft4 '{ 203.0.113.9 }'`: func(s *stage) {
			if said := s.must("nft list set inet portsentry soft4"); strings.Contains(said, "203.0.113.9") {
				s.t.Errorf("he is still there:\n%s", said)
			}
		},
	},
}

var blocking = []string{`BLOCK_TCP="0"`, `BLOCK_TCP="1"`}

func blocks(s *stage) { s.config(blocking...) }

// serve runs the service with the shipped configuration and these changes.
func (s *stage) serve(changes ...string) {
	s.t.Helper()
	s.interrupt()
	s.config(changes...)
	s.m.Write("/etc/portsentry/portsentry.ignore", "")
	s.must("systemctl restart portsentry")
}

// probe sends a SYN to a trap port from elsewhere.
func (s *stage) probe() {
	s.t.Helper()
	if said, code := s.sh("nmap -Pn -n -sS --max-retries 0 -p 1 198.51.100.5", true); code != 0 {
		s.t.Fatalf("nmap: %s", said)
	}
}

// ban makes 203.0.113.9 one who is cut off. He is not in the ignore file.
func (s *stage) ban() {
	s.t.Helper()
	s.m.Write("/etc/portsentry/portsentry.ignore", "")
	// A probe more than it takes could be looked at when the document has let him
	// in again, and ban him anew. One that comes before the file above has been
	// read again is lost on who was in it.
	var last time.Time
	lab.Wait(s.t, soon, "a ban", func() bool {
		if strings.Contains(s.must("portsentry bans"), "203.0.113.9") {
			return true
		}
		if time.Since(last) > 3*time.Second {
			last = time.Now()
			s.probe()
		}
		return false
	})
}

// free: 203.0.113.9 is cut off no longer.
func (s *stage) free() {
	s.t.Helper()
	defer func() {
		if s.t.Failed() {
			said, _ := s.sh("portsentry bans --exact; cat /var/lib/portsentry/portsentry.blocked", false)
			s.t.Logf("still\n%s", said)
		}
	}()
	lab.Wait(s.t, soon, "no ban", func() bool {
		return !strings.Contains(s.must("portsentry bans"), "203.0.113.9")
	})
}

// knock keeps sending packets from elsewhere, for who waits for some.
func (s *stage) knock() {
	s.t.Helper()
	cmd := exec.Command("nmap", "-Pn", "-n", "-sS", "--max-retries", "0", "--max-rate", "10", "-p", "1-100", "198.51.100.5")
	check(s.t, s.scanner.Do(cmd.Start))
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// fail2ban has our jail only: that for sshd wants a log that there is not.
func (s *stage) fail2ban() {
	s.t.Helper()
	s.m.Write("/etc/fail2ban/jail.d/zz-no-sshd.local", "[sshd]\nenabled = false\n")
	s.must("mkdir -p /run/fail2ban /var/lib/fail2ban && touch /var/log/fail2ban.log /var/lib/portsentry/portsentry.history")
}

// day is what syslog has of a scan today.
func (s *stage) day() string {
	var b strings.Builder
	for _, text := range []string{
		"attackalert: Host 203.0.113.9 has been blocked via nftables for 10m0s (new connections; unverified)",
		scan(1), scan(11), scan(7),
	} {
		fmt.Fprintf(&b, "%s machine portsentry[7]: %s\n", time.Now().Format(time.Stamp), text)
	}
	return b.String()
}

func scan(port int) string {
	return fmt.Sprintf("Scan from: [203.0.113.9] (203.0.113.9) protocol: [TCP] port: [%d] type: [TCP SYN/Normal scan] IP opts: [not set] ignored: [false] triggered: [true] noblock: [false] blocked: [true]", port)
}
