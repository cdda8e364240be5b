package listen

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/config"
)

// enterSpace moves the test into a network namespace of its own. The thread is
// never unlocked, so it ends with the test and the namespace with it.
func enterSpace(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root for a network namespace")
		}
		t.Skip("needs root for a network namespace")
	}
	t.Log("as root in a network namespace of its own")
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	command(t, "ip link set lo up")
}

// space is another network namespace with a thread in it.
type space struct {
	tid  int
	jobs chan func()
}

func newSpace(t testing.TB) *space {
	t.Helper()
	s := &space{jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		s.tid = unix.Gettid()
		ready <- err
		for f := range s.jobs {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { close(s.jobs) })
	s.do(func() { command(t, "ip link set lo up") })
	return s
}

// do runs f in the namespace. f must not end the test.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.jobs <- func() { defer close(done); f() }
	<-done
}

// command runs lines of a command in the namespace of the calling thread.
func command(t testing.TB, lines ...string) string {
	t.Helper()
	all := ""
	for _, line := range lines {
		args := strings.Fields(line)
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
		all += string(out)
	}
	return all
}

// Addresses of the test's namespace and of its peer.
const (
	here4, there4 = "192.0.2.1", "192.0.2.2"
	here6, there6 = "2001:db8::1", "2001:db8::2"
)

// newPeer makes a namespace with a cable to this one.
func newPeer(t testing.TB) *space {
	t.Helper()
	there := newSpace(t)
	command(t, "ip link add near type veth peer name far netns "+strconv.Itoa(there.tid))
	up := func(dev, four, six string) {
		command(t, "ip addr add "+four+"/24 dev "+dev, "ip addr add "+six+"/64 dev "+dev+" nodad", "ip link set "+dev+" up")
	}
	up("near", here4, here6)
	there.do(func() { up("far", there4, there6) })
	return there
}

// eventually polls until ok or the deadline.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, 5*time.Second, what, ok)
}

func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
}

// trap is a Traps that runs, and what it told its handler.
type trap struct {
	*Traps
	mu       sync.Mutex
	contacts []capture.Contact
	silent   atomic.Bool // no banner for anybody
}

func startTraps(t testing.TB, c Config) *trap {
	t.Helper()
	traps, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	k := &trap{Traps: traps}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx, k.handle) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func (k *trap) handle(c *capture.Contact) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.contacts = append(k.contacts, *c)
	return !k.silent.Load()
}

// seen are the contacts so far with dst as their destination.
func (k *trap) seen(dst netip.AddrPort) []capture.Contact {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(k.contacts), func(c capture.Contact) bool { return c.Dst != dst })
}

func (k *trap) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.contacts)
}

// watches reports whether a port is a trap at this moment.
func (k *trap) watches(t testing.TB, udp bool, port uint16) bool {
	t.Helper()
	tcp, u, err := k.Ports()
	if err != nil {
		t.Fatal(err)
	}
	if udp {
		return u.Has(port)
	}
	return tcp.Has(port)
}

// steered fails the test where the kernel is expected to steer and does not.
func (k *trap) steered(t testing.TB) {
	t.Helper()
	if k.Method() != "sk_lookup" {
		t.Fatalf("method %s: %q", k.Method(), k.Problems())
	}
}

func ports(list ...uint16) (s config.PortSet) {
	for _, p := range list {
		s = append(s, config.PortRange{First: p, Last: p})
	}
	return s
}

func all() config.PortSet { return config.PortSet{{First: 1, Last: 65535}} }

func end(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

// endsOf is an address of package net.
func endsOf(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// The thread that net works in is not ours to choose for anything that waits,
// but sockets are made in the calling one.
func dial(t testing.TB, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, to.String(), 3*time.Second)
	if err != nil {
		t.Errorf("dial %s %v: %v", network, to, err)
		return nil
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(4 * time.Second)); err != nil {
		t.Error(err)
	}
	return c
}
