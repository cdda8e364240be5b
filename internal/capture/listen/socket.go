package listen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"portsentry/internal/host"
)

// socket is a TCP listener or a UDP socket of ours.
type socket struct {
	fd    int
	proto uint8 // IANA: 6 or 17
	v6    bool
	port  uint16         // the trap port it is bound to; 0: what is steered comes here
	local netip.AddrPort // where it is bound if port is 0
}

// row is the place of the protocol in tables of two, as bpf.Proto.
func (s *socket) row() int {
	if s.proto == unix.IPPROTO_UDP {
		return 1
	}
	return 0
}

// newSocket opens a socket on every address and port, or, if port is 0, on
// loopback with a port that the kernel picks: what is steered to it needs no
// more.
func newSocket(proto uint8, v6 bool, port uint16) (*socket, error) {
	s := &socket{proto: proto, v6: v6, port: port}
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if v6 {
		family = unix.AF_INET6
	}
	if proto == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	// By protocol number, so never MPTCP, which cannot be steered to.
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	s.fd = fd
	if err := s.prepare(); err != nil {
		closeFD(fd)
		return nil, err
	}
	return s, nil
}

type option struct{ level, name int }

// options are those to be switched on.
func (s *socket) options() []option {
	on := []option{{unix.IPPROTO_IP, unix.IP_FREEBIND}} // loopback may be down
	if s.v6 {
		on = []option{{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, {unix.IPPROTO_IPV6, unix.IPV6_FREEBIND}}
	}
	switch {
	case s.proto == unix.IPPROTO_TCP:
		// Connections inherit it: a service can bind their port while they last.
		return append(on, option{unix.SOL_SOCKET, unix.SO_REUSEADDR})
	case s.v6:
		return append(on, option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, option{unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR})
	}
	return append(on, option{unix.IPPROTO_IP, unix.IP_PKTINFO}, option{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR})
}

func (s *socket) prepare() error {
	for _, o := range s.options() {
		if err := unix.SetsockoptInt(s.fd, o.level, o.name, 1); err != nil {
			return fmt.Errorf("socket option: %w", err)
		}
	}
	// Whoever asks the kernel who listens is told that it is us. Without the
	// privilege nobody could be told.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_MARK, host.TrapMark); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("socket mark: %w", err)
	}
	var at unix.Sockaddr
	switch steered := s.port == 0; {
	case s.v6 && steered:
		at = &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}
	case s.v6:
		at = &unix.SockaddrInet6{Port: int(s.port)}
	case steered:
		at = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	default:
		at = &unix.SockaddrInet4{Port: int(s.port)}
	}
	if err := unix.Bind(s.fd, at); err != nil {
		return err
	}
	if s.proto == unix.IPPROTO_TCP {
		// The kernel lowers the number to net.core.somaxconn.
		if err := unix.Listen(s.fd, 1<<16-1); err != nil {
			return err
		}
		// No Fast Open, which listen(2) switches on where tcp_fastopen says so for
		// every listener: without a cookie (RFC 7413 section 5) a SYN is a connection,
		// and anybody can forge one.
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 0); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return fmt.Errorf("socket option: %w", err)
		}
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	s.local, _ = addrPort(name)
	return nil
}

// drops is what the kernel has thrown away: for UDP what found the buffer full,
// for TCP any segment that did not lead to a connection.
func (s *socket) drops() uint64 {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0 // before Linux 4.12
	}
	return uint64(info[unix.SK_MEMINFO_DROPS])
}

// arrival is where a datagram came to.
type arrival struct {
	to      netip.AddrPort // as it says in the datagram, not where the socket is bound
	ifIndex int32
	unicast bool // to is an address of this host alone
}

// parseArrival reads the control messages of a datagram: linux/in.h struct
// in_pktinfo {interface, local address, address in the header}, linux/ipv6.h
// struct in6_pktinfo {address, interface}, and the socket addresses of
// IP_ORIGDSTADDR {family, port be16, address} and IPV6_ORIGDSTADDR {family,
// port be16, flow, address}.
func parseArrival(oob []byte) (a arrival, ok bool) {
	var local netip.Addr
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return arrival{}, false
		}
		oob = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= 12:
			a.ifIndex = int32(binary.NativeEndian.Uint32(data))
			local = netip.AddrFrom4([4]byte(data[4:]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 20:
			local = netip.AddrFrom16([16]byte(data))
			a.ifIndex = int32(binary.NativeEndian.Uint32(data[16:]))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_ORIGDSTADDR && len(data) >= 8:
			a.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[4:])), binary.BigEndian.Uint16(data[2:]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_ORIGDSTADDR && len(data) >= 24:
			a.to = netip.AddrPortFrom(netip.AddrFrom16([16]byte(data[8:])), binary.BigEndian.Uint16(data[2:]))
		}
	}
	// For a broadcast the kernel's choice of a local address is another one.
	a.unicast = a.to.IsValid() && local == a.to.Addr() && !local.IsMulticast()
	return a, a.to.IsValid()
}
