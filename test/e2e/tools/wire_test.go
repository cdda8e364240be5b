package tools_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

const (
	open   = 80
	closed = 79
)

// wire is a scanner and a host with one open port, and all that comes in there.
type wire struct {
	t             *testing.T
	scanner, host *pktgen.End
	socket        int // of AF_PACKET, nonblocking
}

func newWire(t *testing.T) *wire {
	t.Helper()
	lab.NeedRoot(t)
	n, err := pktgen.NewNet()
	check(t, err)
	t.Cleanup(func() { check(t, n.Close()) })
	a, err := n.NewNS()
	check(t, err)
	b, err := n.NewNS()
	check(t, err)
	w := &wire{t: t, socket: -1}
	w.scanner, w.host, err = n.Link(a, b, lab.ScannerAddrs, lab.HostAddrs)
	check(t, err)
	check(t, w.scanner.StaticNeighbours())
	check(t, w.host.NS.Do(w.listen))
	t.Cleanup(func() { unix.Close(w.socket) })
	return w
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listen opens the port and the packet socket, in the host's namespace.
func (w *wire) listen() error {
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	w.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	const room = 64 << 20 // bytes
	all := unix.SockaddrLinklayer{Ifindex: w.host.Index, Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})}
	return errors.Join(
		unix.SetsockoptInt(w.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room),
		unix.SetsockoptInt(w.socket, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(w.socket, &all),
	)
}

// run runs a program beside the scanner and gives what it sent, in order.
func (w *wire) run(args ...string) []decode.Probe {
	w.t.Helper()
	stop := w.trickle()
	defer stop()
	lab.Command(w.t, w.scanner.NS, append([]string{"timeout", "30"}, args...)...)
	return w.sent()
}

// trickle sends the scanner a datagram now and then, until it is stopped: masscan
// looks whether it is done only when something comes in.
func (w *wire) trickle() (stop func()) {
	w.t.Helper()
	var c *net.UDPConn
	check(w.t, w.host.NS.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: w.scanner.Addr4().AsSlice(), Port: markPort})
		return err
	}))
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				c.Write([]byte("wake")) // refused where nobody is: that too is something that comes in
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
		c.Close()
	}
}

// markPort is where the datagram goes that ends what was sent.
const markPort = 9

// sent is what the host has received since it was last asked.
func (w *wire) sent() (probes []decode.Probe) {
	w.t.Helper()
	check(w.t, w.scanner.NS.Do(func() error {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: w.host.Addr4().AsSlice(), Port: markPort})
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("mark"))
		return errors.Join(err, c.Close())
	}))
	var d decode.Decoder
	buf := make([]byte, 64<<10)
	done := false
	lab.Wait(w.t, 5*time.Second, "the mark", func() bool {
		for !done {
			n, _, err := unix.Recvfrom(w.socket, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				return false
			}
			if errors.Is(err, unix.EINTR) {
				continue
			}
			check(w.t, err)
			var p decode.Probe
			f := capture.Frame{Data: buf[:n], WireLen: n, Link: capture.LinkEthernet, Time: time.Now().UnixNano()}
			switch st := d.Decode(&f, &p); {
			case st != decode.Complete:
			case p.Proto == decode.ProtoUDP && p.DstPort == markPort:
				done = true
			default:
				probes = append(probes, p)
			}
		}
		return true
	})
	st, err := unix.GetsockoptTpacketStats(w.socket, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	check(w.t, err)
	if st.Drops > 0 {
		w.t.Fatalf("%d packets were lost", st.Drops)
	}
	return probes
}

// asks reports whether a packet begins something: RSTs, SYN-ACKs and ICMP errors are
// answers, and what the kernel sends to know its neighbours is nobody's doing.
func asks(p *decode.Probe) bool {
	switch p.Proto {
	case decode.ProtoTCP:
		return p.Flags&decode.RST == 0 && p.Flags&(decode.SYN|decode.ACK) != decode.SYN|decode.ACK
	case decode.ProtoICMP:
		return p.ICMPType != 3
	case decode.ProtoICMPv6:
		return p.ICMPType == 128
	}
	return true
}

// memory is what a Labeler may look at of the packet before, by source.
type memory map[netip.Addr]detect.Header

// label asks about p after what its source sent before.
func (m memory) label(l detect.Labeler, p *decode.Probe) (tool string, run uint64) {
	now := detect.HeaderOf(p)
	var before *detect.Header
	if h, ok := m[p.Src]; ok {
		before = &h
	}
	t, run := l.Label(before, &now)
	m[p.Src] = detect.Header{
		Dst: now.Dst, SrcPort: now.SrcPort, DstPort: now.DstPort, Proto: now.Proto,
		Flags: now.Flags, Window: now.Window, Seq: now.Seq,
	}
	return l.Name(t), run
}
