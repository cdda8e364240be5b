package afpacket

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/config"
)

var (
	macRecv = []byte{2, 0, 0, 0, 0, 2}
	macSend = []byte{2, 0, 0, 0, 0, 1}
	macAll  = []byte{255, 255, 255, 255, 255, 255}
	macMany = []byte{1, 0, 0x5e, 0, 0, 1}
	macElse = []byte{2, 0, 0, 0, 0, 9}
)

// testNet is a network namespace with a cable from "send" to "recv". It belongs
// to the thread of the test and goes with it.
type testNet struct {
	t    testing.TB
	fds  map[int32]int // raw sockets by interface
	recv int32
	send int32
}

func newTestNet(t testing.TB) *testNet {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to make network namespaces")
		}
		t.Skip("needs root to make network namespaces")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	handle, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	handle.Close()
	// Or the kernel talks by itself.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	n := &testNet{t: t, fds: make(map[int32]int)}
	t.Cleanup(func() {
		for _, fd := range n.fds {
			unix.Close(fd)
		}
	})
	n.cable()
	return n
}

// cable makes the two interfaces.
func (n *testNet) cable() {
	n.t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: "recv", HardwareAddr: macRecv, MTU: 9000},
		PeerName:         "send",
		PeerHardwareAddr: macSend,
		PeerMTU:          9000,
	}); err != nil {
		n.t.Fatal(err)
	}
	n.recv, n.send = n.up("recv"), n.up("send")
}

func (n *testNet) up(name string) int32 {
	n.t.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return int32(link.Attrs().Index)
}

// transmit sends a link-layer frame out of an interface.
func (n *testNet) transmit(ifIndex int32, frame []byte) {
	n.t.Helper()
	fd, ok := n.fds[ifIndex]
	if !ok {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			n.t.Fatal(err)
		}
		n.fds[ifIndex] = fd
	}
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(ifIndex)}); err != nil {
		n.t.Fatalf("send %d bytes: %v", len(frame), err)
	}
}

// packet sends an IP packet (or what etherType says) to recv.
func (n *testNet) packet(etherType uint16, packet []byte) {
	n.t.Helper()
	n.transmit(n.send, ethernet(macRecv, etherType, packet))
}

func ethernet(to []byte, etherType uint16, packet []byte) []byte {
	frame := slices.Concat(to, macSend)
	return append(binary.BigEndian.AppendUint16(frame, etherType), packet...)
}

func (n *testNet) open(c Config) *Ring {
	n.t.Helper()
	ring, err := Open(c)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := ring.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return ring
}

// collector runs workers and keeps copies of what they deliver.
type collector struct {
	t      testing.TB
	mu     sync.Mutex
	frames []capture.Frame
	worker []int // that delivered the frame
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func collect(t testing.TB, ring *Ring) *collector {
	ctx, cancel := context.WithCancel(context.Background())
	c := &collector{t: t, cancel: cancel}
	for i, w := range ring.Workers() {
		c.wg.Go(func() {
			if err := w.Run(ctx, func(f *capture.Frame) {
				c.mu.Lock()
				defer c.mu.Unlock()
				kept := *f
				kept.Data = bytes.Clone(f.Data)
				c.frames, c.worker = append(c.frames, kept), append(c.worker, i)
			}); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

func (c *collector) stop() {
	c.cancel()
	c.wg.Wait()
}

// until waits for done, which is called with the frames so far.
func (c *collector) until(what string, done func([]capture.Frame) bool) {
	c.t.Helper()
	eventually(c.t, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return done(c.frames)
	})
}

// take waits for the marker packet and takes what was delivered before it.
func (c *collector) take() []capture.Frame {
	c.t.Helper()
	marker := func(f capture.Frame) bool { return bytes.Equal(f.Data, markerPacket) }
	c.until("the marker", func(frames []capture.Frame) bool { return slices.ContainsFunc(frames, marker) })
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.frames, marker)
	before := c.frames[:i]
	c.frames, c.worker = slices.Clone(c.frames[i+1:]), slices.Clone(c.worker[i+1:])
	return before
}

// markerPacket goes to a port of someTCP that the tests use for nothing else.
var markerPacket = ipv4(netip.MustParseAddr("192.0.2.77"), tcpProto, 0, nil, tcp(1, syn))

func (n *testNet) marker() { n.t.Helper(); n.packet(unix.ETH_P_IP, markerPacket) }

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 5 s for %s", what)
		}
		runtime.Gosched()
	}
}

