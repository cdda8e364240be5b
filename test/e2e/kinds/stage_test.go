package kinds_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"portsentry/internal/app"
	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) {
	// They wait for nmap's clocks more than they work, so there may be more of them at
	// a time than CPUs.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}

// area is a network behind the host, where few addresses are somebody's.
var area = netip.MustParsePrefix("10.88.0.0/28")

// served are the ports that the host takes connections on, and question the one
// that it answers datagrams on.
var served = []int{22, 53, 80}

const question = 53

// stage is a scanner and a host on one wire, and all that the host sees.
type stage struct {
	t             *testing.T
	net           *pktgen.Net
	scanner, host *pktgen.End
	eye           *eye
	closers       []io.Closer
	serving       sync.WaitGroup
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newStage(t *testing.T) *stage {
	t.Helper()
	lab.NeedRoot(t)
	n, err := pktgen.NewNet()
	check(t, err)
	t.Cleanup(func() { check(t, n.Close()) })
	a, err := n.NewNS()
	check(t, err)
	b, err := n.NewNS()
	check(t, err)
	s := &stage{t: t, net: n}
	s.scanner, s.host, err = n.Link(a, b, lab.ScannerAddrs, lab.HostAddrs)
	check(t, err)
	check(t, s.scanner.StaticNeighbours())
	// The host says at once that a port is closed, as often as it is asked, and sends
	// what goes to strangers the way it came.
	for _, key := range []string{"net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"} {
		check(t, b.Sysctl(key, "0"))
	}
	check(t, b.Sysctl("net.ipv4.ip_forward", "1"))
	check(t, b.Route(netip.MustParsePrefix("0.0.0.0/0"), s.scanner.Addr4()))
	s.open()
	s.eye = watch(t, s.host)
	return s
}

// settle puts three machines into area: the host, which is the router, and two in a
// namespace of their own.
func (s *stage) settle() {
	s.t.Helper()
	b, err := s.net.NewNS()
	check(s.t, err)
	var have []netip.Prefix
	for _, a := range []string{"10.88.0.2/28", "10.88.0.5/28"} {
		have = append(have, netip.MustParsePrefix(a))
	}
	_, _, err = s.net.Link(s.host.NS, b, []netip.Prefix{netip.MustParsePrefix("10.88.0.1/28")}, have)
	check(s.t, err)
	check(s.t, b.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.88.0.1")))
	check(s.t, s.scanner.NS.Route(area, s.host.Addr4()))
}

// mute has the host drop what it does not serve, as with a firewall.
func (s *stage) mute() {
	s.t.Helper()
	s.command(s.host, "nft", "add table inet mute; add chain inet mute in { type filter hook input priority 0; policy drop; }; "+
		"add rule inet mute in tcp dport { 22, 53, 80 } accept; add rule inet mute in udp dport 53 accept")
}

func (s *stage) command(e *pktgen.End, args ...string) string {
	s.t.Helper()
	return lab.Command(s.t, e.NS, args...)
}

// open opens the ports of the host until the test ends.
func (s *stage) open() {
	s.t.Helper()
	s.t.Cleanup(func() {
		for _, c := range s.closers {
			c.Close()
		}
		s.serving.Wait()
	})
	check(s.t, s.host.NS.Do(s.serve))
}

// serve opens them, in its namespace: an SSH server speaks first,
// the others when they are spoken to.
func (s *stage) serve() error {
	for _, port := range served {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		if err != nil {
			return err
		}
		s.closers = append(s.closers, l)
		s.serving.Go(func() {
			for {
				c, err := l.AcceptTCP()
				if err != nil {
					return
				}
				s.serving.Go(func() { talk(c, port) })
			}
		})
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{Port: question})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, u)
	s.serving.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				u.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	})
	return nil
}

func talk(c *net.TCPConn, port int) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if port == 22 {
		io.WriteString(c, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
	}
	if n, _ := c.Read(make([]byte, 4096)); n > 0 {
		io.WriteString(c, "HTTP/1.0 200 OK\r\nServer: thing\r\n\r\nhello\r\n")
	}
}

// event is a line of `portsentry replay --json`.
type event struct {
	Event, Source, Kind, Direction, Proto, Evidence, Tool, Campaign string
	What, Real, Victim, Reason                                      string
	Members                                                         []string
	Ports, Targets, Probes, Failed, Count                           int
}

// replay has the program judge the capture.
func replay(t *testing.T, path string) (scans, campaigns, notices []event) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := app.Main(t.Context(), app.Build{}, []string{"replay", "--json", path}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for line := range strings.Lines(out.String()) {
		t.Log(strings.TrimSpace(line))
		var e event
		check(t, json.Unmarshal([]byte(line), &e))
		switch e.Event {
		case "scan":
			scans = append(scans, e)
		case "campaign":
			campaigns = append(campaigns, e)
		case "notice":
			notices = append(notices, e)
		default:
			t.Errorf("what is this: %s", line)
		}
	}
	return scans, campaigns, notices
}
