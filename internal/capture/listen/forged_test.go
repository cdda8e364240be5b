package listen

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/pktgen"
)

// A contact by TCP is proof of its source. A SYN alone is none, though the host has
// Fast Open at every listener and wants no cookie (tcp_fastopen of ip-sysctl), and
// hands on a connection with the first packet of it.
func TestSYNWithDataIsNoContact(t *testing.T) {
	for name, bindAll := range map[string]bool{"steered": false, "bound": true} {
		t.Run(name, func(t *testing.T) {
			enterSpace(t)
			there := newPeer(t)
			if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("1538"), 0); err != nil {
				t.Fatal(err)
			}
			k := startTraps(t, Config{TCP: ports(2000), bindAll: bindAll})
			there.do(func() {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(fd)
				syn := pktgen.Packet{
					Src: netip.MustParseAddr("192.0.2.99"), Dst: netip.MustParseAddr(here4), Proto: pktgen.ProtoTCP,
					SrcPort: 40000, DstPort: 2000, Flags: pktgen.SYN, Seq: 1e6, Window: 0xff00, TTL: 64, Payload: []byte("data"),
				}
				forged, err := syn.AppendTo(nil, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if err := unix.Sendto(fd, forged, 0, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}}); err != nil {
					t.Error(err)
				}
				if c := dial(t, "tcp", end(here4, 2000)); c != nil {
					c.Close()
				}
			})
			var got []capture.Contact
			eventually(t, "the contact behind it", func() bool {
				got = k.seen(end(here4, 2000))
				return len(got) > 0 && got[len(got)-1].Src.Addr() == netip.MustParseAddr(there4)
			})
			if len(got) != 1 {
				t.Errorf("a forged SYN became a contact: %v", got)
			}
		})
	}
}