func watch(t testing.TB, ring *Ring, indexes ...int32) {
	t.Helper()
	if err := ring.SetInterfaces(indexes); err != nil {
		t.Fatal(err)
	}
}

// The kernel lets through what the filter is for, and what arrives in the ring
// is what was sent, with or without tags.
func TestKernelFilter(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP, UDP: someUDP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range cases {
		for _, tags := range []int{0, 1, 2} {
			if test.etherType == unix.ETH_P_8021Q && tags != 2 || len(test.packet) == 0 {
				continue
			}
			inner := test.etherType == unix.ETH_P_8021Q
			want, wantType := test.packet, test.etherType
			before := time.Now().UnixNano()
			switch {
			case tags == 0:
				n.packet(test.etherType, test.packet)
			case tags == 1:
				n.packet(unix.ETH_P_8021Q, tag(0x6005, test.etherType, test.packet))
			case inner:
				n.packet(unix.ETH_P_8021AD, tag(0x6005, unix.ETH_P_8021Q, test.packet))
			default:
				want, wantType = tag(7, test.etherType, test.packet), unix.ETH_P_8021Q
				n.packet(unix.ETH_P_8021AD, tag(0x6005, unix.ETH_P_8021Q, want))
			}
			n.marker()
			got := c.take()
			if test.want == 0 {
				if len(got) != 0 {
					t.Errorf("%s, %d tags: let through", test.name, tags)
				}
				continue
			}
			if len(got) != 1 {
				t.Errorf("%s, %d tags: %d frames", test.name, tags, len(got))
				continue
			}
			f := got[0]
			if f.EtherType != wantType || !bytes.Equal(f.Data, want[:min(len(want), test.want)]) {
				t.Errorf("%s, %d tags: EtherType %#x, data\n% x, want %#x\n% x", test.name, tags, f.EtherType, f.Data, wantType, want)
			}
			if f.HasVLAN != (tags > 0) || f.HasVLAN && f.VLAN != 0x6005 {
				t.Errorf("%s, %d tags: VLAN %v %#x", test.name, tags, f.HasVLAN, f.VLAN)
			}
			if f.IfIndex != n.recv || f.Link != capture.LinkNetwork || f.PacketType != capture.PacketHost || f.WireLen != len(want) {
				t.Errorf("%s, %d tags: frame %+v", test.name, tags, f)
			}
			if f.Time < before-int64(time.Second) || f.Time > time.Now().UnixNano()+int64(time.Second) {
				t.Errorf("%s: time %d", test.name, f.Time)
			}
		}
	}
}

// Tags whose first bits look like the version of the IP header behind them.
func TestKernelTagsLikeIP(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range []struct {
		tci, etherType uint16
		packet         []byte
	}{
		{0x4500, unix.ETH_P_IP, syn4(11)},
		{0x4005, unix.ETH_P_IP, syn4(11)},
		{0x6005, unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(11, syn))},
	} {
		want := tag(test.tci, test.etherType, test.packet)
		n.packet(unix.ETH_P_8021Q, tag(5, unix.ETH_P_8021Q, want))
		n.marker()
		got := c.take()
		if len(got) != 1 || got[0].EtherType != unix.ETH_P_8021Q || !bytes.Equal(got[0].Data, want) {
			t.Errorf("inner tag %#x: %+v", test.tci, got)
		}
	}
}

func TestKernelSnapLength(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP, UDP: someUDP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range []struct {
		etherType uint16
		packet    []byte
		want      int
	}{
		{unix.ETH_P_IP, ipv4(src4, udpProto, 0, nil, udp(8, 4000)), snapHeaders},
		{unix.ETH_P_IPV6, ipv6(src6, 60, extension(udpProto, udp(8, 4000))), snapWhole},
	} {
		n.packet(test.etherType, test.packet)
		n.marker()
		got := c.take()
		if len(got) != 1 || len(got[0].Data) != test.want || got[0].WireLen != len(test.packet) {
			t.Errorf("%d bytes: %+v", len(test.packet), got)
		}
	}
}

