package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

// lab is a protected host and a scanner in network namespaces of their own,
// joined by a veth. The scanner's end is the host's default gateway, so that
// the host answers whatever source the scanner makes up.
type lab struct {
	t             testing.TB
	host, scanner netns.NsHandle
	hostName      string // for ip netns exec
	scannerName   string
	wire          netlink.Link // the scanner's end
	hostMAC       net.HardwareAddr
	guestNS       netns.NsHandle // behind the host, where a test has one
}

var (
	hostV4    = netip.MustParseAddr("10.9.0.1")
	scannerV4 = netip.MustParseAddr("10.9.0.2")
	hostV6    = netip.MustParseAddr("fd09::1")
	scannerV6 = netip.MustParseAddr("fd09::2")
)

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: network namespaces and nftables")
		}
		t.Skip("needs root: network namespaces and nftables")
	}
	t.Log("as root in a network namespace of its own")
	l := &lab{t: t}
	l.host, l.hostName = l.namespace("h")
	l.scanner, l.scannerName = l.namespace("s")
	l.in(l.scanner, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wire"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(l.host))}
		return netlink.LinkAdd(veth)
	})
	l.in(l.scanner, func() error { return up("wire", "10.9.0.2/24", "fd09::2/64") })
	l.in(l.host, func() error { return up("eth0", "10.9.0.1/24", "fd09::1/64") })
	l.awaitCarrier(l.scanner, "wire")
	l.awaitCarrier(l.host, "eth0")
	l.in(l.scanner, func() (err error) { l.wire, err = netlink.LinkByName("wire"); return err })
	l.in(l.host, func() error {
		for _, gw := range []netip.Addr{scannerV4, scannerV6} {
			if err := netlink.RouteAdd(&netlink.Route{Gw: gw.AsSlice()}); err != nil {
				return fmt.Errorf("default route: %w", err)
			}
		}
		eth0, err := netlink.LinkByName("eth0")
		if err == nil {
			l.hostMAC = eth0.Attrs().HardwareAddr
		}
		return err
	})
	return l
}

func (l *lab) namespace(kind string) (netns.NsHandle, string) {
	l.t.Helper()
	name := fmt.Sprintf("psnft-%s-%d-%d", kind, os.Getpid(), time.Now().UnixNano()%1e9)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := netns.Get()
	if err != nil {
		l.t.Fatal(err)
	}
	defer back.Close()
	ns, err := netns.NewNamed(name)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := netns.Set(back); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		ns.Close()
		if err := netns.DeleteNamed(name); err != nil {
			l.t.Errorf("deleting namespace %s: %v", name, err)
		}
	})
	l.in(ns, func() error { return up("lo") })
	return ns, name
}

// in runs fn on a thread of the namespace. Sockets opened there stay there.
func (l *lab) in(ns netns.NsHandle, fn func() error) {
	l.t.Helper()
	runtime.LockOSThread()
	back, err := netns.Get()
	if err == nil {
		err = netns.Set(ns)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	ferr := fn()
	if err := netns.Set(back); err != nil {
		l.t.Fatal(err) // the thread is lost and stays locked
	}
	back.Close()
	runtime.UnlockOSThread()
	if ferr != nil {
		l.t.Fatal(ferr)
	}
}

// awaitCarrier waits until a link carries packets: before, they are lost.
func (l *lab) awaitCarrier(ns netns.NsHandle, name string) {
	l.t.Helper()
	eventually(l.t, "carrier of "+name, func() bool {
		var link netlink.Link
		l.in(ns, func() (err error) { link, err = netlink.LinkByName(name); return err })
		return link.Attrs().OperState == netlink.OperUp
	})
}

func up(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags |= 0x02 // IFA_F_NODAD: usable at once
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// traps are the options that most tests start from.
func traps() Options {
	return Options{
		TrapsTCP: config.PortSet{{First: 1, Last: 1}, {First: 11, Last: 11}, {First: 40000, Last: 40000}},
		TrapsUDP: config.PortSet{{First: 7, Last: 7}, {First: 40000, Last: 40000}},
		BlockTCP: config.BlockBan, BlockUDP: config.BlockBan,
		EphemeralFirst: 32768, EphemeralLast: 60999,
		KernelTraps: true,
	}
}

// bothWays runs a test with rules that have connections tracked, and with those that do
// without.
func bothWays(t *testing.T, test func(t *testing.T, traps func() Options)) {
	t.Run("tracked", func(t *testing.T) { test(t, traps) })
	t.Run("untracked", func(t *testing.T) {
		test(t, func() Options {
			o := traps()
			o.Untracked = true
			return o
		})
	})
}

// open opens the table in the host's namespace.
func (l *lab) open(o Options) *Table {
	l.t.Helper()
	var t *Table
	l.in(l.host, func() (err error) { t, err = Open(o); return err })
	l.t.Cleanup(func() { l.in(l.host, func() error { return t.Close(context.Background()) }) })
	return t
}

// hits collects what Run announces until the test ends.
func (l *lab) hits(t *Table) *announced {
	a := &announced{sources: make(map[netip.Addr]int)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- t.Run(ctx, func(h Hit) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.sources[sourceOf(h.Packet)]++
			a.last = h
		})
	}()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	})
	return a
}

