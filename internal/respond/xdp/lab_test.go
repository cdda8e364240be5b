package xdp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
	"portsentry/internal/respond"
)

var (
	_ respond.Method  = (*Method)(nil)
	_ respond.Counter = (*Method)(nil)
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root: BPF and network namespaces")
	}
	t.Skip("needs root: BPF and network namespaces")
}

// open gives a Method over a program that is attached nowhere.
func open(t testing.TB, o bpf.SensorOptions) (*Method, *bpf.Sensor) {
	t.Helper()
	needRoot(t)
	s, err := bpf.OpenSensor(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return New(s), s
}

// Ports of the host.
const (
	served = 80 // TCP and UDP
	closed = 81
	trap   = 11
)

// lab is a scanner and a host in network namespaces of their own, joined by a
// veth. The host answers whatever source the scanner makes up.
type lab struct {
	t       testing.TB
	host    *pktgen.End
	send    *pktgen.Sender
	sniffer *pktgen.Sniffer
	scanner *pktgen.End
	udp     syscall.RawConn
	port    uint16 // source port of the last packet: each has its own
	fence   netip.Addr
}

func newLab(t testing.TB) *lab {
	t.Helper()
	needRoot(t)
	must := func(err error) {
		if t.Helper(); err != nil {
			t.Fatal(err)
		}
	}
	world, err := pktgen.NewNet()
	must(err)
	t.Cleanup(func() { must(world.Close()) })
	there, err := world.NewNS()
	must(err)
	here, err := world.NewNS()
	must(err)
	l := &lab{t: t, port: 1024, fence: netip.MustParseAddr("192.0.2.200")}
	l.scanner, l.host, err = world.Link(there, here,
		prefixes("10.7.0.2/24", "fd07::2/64"), prefixes("10.7.0.1/24", "fd07::1/64"))
	must(err)
	must(l.host.StaticNeighbours())
	must(errors.Join(
		here.Route(netip.MustParsePrefix("192.0.2.0/24"), l.scanner.Addr4()),
		here.Route(netip.MustParsePrefix("2001:db8::/32"), l.scanner.Addr6()),
		here.Sysctl("net.ipv4.icmp_ratelimit", "0"), here.Sysctl("net.ipv6.icmp.ratelimit", "0"),
	))
	l.send, err = l.scanner.Sender()
	must(err)
	t.Cleanup(func() { must(l.send.Close()) })
	l.sniffer, err = pktgen.Sniff(t.Context(), there, l.scanner.Name, 10_000)
	must(err)
	must(here.Do(func() error {
		tcp, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { tcp.Close() })
		udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: served})
		if err != nil {
			return err
		}
		t.Cleanup(func() { udp.Close() })
		l.udp, err = udp.SyscallConn()
		return err
	}))
	return l
}

// sense attaches the program to the host's end.
func (l *lab) sense(rules bpf.Rules) (*Method, *bpf.Sensor) {
	l.t.Helper()
	m, s := open(l.t, bpf.SensorOptions{})
	var traps bpf.Ports
	traps[trap/64] |= 1 << (trap % 64)
	err := errors.Join(
		s.SetRules(rules), s.SetTraps(&traps, &traps), s.SetOwn([]netip.Addr{l.host.Addr4(), l.host.Addr6()}),
		l.host.NS.Do(func() error { return s.Attach(int32(l.host.Index), false) }))
	if err != nil {
		l.t.Fatal(err)
	}
	return m, s
}

// packet is one from src to the host.
func (l *lab) packet(src netip.Addr, proto uint8, port uint16, flags uint16) pktgen.Packet {
	l.port++
	p := pktgen.Packet{Src: src, Dst: l.host.Addr4(), Proto: proto, SrcPort: l.port, DstPort: port, Flags: flags, Seq: 1, Window: 1024}
	if proto == pktgen.ProtoUDP {
		p.Payload = []byte("x")
	}
	if src.Is6() {
		p.Dst = l.host.Addr6()
	}
	return p
}

// passes sends p and reports whether the host has noticed: it answered, or its
// socket has a datagram. A packet behind p says when that is known.
func (l *lab) passes(p pktgen.Packet) bool {
	l.t.Helper()
	from := len(l.sniffer.Answers())
	last := l.packet(l.fence, pktgen.ProtoTCP, served, pktgen.SYN)
	if err := errors.Join(l.send.SendPacket(p), l.send.SendPacket(last)); err != nil {
		l.t.Fatal(err)
	}
	passed := false
	eventually(l.t, "an answer to the last packet", func() bool {
		answers := l.sniffer.Answers()[from:]
		for _, a := range answers {
			passed = passed || a.Dst == p.Src
			if a.Dst == last.Src && a.DstPort == last.SrcPort {
				return true
			}
		}
		return false
	})
	return passed || p.Proto == pktgen.ProtoUDP && p.DstPort == served && drain(l.t, l.udp) > 0
}

// drain empties a socket and says how many reads it took.
func drain(t testing.TB, c syscall.RawConn) (n int) {
	t.Helper()
	err := c.Control(func(fd uintptr) {
		for b := make([]byte, 64); ; n++ {
			if k, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT); err != nil || k == 0 {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func prefixes(words ...string) (out []netip.Prefix) {
	for _, w := range words {
		out = append(out, netip.MustParsePrefix(w))
	}
	return out
}

// eventually polls until ok or 5 s have passed.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within 5 s: %s", what)
		case <-tick.C:
		}
	}
}
