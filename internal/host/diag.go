package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// sock_diag(7), linux/inet_diag.h. A request is struct inet_diag_req_v2 {family
// u8, protocol u8, extensions u8, pad, states u32, socket id}; a socket id is
// {source port be16, destination port be16, source [16], destination [16],
// interface u32, cookie [2]u32}; an answer is struct inet_diag_msg {family u8,
// state u8, timer u8, retransmits u8, socket id, expires, rqueue, wqueue, uid,
// inode u32 each}.
const (
	diagRequestSize = 56
	diagAnswerSize  = 72

	reqFamily = unix.SizeofNlMsghdr
	reqProto  = reqFamily + 1
	reqStates = reqFamily + 4
	reqID     = reqFamily + 8 // the socket id
	idSport   = 0
	idDport   = 2
	idSrc     = 4
	idDst     = 20
	idIf      = 36
	idCookie  = 40
	ansID     = 4
	ansInode  = 68
)

// Bits of the states field: TCP states by number, net/tcp_states.h. UDP sockets
// are established when connected, closed otherwise.
const (
	inEstablished = 1 << unix.BPF_TCP_ESTABLISHED
	inClose       = 1 << unix.BPF_TCP_CLOSE
	inListen      = 1 << unix.BPF_TCP_LISTEN
	// afterHandshake are the states that only a completed handshake leads to.
	afterHandshake = inEstablished | 1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 | 1<<unix.BPF_TCP_TIME_WAIT |
		1<<unix.BPF_TCP_CLOSE_WAIT | 1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING
)

// socket is one entry of a list of sockets. Addresses of dual-stack sockets are
// unmapped when they are IPv4.
type socket struct {
	state         uint8
	ifindex       int32 // bound device, 0 for none
	local, remote netip.AddrPort
	inode         uint32
	trap          bool // one of our trap sockets; /proc/net does not tell
}

// diag asks the kernel about its sockets; where it cannot be asked, it reads
// the lists in /proc/net.
type diag struct {
	conn *conn
	req  []byte
	proc map[uint8]*procNet // protocols to be read from /proc/net
}

func newDiag(protocols ...uint8) (*diag, error) {
	d := &diag{
		req:  newRequest(unix.SOCK_DIAG_BY_FAMILY, 0, diagRequestSize),
		proc: make(map[uint8]*procNet),
	}
	c, err := dial(unix.NETLINK_SOCK_DIAG)
	if err != nil && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, err
	}
	d.conn = c
	for _, p := range protocols {
		// A look-up says ENOENT both for "no such socket" and for "no such
		// module". A list, of no state at all, tells them apart.
		if c != nil && d.list(p, unix.AF_INET, 0, nil) == nil {
			continue
		}
		if err := d.useProc(p); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

func (d *diag) useProc(proto uint8) (err error) {
	d.proc[proto], err = openProcNet(proto)
	return err
}

func (d *diag) close() error {
	var errs []error
	if d.conn != nil {
		errs = append(errs, d.conn.close())
	}
	for _, p := range d.proc {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// prepare fills in the part that all requests have.
func (d *diag) prepare(proto, family uint8, flags uint16, states uint32) {
	native.PutUint16(d.req[6:], unix.NLM_F_REQUEST|flags)
	clear(d.req[reqFamily:])
	d.req[reqFamily], d.req[reqProto] = family, proto
	native.PutUint32(d.req[reqStates:], states)
}

// find asks for the one socket that a packet from src to dst, arriving by
// ifindex, would be given to, and returns its state. ENOENT: there is none.
// (What is source and what destination is the caller's to know.)
func (d *diag) find(proto uint8, src, dst netip.AddrPort, ifindex int32) (uint8, error) {
	id := d.req[reqID:]
	if src.Addr().Is4() {
		d.prepare(proto, unix.AF_INET, 0, 0xffffffff)
		s, t := src.Addr().As4(), dst.Addr().As4()
		copy(id[idSrc:], s[:])
		copy(id[idDst:], t[:])
	} else {
		d.prepare(proto, unix.AF_INET6, 0, 0xffffffff)
		s, t := src.Addr().As16(), dst.Addr().As16()
		copy(id[idSrc:], s[:])
		copy(id[idDst:], t[:])
	}
	binary.BigEndian.PutUint16(id[idSport:], src.Port())
	binary.BigEndian.PutUint16(id[idDport:], dst.Port())
	native.PutUint32(id[idIf:], uint32(ifindex))
	native.PutUint64(id[idCookie:], ^uint64(0)) // INET_DIAG_NOCOOKIE: any
	body, err := d.conn.exact(d.req)
	if err != nil {
		return 0, err
	}
	if len(body) < diagAnswerSize {
		return 0, unix.EBADMSG
	}
	return body[1], nil
}

// list hands every socket of one protocol and family in one of states to each.
func (d *diag) list(proto, family uint8, states uint32, each func(socket)) error {
	d.prepare(proto, family, unix.NLM_F_DUMP, states)
	return d.conn.dump(d.req, func(_ uint16, b []byte) {
		if s, ok := parseSocket(b); ok {
			each(s)
		}
	})
}

// each hands every socket of a protocol in one of states to f.
func (d *diag) each(proto uint8, states uint32, f func(socket)) error {
	if p := d.proc[proto]; p != nil {
		return p.each(states, f)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := d.list(proto, family, states, f)
		// ENOENT: the kernel has no IPv6.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, errInterrupted) {
			return fmt.Errorf("list sockets: %w", err)
		}
	}
	return nil
}

func parseSocket(b []byte) (s socket, ok bool) {
	if len(b) < diagAnswerSize {
		return s, false
	}
	id := b[ansID:]
	var local, remote netip.Addr
	switch b[0] {
	case unix.AF_INET:
		local, remote = netip.AddrFrom4([4]byte(id[idSrc:])), netip.AddrFrom4([4]byte(id[idDst:]))
	case unix.AF_INET6:
		local, remote = netip.AddrFrom16([16]byte(id[idSrc:])).Unmap(), netip.AddrFrom16([16]byte(id[idDst:])).Unmap()
	default:
		return s, false
	}
	return socket{
		state:   b[1],
		ifindex: int32(native.Uint32(id[idIf:])),
		local:   netip.AddrPortFrom(local, binary.BigEndian.Uint16(id[idSport:])),
		remote:  netip.AddrPortFrom(remote, binary.BigEndian.Uint16(id[idDport:])),
		inode:   native.Uint32(b[ansInode:]),
		trap:    isTrap(b),
	}, true
}

// openNet opens a file of the calling thread's network namespace. The open file
// stays with that namespace.
func openNet(name string) (*os.File, error) {
	return os.Open("/proc/thread-self/net/" + name)
}
