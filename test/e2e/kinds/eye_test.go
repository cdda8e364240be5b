package kinds_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// eye sees all packets of one end of a wire, in and out.
type eye struct {
	t      *testing.T
	end    *pktgen.End
	socket int // of AF_PACKET, nonblocking
}

func watch(t *testing.T, end *pktgen.End) *eye {
	t.Helper()
	y := &eye{t: t, end: end, socket: -1}
	check(t, end.NS.Do(func() (err error) {
		y.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		const room = 64 << 20 // bytes
		all := unix.SockaddrLinklayer{Ifindex: end.Index, Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})}
		return errors.Join(
			unix.SetsockoptInt(y.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room),
			unix.SetsockoptInt(y.socket, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.Bind(y.socket, &all),
		)
	}))
	t.Cleanup(func() { unix.Close(y.socket) })
	return y
}

// markPort is where the datagram goes that ends what was captured.
const markPort = 60000

// capture writes what has been seen to a file, and gives its path. marker is who
// says that this is all.
func (y *eye) capture(marker *pktgen.End) string {
	t := y.t
	t.Helper()
	check(t, marker.NS.Do(func() error {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: y.end.Addr4().AsSlice(), Port: markPort})
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("mark"))
		return errors.Join(err, c.Close())
	}))
	// A pcap file: nanoseconds, version 2.4, Ethernet.
	le := binary.LittleEndian
	var out []byte
	for _, n := range []uint32{0xa1b23c4d, 4<<16 | 2, 0, 0, 1 << 18, 1} {
		out = le.AppendUint32(out, n)
	}
	var d decode.Decoder
	var p decode.Probe
	var seen uint32 // unix seconds, of the newest packet
	frame, oob := make([]byte, 1<<17), make([]byte, 256)
	lab.Wait(t, 5*time.Second, "the mark", func() bool {
		for {
			n, m, _, _, err := unix.Recvmsg(y.socket, frame, oob, 0)
			if errors.Is(err, unix.EAGAIN) {
				return false
			}
			if errors.Is(err, unix.EINTR) {
				continue
			}
			check(t, err)
			f := capture.Frame{Data: frame[:n], WireLen: n, Link: capture.LinkEthernet, Time: 1}
			if d.Decode(&f, &p) == decode.Complete && p.Proto == decode.ProtoUDP && p.DstPort == markPort {
				return true
			}
			at := stamp(t, oob[:m])
			seen = uint32(at.Sec)
			for _, n := range []uint32{uint32(at.Sec), uint32(at.Nsec), uint32(n), uint32(n)} {
				out = le.AppendUint32(out, n)
			}
			out = append(out, frame[:n]...)
		}
	})
	st, err := unix.GetsockoptTpacketStats(y.socket, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	check(t, err)
	if st.Drops > 0 {
		t.Fatalf("%d packets were lost", st.Drops)
	}
	// The capture ends so late that what nobody has answered by then is silent,
	// however slow the services are on a busy machine.
	last := pktgen.Packet{Src: y.end.Addr4(), Dst: netip.MustParseAddr("224.0.0.22"), Proto: 2, TTL: 1}
	data, err := last.AppendTo(nil, &pktgen.Link{Src: y.end.MAC, Dst: net.HardwareAddr{1, 0, 0x5e, 0, 0, 0x16}})
	check(t, err)
	for _, n := range []uint32{seen + 10, 0, uint32(len(data)), uint32(len(data))} {
		out = le.AppendUint32(out, n)
	}
	out = append(out, data...)
	path := filepath.Join(t.TempDir(), "wire.pcap")
	check(t, os.WriteFile(path, out, 0o600))
	return path
}

// stamp is when the kernel saw a packet.
func stamp(t *testing.T, oob []byte) unix.Timespec {
	t.Helper()
	list, err := unix.ParseSocketControlMessage(oob)
	check(t, err)
	for _, m := range list {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS {
			var at unix.Timespec
			if _, err := binary.Decode(m.Data, binary.NativeEndian, &at); err != nil {
				t.Fatal(err)
			}
			return at
		}
	}
	t.Fatal("a packet has no time")
	return unix.Timespec{}
}
