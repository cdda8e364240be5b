package ipset

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/respond"
)

// lab is a host with a listener, and its default gateway, which speaks with many
// addresses.
type lab struct {
	t            *testing.T
	host, others *pktgen.NS
	addr4, addr6 netip.AddrPort // of the listener
}

var (
	gateway4 = netip.MustParseAddr("10.77.0.2")
	near4    = netip.MustParseAddr("10.77.0.3") // on the wire
	far4     = netip.MustParseAddr("198.51.100.7")
	gateway6 = netip.MustParseAddr("fd77::2")
	near6    = netip.MustParseAddr("fd77::3")
	far6     = netip.MustParseAddr("fd99:1::7")
	own4     = netip.MustParseAddr("10.77.0.1")
)

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: network namespaces and ipset")
		}
		t.Skip("needs root: network namespaces and ipset")
	}
	n, err := pktgen.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &lab{t: t}
	for _, ns := range []**pktgen.NS{&l.others, &l.host} {
		if *ns, err = n.NewNS(); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = n.Link(l.others, l.host, []netip.Prefix{
		netip.PrefixFrom(gateway4, 24), netip.PrefixFrom(near4, 24), netip.PrefixFrom(far4, 32),
		netip.PrefixFrom(gateway6, 64), netip.PrefixFrom(near6, 64), netip.PrefixFrom(far6, 128), netip.PrefixFrom(far6.Next(), 128),
	}, []netip.Prefix{netip.PrefixFrom(own4, 24), netip.MustParsePrefix("fd77::1/64")})
	if err != nil {
		t.Fatal(err)
	}
	l.run("ip", "route", "add", "default", "via", gateway4.String())
	l.run("ip", "-6", "route", "add", "default", "via", gateway6.String())
	l.addr4 = l.listen("10.77.0.1:0")
	l.addr6 = l.listen("[fd77::1]:0")
	return l
}

// run runs a program on the host.
func (l *lab) run(args ...string) string {
	l.t.Helper()
	var out []byte
	err := l.host.Do(func() (err error) {
		out, err = exec.CommandContext(l.t.Context(), args[0], args[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (l *lab) listen(addr string) netip.AddrPort {
	l.t.Helper()
	var ln net.Listener
	err := l.host.Do(func() (err error) {
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

// dial connects from src to the host; it returns nil where nobody answers.
func (l *lab) dial(src netip.Addr) net.Conn {
	to := l.addr4
	if src.Is6() {
		to = l.addr6
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: src.AsSlice()}, Timeout: 300 * time.Millisecond}
	var conn net.Conn
	err := l.others.Do(func() (err error) {
		conn, err = d.DialContext(l.t.Context(), "tcp", to.String())
		return err
	})
	if err != nil {
		return nil
	}
	l.t.Cleanup(func() { conn.Close() })
	return conn
}

// answered reports whether the host answers src.
func (l *lab) answered(src netip.Addr) bool { return l.dial(src) != nil }

func (l *lab) open() *Sets {
	l.t.Helper()
	var s *Sets
	if err := l.host.Do(func() (err error) { s, err = Open(); return err }); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

// rules adds the rules that s asks for.
func (l *lab) rules(s *Sets) {
	l.t.Helper()
	for _, rule := range s.Rules() {
		l.run(strings.Fields(rule)...)
	}
	if v4, v6, err := s.Referenced(); !v4 || !v6 || err != nil {
		l.t.Fatalf("Referenced = %v, %v, %v after adding %q", v4, v6, err, s.Rules())
	}
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

// goesOn reports whether conn still carries something both ways.
func goesOn(conn net.Conn) bool {
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err == nil
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}

func ban(p netip.Prefix, until time.Time) respond.Ban {
	return respond.Ban{Prefix: p, Scope: judge.AllProtocols, Strength: judge.Soft, Until: until}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
