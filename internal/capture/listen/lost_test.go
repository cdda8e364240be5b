package listen

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
)

// Connections that are never completed, and segments of none, are no contacts,
// so none of them is lost.
func TestHalfOpenIsNotLost(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	k := startTraps(t, Config{TCP: all()})
	near, err := net.InterfaceByName("near")
	if err != nil {
		t.Fatal(err)
	}
	there.do(func() {
		far, err := net.InterfaceByName("far")
		if err != nil {
			t.Error(err)
			return
		}
		s, err := pktgen.OpenSender("far", pktgen.Link{Src: far.HardwareAddr, Dst: near.HardwareAddr})
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		for port := uint16(40000); port < 40010; port++ {
			p := pktgen.Packet{
				Src: netip.MustParseAddr(there4), Dst: netip.MustParseAddr(here4), Proto: pktgen.ProtoTCP,
				SrcPort: port, DstPort: 2000, Seq: 1000, Window: 1024,
			}
			// The reset fits what the SYN has begun. FIN and ACK belong to nothing.
			for _, step := range []struct {
				flags uint16
				seq   uint32
			}{{pktgen.SYN, 1000}, {pktgen.RST, 1001}, {pktgen.FIN, 1}, {pktgen.ACK, 1}} {
				p.Flags, p.Seq = step.flags, step.seq
				if err := s.SendPacket(p); err != nil {
					t.Error(err)
				}
			}
		}
	})
	eventually(t, "the listener to throw them away", func() bool {
		k.Traps.mu.Lock()
		defer k.Traps.mu.Unlock()
		n := uint64(0)
		for _, s := range k.sockets {
			n += s.drops()
		}
		return n >= 20
	})
	if s := k.Stats(); s.Lost != 0 || s.Contacts != 0 {
		t.Errorf("%+v", s)
	}
}

// What nobody takes in time is lost with a number.
func TestLostIsCounted(t *testing.T) {
	enterSpace(t)
	if err := os.WriteFile("/proc/sys/net/core/somaxconn", []byte("4"), 0); err != nil {
		t.Fatal(err)
	}
	k, err := Open(Config{TCP: all(), UDP: ports(2000)})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for range 10 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 2000}
		if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
	}
	tcp := k.Stats().Lost
	if tcp == 0 {
		t.Error("connections are lost without a number")
	}
	if err := k.SetPorts(nil, ports(2000), nil); err != nil {
		t.Fatal(err)
	}
	c := dial(t, "udp4", end("127.0.0.1", 2000))
	if c == nil {
		t.FailNow()
	}
	for range 5000 {
		if _, err := c.Write(make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
	}
	if k.Stats().Lost == tcp {
		t.Error("datagrams are lost without a number")
	}
	lost := k.Stats().Lost
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if after := k.Stats().Lost; after < lost {
		t.Errorf("%d lost, after Close %d", lost, after)
	}
}

func TestCounter(t *testing.T) {
	const text = "TcpExt: A ListenOverflows B\nTcpExt: 1 18446744073709551615 3\nIpExt: InNoRoutes ListenDrops\nIpExt: 4 5\n"
	for _, c := range []struct {
		text, group, name string
		want              uint64
		ok                bool
	}{
		{text, "TcpExt:", "ListenOverflows", 1<<64 - 1, true},
		{text, "IpExt:", "ListenDrops", 5, true},
		{text, "TcpExt:", "ListenDrops", 0, false},
		{text, "TcpExt:", "TcpExt:", 0, false},
		{text, "MPTcpExt:", "A", 0, false},
		{"TcpExt: A B\nTcpExt: 1\n", "TcpExt:", "B", 0, false},
		{"TcpExt: A\nTcpExt: -1\n", "TcpExt:", "A", 0, false},
		{"TcpExt: A\n", "TcpExt:", "A", 0, false},
		{"", "TcpExt:", "A", 0, false},
	} {
		if got, err := counter([]byte(c.text), c.group, c.name); got != c.want || (err == nil) != c.ok {
			t.Errorf("%q of %q: %d, %v", c.name, c.text, got, err)
		}
	}
}
