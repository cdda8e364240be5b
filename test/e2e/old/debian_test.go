package old_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portsentry/test/lab"
)

const (
	script   = "/etc/init.d/portsentry"
	postinst = "/var/lib/dpkg/info/portsentry.postinst"
	modes    = "/etc/default/portsentry"
	active   = "adminalert: PortSentry is now active and listening."
)

// Debian's package of 1.2 as administrators have had it for twenty years: its
// postinst, init script, configuration and little programs, around either
// daemon. The script starts a process for each protocol; ours is one for both.
func TestDebian(t *testing.T) {
	theirs, ours := worlds(t)
	both(theirs, ours, func(w *world) {
		w.last = 31337 // a port of both protocols in the conffile
		w.modes = []string{"tcp", "udp"}
		w.install()
	})
	start := func(t *testing.T, command ...string) {
		t.Helper()
		var said [2]string
		for i, w := range []*world{theirs, ours} {
			w.begin()
			said[i] = w.awaits(command...)
		}
		if said[0] != said[1] {
			t.Errorf("%q: 1.2 says %q, ours %q", command, said[0], said[1])
		}
		same(t, theirs, ours)
	}
	scan := func(t *testing.T, ids ...string) {
		t.Helper()
		both(theirs, ours, func(w *world) {
			w.take(func() {
				lab.Nmap(w.t, w.Scanner.NS, "-sT", "-p", "1,11,15,79,111,80", scanned.String())
				lab.Nmap(w.t, w.Scanner.NS, "-sU", "-p", "1,7,9,69,53", scanned.String())
			})
		})
		same(t, theirs, ours, ids...)
	}

	t.Run("installed", func(t *testing.T) {
		start(t, "sh", postinst, "configure")
		for _, w := range []*world{theirs, ours} {
			if got := w.Read(modes); !strings.Contains(got, "TCP_MODE=\"tcp\"\nUDP_MODE=\"udp\"\n") {
				t.Errorf("%s: %s", w.name, got)
			}
		}
		scan(t, "log-only-files")
	})
	t.Run("blocks", func(t *testing.T) {
		both(theirs, ours, func(w *world) {
			// Where markers have knocked, a connection of 1.2 may be left in TIME_WAIT,
			// which is a service to it.
			w.Run("sed", "-i", `s/^BLOCK_\(TCP\|UDP\)=.*/BLOCK_\1="1"/; /^TCP_PORTS=/s/,31337//`, "/etc/portsentry/portsentry.conf")
			w.Run("sed", "-i", `s/_MODE="/_MODE="s/`, modes)
			w.Run("rm", "/var/lib/portsentry/portsentry.history") // log-only-files
			w.modes = []string{"stcp", "sudp"}
			w.last = 635
		})
		start(t, script, "restart")
		from := others.Addr().Next()
		both(theirs, ours, func(w *world) {
			w.take(func() { w.knock("tcp", from, 11) })
			w.take(func() { w.knock("udp", from.Next(), 7) })
		})
		for _, name := range []string{"history", "blocked.stcp", "blocked.sudp"} {
			name = "/var/lib/portsentry/portsentry." + name
			sameList(t, name, func() []string { return theirs.records(name) }, func() []string { return ours.records(name) })
		}
		for _, w := range []*world{theirs, ours} {
			routes := w.Run("ip", "route")
			if !strings.Contains(routes, "unreachable "+from.String()) || !strings.Contains(routes, "unreachable "+from.Next().String()) {
				t.Errorf("%s: %s", w.name, routes)
			}
		}
	})
	t.Run("again", func(t *testing.T) {
		for _, w := range []*world{theirs, ours} {
			w.begin()
			before := w.Processes("portsentry")
			w.Run(script, "start")
			w.take(func() {})
			// The second one may take a moment to end.
			lab.Wait(t, patience, w.name+": the same processes after a second start", func() bool {
				return slices.Equal(before, w.Processes("portsentry"))
			})
			if lines := w.lines(); len(lines) > 0 {
				t.Errorf("%s: %q", w.name, lines)
			}
		}
	})
	t.Run("ignores", func(t *testing.T) {
		from := netip.MustParseAddr("10.77.8.66")
		for _, tt := range []struct {
			command []string
			alerts  int
		}{
			{[]string{"/usr/lib/portsentry/portsentry-add-ip", from.String()}, 0},
			// portsentry-rm-ip cannot: it renames from /var to /etc.
			{[]string{"sed", "-i", "/^" + from.String() + "$/d", "/etc/portsentry/portsentry.ignore.static"}, 1},
		} {
			both(theirs, ours, func(w *world) { w.Run(tt.command...) })
			start(t, script, "force-reload")
			both(theirs, ours, func(w *world) { w.take(func() { w.knock("tcp", from, 11) }) })
			same(t, theirs, ours)
			if n := len(matching(theirs.lines(), "^attackalert: TCP .* from host: "+from.String())); n != tt.alerts {
				t.Errorf("after %q 1.2 says %q", tt.command, theirs.lines())
			}
		}
	})
	from := others.Masked().Addr().Next().Next()
	// All of these end the daemon and start it at once: the old one must be gone
	// when the script looks for it in ps.
	for _, command := range [][]string{
		{script, "restart"}, {"sh", "-c", script + " stop; " + script + " start"},
		{"/etc/ppp/ip-up.d/portsentry"}, {"sh", postinst, "configure", "1.2-13"},
	} {
		t.Run("restarted by "+command[len(command)-1], func(t *testing.T) {
			for range 3 {
				start(t, command...)
			}
			from = from.Next()
			both(theirs, ours, func(w *world) { w.take(func() { w.knock("udp", from, 9) }) })
			same(t, theirs, ours)
		})
	}
	t.Run("stopped", func(t *testing.T) {
		for _, w := range []*world{theirs, ours} {
			w.begin()
			w.Run(script, "stop")
			lab.Wait(t, patience, w.name+" ends", func() bool { return w.Processes("portsentry") == nil })
		}
		same(t, theirs, ours)
	})
}

