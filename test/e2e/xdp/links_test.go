package xdp_test

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// Another XDP program is left alone, and said to be there: AF_PACKET and nftables
// do what XDP cannot, and the other is still there in the end. There are two ways
// to put one on an interface.
func TestAnotherProgram(t *testing.T) {
	ways := map[string]func(p *ebpf.Program, e *pktgen.End) (take func() error, err error){
		"link": func(p *ebpf.Program, e *pktgen.End) (func() error, error) {
			l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: e.Index, Flags: link.XDPDriverMode})
			if err != nil {
				return nil, err
			}
			return l.Close, nil
		},
		"netlink": func(p *ebpf.Program, e *pktgen.End) (func() error, error) {
			return func() error { return nil }, setXDP(e, p.FD())
		},
		"netlink, generic": func(p *ebpf.Program, e *pktgen.End) (func() error, error) {
			l, err := netlink.LinkByIndex(e.Index)
			if err != nil {
				return nil, err
			}
			const generic = 1 << 1 // XDP_FLAGS_SKB_MODE
			return func() error { return nil }, netlink.LinkSetXdpFdWithFlags(l, p.FD(), generic)
		},
	}
	for name, attach := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			other := passing(t)
			var take func() error
			check(t, s.Host.NS.Do(func() (err error) {
				take, err = attach(other, s.Host)
				return err
			}))
			defer take()
			there := onLink(t, s.Host)
			if there == "" {
				t.Fatal("the other program is not there")
			}
			d := s.start(nil)
			if how := d.how(s.Host.Name); how.How != "AF_PACKET" || !strings.Contains(how.Why, "another XDP program") {
				t.Errorf("watching %+v", how)
			}
			t.Log(d.problem(s.Host.Name, "another XDP program is there, and is left alone"))
			scanner := s.Scanner.Addr4()
			if report := s.nmap(scanner, "-sS", "-r", "-p1,22,80"); openPorts(report) != "" {
				t.Errorf("nmap saw %s", openPorts(report))
			}
			if b := d.waitBan(scanner); !slices.Contains(b.Methods, "nftables") {
				t.Errorf("%+v", b)
			}
			s.seen(d)
			if lines := d.from(scanner); len(lines) != 1 {
				t.Errorf("scan lines %q", lines)
			}
			if s.gets(scanner) {
				t.Error("the scanner gets through")
			}
			check(t, d.Stop())
			if now := onLink(t, s.Host); now != there {
				t.Errorf("program %q is on the interface, and %s was", now, there)
			}
		})
	}
}