func TestKernelPacketTypes(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range []struct {
		to   []byte
		want capture.PacketType // PacketUnknown: does not arrive
	}{
		{macRecv, capture.PacketHost},
		{macAll, capture.PacketBroadcast},
		{macMany, capture.PacketMulticast},
		{macElse, capture.PacketUnknown},
	} {
		n.transmit(n.send, ethernet(test.to, unix.ETH_P_IP, syn4(11)))
		n.marker()
		got := c.take()
		if test.want == capture.PacketUnknown {
			if len(got) != 0 {
				t.Errorf("to % x: %+v", test.to, got)
			}
		} else if len(got) != 1 || got[0].PacketType != test.want {
			t.Errorf("to % x: %+v", test.to, got)
		}
	}
	// What recv sends is outgoing there, and comes in on send, unwatched.
	n.transmit(n.recv, ethernet(macSend, unix.ETH_P_IP, syn4(11)))
	n.marker()
	if got := c.take(); len(got) != 0 {
		t.Errorf("outgoing: %+v", got)
	}
}

func TestKernelLoopbackNever(t *testing.T) {
	n := newTestNet(t)
	lo := n.up("lo")
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv, lo)
	c := collect(t, ring)
	n.transmit(lo, ethernet(make([]byte, 6), unix.ETH_P_IP, syn4(11)))
	n.marker()
	if got := c.take(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestKernelSetInterfaces(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP, Workers: 2})
	n.packet(unix.ETH_P_IP, syn4(11)) // before SetInterfaces: nothing
	watch(t, ring, n.recv)
	c := collect(t, ring)
	n.marker()
	if got := c.take(); len(got) != 0 {
		t.Fatalf("before SetInterfaces: %+v", got)
	}
	back := func() { n.transmit(n.recv, ethernet(macSend, unix.ETH_P_IP, syn4(11))) } // arrives on send
	watch(t, ring, n.send, n.recv)
	back()
	n.marker()
	if c.until("a frame on send", func(f []capture.Frame) bool { return len(f) == 2 }); c.frames[0].IfIndex == c.frames[1].IfIndex {
		t.Errorf("%+v", c.frames)
	}
	c.frames = nil
	watch(t, ring)
	n.packet(unix.ETH_P_IP, syn4(11))
	back()
	watch(t, ring, n.recv)
	n.marker()
	if got := c.take(); len(got) != 0 {
		t.Errorf("nothing watched: %+v", got)
	}
	many := make([]int32, maxFilterInterfaces+1) // too many for the kernel to look at
	for i := range many {
		many[i] = 1000 + int32(i)
	}
	watch(t, ring, append(many, n.recv)...)
	back()
	n.marker()
	if got := c.take(); len(got) != 0 {
		t.Errorf("many interfaces: %+v", got)
	}
	eventually(t, "the unwatched frame to be counted", func() bool { return total(ring).Other == 1 })
}

func total(ring *Ring) (sum capture.Stats) {
	for _, w := range ring.Workers() {
		s := w.Stats()
		sum.Frames += s.Frames
		sum.Dropped += s.Dropped
		sum.Frozen += s.Frozen
		sum.Other += s.Other
	}
	return sum
}

// An interface that goes leaves Run alone, and one of the same name can be
// watched afterwards.
func TestKernelInterfaceComesAndGoes(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	n.marker()
	c.take()
	for range 3 {
		link, err := netlink.LinkByName("recv")
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil {
			t.Fatal(err)
		}
		old := n.recv
		n.cable()
		if n.recv == old {
			t.Fatal("same index again")
		}
		watch(t, ring, n.recv)
		n.packet(unix.ETH_P_IP, syn4(11))
		n.marker()
		if got := c.take(); len(got) != 1 || got[0].IfIndex != n.recv {
			t.Errorf("%+v", got)
		}
	}
}