// install unpacks the package around the world's own daemon. What maintainer
// scripts want of debconf and of init is stood in for.
func (w *world) install() {
	w.t.Helper()
	deb, err := unpack()
	check(w.t, err)
	usr := filepath.Join(w.t.TempDir(), "usr")
	check(w.t, os.CopyFS(usr, os.DirFS(filepath.Join(deb, "usr"))))
	daemon, err := os.ReadFile(w.program[0])
	check(w.t, err)
	check(w.t, os.RemoveAll(filepath.Join(usr, "sbin/portsentry")))
	for name, text := range map[string]string{
		"sbin/portsentry":          string(daemon),
		"sbin/invoke-rc.d":         "#!/bin/sh\nexec /etc/init.d/$1 $2\n",
		"sbin/update-rc.d":         "#!/bin/sh\n",
		"share/debconf/confmodule": "db_stop() { :; }\n",
	} {
		name = filepath.Join(usr, name)
		check(w.t, errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o755)))
	}
	w.Run("mount", "-t", "overlay", "overlay", "-o", "lowerdir="+usr+":/usr", "/usr")
	w.Run("cp", "-a", filepath.Join(deb, "etc"), "/")
	w.Run("mkdir", "-p", "/var/lib/dpkg/info", "/etc/default")
	w.Run("cp", filepath.Join(deb, "DEBIAN/postinst"), "/var/lib/dpkg/info/portsentry.postinst")
}

// awaits runs a command that starts the daemon, and waits until every mode is
// said to be active.
func (w *world) awaits(command ...string) (said string) {
	w.t.Helper()
	before := len(w.log.Entries())
	said = w.Run(command...)
	lab.Wait(w.t, patience, w.name+" is active", func() bool {
		started := 0
		for _, e := range w.log.Entries()[before:] {
			if e.Text == active {
				started++
			}
		}
		return started >= len(w.modes)
	})
	return said
}
