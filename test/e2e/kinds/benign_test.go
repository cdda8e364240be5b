package kinds_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/pktgen"
)

const patience = 5 * time.Second

// Ordinary programs do what scanners do too, and none is called one: neither who
// asks nor who answers.
func TestBenign(t *testing.T) {
	t.Parallel()
	near, far := netip.MustParseAddr(host4), netip.MustParseAddr("10.88.0.5")
	for _, c := range []struct {
		name string
		do   func(*stage) error // beside the scanner, in its namespace
	}{
		{"a browser", func(*stage) error {
			for range 30 {
				if err := get("http://" + host4 + "/"); err != nil {
					return err
				}
			}
			return nil
		}},
		{"a browser, IPv6", func(*stage) error {
			for range 30 {
				if err := get("http://[" + host6 + "]/"); err != nil {
					return err
				}
			}
			return nil
		}},
		{"hello and goodbye", func(*stage) error {
			for _, port := range served { // a health check
				for range 10 {
					c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(near, uint16(port))))
					if err != nil {
						return err
					}
					if err := c.Close(); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{"a service that is down", func(*stage) error {
			for range 30 {
				c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(near, 8080)))
				if err == nil {
					return errors.Join(errors.New("somebody is at a closed port"), c.Close())
				}
			}
			return nil
		}},
		{"questions", func(*stage) error {
			for i := range 40 {
				if err := ask(near, fmt.Sprint("question ", i)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"questions, and gone before the answer", func(*stage) error {
			for range 40 {
				if err := leave(near); err != nil {
					return err
				}
			}
			return nil
		}},
		{"ping", func(s *stage) error { return s.ping(near, 20) }},
		{"ping, a machine that is not there", func(s *stage) error { return s.ping(netip.MustParseAddr("10.88.0.9"), 20) }},
		{"traceroute", func(s *stage) error { return s.trace(far) }},
		{"late packets", func(s *stage) error { return s.late(near) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.settle()
			check(t, s.scanner.NS.Do(func() error { return c.do(s) }))
			scans, campaigns, notices := replay(t, s.eye.capture(s.scanner))
			if len(scans)+len(campaigns)+len(notices) > 0 {
				t.Errorf("scans %+v, campaigns %+v, notices %+v; want none", scans, campaigns, notices)
			}
		})
	}
}

// get fetches a page over a connection of its own. It stays on its thread.
func get(url string) error {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", net.JoinHostPort(r.URL.Hostname(), "80"), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if err := r.Write(c); err != nil {
		return err
	}
	page, err := io.ReadAll(c)
	if err == nil && len(page) == 0 {
		err = errors.New("an empty page")
	}
	return err
}

// ask sends a datagram from a new port and waits for the answer.
func ask(who netip.Addr, what string) error {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(who, question)))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, what); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1500))
	return err
}

// leave sends a datagram from a new port and does not wait.
func leave(who netip.Addr) error {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(who, question)))
	if err != nil {
		return err
	}
	_, err = io.WriteString(c, "never mind")
	return errors.Join(err, c.Close())
}

// ping sends echo requests; whether answers come is for others to see.
func (s *stage) ping(who netip.Addr, times int) error {
	return s.send(times, func(i int) pktgen.Packet {
		return pktgen.Packet{Src: s.scanner.Addr4(), Dst: who, Proto: pktgen.ProtoICMP, SrcPort: 77, Seq: uint32(i), DF: true, Payload: make([]byte, 56)}
	})
}

// trace does what traceroute does: three datagrams for each hop limit, each to a
// port of its own.
func (s *stage) trace(who netip.Addr) error {
	return s.send(24, func(i int) pktgen.Packet {
		return pktgen.Packet{
			Src: s.scanner.Addr4(), Dst: who, Proto: pktgen.ProtoUDP, SrcPort: 45000 + uint16(i), DstPort: 33434 + uint16(i),
			TTL: uint8(1 + i/3), IPID: uint32(3000 + i), Payload: make([]byte, 32),
		}
	})
}

// late sends the ends of connections that nobody knows any more.
func (s *stage) late(who netip.Addr) error {
	if err := get("http://" + who.String() + "/"); err != nil {
		return err
	}
	return s.send(60, func(i int) pktgen.Packet {
		return pktgen.Packet{
			Src: s.scanner.Addr4(), Dst: who, Proto: pktgen.ProtoTCP, SrcPort: 33000 + uint16(i/3), DstPort: 80,
			Flags: []uint16{pktgen.FIN | pktgen.ACK, pktgen.ACK, pktgen.RST}[i%3], Seq: 7000, Ack: 9000, Window: 501, DF: true,
			TCPOptions: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1}, // timestamps
		}
	})
}

func (s *stage) send(times int, packet func(i int) pktgen.Packet) error {
	out, err := s.scanner.Sender()
	if err != nil {
		return err
	}
	for i := range times {
		if err := out.SendPacket(packet(i)); err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return out.Close()
}
