package changes_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// TestBanKeepsOut: a ban by hand keeps a real client out whatever the configuration
// answers, and nobody else; its end lets the client in again.
func TestBanKeepsOut(t *testing.T) {
	for name, block := range map[string]string{"log only": "0", "banning": "1"} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, with(logOnly, "BLOCK_TCP", block))
			for _, c := range clients {
				for _, target := range []string{c.addr.String(), c.rang.String()} {
					s.ask("ban", target, "--for", "10m", "--reason", "a test")
					if s.served(c) {
						t.Errorf("%s is served although %s is banned", c.addr, target)
					}
					if list := s.bans().Bans; len(list) != 1 || list[0].Strength != "full" || list[0].Reason != "a test" || len(list[0].Methods) == 0 {
						t.Errorf("the list says %+v", list)
					}
					s.ask("unban", target)
				}
			}
			for _, c := range clients {
				s.eventually(c, true)
			}
			if list := s.bans().Bans; len(list) != 0 {
				t.Errorf("still banned: %+v", list)
			}
		})
	}
}

func with(config map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range config {
		if k != key {
			out[k] = v
		}
	}
	return out
}

// TestUnbanRange: all inside a range, and what it lies in; the others stay.
func TestUnbanRange(t *testing.T) {
	s := newStage(t, logOnly)
	for _, target := range []string{"203.0.113.9", "203.0.113.64/26", "203.0.112.0/22", "198.51.100.7", "2001:db8::/48", "2001:db8:0:1::9"} {
		s.ask("ban", target)
	}
	s.ask("unban", "203.0.113.0/24")
	if list := s.bans().Bans; len(list) != 3 {
		t.Errorf("after the unban of a range: %+v", list)
	}
	s.ask("unban", "2001:db8:0:1::9") // and the range around it
	if list := s.bans().Bans; len(list) != 1 || list[0].Prefix != netip.MustParsePrefix("198.51.100.7/32") {
		t.Errorf("after the unban of an address in a range: %+v", list)
	}
	s.ask("unban", "all")
	s.refused("nobody is banned", "unban", "all")
}

// TestConfirmWithin: what is not confirmed is taken back, what is stands.
func TestConfirmWithin(t *testing.T) {
	s := newStage(t, logOnly)
	for _, c := range clients {
		s.ask("ban", c.addr.String(), "--confirm-within", "2s")
		if s.served(c) {
			t.Error(c.name + " is served although it is banned")
		}
		s.said("the ban of " + c.addr.String() + " for 1h (change ")
		s.eventually(c, true)
		s.said("was not confirmed in time: it is taken back")
	}
	for _, c := range clients { // who has been connected by now
		s.refused("connected to a service of this host", "ban", c.addr.String())
		s.ask("ban", c.addr.String(), "--force", "--confirm-within", "1h")
		if out := s.ask("confirm"); !strings.Contains(out, "it stands: ban of "+c.addr.String()+" for 1h") {
			t.Errorf("confirm says %q", out)
		}
		s.ask("unban", c.addr.String(), "--confirm-within", "3s")
		s.eventually(c, true)
		s.eventually(c, false) // banned again
	}
	s.refused("nothing waits to be confirmed", "confirm")
	for _, b := range s.bans().Bans {
		if b.Until == nil || b.Until.Sub(b.Since).Minutes() < 30 {
			t.Errorf("what was confirmed ends too early: %+v", b)
		}
	}
}

// TestConfirmReplaced: taking a ban back brings the ban back that it replaced.
func TestConfirmReplaced(t *testing.T) {
	s := newStage(t, logOnly)
	s.ask("ban", "203.0.113.9", "--reason", "the first", "--for", "2h")
	s.ask("ban", "203.0.113.9", "--reason", "the second", "--confirm-within", "1s")
	s.said("it is taken back")
	if list := s.bans().Bans; len(list) != 1 || list[0].Reason != "the first" {
		t.Errorf("it is %+v", list)
	}
}

// TestStopTakesBack: nothing that waits outlives the daemon, whether it stops or is
// killed.
func TestStopTakesBack(t *testing.T) {
	s := newStage(t, logOnly)
	first, second := clients[0], clients[1]
	s.ask("ban", first.addr.String(), "--confirm-within", "1h")
	s.ask("ban", second.rang.String())
	s.ask("unban", second.rang.String(), "--confirm-within", "1h")
	check(t, s.Stop())
	lines, err := s.Out.Lines()
	check(t, err)
	said := strings.Join(lines, "\n")
	for _, want := range []string{"the ban of 203.0.113.9 for 1h (change 1 by uid 0) is not confirmed, and portsentry is stopping: it is taken back",
		"the unban of 2001:db8:a::/48 (change 2 by uid 0) is not confirmed, and portsentry is stopping: it is taken back"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in\n%s", want, said)
		}
	}
	s.eventually(first, true) // a ban that nobody confirmed does not outlive the daemon
	if s.served(second) {
		t.Error("an unban that nobody confirmed outlives the daemon")
	}

	s.Daemon = s.lab.Start(t, logOnly)
	s.ask("unban", "all")
	s.ask("ban", second.addr.String(), "--confirm-within", "2s")
	if s.served(second) {
		t.Error("it is served although it is banned")
	}
	s.Kill()
	s.eventually(second, true) // by the kernel's own clock
}

