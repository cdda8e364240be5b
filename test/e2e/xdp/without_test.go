package xdp_test

import (
	"slices"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// Privileges are dropped for good, CAP_SYS_ADMIN among them, which has the others
// in it and may mount what is missing.
const (
	withoutBPF     = `exec setpriv --bounding-set -bpf,-sys_admin --inh-caps -bpf,-sys_admin "$@"`
	withoutPerfmon = `exec setpriv --bounding-set -perfmon,-sys_admin --inh-caps -perfmon,-sys_admin "$@"`
	withoutCgroup2 = unmounting + `while umount -l -t cgroup2 -a 2>/dev/null && grep -q cgroup2 /proc/self/mountinfo; do :; done` + unprivileged
	withoutBPFFS   = unmounting + `while umount -l /sys/fs/bpf 2>/dev/null; do :; done` + unprivileged

	unmounting   = `exec unshare -m --propagation private sh -c '`
	unprivileged = `; exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin "$@"' "$0" "$@"`
)

// What is missing is said, the next best way is taken, and a scan is seen and
// answered all the same. Nothing can take connection tracking out of a kernel, so
// that is not tried.
func TestWithout(t *testing.T) {
	for name, c := range map[string]struct {
		script  string
		config  map[string]string
		problem []string // parts of it
		how     string
		methods []string
	}{
		"CAP_BPF": {
			withoutBPF, nil,
			[]string{"no XDP", "CAP_BPF", "AF_PACKET reads the packets, nftables bans"}, "AF_PACKET", []string{"nftables"},
		},
		"CAP_BPF, BLOCK_METHOD=xdp": {
			withoutBPF, alone,
			[]string{"no XDP", "CAP_BPF", "AF_PACKET reads the packets, nftables bans"}, "AF_PACKET", []string{"nftables"},
		},
		"CAP_PERFMON": {
			withoutPerfmon, nil,
			[]string{"no XDP", "CAP_PERFMON", "AF_PACKET reads the packets, nftables bans"}, "AF_PACKET", []string{"nftables"},
		},
		"cgroup2": {
			withoutCgroup2, nil,
			[]string{"who opens a connection is known to the XDP program a moment later only", "cgroup2"}, "XDP", []string{"xdp", "nftables"},
		},
		"BPF file system": {
			withoutBPFFS, nil,
			[]string{"bans of the XDP program end with this process", "no BPF file system at /sys/fs/bpf"}, "XDP", []string{"xdp", "nftables"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			peer := s.open(nth(clients, 1), 443)
			d := s.startIn(c.script, c.config)
			t.Log(d.problem(c.problem...))
			d.waitHow(s.Host.Name, c.how)
			scanner, late := s.Scanner.Addr4(), nth(clients, 2)
			if report := s.nmap(scanner, "-sS", "-r", "-p1,22,80"); openPorts(report) != "" {
				t.Errorf("nmap saw %s", openPorts(report))
			}
			if b := d.waitBan(scanner); !slices.Equal(b.Methods, c.methods) {
				t.Errorf("%+v", b)
			}
			s.seen(d)
			if lines := d.from(scanner); len(lines) != 1 || !strings.Contains(lines[0], "blocked: [true]") {
				t.Errorf("scan lines %q", lines)
			}
			if s.gets(scanner) {
				t.Error("the scanner gets through")
			}
			// Who was connected before, and who has connected since, is a peer.
			later := s.open(late, 443)
			s.seen(d)
			for _, a := range []pktgen.Packet{s.tcp(nth(clients, 1), 40000, trap, pktgen.SYN), s.tcp(late, 40000, trap, pktgen.SYN)} {
				s.forge(a)
				if b := d.waitBan(a.Src); b.Strength != "limited" {
					t.Errorf("%+v", b)
				}
				if _, err := s.dial(a.Src, 443, soon); err != nil {
					t.Errorf("a peer after a forged hit: %v", err)
				}
			}
			check(t, echo(peer))
			check(t, echo(later))
		})
	}
}

// Where nothing can be pinned, the program and its bans end with the daemon, in
// whatever way that ends.
func TestNothingOutlivesWithoutBPFFS(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	banned := nth(clients, 1)
	for name, end := range map[string]func(d *daemon){
		"stopped": func(d *daemon) { check(t, d.Stop()) },
		"killed":  func(d *daemon) { d.Kill() },
	} {
		d := s.startIn(withoutBPFFS, alone)
		d.waitHow(s.Host.Name, "XDP")
		s.forge(s.tcp(banned, 40000, trap, pktgen.SYN))
		d.waitBan(banned)
		if s.gets(banned) {
			t.Error("the banned gets through")
		}
		end(d)
		lab.Wait(t, soon, "no program", func() bool { return onLink(t, s.Host) == "" })
		if !s.gets(banned) {
			t.Errorf("%s: somebody is kept out still", name)
		}
		if names := s.pinned(); len(names) > 0 {
			t.Errorf("%s: %q is pinned", name, names)
		}
	}
}
