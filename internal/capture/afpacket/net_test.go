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
	t.Log("as root in a network namespace of its own")
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
	n.awaitCarrier()
}

// awaitCarrier waits until both ends carry frames, which may take the kernel a
// second after they were set up: before, what is sent is lost.
func (n *testNet) awaitCarrier() {
	n.t.Helper()
	eventually(n.t, "carrier", func() bool {
		for _, name := range []string{"recv", "send"} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				n.t.Fatal(err)
			}
			if link.Attrs().OperState != netlink.OperUp {
				return false
			}
		}
		return true
	})
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
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited 10 s for %s", what)
		case <-tick.C:
		}
	}
}

func watch(t testing.TB, ring *Ring, indexes ...int32) {
	t.Helper()
	if err := ring.SetInterfaces(indexes); err != nil {
		t.Fatal(err)
	}
}
