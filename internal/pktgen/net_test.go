package pktgen

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTestNet skips the test without the privilege, and fails it in CI.
func newTestNet(t testing.TB) *Net {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root (network namespaces)")
		}
		t.Skip("needs root (network namespaces)")
	}
	t.Log("as root in a network namespace of its own")
	n, err := NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func newSpace(t testing.TB, n *Net) *NS {
	t.Helper()
	ns, err := n.NewNS()
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func prefixes(s ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// pair is a scanner and a host, the scanner being the host's way to everywhere.
func pair(t testing.TB) (scanner, host *End) {
	t.Helper()
	n := newTestNet(t)
	a, b := newSpace(t, n), newSpace(t, n)
	scanner, host, err := n.Link(a, b, prefixes("10.77.0.2/24", "fd77::2/64"), prefixes("10.77.0.1/24", "fd77::1/64"))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		scanner.StaticNeighbours(),
		b.Route(netip.MustParsePrefix("0.0.0.0/0"), scanner.Addr4()),
		b.Route(netip.MustParsePrefix("::/0"), scanner.Addr6()),
	)
	if err != nil {
		t.Fatal(err)
	}
	return scanner, host
}

func openTestSender(t testing.TB, e *End) *Sender {
	t.Helper()
	s, err := e.Sender()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// received is how many frames have come in on e.
func received(t testing.TB, e *End) uint64 {
	t.Helper()
	link, err := e.NS.handle.LinkByIndex(e.Index)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.RxPackets
}

func TestNamespacesGoneAfterClose(t *testing.T) {
	newTestNet(t) // for the skip
	n, err := NewNet()
	if err != nil {
		t.Fatal(err)
	}
	a, b := newSpace(t, n), newSpace(t, n)
	if _, _, err := n.Link(a, b, prefixes("10.77.0.2/24"), prefixes("10.77.0.1/24")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ip", "netns", "exec", a.Name(), "ip", "-o", "link").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("eth0")) {
		t.Errorf("ip netns exec: %v: %s", err, out)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	for _, ns := range []*NS{a, b} {
		if _, err := os.Lstat(ns.Path()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", ns.Path(), err)
		}
	}
}

func TestDoLeavesMainThreadAlone(t *testing.T) {
	n := newTestNet(t)
	ns := newSpace(t, n)
	before, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		err := ns.Do(func() error {
			inside, err := os.Stat("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			mounted, err := os.Stat(ns.Path())
			if err != nil {
				return err
			}
			if !os.SameFile(inside, mounted) || os.SameFile(inside, before) {
				t.Error("not in the namespace")
			}
			if unix.Gettid() == os.Getpid() {
				t.Error("on the main thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	after, err := os.Stat("/proc/self/ns/net")
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the process moved: %v", err)
	}
	want := errors.New("mine")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returns %v", err)
	}
}

// TestTalk shows that addresses of both families are usable at once, by sockets
// that were opened inside and are used outside.
func TestTalk(t *testing.T) {
	scanner, host := pair(t)
	for _, addr := range []netip.Addr{host.Addr4(), host.Addr6()} {
		var l net.Listener
		err := host.NS.Do(func() (err error) {
			l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 80).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var c net.Conn
		err = scanner.NS.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", l.Addr().String(), 2*time.Second)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestThreeNodes(t *testing.T) {
	n := newTestNet(t)
	scanner, host, guest := newSpace(t, n), newSpace(t, n), newSpace(t, n)
	outside, _, err := n.Link(scanner, host, prefixes("10.77.0.2/24"), prefixes("10.77.0.1/24"))
	if err != nil {
		t.Fatal(err)
	}
	inside, _, err := n.Link(host, guest, prefixes("172.16.0.1/24"), prefixes("172.16.0.2/24"))
	if err != nil {
		t.Fatal(err)
	}
	if inside.Name != "eth1" {
		t.Errorf("second link of the host is %s", inside.Name)
	}
	all := netip.MustParsePrefix("0.0.0.0/0")
	err = errors.Join(
		scanner.Route(all, outside.Peer.Addr4()),
		guest.Route(all, inside.Addr4()),
		host.Sysctl("net.ipv4.ip_forward", "1"),
	)
	if err != nil {
		t.Fatal(err)
	}
	err = guest.Do(func() error {
		l, err := net.Listen("tcp4", "172.16.0.2:80")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = scanner.Do(func() error {
		c, err := net.DialTimeout("tcp4", "172.16.0.2:80", 2*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRefusesHostNamespace(t *testing.T) {
	newTestNet(t) // for the skip
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces {
		s, err := OpenSender(i.Name, Link{Src: testLink.Src, Dst: testLink.Dst})
		if i.Flags&net.FlagLoopback != 0 {
			if err != nil {
				t.Errorf("%s: %v", i.Name, err)
			} else {
				s.Close()
			}
			continue
		}
		if !errors.Is(err, ErrHostNamespace) {
			t.Errorf("%s: %v", i.Name, err)
		}
	}
}

// waitFor polls a condition for at most five seconds.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	deadline := time.After(5 * time.Second)
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatal("nothing after 5 s")
		}
	}
}
