package host

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// procSockets are Sockets of a kernel without sock_diag.
func procSockets(t testing.TB) *Sockets {
	t.Helper()
	s := closing[*Sockets](t)(NewSockets())
	for _, p := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		if err := s.diag.useProc(p); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func listenTCP(t testing.TB, network, address, device string) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if device == "" {
			return nil
		}
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }); e != nil {
			return e
		}
		return err
	}}
	return closing[net.Listener](t)(lc.Listen(context.Background(), network, address))
}

func TestSockets(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, "eth0", "10.7.0.1/24 10.7.0.2/24 fd07::1/64", far, "eth0", "10.7.0.9/24 fd07::9/64")
	dev, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	eth0 := int32(dev.Index)

	listenTCP(t, "tcp4", "10.7.0.1:81", "")
	listenTCP(t, "tcp4", "0.0.0.0:82", "")
	listenTCP(t, "tcp6", "[fd07::1]:83", "")
	listenTCP(t, "tcp6", "[::]:84", "") // the Go name for IPv6 only
	listenTCP(t, "tcp", ":85", "")      // dual-stack, and MPTCP where the kernel has it
	listenTCP(t, "tcp4", "0.0.0.0:86", "eth0")
	dual := listenTCP(t, "tcp", ":87", "")

	// An established connection, and one that we closed first.
	dial := func(to string) (client, server net.Conn) {
		far.do(func() {
			client = closing[*net.TCPConn](t)(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addrPort(to))))
		})
		server = closing[net.Conn](t)(dual.Accept())
		return client, server
	}
	c4, _ := dial("10.7.0.1:87")
	c6, _ := dial("[fd07::1]:87")
	old, oldServer := dial("10.7.0.1:87")
	oldServer.Close()
	old.Close()

	udp := func(network, local, remote string) netip.AddrPort {
		var r *net.UDPAddr
		if remote != "" {
			r = net.UDPAddrFromAddrPort(addrPort(remote))
			return localOf(closing[*net.UDPConn](t)(net.DialUDP(network, net.UDPAddrFromAddrPort(addrPort(local)), r)))
		}
		return localOf(closing[*net.UDPConn](t)(net.ListenUDP(network, net.UDPAddrFromAddrPort(addrPort(local)))))
	}
	udp("udp4", "0.0.0.0:91", "")
	udp("udp4", "10.7.0.1:92", "")
	udp("udp4", "10.7.0.1:93", "10.7.0.9:53")
	udp("udp", "[::]:94", "")
	udp("udp6", "[fd07::1]:95", "[fd07::9]:53")

	const x4, x6 = "10.7.0.9:4000", "[fd07::9]:4000"
	tests := []struct {
		name          string
		udp           bool
		local, remote string
		ifindex       int32
		want          State
		diagOnly      bool
	}{
		{name: "bound address", local: "10.7.0.1:81", remote: x4, want: Listening},
		{name: "bound to another address", local: "10.7.0.2:81", remote: x4, want: NoSocket},
		{name: "wildcard", local: "10.7.0.2:82", remote: x4, want: Listening},
		{name: "wildcard of IPv4 is none of IPv6", local: "[fd07::1]:82", remote: x6, want: NoSocket},
		{name: "IPv6", local: "[fd07::1]:83", remote: x6, want: Listening},
		{name: "IPv6 wildcard", local: "[fd07::1]:84", remote: x6, want: Listening},
		{name: "IPv6 only", local: "10.7.0.1:84", remote: x4, want: NoSocket, diagOnly: true},
		{name: "dual-stack, IPv4", local: "10.7.0.1:85", remote: x4, want: Listening},
		{name: "dual-stack, IPv6", local: "[fd07::1]:85", remote: x6, want: Listening},
		{name: "on its device", local: "10.7.0.1:86", remote: x4, ifindex: eth0, want: Listening},
		{name: "on another device", local: "10.7.0.1:86", remote: x4, ifindex: 1, want: NoSocket, diagOnly: true},
		{name: "nothing there", local: "10.7.0.1:80", remote: x4, want: NoSocket},
		{name: "connection", local: "10.7.0.1:87", remote: localOf(c4).String(), ifindex: eth0, want: Connected},
		{name: "IPv6 connection", local: "[fd07::1]:87", remote: localOf(c6).String(), ifindex: eth0, want: Connected},
		{name: "another client", local: "10.7.0.1:87", remote: x4, want: Listening},
		{name: "TIME_WAIT", local: "10.7.0.1:87", remote: localOf(old).String(), want: Connected},
		{name: "far end of a connection", local: localOf(c4).String(), remote: "10.7.0.1:87", want: NoSocket},

		{name: "UDP wildcard", udp: true, local: "10.7.0.2:91", remote: x4, ifindex: eth0, want: Listening},
		{name: "UDP bound address", udp: true, local: "10.7.0.1:92", remote: x4, want: Listening},
		{name: "UDP bound to another address", udp: true, local: "10.7.0.2:92", remote: x4, want: NoSocket},
		{name: "UDP connected", udp: true, local: "10.7.0.1:93", remote: "10.7.0.9:53", want: Connected},
		{name: "UDP connected to another", udp: true, local: "10.7.0.1:93", remote: x4, want: NoSocket},
		{name: "UDP dual-stack, IPv4", udp: true, local: "10.7.0.1:94", remote: x4, want: Listening},
		{name: "UDP dual-stack, IPv6", udp: true, local: "[fd07::1]:94", remote: x6, want: Listening},
		{name: "UDP IPv6 connected", udp: true, local: "[fd07::1]:95", remote: "[fd07::9]:53", want: Connected},
		{name: "UDP IPv6 connected to another", udp: true, local: "[fd07::1]:95", remote: x6, want: NoSocket},
		{name: "UDP nothing there", udp: true, local: "10.7.0.1:90", remote: x4, want: NoSocket},
	}
	diag := closing[*Sockets](t)(NewSockets())
	if f := diag.Fallback(); f != "" {
		t.Errorf("Fallback = %q on a kernel with sock_diag", f)
	}
	proc := procSockets(t)
	if f := proc.Fallback(); !strings.Contains(f, "no tcp_diag and no udp_diag") {
		t.Errorf("Fallback = %q", f)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, s := range map[string]*Sockets{"sock_diag": diag, "proc": proc} {
				if tt.diagOnly && s == proc {
					continue
				}
				ask := s.TCP
				if tt.udp {
					ask = s.UDP
				}
				got, err := ask(addrPort(tt.local), addrPort(tt.remote), tt.ifindex)
				if err != nil || got != tt.want {
					t.Errorf("%s: %s from %s = %v, %v; want %v", name, tt.local, tt.remote, got, err, tt.want)
				}
			}
		})
	}

	local, remote := addrPort("10.7.0.1:81"), addrPort(x4)
	nobody, remote6 := addrPort("[fd07::1]:1"), addrPort(x6)
	if n := testing.AllocsPerRun(100, func() {
		diag.TCP(local, remote, eth0)
		diag.TCP(nobody, remote6, eth0)
		diag.UDP(local, remote, eth0)
		diag.UDP(nobody, remote6, eth0)
	}); n != 0 {
		t.Errorf("four look-ups allocate %v times", n)
	}

	for name, s := range map[string]*Sockets{"sock_diag": diag, "proc": proc} {
		l, err := s.Listeners()
		if err != nil {
			t.Fatal(err)
		}
		Owners(l)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, k := range l {
			found[netip.AddrPortFrom(k.Addr, k.Port).String()] = true
			if k.Process == "" || !strings.HasPrefix(filepath.Base(self), k.Process) {
				t.Errorf("%s: owner of %v is %q", name, k, k.Process)
			}
		}
		for _, want := range []string{"10.7.0.1:81", "[fd07::1]:83", "[::]:85", "0.0.0.0:91", "[::]:94"} {
			if !found[want] {
				t.Errorf("%s: %s is not listed in %v", name, want, l)
			}
		}
		if found["10.7.0.1:93"] {
			t.Errorf("%s: a connected UDP socket is listed", name)
		}
	}
}

