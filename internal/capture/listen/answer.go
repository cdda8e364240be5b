package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxAnswers is how many banners are sent by UDP in a second, to all
	// together: the source of a datagram is easily forged, and we shall not be
	// the one who floods it.
	maxAnswers = 20
	// maxAnswer keeps banner and headers within the least MTU of IPv6.
	maxAnswer = 1280 - 48
	// firstClient is the first port that clients send from. Below are servers,
	// and the reflectors among them would answer our answer.
	firstClient = 1024
)

// answerer sends datagrams from the very address and port that was probed. A
// raw socket does it without binding the port: a bind could fail, or for that
// moment keep a service from its port.
type answerer struct {
	raw4, raw6 int // -1: none
	packet     []byte
	second     int64 // unix
	sent       int   // in that second
}

// open opens the raw sockets and says what is missing.
func (a *answerer) open() (problems []string) {
	for _, s := range []struct {
		fd     *int
		family int
		word   string
	}{{&a.raw4, unix.AF_INET, "IPv4"}, {&a.raw6, unix.AF_INET6, "IPv6"}} {
		if *s.fd >= 0 {
			continue
		}
		// IPPROTO_RAW: we write the IP header, and receive nothing.
		fd, err := unix.Socket(s.family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		switch {
		case err == nil:
			*s.fd = fd
		case errors.Is(err, unix.EAFNOSUPPORT):
		default:
			problems = append(problems, fmt.Sprintf("no banner by UDP over %s: raw socket: %v (CAP_NET_RAW)", s.word, err))
		}
	}
	return problems
}

// answer sends the banner by UDP, unless that could harm somebody.
func (l *loop) answer(s *socket, data []byte, at arrival, to netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	banner := l.banner
	if len(banner) == 0 {
		return
	}
	switch {
	case !at.unicast,
		to.Port() < firstClient,
		l.want[1].Has(to.Port()), // a trap like us may be there
		bytes.Contains(data, banner),
		!l.answers.allow(time.Now()):
		l.counts.withheld.Add(1)
		return
	}
	banner = banner[:min(len(banner), maxAnswer)]
	var err error
	if s.port != 0 && l.sockets[s.fd] == s {
		err = unix.Sendmsg(s.fd, banner, fromAddr(at.to.Addr()), sockaddr(to, at.ifIndex), unix.MSG_DONTWAIT)
	} else {
		err = l.answers.send(banner, at, to)
	}
	if err != nil {
		l.counts.failed.Add(1)
		return
	}
	l.counts.banners.Add(1)
}

func (a *answerer) allow(now time.Time) bool {
	if s := now.Unix(); s != a.second {
		a.second, a.sent = s, 0
	}
	a.sent++
	return a.sent <= maxAnswers
}

// send builds and sends a datagram. The kernel fills in identification and
// header checksum of IPv4, raw(7).
func (a *answerer) send(data []byte, at arrival, to netip.AddrPort) error {
	size := 8 + len(data)
	fd, src, dst := a.raw6, at.to.Addr(), to.Addr()
	p := a.packet[:0]
	if src.Is4() {
		fd = a.raw4
		p = append(p, 0x45, 0)
		p = binary.BigEndian.AppendUint16(p, uint16(20+size))
		p = append(p, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0) // RFC 791
	} else {
		p = append(p, 0x60, 0, 0, 0)
		p = binary.BigEndian.AppendUint16(p, uint16(size))
		p = append(p, unix.IPPROTO_UDP, 64) // RFC 8200
	}
	if fd < 0 {
		return unix.EAFNOSUPPORT
	}
	p = append(append(p, src.AsSlice()...), dst.AsSlice()...)
	head := len(p)
	p = binary.BigEndian.AppendUint16(p, at.to.Port())
	p = binary.BigEndian.AppendUint16(p, to.Port())
	p = binary.BigEndian.AppendUint16(p, uint16(size))
	p = append(append(p, 0, 0), data...)
	binary.BigEndian.PutUint16(p[head+6:], checksum(src, dst, p[head:]))
	a.packet = p
	return unix.Sendmsg(fd, p, fromAddr(src), sockaddr(netip.AddrPortFrom(dst, 0), at.ifIndex), unix.MSG_DONTWAIT)
}

// checksum is that of a UDP datagram with its pseudo-header, RFC 768 and RFC
// 8200 section 8.1: for IPv4 and IPv6 the same sum.
func checksum(src, dst netip.Addr, datagram []byte) uint16 {
	sum := uint32(unix.IPPROTO_UDP) + uint32(len(datagram))
	for _, b := range [][]byte{src.AsSlice(), dst.AsSlice(), datagram} {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	if ^uint16(sum) == 0 {
		return 0xffff // zero would mean none
	}
	return ^uint16(sum)
}

// fromAddr is the control message that makes the kernel send from an address.
func fromAddr(a netip.Addr) []byte {
	if a.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
}

// sockaddr is a for the kernel. Link-local addresses need an interface.
func sockaddr(a netip.AddrPort, ifIndex int32) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	s := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if a.Addr().IsLinkLocalUnicast() {
		s.ZoneId = uint32(ifIndex)
	}
	return s
}
