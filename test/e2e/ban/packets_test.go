package ban_test

import (
	"errors"
	"fmt"
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
	"portsentry/test/harness"
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

func (s *stage) udp(src netip.Addr, sport, dport uint16) pktgen.Packet {
	return pktgen.Packet{
		Src: src, Dst: s.host(src), Proto: pktgen.ProtoUDP,
		SrcPort: sport, DstPort: dport, Payload: []byte("hello"),
	}
}

// forge sends packets, one right behind the other.
func (s *stage) forge(packets ...pktgen.Packet) {
	s.t.Helper()
	var frames [][]byte
	for i := range packets {
		f, err := packets[i].Frames(s.send.Link())
		check(s.t, err)
		frames = append(frames, f...)
	}
	_, err := s.send.Send(s.t.Context(), frames, 0)
	check(s.t, err)
}

// Marks: sources that are ignored, whose lines say that everything sent before
// them was seen. There are so many because workers share sources out.
const marks = 16

// isMark tells the scan line of a mark: nobody else has an address like these.
func isMark(line string) bool { return strings.HasPrefix(line, harness.ScanPrefix+"192.0.2.2") }

func (s *stage) mark(i int) netip.Addr { return nth(ignored, 200+i) }

// seen waits until the daemon has dealt with everything that was sent so far.
func (s *stage) seen(d *daemon) {
	s.t.Helper()
	count := func() (n int) {
		for i := range marks {
			n += len(d.from(s.mark(i)))
		}
		return n
	}
	want := count() + marks
	for i := range marks {
		s.forge(s.tcp(s.mark(i), 40000, trap, pktgen.SYN))
	}
	lab.Wait(s.t, soon, "the lines of the marks", func() bool { return count() >= want })
}

// sniffer collects what the host sends to the scanner.
type sniffer struct {
	*pktgen.Sniffer
	s *stage
}

func (s *stage) sniff() *sniffer {
	s.t.Helper()
	sn, err := pktgen.Sniff(s.t.Context(), s.Scanner.NS, s.Scanner.Name, 1<<20)
	check(s.t, err)
	return &sniffer{sn, s}
}

// stop gives all that the host has answered to what was sent so far: the answer
// to an honest client comes last.
func (sn *sniffer) stop() []pktgen.Answer {
	s := sn.s
	s.t.Helper()
	last := nth(ignored, 199)
	s.forge(s.tcp(last, 40000, served[0], pktgen.SYN))
	lab.Wait(s.t, soon, "the answer to an honest client", func() bool {
		return slices.ContainsFunc(sn.Answers(), func(a pktgen.Answer) bool { return a.Dst == last && a.IsSYNACK() })
	})
	all, err := sn.Stop()
	check(s.t, err)
	return all
}

// answersTo are the TCP and ICMP answers that went to a.
func answersTo(all []pktgen.Answer, a netip.Addr) (to []pktgen.Answer) {
	for _, x := range all {
		discovery := x.Proto == pktgen.ProtoICMPv6 && x.Type >= 133 && x.Type <= 137
		if x.Dst == a && !discovery {
			to = append(to, x)
		}
	}
	return to
}

// answered sends packets of one source and gives the answers to them.
func (s *stage) answered(packets ...pktgen.Packet) []pktgen.Answer {
	s.t.Helper()
	sn := s.sniff()
	s.forge(packets...)
	return slices.DeleteFunc(answersTo(sn.stop(), packets[0].Src), func(a pktgen.Answer) bool {
		return a.Proto == pktgen.ProtoTCP && !slices.ContainsFunc(packets, func(p pktgen.Packet) bool {
			return p.DstPort == a.SrcPort && p.SrcPort == a.DstPort
		})
	})
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
func (s *stage) dial(src netip.Addr, port uint16, limit time.Duration) (net.Conn, time.Duration, error) {
	return s.dialTo(src, netip.AddrPortFrom(s.host(src), port), limit)
}

func (s *stage) dialTo(src netip.Addr, dst netip.AddrPort, limit time.Duration) (c net.Conn, took time.Duration, err error) {
	err = s.Scanner.NS.Do(func() (err error) {
		dialer := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: src.AsSlice()}}
		start := time.Now()
		c, err = dialer.DialContext(s.t.Context(), "tcp", dst.String())
		took = time.Since(start)
		return err
	})
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, took, err
}

// open does so and ends the test when it fails.
func (s *stage) open(src netip.Addr, port uint16) net.Conn {
	s.t.Helper()
	c, _, err := s.dial(src, port, soon)
	check(s.t, err)
	return c
}

// echo sends data over c and reads it back.
func echo(c net.Conn, size int) error {
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		return err
	}
	data := []byte(strings.Repeat("0123456789abcdef", size/16))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("the connection does not go on: %w", err)
	}
	if string(got) != string(data) {
		return fmt.Errorf("what came back is not what was sent")
	}
	return <-sent
}

// reuse lets one local port serve one connection after the other.
func reuse(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(err, failed)
}
