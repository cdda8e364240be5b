package afpacket

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/config"
)

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
	c.until("a frame on send", func(f []capture.Frame) bool {
		return slices.ContainsFunc(f, func(f capture.Frame) bool { return f.IfIndex == n.send })
	})
	c.take()
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

// An error that waits on the socket wakes Run, which takes it away and goes on.
// Only a bound socket gets ENETDOWN, so the test binds it.
func TestKernelPendingError(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv)
	w := ring.Workers()[0]
	if err := w.conn.Control(func(fd uintptr) {
		if err := unix.Bind(int(fd), &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: int(n.recv)}); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	c := collect(t, ring)
	link, err := netlink.LinkByName("recv")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n.marker()
		c.take()
		if err := netlink.LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
		n.awaitCarrier()
	}
	n.marker()
	c.take()
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

// Where option memory is short (20 KiB, the default before Linux 6.7) a filter
// that does not fit beside the one it replaces becomes a coarser one.
func TestKernelLittleOptionMemory(t *testing.T) {
	n := newTestNet(t)
	if err := os.WriteFile("/proc/sys/net/core/optmem_max", []byte("20480"), 0); errors.Is(err, os.ErrNotExist) {
		t.Skip("needs net.core.optmem_max by network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
	ports := everyOther()
	ring := n.open(Config{TCP: ports, UDP: ports})
	c := collect(t, ring)
	for range 3 {
		watch(t, ring, n.recv)
		n.packet(unix.ETH_P_IP, syn4(ports[len(ports)-1].First))
		n.packet(unix.ETH_P_IP, ipv4(src4, udpProto, 0, nil, udp(ports[len(ports)/2].First, 0)))
		n.marker()
		if got := c.take(); len(got) != 2 {
			t.Errorf("%d frames", len(got))
		}
	}
}
