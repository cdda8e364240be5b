package pktgen

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAnswers(t *testing.T) {
	scanner, host := pair(t)
	var l net.Listener
	err := host.NS.Do(func() (err error) {
		l, err = net.Listen("tcp", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := openTestSender(t, scanner)
	for _, a := range []struct{ src, dst netip.Addr }{
		{scanner.Addr4(), host.Addr4()}, {scanner.Addr6(), host.Addr6()},
		{netip.MustParseAddr("198.18.0.9"), host.Addr4()}, // forged: the answer comes back all the same
	} {
		sniffer, err := Sniff(t.Context(), scanner.NS, scanner.Name, 10)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		p := Packet{Src: a.src, Dst: a.dst, Proto: ProtoTCP, SrcPort: 999, DstPort: 80, Flags: SYN, Window: 1024}
		closed, gone, whole := p, p, p
		closed.DstPort = 81
		gone.Proto, gone.DstPort = ProtoUDP, 7
		whole.SrcPort, whole.FragmentSize, whole.IPID = 998, 8, 5
		if a.dst.Is6() { // Linux wants all headers in the first fragment (RFC 7112)
			whole.FragmentSize, whole.Payload = 24, make([]byte, 16)
		}
		for _, p := range []Packet{p, closed, gone, whole} {
			if err := s.SendPacket(p); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, func() bool { return len(sniffer.Answers()) >= 4 })
		answers, err := sniffer.Stop()
		if err != nil {
			t.Fatal(err)
		}
		var open, reset, unreachable int
		for _, x := range answers {
			switch {
			case x.IsSYNACK() && x.SrcPort == 80 && x.Src == a.dst && x.Dst == a.src:
				open++
			case x.IsRST() && x.SrcPort == 81 && x.DstPort == 999:
				reset++
			case x.Proto == ProtoICMP && x.Type == 3 && x.Code == 3, x.Proto == ProtoICMPv6 && x.Type == 1 && x.Code == 4:
				unreachable++
			default:
				continue // listener reports of the interface
			}
			if d := x.Time.Sub(start); d < 0 || d > 5*time.Second {
				t.Errorf("%+v came in %v after the start", x, d)
			}
		}
		if open != 2 || reset != 1 || unreachable != 1 {
			t.Errorf("from %v: %d open, %d reset, %d unreachable: %+v", a.src, open, reset, unreachable, answers)
		}
	}
}

func TestSniffIsBounded(t *testing.T) {
	scanner, host := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	sniffer, err := Sniff(ctx, host.NS, host.Name, 3)
	if err != nil {
		t.Fatal(err)
	}
	s := openTestSender(t, scanner)
	p := syn4()
	p.Dst = host.Addr4()
	if _, err := s.Flood(t.Context(), p, FloodOpts{Count: 5}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(sniffer.Answers()) == 3 })
	cancel() // reads what is left
	answers, err := sniffer.Stop()
	if len(answers) != 3 || err == nil {
		t.Errorf("%d answers and error %v", len(answers), err)
	}
}

// TestFullChecksums proves that what an ordinary socket sends arrives with its
// checksum in place.
func TestFullChecksums(t *testing.T) {
	scanner, host := pair(t)
	var fd int
	err := host.NS.Do(func() (err error) {
		fd, err = openSniff(host.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = scanner.NS.Do(func() error {
		c, err := net.Dial("udp4", "10.77.0.1:7")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 128)
	waitFor(t, func() bool {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil || n < 28 || buf[9] != ProtoUDP {
			return false
		}
		b := buf[20:n]
		if c := checksum(sum(b, sum(buf[12:20], ProtoUDP+uint32(len(b))))); c != 0 || binary.BigEndian.Uint16(b[6:]) == 0 {
			t.Errorf("UDP checksum %04x is off by %04x", binary.BigEndian.Uint16(b[6:]), c)
		}
		return true
	})
}

func FuzzParseAnswer(f *testing.F) {
	for _, p := range []Packet{syn4(), syn6(), with(syn4(), udp), with(syn6(), func(p *Packet) { p.Proto = ProtoICMPv6 })} {
		b, err := p.AppendTo(nil, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	// It never panics, and what it takes has two addresses of one family.
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parseAnswer(b); ok && (!a.Src.IsValid() || a.Src.Is4() != a.Dst.Is4()) {
			t.Errorf("%x: %+v", b, a)
		}
	})
}

// TestSendKeepsOrderAndBytes reads the frames of a list off the other end as
// they were built: whole, in fragments, with extension headers.
func TestSendKeepsOrderAndBytes(t *testing.T) {
	scanner, host := pair(t)
	s := openTestSender(t, scanner)
	var fd int
	err := host.NS.Do(func() (err error) {
		fd, err = openSniff(host.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var want [][]byte // without link headers
	var frames [][]byte
	for i := range 300 {
		p := Packet{Src: scanner.Addr4(), Dst: host.Addr4(), Proto: ProtoTCP, DstPort: uint16(i), Flags: SYN, IPID: 77}
		switch i % 3 {
		case 1:
			p.FragmentSize = 8
		case 2:
			p.Src, p.Dst, p.ExtHeaders = scanner.Addr6(), host.Addr6(), []ExtHeader{{DestOptions, 8}}
		}
		f, err := p.Frames(s.Link())
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f...)
		for _, f := range f {
			want = append(want, f[14:])
		}
	}
	if _, err := s.Send(t.Context(), frames, 50_000); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 512)
	next := 0
	waitFor(t, func() bool {
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return next == len(want)
			}
			if next < len(want) && string(buf[:n]) == string(want[next]) {
				next++
			}
		}
	})
}