// Nothing is lost without a number.
func TestKernelOverflow(t *testing.T) {
	for _, workers := range []int{1, 2} {
		n := newTestNet(t)
		ring := n.open(Config{TCP: someTCP, Workers: workers, RingBytes: workers * minBlocks * blockSize})
		watch(t, ring, n.recv)
		const sent = 20000
		for i := range sent {
			src := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			n.packet(unix.ETH_P_IP, ipv4(src, tcpProto, 0, nil, tcp(11, syn)))
		}
		c := collect(t, ring)
		eventually(t, "all to be accounted for", func() bool {
			s := total(ring)
			return s.Frames+s.Dropped == sent
		})
		c.stop()
		s := total(ring)
		if s.Dropped == 0 || s.Frozen == 0 || s.Frames == 0 || s.Frames+s.Dropped != sent || uint64(len(c.frames)) != s.Frames {
			t.Errorf("%d workers, %d sent: %+v, %d delivered", workers, sent, s, len(c.frames))
		}
		t.Logf("%d workers, %d sent: %+v", workers, sent, s)
	}
}

func TestKernelSourceStaysAtWorker(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: config.PortSet{{First: 1, Last: 1000}}, Workers: 4})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	const sources, each = 200, 10
	for port := range uint16(each) {
		for i := range byte(sources) {
			src := netip.AddrFrom4([4]byte{10, 0, 0, i})
			packet := ipv4(src, tcpProto, 0, nil, tcp(1+port, syn))
			switch {
			case i%4 == 1:
				n.packet(unix.ETH_P_8021Q, tag(5, unix.ETH_P_IP, packet))
			case i%4 == 2:
				n.packet(unix.ETH_P_8021Q, tag(5, unix.ETH_P_8021Q, tag(6, unix.ETH_P_IP, packet)))
			case i%4 == 3:
				a := src6.As16()
				a[7] = i
				n.packet(unix.ETH_P_IPV6, ipv6(netip.AddrFrom16(a), tcpProto, tcp(1+port, syn)))
			default:
				n.packet(unix.ETH_P_IP, packet)
			}
		}
	}
	c.until("all frames", func(f []capture.Frame) bool { return len(f) == sources*each })
	c.stop()
	worker := make(map[string]int)
	var load [4]int
	for i, f := range c.frames {
		d := f.Data
		if f.EtherType == unix.ETH_P_8021Q {
			d = d[tagLen:]
		}
		src := string(d[12:16])
		if d[0]>>4 == 6 {
			src = string(d[8:24])
		}
		if w, seen := worker[src]; seen && w != c.worker[i] {
			t.Fatalf("source % x at workers %d and %d", src, w, c.worker[i])
		}
		worker[src] = c.worker[i]
		load[c.worker[i]]++
	}
	if len(worker) != sources || slices.Min(load[:]) < sources*each/8 {
		t.Errorf("%d sources, frames by worker %v", len(worker), load)
	}
}

func TestCancelIsPrompt(t *testing.T) {
	n := newTestNet(t)
	before := runtime.NumGoroutine()
	ring := n.open(Config{TCP: someTCP, Workers: 4})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	n.marker()
	c.take()
	start := time.Now()
	c.stop()
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("took %v", d)
	}
	eventually(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })

	// A context that has ended already.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ring.Workers()[0].Run(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsRun(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv)
	w := ring.Workers()[0]
	ended := make(chan error, 1)
	running := make(chan struct{}, 1)
	go func() {
		ended <- w.Run(context.Background(), func(*capture.Frame) { running <- struct{}{} })
	}()
	n.marker()
	<-running
	if err := w.Run(context.Background(), nil); err == nil || errors.Is(err, os.ErrClosed) {
		t.Errorf("second Run: %v", err)
	}
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	if err := w.Run(context.Background(), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	if err := ring.SetInterfaces([]int32{1}); err == nil {
		t.Error("SetInterfaces after Close")
	}
	if s := w.Stats(); s.Frames != 1 {
		t.Errorf("%+v", s)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []Config{
		{RingBytes: MaxRingBytes + 1},
		{RingBytes: blockSize},
		{Workers: maxWorkers + 1},
		{Workers: 4, RingBytes: 4 * blockSize},
	} {
		if ring, err := Open(c); err == nil {
			ring.Close()
			t.Errorf("%+v: opened", c)
		}
	}
}

func TestOpenWithoutCapability(t *testing.T) {
	n := newTestNet(t) // also keeps the thread, whose capabilities go for good
	_ = n
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{}); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
