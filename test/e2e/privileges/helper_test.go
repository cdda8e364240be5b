package privileges_test

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/test/lab"
	"portsentry/test/machine"
)

const helperSocket = "/run/portsentry-helper/socket"

var inHelper = []string{`TCP_PORTS="1,11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="none"`,
	`KILL_ROUTE="echo $TARGET$ $(id -u) >>/var/ran"`, `KILL_HOSTS_DENY="ALL: $TARGET$ : DENY"`}

// helper starts what portsentry-helper.service does.
func (h *host) helper() *machine.Program {
	h.t.Helper()
	p := h.Start(program, "helper", "--listen")
	lab.Wait(h.t, patience, "the helper", func() bool {
		if !p.Running() {
			h.t.Fatalf("it ended:\n%s", h.said(p))
		}
		info, err := os.Lstat(h.Path(helperSocket)) // it is given away last
		return err == nil && info.Sys().(*syscall.Stat_t).Uid == uid
	})
	return p
}

// TestHelperUnit: the daemon is not root, so a helper that is runs its commands and
// edits hosts.deny. It outlives daemons and serves the next one.
func TestHelperUnit(t *testing.T) {
	h := newHost(t, inHelper...)
	if said, code := h.Try(program, "helper", "--wanted"); code != 0 || said != "" {
		t.Errorf("ExecCondition: exit code %d, %q", code, said)
	}
	helper := h.helper()
	info, err := os.Stat(h.Path(helperSocket))
	check(t, err)
	if st := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o600 || st.Uid != uid {
		t.Errorf("the socket is %v of user %d", info.Mode(), st.Uid)
	}
	ran := func(n int) {
		t.Helper()
		h.probe(scanner(n), 1)
		want := scanner(n).String()
		lab.Wait(t, patience, "the command about "+want, func() bool { return strings.Contains(h.Read("/var/ran"), want+" 0\n") })
		lab.Wait(t, patience, "the line about "+want, func() bool { return strings.Contains(h.Read("/etc/hosts.deny"), "ALL: "+want) })
	}
	p := h.start(capabilities(t))
	if got := h.problems(); got != "" {
		t.Errorf("problems: %s", got)
	}
	ran(1)
	p.Stop(syscall.SIGKILL)
	p = h.start(capabilities(t))
	ran(2)
	if pids := h.Processes("portsentry"); len(pids) != 2 {
		t.Errorf("%d processes", len(pids))
	}

	// What a helper leaves is said; the rest goes on.
	helper.Stop(syscall.SIGTERM)
	lab.Wait(t, patience, "its absence", func() bool { return strings.Contains(h.problems(), "no commands are run") })
	p.Stop(syscall.SIGTERM)
	h.start(capabilities(t))
	if got := h.problems(); !strings.Contains(got, "systemctl start portsentry-helper") {
		t.Errorf("problems: %q", got)
	}
}

// TestHelperRefuses: whom it does not serve, and what configurations.
func TestHelperRefuses(t *testing.T) {
	h := newHost(t, inHelper...)
	helper := h.helper()
	// Another user cannot even open the socket. One who was given it is let go.
	check(t, os.Chmod(h.Path(helperSocket), 0o666))
	if said, _ := h.Try("setpriv", "--reuid", "65534", "--clear-groups", "python3", "-c", `import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect("`+helperSocket+`")
print(len(s.recv(1)))`); strings.TrimSpace(said) != "0" {
		t.Errorf("another user: %s", said)
	}
	// Root may ask, and learns that what is no record is refused.
	check(t, h.Do(func() error {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: helperSocket, Net: "unixpacket"})
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("rm -rf /")); err != nil { // the size of a request to reload
			return err
		}
		b := make([]byte, 4096)
		if _, err := c.Read(b); err != nil {
			return err
		}
		if _, err := c.Write([]byte("echo x >/var/ran")); err != nil {
			return err
		}
		_, err = c.Read(b)
		return err
	}))
	if h.Read("/var/ran") != "" {
		t.Error("it ran something")
	}
	helper.Stop(syscall.SIGTERM)

	for name, spoil := range map[string]func() error{
		"its owner":          func() error { return os.Chown(h.Path(conf), uid, 0) },
		"its mode":           func() error { return os.Chmod(h.Path(conf), 0o664) },
		"the owner above":    func() error { return os.Chown(h.Path("/etc/portsentry"), uid, 0) },
		"the mode above":     func() error { return os.Chmod(h.Path("/etc/portsentry"), 0o775) },
		"the mode of /etc":   func() error { return os.Chmod(h.Path("/etc"), 0o757) },
		"a way through /tmp": func() error { return os.Chown(h.Path("/etc/portsentry"), 0, 0) },
	} {
		check(t, os.Chmod(h.Path("/etc"), 0o755))
		check(t, os.Chmod(h.Path("/etc/portsentry"), 0o755))
		check(t, os.Chown(h.Path("/etc/portsentry"), 0, 0))
		check(t, os.Chmod(h.Path(conf), 0o644))
		check(t, os.Chown(h.Path(conf), 0, 0))
		check(t, spoil())
		args := []string{program, "helper", "--listen"}
		if strings.Contains(name, "/tmp") {
			check(t, os.MkdirAll(h.Path("/var/tmp/link"), 0o777))
			check(t, os.Chown(h.Path("/var/tmp/link"), uid, 0))
			if err := os.Symlink(conf, h.Path("/var/tmp/link/conf")); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--configfile", "/var/tmp/link/conf")
		}
		p := h.Start(args...)
		lab.Wait(t, patience, "its end", func() bool { return !p.Running() })
		if said := h.said(p); p.Stop(unix.SIGKILL) == 0 || !strings.Contains(said, "run as root: ch") {
			t.Errorf("%s: it says %q", name, said)
		}
	}
	h.configure(`TCP_PORTS="1"`)
	if _, code := h.Try(program, "helper", "--wanted"); code != 1 {
		t.Errorf("nothing to do for it, and exit code %d", code)
	}
}
