package xdp_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// nth is an address of a prefix.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	b[len(b)-1], b[len(b)-2] = byte(n), b[len(b)-2]+byte(n>>8)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// host is the host's address of the family of a.
func (s *stage) host(a netip.Addr) netip.Addr {
	if a.Is4() {
		return s.Host.Addr4()
	}
	return s.Host.Addr6()
}

// tcp is a TCP packet without data.
func (s *stage) tcp(src netip.Addr, sport, dport, flags uint16) pktgen.Packet {
	return pktgen.Packet{
		Src: src, Dst: s.host(src), Proto: pktgen.ProtoTCP,
		SrcPort: sport, DstPort: dport, Flags: flags, Seq: 1000, Window: 1024,
	}
}

// forge sends packets, one right behind the other.
func (s *stage) forge(packets ...pktgen.Packet) {
	s.t.Helper()
	_, err := s.send.Send(s.t.Context(), s.frames(packets...), 0)
	check(s.t, err)
}

func (s *stage) frames(packets ...pktgen.Packet) (frames [][]byte) {
	s.t.Helper()
	for i := range packets {
		f, err := packets[i].Frames(s.send.Link())
		check(s.t, err)
		frames = append(frames, f...)
	}
	return frames
}

// listening collects what the host sends to the scanner.
func (s *stage) listening() *pktgen.Sniffer {
	s.t.Helper()
	sn, err := pktgen.Sniff(s.t.Context(), s.Scanner.NS, s.Scanner.Name, 1<<20)
	check(s.t, err)
	return sn
}

// answers are all SYN-ACKs to what was sent so far, by who gets them: the answer
// to an honest client comes last.
func (s *stage) answers(sn *pktgen.Sniffer) map[netip.Addr]int {
	s.t.Helper()
	last := nth(ignored, 199)
	s.forge(s.tcp(last, 40000, served[0], pktgen.SYN))
	lab.Wait(s.t, soon, "the answer to an honest client", func() bool {
		return slices.ContainsFunc(sn.Answers(), func(a pktgen.Answer) bool { return a.Dst == last && a.IsSYNACK() })
	})
	all, err := sn.Stop()
	check(s.t, err)
	by := make(map[netip.Addr]int)
	for i := range all {
		if all[i].IsSYNACK() {
			by[all[i].Dst]++
		}
	}
	return by
}

// serve opens echo services in ns until the test ends.
func (s *stage) serve(ns *pktgen.NS, ports ...uint16) {
	s.t.Helper()
	for _, port := range ports {
		var l net.Listener
		check(s.t, ns.Do(func() (err error) {
			l, err = net.Listen("tcp", ":"+strconv.Itoa(int(port)))
			return err
		}))
		s.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
	}
}

// dial opens a connection from an address of the scanner's to the host.
func (s *stage) dial(src netip.Addr, port uint16, limit time.Duration) (net.Conn, error) {
	return s.dialFrom(s.Scanner.NS, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(s.host(src), port), limit)
}

func (s *stage) dialFrom(ns *pktgen.NS, src, dst netip.AddrPort, limit time.Duration) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		dialer := net.Dialer{Timeout: limit, LocalAddr: net.TCPAddrFromAddrPort(src), Control: reuse}
		c, err = dialer.DialContext(s.t.Context(), "tcp", dst.String())
		return err
	})
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// reuse lets one local port serve one connection after the other.
func reuse(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(err, failed)
}

// gets reports whether a served port answers src.
func (s *stage) gets(src netip.Addr) bool {
	s.t.Helper()
	c, err := s.dial(src, 443, refused)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// lets waits until a served port answers src.
func (s *stage) lets(src netip.Addr, within time.Duration) {
	s.t.Helper()
	lab.Wait(s.t, within, src.String()+" is let in", func() bool { return s.gets(src) })
}

// open opens a connection that goes on.
func (s *stage) open(src netip.Addr, port uint16) net.Conn {
	s.t.Helper()
	c, err := s.dial(src, port, soon)
	check(s.t, err)
	return c
}

// echo sends something over c and reads it back.
func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("0123456789")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 10))
	return err
}

// nmap scans the host from src.
func (s *stage) nmap(src netip.Addr, args ...string) string {
	s.t.Helper()
	args = append([]string{"--min-rate", "2000", "--max-rtt-timeout", "100ms", "-S", src.String(), "-e", s.Scanner.Name}, args...)
	if src.Is6() {
		args = append(args, "-6")
	}
	return lab.Nmap(s.t, s.Scanner.NS, append(args, s.host(src).String())...)
}

// openPorts are those that nmap lists as open.
func openPorts(report string) string {
	var ports []string
	for line := range strings.Lines(report) {
		if f := strings.Fields(line); len(f) >= 2 && f[1] == "open" && strings.HasSuffix(f[0], "/tcp") {
			ports = append(ports, strings.TrimSuffix(f[0], "/tcp"))
		}
	}
	return strings.Join(ports, " ")
}
