package xdp_test

import (
	"slices"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
)

// What is missing is said, the next best way is taken, and a scan is seen and
// answered all the same. Privileges are dropped for good, CAP_SYS_ADMIN among
// them, which has the others in it and may mount what is missing.
func TestWithout(t *testing.T) {
	const unprivileged = `exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin "$@"`
	in := func(prepare string) string {
		return "exec unshare -m --propagation private sh -c '" + prepare + ` && shift 0 && ` + unprivileged + `' "$0" "$@"`
	}
	for name, c := range map[string]struct {
		script  string
		config  map[string]string
		problem []string // parts of it
		how     string
		methods []string
	}{
		"CAP_BPF": {
			`exec setpriv --bounding-set -bpf,-sys_admin --inh-caps -bpf,-sys_admin "$@"`, nil,
			[]string{"no XDP", "CAP_BPF", "AF_PACKET reads the packets, nftables bans"}, "AF_PACKET", []string{"nftables"},
		},
		"CAP_BPF, BLOCK_METHOD=xdp": {
			`exec setpriv --bounding-set -bpf,-sys_admin --inh-caps -bpf,-sys_admin "$@"`, alone,
			[]string{"no XDP", "CAP_BPF", "AF_PACKET reads the packets, nftables bans"}, "AF_PACKET", []string{"nftables"},
		},
		"CAP_PERFMON": {
			`exec setpriv --bounding-set -perfmon,-sys_admin --inh-caps -perfmon,-sys_admin "$@"`, nil,
			[]string{"no XDP", "CAP_PERFMON", "AF_PACKET reads the packets, nftables bans"}, "AF_PACKET", []string{"nftables"},
		},
		"cgroup2": {
			in("while umount -l -t cgroup2 -a 2>/dev/null && grep -q cgroup2 /proc/self/mountinfo; do :; done"), nil,
			[]string{"who opens a connection is known to the XDP program a moment later only", "cgroup2"}, "XDP", []string{"xdp", "nftables"},
		},
		"BPF file system": {
			in("while umount -l /sys/fs/bpf 2>/dev/null; do :; done"), nil,
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