// TestForce: --force bans who is spared otherwise, in the kernel too, until the ban
// ends.
func TestForce(t *testing.T) {
	ignore := t.TempDir() + "/portsentry.ignore"
	check(t, os.WriteFile(ignore, []byte("203.0.113.0/24\n2001:db8:a::/48\n"), 0o600))
	s := newStage(t, with(logOnly, "IGNORE_FILE", ignore))
	for _, c := range clients {
		for _, target := range []string{c.addr.String(), c.rang.String()} {
			s.refused("in the ignore file", "ban", target)
			s.ask("ban", target, "--force")
			if s.served(c) {
				t.Errorf("%s is served although %s is banned by force", c.addr, target)
			}
			s.ask("unban", target)
			s.eventually(c, true)
			s.refused("in the ignore file", "ban", target)
		}
	}
	// It ends by itself, and who was banned is spared again.
	s.ask("ban", "203.0.113.9", "--force", "--for", "2s")
	s.eventually(clients[0], true)
	lab.Wait(t, patience, "he is spared again", func() bool {
		_, err := s.Command(t.Context(), "ban", "203.0.113.9")
		return err != nil && strings.Contains(err.Error(), "in the ignore file")
	})
}

// TestRefusals: nobody is locked out who is needed, nor who asks.
func TestRefusals(t *testing.T) {
	s := newStage(t, logOnly)
	gateway, gateway6 := lab.ScannerAddrs[0].Addr(), lab.ScannerAddrs[1].Addr()
	lab.Command(t, s.lab.Host.NS, "ip", "route", "add", "default", "via", gateway.String())
	lab.Command(t, s.lab.Host.NS, "ip", "-6", "route", "add", "default", "via", gateway6.String())
	lab.Wait(t, patience, "the gateways are known", func() bool {
		for _, a := range []string{gateway.String(), gateway6.String()} {
			if _, err := s.Command(t.Context(), "ban", a, "--for", "1s"); err == nil || !strings.Contains(err.Error(), "a gateway of this host; --force") {
				return false
			}
		}
		return true
	})
	const never = "it is refused with --force too"
	for _, own := range []string{"10.77.0.1", "10.77.0.0/24", "0.0.0.0/0", "fd77::1", "fd77::/64", "fe80::/10", "::/0", "127.0.0.1", "127.0.0.0/8", "::1", "::ffff:10.77.0.1"} {
		s.refused(never, "ban", own)
		s.refused(never, "ban", own, "--force")
	}
	for _, wide := range []string{"96.0.0.0/4", "2a00::/12"} {
		s.refused("it is wider than /8 (IPv4) or /32 (IPv6); --force", "ban", wide)
	}
	s.ask("ban", "96.0.0.0/4", "--force")
}

// TestReloadCommand: exit code 0 only when it is in force, every mistake otherwise, and
// the way back.
func TestReloadCommand(t *testing.T) {
	dir := t.TempDir()
	t.Parallel()
	s := &stage{t: t, lab: lab.New(t)}
	conf := dir + "/portsentry.conf"
	s.Daemon = harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: s.lab.Host.NS, Dir: dir, Config: logOnly})
	ports := func() string {
		st, err := s.Status(t.Context())
		check(t, err)
		return strings.Repeat("x", st.TCPPorts)
	}
	check(t, harness.WriteConfig(conf, with(logOnly, "TCP_PORTS", "11,12")))
	if out := s.ask("reload"); out != conf+" has been read again and is in force\n" || ports() != "xx" {
		t.Errorf("%q, %s", out, ports())
	}
	check(t, harness.WriteConfig(conf, with(with(logOnly, "TCP_PORTS", "70000"), "BAN_TIME", "soon")))
	s.refused("70000", "reload")
	s.refused("soon", "reload")
	s.refused("the configuration was not read again; the one from before stays in force", "reload")
	if ports() != "xx" {
		t.Error("a configuration with mistakes is in force")
	}
	check(t, harness.WriteConfig(conf, with(logOnly, "TCP_PORTS", "11,12,13")))
	s.ask("reload", "--confirm-within", "1h")
	check(t, harness.WriteConfig(conf, with(logOnly, "TCP_PORTS", "11,12,13,14")))
	s.ask("reload", "--confirm-within", "2s")
	if ports() != "xxxx" {
		t.Errorf("%s", ports())
	}
	// Neither was confirmed: the one before both.
	s.said("was not confirmed in time: it is taken back")
	lab.Wait(t, patience, "the configuration of before", func() bool { return ports() == "xx" })
	if out := s.ask("pending"); out != "nothing waits to be confirmed\n" {
		t.Error(out)
	}
	s.ask("reload", "--confirm-within", "1h")
	s.ask("confirm")
	if ports() != "xxxx" {
		t.Errorf("%s", ports())
	}
}
