package host

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
func command(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
}

// join makes a veth pair: name here, peer there, with addresses.
func join(t testing.TB, name, addrs string, there *space, peer, peerAddrs string) {
	t.Helper()
	command(t, "ip link add "+name+" type veth peer name "+peer+" netns "+strconv.Itoa(there.tid))
	up := func(dev, addrs string) {
		for a := range strings.FieldsSeq(addrs) {
			line := "ip addr add " + a + " dev " + dev
			if strings.Contains(a, ":") {
				line += " nodad"
			}
			command(t, line)
		}
		command(t, "ip link set "+dev+" up")
	}
	up(name, addrs)
	there.do(func() { up(peer, peerAddrs) })
}

// eventually polls until ok or the deadline.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
		runtime.Gosched()
		unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
}

func addr(s string) netip.Addr          { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort  { return netip.MustParseAddrPort(s) }
func localOf(c net.Conn) netip.AddrPort { return ends(c.LocalAddr()) }

func ends(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// closing closes c at the end of the test.
func closing[C interface{ Close() error }](t testing.TB) func(C, error) C {
	return func(c C, err error) C {
		t.Helper()
		if err != nil {
			t.Error(err)
			return c
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}
