package changes_test

import (
	"strings"
	"testing"

	"portsentry/test/lab"
	"portsentry/test/machine"
)

// TestMembers: what the group may do and what is root's alone, as two of its members
// and a stranger ask, and who asked is in the log.
func TestMembers(t *testing.T) {
	lab.NeedProgram(t, "setpriv", "util-linux")
	t.Parallel()
	l := lab.New(t)
	m := machine.New(t, l.Host.NS)
	m.Write("/etc/group", m.Read("/etc/group")+"portsentry:x:990:\n")
	m.Write("/etc/portsentry/portsentry.conf", "TCP_PORTS=\"11\"\nUDP_PORTS=\"7\"\nBLOCK_TCP=\"0\"\nBLOCK_METHOD=\"auto\"\nBAN_TIME=\"1d\"\nDATABASE_FILE=\"\"\n")
	m.Run("mkdir", "-p", "/run/portsentry", "/var/bin")
	m.Run("cp", lab.Binary(t), "/var/bin/portsentry")
	const program = "/var/bin/portsentry"
	d := m.Start(program)
	lab.Wait(t, patience, "the daemon is ready", func() bool {
		_, code := m.Try(program, "status")
		return code == 0
	})
	as := func(uid, gid string, args ...string) (string, int) {
		return m.Try(append([]string{"setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", program}, args...)...)
	}
	for _, tt := range []struct {
		uid, gid string
		args     string
		code     int
		want     string
	}{
		{"1000", "990", "ban 203.0.113.9", 0, "203.0.113.9 is banned for "},
		{"1000", "990", "ban 2001:db8::/64 --confirm-within 1h", 0, " unless you confirm it: portsentry confirm 1"},
		{"1000", "990", "ban 203.0.113.0/24", 2, "203.0.113.0/24 is a range, and ranges are root's alone; try sudo; group portsentry bans and unbans single addresses and IPv6 /64 networks"},
		{"1000", "990", "ban 203.0.113.10 --force", 2, "--force is root's alone; try sudo"},
		{"1000", "990", "ban 10.77.0.1", 2, "10.77.0.1 is not banned: it is an address of this host"},
		{"1000", "990", "unban all", 2, "only root lifts all bans at once; try sudo, or unban one address after the other"},
		{"1000", "990", "reload", 2, "portsentry says: POST /v1/reload is root's alone; try sudo"},
		{"1001", "990", "pending", 0, "ban of 2001:db8::/64 for "},
		{"1001", "990", "confirm 1", 2, "change 1 is not yours (uid 1000); whoever made a change confirms it, or root does: try sudo"},
		{"1000", "990", "confirm", 0, "confirmed, it stands: ban of 2001:db8::/64 for "},
		{"1001", "990", "unban 203.0.113.9", 0, "203.0.113.9 is no longer banned"},
		{"0", "0", "ban 203.0.113.0/24", 0, "203.0.113.0/24 is banned for "},
		{"1001", "990", "unban 203.0.113.9", 2, "203.0.113.9 lies in 203.0.113.0/24, which is banned, and ranges are root's alone; try sudo"},
		{"1001", "990", "unban 2001:db8::7", 0, "2001:db8::/64, with 2001:db8::7 in it, is no longer banned"},
		{"1002", "1002", "ban 203.0.113.9", 2, "you may not open /run/portsentry/portsentry.sock; root and the members of group portsentry may: try sudo"},
	} {
		said, code := as(tt.uid, tt.gid, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(said, tt.want) {
			t.Errorf("uid %s: portsentry %s: exit code %d, want %d\n%swant %s", tt.uid, tt.args, code, tt.code, said, tt.want)
		}
	}
	lines, err := d.Out.Lines()
	check(t, err)
	said := strings.Join(lines, "\n")
	for _, want := range []string{
		"adminalert: 203.0.113.9 is banned for 1d, by uid 1000 (pid ",
		"adminalert: the ban of 2001:db8::/64 for 1d (change 1) is confirmed, by uid 1000 (pid ",
		"adminalert: 203.0.113.9 is no longer banned, by uid 1001 (pid ",
		"adminalert: 203.0.113.0/24 is banned for 1d, by uid 0 (pid ",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in\n%s", want, said)
		}
	}
}
