package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"

	"portsentry/internal/config"
	"portsentry/internal/pktgen"
)

// Places in a network of the test: the first are addresses that the scanner has,
// so that it can open connections from them; the others are in packets only.
const (
	placeConnect  = 2 + iota // opens a connection to a trap
	placeClient              // is connected all the time
	placeHonest              // never probes: its answers tell that those before it have come
	placeStranger            // and all from here on
)

// selfStage is a scanner and the host that it scans, in namespaces of their own.
// To the host the scanner is the gateway to everybody else.
type selfStage struct {
	c             *tryout
	net           *pktgen.Net
	scanner, host *pktgen.End
	send          *pktgen.Sender
	answers       *pktgen.Sniffer
	services      *tasks
	from          [2]netip.Prefix // where addresses of the test are taken from, by family
	families      []int           // 4, and 6 where the kernel has it
	clients       []net.Conn
	opened        []io.Closer

	trapTCP, trapUDP uint16    // traps to hit; 0: there is none
	served, closed   uint16    // with a service for both protocols; with none, and no trap (0: all are)
	quiet            []uint16  // more of the closed ones, for scans that touch no trap
	ownPorts         [2]uint16 // first and last from which the host opens connections
	port             uint16    // the last source port
}

// Networks for tests (RFC 2544, RFC 5180) and for documentation (RFC 5737, RFC
// 3849): nobody is there. The first that the ignore file lets be tested is taken.
var (
	testNetworks4 = []string{"198.18.1.0/24", "203.0.113.0/24", "192.0.2.0/24", "198.51.100.0/24"}
	testNetworks6 = []string{"2001:2:0:100::/56", "2001:db8:0:100::/56"}
)

const maxSelfAnswers = 100_000

func newSelfStage(c *tryout) (s *selfStage, err error) {
	s = &selfStage{c: c, families: []int{4}, port: 20_000}
	if s.ownPorts, err = localPorts(); err != nil {
		return nil, err
	}
	s.choosePorts()
	ignored := openIgnore(c.IgnoreFile).prefixes()
	s.from = [2]netip.Prefix{firstFree(testNetworks4, ignored), firstFree(testNetworks6, ignored)}
	gateway := []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")}
	host := []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		s.families = append(s.families, 6)
		gateway = append(gateway, netip.MustParsePrefix("2001:2::1/64"))
		host = append(host, netip.MustParsePrefix("2001:2::2/64"))
	}
	scanner := slices.Clone(gateway)
	for _, family := range s.families {
		for place := placeConnect; place < placeStranger; place++ {
			a := s.address(family, place)
			scanner = append(scanner, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if s.net, err = pktgen.NewNet(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	a, err := s.net.NewNS()
	if err != nil {
		return nil, err
	}
	b, err := s.net.NewNS()
	if err != nil {
		return nil, err
	}
	if len(s.families) > 1 { // new ones may be without by the owner's wish
		err := errors.Join(a.Sysctl("net.ipv6.conf.all.disable_ipv6", "0"), b.Sysctl("net.ipv6.conf.all.disable_ipv6", "0"))
		if err != nil {
			return nil, err
		}
	}
	if err := b.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", s.ownPorts[0], s.ownPorts[1])); err != nil {
		return nil, err
	}
	if s.scanner, s.host, err = s.net.Link(a, b, scanner, host); err != nil {
		return nil, err
	}
	if err := s.scanner.StaticNeighbours(); err != nil {
		return nil, err
	}
	for i, to := range []string{"0.0.0.0/0", "::/0"}[:len(s.families)] {
		if err := b.Route(netip.MustParsePrefix(to), gateway[i].Addr()); err != nil {
			return nil, err
		}
	}
	if c.VerifySource { // else what the challenge answers does not arrive
		if err := s.scanner.TakeReturned(); err != nil {
			return nil, err
		}
	}
	if s.send, err = s.scanner.Sender(); err != nil {
		return nil, err
	}
	// Not bound to the context: what has come in is read until the end.
	if s.answers, err = pktgen.Sniff(context.Background(), a, s.scanner.Name, maxSelfAnswers); err != nil {
		return nil, err
	}
	return s, s.serve()
}

// localPorts are the first and the last port from which this machine opens
// connections. The host of the test does so too: there late answers are no probes.
func localPorts() (r [2]uint16, err error) {
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	text, err := os.ReadFile(file)
	if err == nil {
		_, err = fmt.Sscan(string(text), &r[0], &r[1])
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// firstFree is the first of networks that nothing in ignored touches, else the
// first of all: then it shows in the test.
func firstFree(networks []string, ignored []netip.Prefix) netip.Prefix {
	for _, n := range networks {
		p := netip.MustParsePrefix(n)
		if !slices.ContainsFunc(ignored, p.Overlaps) {
			return p
		}
	}
	return netip.MustParsePrefix(networks[0])
}

// address is a place in the network of a family: in IPv6 each has a /64 of its
// own, for a ban may be of one.
func (s *selfStage) address(family, place int) netip.Addr {
	if family == 4 {
		b := s.from[0].Addr().As4()
		b[3] = byte(place)
		return netip.AddrFrom4(b)
	}
	b := s.from[1].Addr().As16()
	b[7], b[15] = byte(place), 1
	return netip.AddrFrom16(b)
}

// hostFor is the address of the host in the family of a.
func (s *selfStage) hostFor(a netip.Addr) netip.Addr {
	if a.Is4() {
		return s.host.Addr4()
	}
	return s.host.Addr6()
}

// choosePorts looks for traps outside the ports that connections are opened from,
// where only a SYN is a probe for certain, for a port to serve and one to leave.
func (s *selfStage) choosePorts() {
	tcp, udp := s.c.TrapsTCP(), s.c.TrapsUDP()
	trap := func(set config.PortSet) uint16 {
		if len(set) == 0 {
			return 0
		}
		return set[0].First
	}
	s.trapTCP, s.trapUDP = trap(tcp), trap(udp)
	free := func(p uint16) bool { return p != s.trapTCP && p != s.trapUDP }
	quiet := func(p uint16) bool { return free(p) && !tcp.Has(p) && !udp.Has(p) }
	for p := uint16(8080); p < 10_000 && len(s.quiet) < scanWidth; p++ {
		switch {
		case !quiet(p):
		case s.served == 0:
			s.served = p
		case s.closed == 0:
			s.closed = p
		default:
			s.quiet = append(s.quiet, p)
		}
	}
	for p := uint16(8080); s.served == 0; p++ { // all are traps: one that is served is none
		if free(p) {
			s.served = p
		}
	}
}

// close removes all of it.
func (s *selfStage) close() error {
	var errs []error
	for _, c := range s.clients {
		c.Close()
	}
	for _, c := range s.opened {
		c.Close()
	}
	if s.services != nil {
		errs = append(errs, s.services.stop())
	}
	if s.answers != nil {
		s.answers.Stop() // a packet that was not kept is no matter any more
	}
	if s.send != nil {
		errs = append(errs, s.send.Close())
	}
	return errors.Join(append(errs, s.net.Close())...)
}
