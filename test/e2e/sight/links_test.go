package sight_test

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// once sends one SYN to port of dst through s and expects one line, or none.
func (w *wire) once(t *testing.T, what string, s *pktgen.Sender, dst netip.Addr, port int, want int) {
	t.Helper()
	p := w.packet(port, dst.Is6(), func(p *pktgen.Packet) { p.Dst = dst })
	if err := s.SendPacket(p); err != nil {
		t.Fatal(err)
	}
	opts := "not set"
	if dst.Is6() {
		opts = "unknown"
	}
	var lines []string
	if want > 0 {
		lines = slices.Repeat([]string{scanLine(p.Src, "TCP", port, synScan, opts)}, want)
	}
	if d := cmp.Diff(lines, w.scans(t)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// until sends SYNs to port of dst through s until one is seen: the daemon has
// noticed what has changed.
func (w *wire) until(t *testing.T, what string, s *pktgen.Sender, dst netip.Addr, port int) {
	t.Helper()
	lab.Wait(t, patience, what, func() bool {
		if err := s.SendPacket(w.packet(port, dst.Is6(), func(p *pktgen.Packet) { p.Dst = dst })); err != nil {
			t.Fatal(err)
		}
		return w.scans(t) != nil
	})
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// TestLinks follows interfaces and addresses that come and go.
func TestLinks(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	w, d := listen(t, l, map[string]string{"TCP_PORTS": "11"})
	says(t, d.Err, "watching eth0 ("+lab.How()+"), 2 TCP and 0 UDP ports, IPv4 and IPv6")

	for _, name := range []string{"eth1", "eth2"} { // and once more after it was gone
		from, at := l.Join(t, l.Scanner.NS, l.Host.NS, prefixes("10.78.0.2/24", "fd78::2/64"), prefixes("10.78.0.1/24", "fd78::1/64"))
		says(t, d.Err, "watching eth0 ("+lab.How()+"), "+name+" ("+lab.How()+"), ")
		s := sender(t, from)
		w.until(t, "a new interface", s, at.Addr4(), 11)
		w.once(t, "by the new interface", s, at.Addr4(), 11, 1)
		w.once(t, "by the new interface in IPv6", s, at.Addr6(), 11, 1)
		w.once(t, "our other address by the new interface", s, l.Host.Addr4(), 11, 1)
		w.once(t, "its address by the old interface", w.send, at.Addr4(), 11, 1)

		lab.Command(t, l.Host.NS, "ip", "link", "set", name, "down")
		lab.Wait(t, patience, "the interface that is down left alone", func() bool { return lastWatched(t, d.Err) == "eth0" })
		w.once(t, "while the other interface is down", w.send, l.Host.Addr4(), 11, 1)
		lab.Command(t, l.Host.NS, "ip", "link", "set", name, "up")
		lab.Wait(t, patience, "the interface that is up again", func() bool { return lastWatched(t, d.Err) == "eth0 "+name })
		w.until(t, "the interface that is up again", s, at.Addr4(), 11)
		w.once(t, "by the interface that is up again", s, at.Addr4(), 11, 1)

		lab.Command(t, l.Host.NS, "ip", "link", "delete", name)
		lab.Wait(t, patience, "the interface that is gone left alone", func() bool { return lastWatched(t, d.Err) == "eth0" })
		w.once(t, "after the other interface has gone", w.send, l.Host.Addr4(), 11, 1)
		w.once(t, "an address that has gone", w.send, at.Addr4(), 11, 0)
	}

	for _, a := range []string{"10.77.0.9", "fd77::9"} {
		address := netip.MustParseAddr(a)
		prefix := a + "/16"
		if address.Is6() {
			prefix = a + "/64"
		}
		w.once(t, a+" before it is ours", w.send, address, 11, 0)
		addAddress(t, l.Host, prefix)
		w.until(t, "the new address "+a, w.send, address, 11)
		w.once(t, "at the new address", w.send, address, 11, 1)
		lab.Command(t, l.Host.NS, "ip", "address", "delete", prefix, "dev", l.Host.Name)
		lab.Wait(t, patience, "the address "+a+" gone", func() bool {
			w.sendPacket(t, w.packet(11, address.Is6(), func(p *pktgen.Packet) { p.Dst = address }))
			return w.scans(t) == nil
		})
		w.once(t, "at our address", w.send, l.Host.Addr4(), 11, 1)
	}
}

// lastWatched is what is watched, as the last line about it has it.
func lastWatched(t *testing.T, errs interface{ Lines() ([]string, error) }) string {
	t.Helper()
	all, err := errs.Lines()
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for _, line := range all {
		if rest, ok := strings.CutPrefix(line, "watching "); ok {
			last = ""
			for _, word := range strings.Fields(rest) {
				if strings.HasPrefix(word, "eth") || strings.HasPrefix(word, "br") {
					last += " " + word
				}
			}
		}
	}
	return strings.TrimPrefix(last, " ")
}

// TestStacked: a packet to an interface above another passes both, and is one
// line.
func TestStacked(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	// A port of the bridge needs no address; its hardware address is the bridge's.
	from, port := l.Join(t, l.Scanner.NS, l.Host.NS, prefixes("10.78.0.2/24"), nil)
	for _, c := range []string{
		"ip link add br0 type bridge",
		"ip link set br0 address " + port.MAC.String(),
		"ip link set " + port.Name + " master br0",
		"ip address add 10.78.0.1/24 dev br0",
		"ip link set br0 up",
	} {
		lab.Command(t, l.Host.NS, strings.Fields(c)...)
	}
	w, d := listen(t, l, map[string]string{"TCP_PORTS": "11"})
	if got, want := lastWatched(t, d.Err), "eth0 br0"; got != want {
		t.Errorf("watching %q, want %q", got, want)
	}
	says(t, d.Err, port.Name+" (it is a port of br0 (bridge))")
	s := sender(t, from)
	bridge, vlan := netip.MustParseAddr("10.78.0.1"), netip.MustParseAddr("10.79.0.1")
	w.until(t, "the bridge forwards", s, bridge, 11)
	w.once(t, "to the bridge", s, bridge, 11, 1)
	w.once(t, "to another address by the bridge", s, l.Host.Addr4(), 11, 1)

	if err := l.Host.NS.Do(exec.Command("ip", "link", "add", "link", l.Host.Name, "name", "eth0.5", "type", "vlan", "id", "5").Run); err != nil {
		t.Log("this kernel has no VLAN devices: not tested with one")
		return
	}
	lab.Command(t, l.Host.NS, "ip", "address", "add", vlan.String()+"/24", "dev", "eth0.5")
	lab.Command(t, l.Host.NS, "ip", "link", "set", "eth0.5", "up")
	says(t, d.Err, "eth0.5 (AF_PACKET)")
	for _, tags := range [][]uint16{nil, {5}, {5<<13 | 5}, {6}, {0}} {
		p := w.packet(11, false, func(p *pktgen.Packet) { p.Dst, p.VLANs = vlan, tags })
		w.sendPacket(t, p)
		want := []string{scanLine(p.Src, "TCP", 11, synScan, "not set")}
		if d := cmp.Diff(want, w.scans(t)); d != "" {
			t.Errorf("to a VLAN's address with the tags %v (-want +got):\n%s", tags, d)
		}
	}
}

// TestInterfaces: INTERFACES names which, those that are not there yet included.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	from, at := l.Join(t, l.Scanner.NS, l.Host.NS, prefixes("10.78.0.2/24"), prefixes("10.78.0.1/24"))
	d := l.Start(t, map[string]string{"TCP_PORTS": "11,61001", "INTERFACES": "eth1,eth2"})
	says(t, d.Err, "INTERFACES names what is not there: eth2")
	w := watch(t, l, d.Out)
	eth0 := w.send
	w.send = sender(t, from) // what ends a scan must come by an interface that is watched

	w.once(t, "by the named interface", w.send, at.Addr4(), 11, 1)
	w.once(t, "to another address by the named interface", w.send, l.Host.Addr4(), 11, 1)
	w.once(t, "by the one that is not named", eth0, l.Host.Addr4(), 11, 0)

	later, third := l.Join(t, l.Scanner.NS, l.Host.NS, prefixes("10.79.0.2/24"), prefixes("10.79.0.1/24"))
	s := sender(t, later)
	w.until(t, "the named interface that comes later", s, third.Addr4(), 11)
	w.once(t, "by the one that came later", s, third.Addr4(), 11, 1)
	want := []string{
		"INTERFACES names what is not there: eth2 (watched as soon as it appears)",
		"watching eth1 (" + lab.How() + "), 2 TCP and 0 UDP ports, IPv4 and IPv6",
		"watching eth1 (" + lab.How() + "), eth2 (" + lab.How() + "), 2 TCP and 0 UDP ports, IPv4 and IPv6",
	}
	said := slices.DeleteFunc(lines(t, d.Err), func(line string) bool {
		return strings.HasPrefix(line, "left alone: ") || strings.HasPrefix(line, "answer: ")
	})
	if d := cmp.Diff(want, said); d != "" {
		t.Errorf("standard error (-want +got):\n%s", d)
	}
}
