package listen

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// plainTCP binds and listens without SO_REUSEADDR.
func plainTCP(t testing.TB, port uint16) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestServiceTakesTCP(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	k := startTraps(t, Config{TCP: all()})
	k.steered(t)
	k.silent.Store(true)
	knock := func(dst netip.AddrPort) {
		there.do(func() {
			if c := dial(t, "tcp4", dst); c != nil {
				c.Close()
			}
		})
		eventually(t, "contact", func() bool { return len(k.seen(dst)) > 0 })
		eventually(t, "the end of the connection", func() bool {
			return !strings.Contains(command(t, "ss -tanH"), dst.String())
		})
	}
	check := func(name string, port uint16, accept func() error, stop func() error) {
		t.Helper()
		dst := end(here4, port)
		before := len(k.seen(dst))
		there.do(func() {
			for range 3 { // from the very first on
				if c := dial(t, "tcp4", dst); c != nil {
					if err := accept(); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
		})
		if len(k.seen(dst)) != before {
			t.Errorf("%s: its clients are contacts", name)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		within(t, time.Second, name+": a trap again", func() bool { return k.watches(t, false, port) })
		knock(dst)
	}

	knock(end(here4, 2000))
	l, err := net.Listen("tcp", ":2000") // dual-stack, SO_REUSEADDR, MPTCP
	if err != nil {
		t.Fatal(err)
	}
	check("Go's listener", 2000, func() error {
		c, err := l.Accept()
		if err == nil {
			err = c.Close()
		}
		return err
	}, l.Close)

	knock(end(here4, 2001))
	fd := plainTCP(t, 2001)
	if k.watches(t, false, 2001) {
		t.Error("steered though bound")
	}
	if err := unix.Listen(fd, 5); err != nil {
		t.Fatal(err)
	}
	acceptOn := func(fd int) func() error {
		return func() error {
			c, _, err := unix.Accept(fd)
			if err == nil {
				abort(c) // or TIME_WAIT keeps the port
			}
			return err
		}
	}
	check("a listener without SO_REUSEADDR", 2001, acceptOn(fd), func() error { return unix.Shutdown(fd, unix.SHUT_RDWR) })

	// Bound, but for so long not listening that the port is a trap again.
	fd = plainTCP(t, 2002)
	within(t, 2*time.Second, "a trap again", func() bool { return k.watches(t, false, 2002) })
	if err := unix.Listen(fd, 5); err != nil {
		t.Fatal(err)
	}
	if k.watches(t, false, 2002) {
		t.Error("steered though listened on")
	}
	check("a late listener", 2002, acceptOn(fd), func() error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
}

func TestServiceTakesUDP(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	k := startTraps(t, Config{UDP: all(), Banner: []byte(banner)})
	k.steered(t)
	for _, network := range []string{"udp4", "udp6", "udp"} {
		pc, err := net.ListenPacket(network, ":5353")
		if err != nil {
			t.Fatal(err)
		}
		if err := pc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			b := make([]byte, 100)
			_, from, err := pc.ReadFrom(b)
			if err == nil {
				_, err = pc.WriteTo([]byte("served"), from)
			}
			done <- err
		}()
		over, dst := "udp4", end(here4, 5353)
		if network == "udp6" {
			over, dst = "udp6", end(here6, 5353)
		}
		before := len(k.seen(dst))
		there.do(func() {
			if got := get(t, over, dst); got != "served" {
				t.Errorf("%s: %q", network, got)
			}
		})
		if err := <-done; err != nil || len(k.seen(dst)) != before {
			t.Errorf("%s: %v, %d contacts", network, err, len(k.seen(dst))-before)
		}
		if err := pc.Close(); err != nil {
			t.Error(err)
		}
		within(t, time.Second, "a trap again", func() bool { return k.watches(t, true, 5353) })
		there.do(func() {
			if got := get(t, over, dst); got != banner {
				t.Errorf("%s: %q", network, got)
			}
		})
	}
}

func TestServedFromTheStart(t *testing.T) {
	enterSpace(t)
	l, err := net.Listen("tcp", ":22")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pc, err := net.ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	k := startTraps(t, Config{TCP: all(), UDP: all()})
	k.steered(t)
	tcp, udp, err := k.Ports()
	if err != nil || tcp.String() != "1-21,23-65535" || udp.String() != "1-52,54-32767,61000-65535" {
		t.Errorf("watched: %v tcp, %v udp, %v", tcp, udp, err)
	}
	l.Close()
	within(t, time.Second, "a trap again", func() bool { return k.watches(t, false, 22) })
}