// passing is an XDP program that lets everything pass.
func passing(t *testing.T) *ebpf.Program {
	t.Helper()
	const pass = 2 // XDP_PASS
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "BSD", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	check(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

// setXDP puts a program on an interface as `ip link set xdp` does.
func setXDP(e *pktgen.End, fd int) error {
	l, err := netlink.LinkByIndex(e.Index)
	if err != nil {
		return err
	}
	return netlink.LinkSetXdpFd(l, fd)
}

// once sends one SYN from src to a trap through an interface, and expects one
// line and a ban.
func (d *daemon) once(what string, send *pktgen.Sender, src, dst netip.Addr) {
	s := d.s
	s.t.Helper()
	p := s.tcp(src, 40000, trap, pktgen.SYN)
	p.Dst = dst
	check(s.t, send.SendPacket(p))
	d.waitBan(src)
	s.seen(d)
	if lines := d.from(src); len(lines) != 1 {
		s.t.Errorf("%s: scan lines %q", what, lines)
	}
}

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// The program goes on interfaces as they appear, and one that goes away, or down
// and up again, is no error.
func TestLinksComeAndGo(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	d.waitHow(s.Host.Name, "XDP")
	for i, name := range []string{"eth1", "eth2"} { // and once more after one was gone
		from, at := s.Join(t, s.Scanner.NS, s.Host.NS, prefixes("10.78.0.2/24"), prefixes("10.78.0.1/24"))
		d.waitHow(name, "XDP")
		if onLink(t, at) == "" {
			t.Errorf("no program on %s", name)
		}
		send := s.sender(from)
		d.once("by "+name, send, nth(nobody, 10+10*i), at.Addr4())
		d.once("by "+name+" to our other address", send, nth(nobody, 11+10*i), s.Host.Addr4())
		d.once("by the old interface to the address of "+name, s.send, nth(nobody, 12+10*i), at.Addr4())
		lab.Command(t, s.Host.NS, "ip", "link", "set", name, "down")
		d.waitHow(name, "")
		lab.Command(t, s.Host.NS, "ip", "link", "set", name, "up")
		d.waitHow(name, "XDP")
		d.once("by "+name+", up again", send, nth(nobody, 13+10*i), at.Addr4())
		lab.Command(t, s.Host.NS, "ip", "link", "delete", name)
		d.waitHow(name, "")
		d.once("by the old interface when "+name+" has gone", s.send, nth(nobody, 14+10*i), s.Host.Addr4())
		d.healthy("when " + name + " has gone")
	}
	for _, b := range d.bans() {
		d.unban(b.Prefix.Addr())
	}
	check(t, d.Stop())
	if names := s.pinned(); len(names) > 0 {
		t.Errorf("%q is pinned", names)
	}
}

// Where the driver cannot run the program, as that of a bridge, or there is no
// Ethernet, as on a tun, AF_PACKET reads beside it, and what comes by each is one
// line. That is as it should be with nftables there, and no problem.
func TestLinksWithoutXDP(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	from, port := s.Join(t, s.Scanner.NS, s.Host.NS, prefixes("10.78.0.2/24"), nil)
	for _, c := range []string{
		"ip link add br0 type bridge",
		"ip link set br0 address " + port.MAC.String(),
		"ip link set " + port.Name + " master br0",
		"ip address add 10.78.0.1/24 dev br0",
		"ip link set br0 up",
	} {
		lab.Command(t, s.Host.NS, strings.Fields(c)...)
	}
	tun := s.Host.NS.Do(exec.Command("ip", "tuntap", "add", "tun0", "mode", "tun").Run) == nil
	if tun {
		lab.Command(t, s.Host.NS, "ip", "address", "add", "10.79.0.1/24", "dev", "tun0")
		lab.Command(t, s.Host.NS, "ip", "link", "set", "tun0", "up")
	} else {
		t.Log("this kernel has no tun devices: not tested with one")
	}
	d := s.start(nil)
	d.waitHow(s.Host.Name, "XDP")
	d.waitHow("br0", "AF_PACKET")
	if how := d.how("br0"); how.Why == "" {
		t.Error("and why?")
	} else {
		t.Logf("br0: %s", how.Why)
	}
	if tun {
		d.waitHow("tun0", "AF_PACKET")
		t.Logf("tun0: %s", d.how("tun0").Why)
	}
	bridge := netip.MustParseAddr("10.78.0.1")
	send := s.sender(from)
	// The first packets may find a bridge that does not forward yet.
	lab.Wait(t, soon, "the bridge forwards", func() bool {
		p := s.tcp(nth(ignored, 100), 40000, trap, pktgen.SYN)
		p.Dst = bridge
		check(t, send.SendPacket(p))
		return len(d.from(nth(ignored, 100))) > 0
	})
	d.once("by XDP", s.send, nth(nobody, 1), s.Host.Addr4())
	d.once("by the bridge", send, nth(nobody, 2), bridge)
	d.once("by the bridge to our other address", send, nth(nobody, 3), s.Host.Addr4())
	if b, _ := d.ban(nth(nobody, 2)); !slices.Contains(b.Methods, "nftables") {
		t.Errorf("%+v", b)
	}
	d.healthy("with a bridge")
	if onLink(t, port) != "" {
		t.Error("there is a program on the port of the bridge")
	}

	// CAPTURE="xdp" has it behind the driver there, which a tun lacks even so.
	d.reload(map[string]string{"CAPTURE": "xdp"})
	d.waitHow("br0", "XDP, generic")
	d.once("by generic XDP", send, nth(nobody, 4), bridge)
	if tun {
		t.Log(d.problem("tun0", "our XDP program does not run there"))
	}
	d.reload(nil)
	d.waitHow("br0", "AF_PACKET")
	d.once("by the bridge, once more", send, nth(nobody, 5), bridge)

	// Without nftables it is a problem: nobody is kept out there.
	d.reload(alone)
	t.Log(d.problem("br0", "nobody is kept out", "nftables"))
	d.reload(nil)
	lab.Wait(t, soon, "no problem", func() bool { return len(d.status().Problems) == 0 })
}
