package consumers_test

import (
	"errors"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"portsentry/test/lab"
)

// Services that ask hosts.deny refuse who has scanned, until he is let in
// again, and nobody else.
func TestHostsDeny(t *testing.T) {
	const port = 2121
	for _, tt := range []struct {
		name    string
		command []string
		greets  string
	}{
		{"socat", []string{"socat", "TCP-LISTEN:2121,reuseaddr,fork,tcpwrap=greeter", "SYSTEM:echo hello"}, "hello"},
		{"vsftpd", []string{"vsftpd", "/etc/vsftpd.conf"}, "220 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, []string{tt.command[0]})
			s.Run("mkdir", "-p", "/run/vsftpd")
			s.Write("/etc/vsftpd.conf", "listen=YES\nlisten_ipv6=NO\nbackground=NO\nlisten_port=2121\ntcp_wrappers=YES\nsecure_chroot_dir=/run/vsftpd\nseccomp_sandbox=NO\n")
			s.Start(tt.command...)
			s.conf(map[string]string{"BLOCK_TCP": "1", "BLOCK_METHOD": "none", "KILL_HOSTS_DENY": "ALL: $TARGET$ : DENY"})
			p := s.start2x()
			lab.Wait(t, patience, "the service", func() bool {
				c, err := s.dial("tcp", innocent, port, patience)
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			// Not from the attacker: who has just used a service is spared.
			if got := s.answer(innocent, port); !strings.HasPrefix(got, tt.greets) {
				t.Fatalf("before the scan: %q", got)
			}
			s.probe("tcp", attacker, trap)
			lab.Wait(t, patience, "the line in hosts.deny", func() bool {
				return strings.Contains(text(t, p.Out), "blocked: [true]")
			})
			if got := s.answer(attacker, port); strings.HasPrefix(got, tt.greets) {
				t.Errorf("after the scan: %q; hosts.deny: %q", got, s.Read("/etc/hosts.deny"))
			}
			if got := s.answer(innocent, port); !strings.HasPrefix(got, tt.greets) {
				t.Errorf("somebody else: %q", got)
			}
			s.portsentry("unban", attacker.String())
			lab.Wait(t, patience, "let in again", func() bool { return strings.HasPrefix(s.answer(attacker, port), tt.greets) })
		})
	}
}

var printedRule = regexp.MustCompile(`\bip6?tables -[^;\n]*--match-set[^;\n]*`)

// With BLOCK_METHOD="ipset" and the two rules that portsentry prints, iptables
// drops what a scanner sends until he is let in again.
func TestIPSet(t *testing.T) {
	const port = 2222
	s := newStage(t, []string{"ipset", "iptables", "ip6tables", "socat"})
	s.Start("socat", "TCP-LISTEN:2222,reuseaddr,fork", "SYSTEM:echo hello")
	s.conf(map[string]string{"BLOCK_TCP": "1", "BLOCK_METHOD": "ipset"})
	p := s.start2x()
	rules := printedRule.FindAllString(text(t, p.Out)+"\n"+text(t, p.Err), -1)
	if len(rules) != 2 {
		t.Fatalf("it prints %d rules\n%s\n%s", len(rules), text(t, p.Out), text(t, p.Err))
	}
	for _, r := range rules {
		s.Run("sh", "-c", r)
	}
	if got := s.answer(innocent, port); got != "hello\n" { // the attacker would be spared
		t.Fatalf("before the scan: %q", got)
	}
	s.probe("tcp", attacker, trap)
	lab.Wait(t, patience, "the ban", func() bool { return strings.Contains(text(t, p.Out), "blocked: [true]") })
	const moment = 2 * time.Second // a SYN that is dropped has no answer
	c, err := s.dial("tcp", attacker, port, moment)
	if err == nil {
		c.Close()
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("after the scan: %v, want a time-out\n%s\n%s", err, s.Run("ipset", "list"), s.Run("iptables", "-t", "mangle", "-nvL"))
	}
	if counted := s.Run("iptables", "-t", "mangle", "-nvxL", "PREROUTING"); !regexp.MustCompile(`(?m)^ *[1-9]\d* .*match-set`).MatchString(counted) {
		t.Errorf("the rule has met nothing\n%s", counted)
	}
	if got := s.answer(innocent, port); got != "hello\n" {
		t.Errorf("somebody else: %q", got)
	}
	s.portsentry("unban", attacker.String())
	if got := s.answer(attacker, port); got != "hello\n" {
		t.Errorf("let in again: %q", got)
	}
}