// A refused or late answer must not be taken for that of the next question.
func TestExactPassesOverOldAnswers(t *testing.T) {
	enterSpace(t)
	listenTCP(t, "tcp4", "127.0.0.1:81", "")
	s := closing[*Sockets](t)(NewSockets())
	served, other, remote := addrPort("127.0.0.1:81"), addrPort("127.0.0.1:82"), addrPort("127.0.0.1:4000")
	s.diag.find(unix.IPPROTO_TCP, served, remote, 0)
	if err := s.diag.conn.send(s.diag.req); err != nil { // asked and not waited for
		t.Fatal(err)
	}
	if got, err := s.TCP(other, remote, 0); got != NoSocket || err != nil {
		t.Errorf("TCP = %v, %v after an unread answer", got, err)
	}
}

func FuzzParseProcNet(f *testing.F) {
	f.Add("   0: 0100007F:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2303 1 x 100 0 0 10 0")
	f.Add("   0: 0000000000000000FFFF00000100007F:0016 0000000000000000FFFF00000200007F:C000 01 0:0 0:0 0 0 0 1 1")
	f.Fuzz(func(t *testing.T, line string) {
		s, ok := parseProcNet([]byte(line))
		if ok && (!s.local.IsValid() || !s.remote.IsValid() || s.state > 31) {
			t.Errorf("%q gives %v", line, s)
		}
	})
}

func BenchmarkSockets(b *testing.B) {
	enterSpace(b)
	listenTCP(b, "tcp4", "127.0.0.1:81", "")
	s := closing[*Sockets](b)(NewSockets())
	remote := addrPort("127.0.0.1:4000")
	for name, local := range map[string]string{"served": "127.0.0.1:81", "nothing": "127.0.0.1:82"} {
		l := addrPort(local)
		b.Run("TCP/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.TCP(l, remote, 1)
			}
		})
		b.Run("UDP/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.UDP(l, remote, 1)
			}
		})
	}
}
