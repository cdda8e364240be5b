package listen

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Connections that were reset before they were accepted are contacts like any.
func TestResetBeforeAccept(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	k, err := Open(Config{TCP: ports(2000), Banner: []byte(banner)})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	want := make(map[netip.AddrPort]netip.AddrPort) // source to destination
	there.do(func() {
		for _, to := range []netip.AddrPort{end(here4, 2000), end(here6, 2000)} {
			c := dial(t, "tcp", to)
			if c == nil {
				continue
			}
			want[endsOf(c.LocalAddr())] = to
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	})
	eventually(t, "resets to arrive", func() bool { return !strings.Contains(command(t, "ss -tanH state established"), ":2000") })
	r := &trap{}
	l := &loop{Traps: k, handle: r.handle, data: make([]byte, 100)}
	for fd, s := range k.sockets {
		if s.proto == unix.IPPROTO_TCP {
			if err := l.event(fd, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range r.contacts {
		if want[c.Src] != c.Dst {
			t.Errorf("contact %v to %v", c.Src, c.Dst)
		}
		delete(want, c.Src)
	}
	if len(want) != 0 {
		t.Errorf("not seen: %v", want)
	}
	if s := k.Stats(); s.Contacts != 2 || s.Failed+s.Cut+s.Banners != 0 { // he wanted none
		t.Errorf("%+v", s)
	}
}

// slow connects to port with a receive buffer too small for a long banner, and
// reads nothing.
func slow(t *testing.T, port int) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 2048); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestSlowReaderIsCut(t *testing.T) {
	enterSpace(t)
	// More than fits in the buffers of both ends.
	k := startTraps(t, Config{TCP: all(), Banner: bytes.Repeat([]byte{'x'}, 8<<20)})
	fd := slow(t, 2000)
	start := time.Now()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for p[0].Revents&unix.POLLHUP == 0 {
		if n, err := unix.Poll(p, 5000); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatalf("not cut: %d, %v", n, err)
		}
	}
	if d := time.Since(start); d < sendTime-100*time.Millisecond || d > sendTime+2*time.Second {
		t.Errorf("cut after %v", d)
	}
	if s := k.Stats(); s.Cut != 1 || s.Banners != 0 {
		t.Errorf("%+v", s)
	}
}

// Who resets the connection while he gets the banner has not made us fail.
func TestResetDuringBanner(t *testing.T) {
	enterSpace(t)
	k := startTraps(t, Config{TCP: all(), Banner: bytes.Repeat([]byte{'x'}, 8<<20)})
	before := descriptorsOpen(t)
	fd := slow(t, 2000)
	eventually(t, "banner on its way", func() bool {
		n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		return err == nil && n > 0
	})
	// To AF_UNSPEC, which resets the connection, connect(2): the descriptor is slow's.
	var nowhere unix.RawSockaddr
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nowhere)), unsafe.Sizeof(nowhere)); errno != 0 {
		t.Fatal(errno)
	}
	within(t, sendTime/2, "end of it", func() bool { return descriptorsOpen(t) == before+1 })
	if s := k.Stats(); s.Contacts != 1 || s.Banners+s.Cut+s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhoDoesNotHangUpIsCut(t *testing.T) {
	enterSpace(t)
	k := startTraps(t, Config{TCP: all(), Banner: []byte(banner)})
	c := dial(t, "tcp4", end("127.0.0.1", 2000))
	if c == nil {
		t.FailNow()
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != banner { // to the end: it is half closed
		t.Errorf("%q, %v", b, err)
	}
	within(t, 2*time.Second, "end for time", func() bool { _, err := c.Write([]byte{'x'}); return err != nil })

	c = dial(t, "tcp4", end("127.0.0.1", 2000))
	if c == nil {
		t.FailNow()
	}
	flood := make([]byte, 64<<10)
	start := time.Now()
	var err error
	for err == nil {
		_, err = c.Write(flood)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if d := time.Since(start); d > hangUpTime/2 {
		t.Errorf("ended for what he sent after %v", d)
	}
	// Each had his banner.
	eventually(t, "all over", func() bool { return !strings.Contains(command(t, "ss -tanH state connected"), ":2000") })
	if s := k.Stats(); s.Banners != 2 || s.Cut+s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// Beyond maxHeld connections are reported still, and do not stop the others.
func TestHeldIsBounded(t *testing.T) {
	enterSpace(t)
	k := startTraps(t, Config{TCP: all(), UDP: ports(2000), Banner: []byte(banner)})
	const extra = 20
	for range maxHeld + extra {
		// Who is refused may find the reset before he finds himself connected.
		c, err := net.Dial("tcp4", "127.0.0.1:2000")
		if err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Fatal(err)
		}
		if err == nil {
			defer c.Close()
		}
	}
	eventually(t, "all contacts", func() bool { return k.count() == maxHeld+extra })
	if s := k.Stats(); s.Refused == 0 || s.Refused > extra || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
	if got := get(t, "udp4", end("127.0.0.1", 2000)); got != banner {
		t.Errorf("UDP meanwhile: %q", got)
	}
	within(t, 3*time.Second, "room again", func() bool {
		c, err := net.Dial("tcp4", "127.0.0.1:2000")
		if err != nil {
			return false
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		return err == nil && string(b) == banner
	})
}

// Without a banner the port is open to everybody, and free as soon as it is over.
func TestSilent(t *testing.T) {
	enterSpace(t)
	k := startTraps(t, Config{TCP: all()})
	for i := range 20 {
		c, err := net.Dial("tcp4", "127.0.0.1:2000")
		if err != nil {
			t.Fatalf("closed to number %d: %v", i, err)
		}
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if i%2 == 0 { // he waits for us
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
		c.Close()
	}
	eventually(t, "all over", func() bool { return !strings.Contains(command(t, "ss -tanH state connected"), "127.0.0.1:2000 ") })
	plainTCP(t, 2000)
	if s := k.Stats(); s.Contacts != 20 || s.Banners+s.Cut+s.Failed+s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

func TestScannersSeeOpenPorts(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	k := startTraps(t, Config{TCP: all()})
	var out string
	there.do(func() { out = command(t, "nmap -n -Pn -sT -oG - -p1-2000 "+here4) })
	if strings.Count(out, "/open/tcp") != 2000 {
		t.Errorf("nmap: %d of 2000 ports open:\n%.900s\n%v", strings.Count(out, "/open/tcp"), out, k.Stats())
	}
	eventually(t, "all contacts", func() bool { return k.count() >= 2000 })
}

// With no descriptor left every connection is reported, and the traps live on.
func TestOutOfDescriptors(t *testing.T) {
	enterSpace(t)
	k := startTraps(t, Config{TCP: all(), Banner: []byte(banner)})
	var fds []int
	for range 5 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	// The limit is on the number of a descriptor, so all below have to be there.
	none := unix.Rlimit{Cur: 0, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func() {
		if !restored {
			restored = true
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
				t.Error(err)
			}
		}
	}
	defer restore()
	for _, fd := range fds {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 2000}); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "it to be noticed", func() bool { return k.Stats().Starved > 0 })
	restore()
	eventually(t, "all contacts", func() bool { return k.count() == len(fds) })
	if got := get(t, "tcp4", end("127.0.0.1", 2000)); got != banner {
		t.Errorf("afterwards: %q", got)
	}
}
