// Package banlab sets the stage for tests of a method to ban: a host with a
// listener, and its default gateway, which speaks with many addresses.
package banlab

import (
	"io"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/respond"
	"portsentry/test/lab"
)

// Lab is the stage.
type Lab struct {
	Host, Others *pktgen.NS

	t            *testing.T
	addr4, addr6 netip.AddrPort // of the listener
}

// Addresses of the others, and the host's own.
var (
	Gateway4 = netip.MustParseAddr("10.77.0.2")
	Near4    = netip.MustParseAddr("10.77.0.3") // on the wire
	Far4     = netip.MustParseAddr("198.51.100.7")
	Gateway6 = netip.MustParseAddr("fd77::2")
	Near6    = netip.MustParseAddr("fd77::3")
	Far6     = netip.MustParseAddr("fd99:1::7") // and the next one
	Own4     = netip.MustParseAddr("10.77.0.1")
)

// New makes a Lab. Without root it skips the test, in CI it fails it.
func New(t *testing.T) *Lab {
	t.Helper()
	lab.NeedRoot(t)
	t.Log("as root in a network namespace of its own")
	n, err := pktgen.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &Lab{t: t}
	for _, ns := range []**pktgen.NS{&l.Others, &l.Host} {
		if *ns, err = n.NewNS(); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = n.Link(l.Others, l.Host, []netip.Prefix{
		netip.PrefixFrom(Gateway4, 24), netip.PrefixFrom(Near4, 24), netip.PrefixFrom(Far4, 32),
		netip.PrefixFrom(Gateway6, 64), netip.PrefixFrom(Near6, 64), netip.PrefixFrom(Far6, 128), netip.PrefixFrom(Far6.Next(), 128),
	}, []netip.Prefix{netip.PrefixFrom(Own4, 24), netip.MustParsePrefix("fd77::1/64")})
	if err != nil {
		t.Fatal(err)
	}
	l.Run("ip", "route", "add", "default", "via", Gateway4.String())
	l.Run("ip", "-6", "route", "add", "default", "via", Gateway6.String())
	l.addr4 = l.listen("10.77.0.1:0")
	l.addr6 = l.listen("[fd77::1]:0")
	return l
}

// Run runs a program on the host.
func (l *Lab) Run(args ...string) string {
	l.t.Helper()
	var out []byte
	err := l.Host.Do(func() (err error) {
		out, err = exec.CommandContext(l.t.Context(), args[0], args[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (l *Lab) listen(addr string) netip.AddrPort {
	l.t.Helper()
	var ln net.Listener
	err := l.Host.Do(func() (err error) {
		ln, err = new(net.ListenConfig).Listen(l.t.Context(), "tcp", addr)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { ln.Close() })
	go echo(ln)
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// Dial connects from src to the host; it returns nil where nobody answers.
func (l *Lab) Dial(src netip.Addr) net.Conn {
	to := l.addr4
	if src.Is6() {
		to = l.addr6
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: src.AsSlice()}, Timeout: 300 * time.Millisecond}
	var conn net.Conn
	err := l.Others.Do(func() (err error) {
		conn, err = d.DialContext(l.t.Context(), "tcp", to.String())
		return err
	})
	if err != nil {
		return nil
	}
	l.t.Cleanup(func() { conn.Close() })
	return conn
}

// Answered reports whether the host answers src.
func (l *Lab) Answered(src netip.Addr) bool {
	c := l.Dial(src)
	if c == nil {
		return false
	}
	c.Close()
	return true
}

// echo gives back what it gets, until ln is closed.
func echo(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

// GoesOn reports whether a connection of Dial still carries something both ways.
func GoesOn(conn net.Conn) bool {
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err == nil
}

// Ban is a soft ban of p.
func Ban(p netip.Prefix, until time.Time) respond.Ban {
	return respond.Ban{Prefix: p, Scope: judge.AllProtocols, Strength: judge.Soft, Until: until}
}

// Single is a alone as a prefix.
func Single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