type announced struct {
	mu      sync.Mutex
	sources map[netip.Addr]int
	last    Hit
}

func (a *announced) len() int { a.mu.Lock(); defer a.mu.Unlock(); return len(a.sources) }

func (a *announced) of(addr netip.Addr) int { a.mu.Lock(); defer a.mu.Unlock(); return a.sources[addr] }

func sourceOf(packet []byte) netip.Addr {
	var a netip.Addr
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		a, _ = netip.AddrFromSlice(packet[12:16])
	case len(packet) >= 40 && packet[0]>>4 == 6:
		a, _ = netip.AddrFromSlice(packet[8:24])
	}
	return a
}

// command runs a program in a namespace and gives its output.
func (l *lab) command(ns, name string, args ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, name}, args...)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// nftFile loads a ruleset in the host's namespace.
func (l *lab) nftFile(ruleset string) {
	l.t.Helper()
	f := l.t.TempDir() + "/ruleset.nft"
	if err := os.WriteFile(f, []byte(ruleset), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.command(l.hostName, "nft", "-f", f)
}

// serve accepts connections in the host's namespace and echoes.
func (l *lab) serve(ns netns.NsHandle, network, addr string) {
	l.t.Helper()
	var ln net.Listener
	l.in(ns, func() (err error) { ln, err = net.Listen(network, addr); return err })
	l.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// echoUDP sends every datagram back.
func (l *lab) echoUDP(ns netns.NsHandle, addr string) {
	l.t.Helper()
	var pc net.PacketConn
	l.in(ns, func() (err error) { pc, err = net.ListenPacket("udp", addr); return err })
	l.t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := pc.WriteTo(buf[:n], from); err != nil {
				return
			}
		}
	}()
}

// askUDP sends a datagram from the scanner and waits for it to come back.
func (l *lab) askUDP(addr string) error {
	c, err := l.dial(l.scanner, "udp", addr, time.Second)
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// dial connects from a namespace. An error is an answer.
func (l *lab) dial(ns netns.NsHandle, network, addr string, patience time.Duration) (net.Conn, error) {
	l.t.Helper()
	var c net.Conn
	var derr error
	l.in(ns, func() error {
		c, derr = net.DialTimeout(network, addr, patience)
		return nil
	})
	if c != nil {
		l.t.Cleanup(func() { c.Close() })
	}
	return c, derr
}

// echo says whether a connection still carries data both ways.
func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// silent: nothing came back, neither a connection nor a refusal.
func silent(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// eventually polls until ok or 10 s have passed.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

// addresses gives those in the table's set.
func (l *lab) addresses(set string) []string {
	l.t.Helper()
	var keys []string
	l.in(l.host, func() error {
		return dump(set, maxListed, func(e element) {
			a, _ := netip.AddrFromSlice(e.key)
			keys = append(keys, a.String())
		})
	})
	slices.Sort(keys)
	return keys
}

// existing lists the bans in the kernel.
func (l *lab) existing(t *Table) (bans []respond.Ban) {
	l.t.Helper()
	l.in(l.host, func() (err error) { bans, err = t.Existing(context.Background()); return err })
	return bans
}
