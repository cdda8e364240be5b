package listen

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

// dataSYN is an IPv4 packet with a SYN to port of here4 that has data, as TCP Fast
// Open (RFC 7413) sends it.
func dataSYN(src netip.Addr, port uint16) []byte {
	const payload = "data"
	b := make([]byte, 40, 40+len(payload)) // RFC 791, RFC 9293
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_TCP
	copy(b[12:], src.AsSlice())
	copy(b[16:], netip.MustParseAddr(here4).AsSlice())
	b = append(b, payload...)
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], port)
	binary.BigEndian.PutUint32(tcp[4:], 1e6)
	tcp[12], tcp[13], tcp[14] = 5<<4, 0x02, 0xff
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for i := 12; i+1 < len(b); i += 2 { // pseudo-header and segment, of even length
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return b
}

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
				forged := dataSYN(netip.MustParseAddr("192.0.2.99"), 2000)
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
