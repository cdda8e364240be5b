package changes_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) {
	// They wait for clocks more than they work.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		flag.Set("test.parallel", "4")
	}
	os.Exit(lab.Main(m))
}

// patience with a machine that does other things too.
const patience = 30 * time.Second

// Clients: the scanner under addresses of networks that the host is no part of, so that
// they can be banned as ranges.
var clients = []client{
	{"IPv4", netip.MustParseAddr("203.0.113.9"), netip.MustParsePrefix("203.0.113.0/24"), lab.HostAddrs[0].Addr()},
	{"IPv6", netip.MustParseAddr("2001:db8:a:b::9"), netip.MustParsePrefix("2001:db8:a::/48"), lab.HostAddrs[1].Addr()},
}

type client struct {
	name  string
	addr  netip.Addr
	rang  netip.Prefix // that it lies in
	other netip.Addr   // the host's address
}

// stage is a daemon on a host with a service, and clients of it.
type stage struct {
	*harness.Daemon
	t       *testing.T
	lab     *lab.Lab
	service uint16
}

// logOnly is the configuration that is shipped, as far as answers go.
var logOnly = map[string]string{"TCP_PORTS": "11", "UDP_PORTS": "7", "BLOCK_TCP": "0", "BLOCK_UDP": "0", "BLOCK_METHOD": "auto", "BAN_TIME": "1h"}

func newStage(t *testing.T, config map[string]string) *stage {
	t.Helper()
	t.Parallel()
	s := &stage{t: t, lab: lab.New(t)}
	host, scanner := s.lab.Host, s.lab.Scanner
	for _, c := range clients {
		lab.Command(t, scanner.NS, "ip", "addr", "add", netip.PrefixFrom(c.addr, c.addr.BitLen()).String(), "dev", scanner.Name)
		via := lab.ScannerAddrs[0].Addr()
		if c.addr.Is6() {
			via = lab.ScannerAddrs[1].Addr()
		}
		lab.Command(t, host.NS, "ip", "route", "add", c.rang.String(), "via", via.String())
	}
	s.serve()
	s.Daemon = s.lab.Start(t, config)
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve opens a service on the host that says hello.
func (s *stage) serve() {
	s.t.Helper()
	var l net.Listener
	check(s.t, s.lab.Host.NS.Do(func() (err error) {
		l, err = net.Listen("tcp", ":0")
		return err
	}))
	s.t.Cleanup(func() { l.Close() })
	s.service = l.Addr().(*net.TCPAddr).AddrPort().Port()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
}

// served reports whether a client gets an answer from the service.
func (s *stage) served(c client) bool {
	s.t.Helper()
	ok := false
	check(s.t, s.lab.Scanner.NS.Do(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: c.addr.AsSlice()}, Timeout: 500 * time.Millisecond}
		conn, err := d.DialContext(s.t.Context(), "tcp", netip.AddrPortFrom(c.other, s.service).String())
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				return nil
			}
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Second))
		b := make([]byte, 5)
		n, _ := conn.Read(b)
		ok = string(b[:n]) == "hello"
		return nil
	}))
	return ok
}

// ask runs a command that has to do what it says.
func (s *stage) ask(args ...string) string {
	s.t.Helper()
	out, err := s.Command(s.t.Context(), args...)
	check(s.t, err)
	return string(out)
}

// refused runs a command that must not, and gives why.
func (s *stage) refused(want string, args ...string) {
	s.t.Helper()
	out, err := s.Command(s.t.Context(), args...)
	if err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("portsentry %s: %v %s\nwant %q", strings.Join(args, " "), err, out, want)
	}
}

func (s *stage) bans() (list view.BanList) {
	s.t.Helper()
	check(s.t, json.Unmarshal([]byte(s.ask("bans", "--json")), &list))
	return list
}

// said waits for a line of the daemon's.
func (s *stage) said(what string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if _, err := s.WaitLine(ctx, func(line string) bool { return strings.Contains(line, what) }); err != nil {
		lines, _ := s.Out.Lines()
		s.t.Fatalf("%q: %v\n%s", what, err, strings.Join(lines, "\n"))
	}
}

// eventually waits until a client is served, or is not.
func (s *stage) eventually(c client, want bool) {
	s.t.Helper()
	what := c.name + " is let in"
	if !want {
		what = c.name + " is kept out"
	}
	lab.Wait(s.t, patience, what, func() bool { return s.served(c) == want })
}
