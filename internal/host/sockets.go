package host

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// State is what the kernel would give a packet to.
type State uint8

// States of a look-up.
const (
	NoSocket  State = iota
	Listening       // a listener, or an unconnected UDP socket
	Connected       // a connection of this very pair of ends, TIME_WAIT and half-open ones too
)

// Sockets asks the kernel which socket a packet belongs to, per packet and
// without allocation. It is not safe for concurrent use: one per worker.
type Sockets struct{ diag *diag }

// NewSockets opens the question to the kernel.
func NewSockets() (*Sockets, error) {
	d, err := newDiag(unix.IPPROTO_TCP, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("socket look-up: %w", err)
	}
	return &Sockets{d}, nil
}

// Close frees the socket.
func (s *Sockets) Close() error { return s.diag.close() }

// Fallback says in words what had to be done without, "" for nothing.
func (s *Sockets) Fallback() string {
	var missing []string
	if s.diag.proc[unix.IPPROTO_TCP] != nil {
		missing = append(missing, "tcp_diag")
	}
	if s.diag.proc[unix.IPPROTO_UDP] != nil {
		missing = append(missing, "udp_diag")
	}
	if missing == nil {
		return ""
	}
	return "the kernel has no " + strings.Join(missing, " and no ") + ": sockets are read from /proc/net, up to a second late"
}

// TCP finds the connection, or else the listener (wildcard, dual-stack, bound
// address, bound device), that takes a packet from remote to local which came
// in by interface ifindex. Both ends are of one family.
func (s *Sockets) TCP(local, remote netip.AddrPort, ifindex int32) (State, error) {
	if p := s.diag.proc[unix.IPPROTO_TCP]; p != nil {
		return p.find(local, remote)
	}
	state, err := s.diag.find(unix.IPPROTO_TCP, local, remote, ifindex)
	return conclude(state, err, unix.BPF_TCP_LISTEN)
}

// UDP finds the socket that takes a datagram from remote to local which came in
// by interface ifindex. A connected socket takes those of its remote end only.
func (s *Sockets) UDP(local, remote netip.AddrPort, ifindex int32) (State, error) {
	if p := s.diag.proc[unix.IPPROTO_UDP]; p != nil {
		return p.find(local, remote)
	}
	// Unlike for TCP, source and destination are those of the packet.
	state, err := s.diag.find(unix.IPPROTO_UDP, remote, local, ifindex)
	return conclude(state, err, unix.BPF_TCP_CLOSE)
}

func conclude(state uint8, err error, listening uint8) (State, error) {
	switch {
	case errors.Is(err, unix.ENOENT):
		return NoSocket, nil
	case err != nil:
		return NoSocket, fmt.Errorf("socket look-up: %w", err)
	case state == listening:
		return Listening, nil
	}
	return Connected, nil
}

// Listener is a TCP listener or an unconnected UDP socket with a port.
type Listener struct {
	Proto   uint8 // IANA: 6 or 17
	Addr    netip.Addr
	Port    uint16
	Process string // name of the owner, filled in by Owners
	inode   uint32
}

// Listeners lists what is served, by protocol, port and address. Our own trap
// sockets serve nobody.
func (s *Sockets) Listeners() ([]Listener, error) {
	var l []Listener
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		states := uint32(inListen)
		if proto == unix.IPPROTO_UDP {
			states = inClose
		}
		err := s.diag.each(proto, states, func(k socket) {
			if k.local.Port() != 0 && k.remote.Port() == 0 && !k.trap {
				l = append(l, Listener{Proto: proto, Addr: k.local.Addr(), Port: k.local.Port(), inode: k.inode})
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(l, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), a.Addr.Compare(b.Addr))
	})
	// Several sockets may share a port (SO_REUSEPORT): one line for them.
	return slices.CompactFunc(l, func(a, b Listener) bool {
		return a.Proto == b.Proto && a.Port == b.Port && a.Addr == b.Addr
	}), nil
}

// Owners fills in the names of the processes that hold the listeners, as far as
// we may see them. It looks through /proc/*/fd: for messages to people only.
func Owners(l []Listener) {
	byLink := make(map[string][]*Listener, len(l))
	for i := range l {
		link := "socket:[" + strconv.FormatUint(uint64(l[i].inode), 10) + "]"
		byLink[link] = append(byLink[link], &l[i])
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return
	}
	for _, dir := range processes {
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue // gone, or not ours to see
		}
		for _, fd := range fds {
			link, err := os.Readlink(dir + "/fd/" + fd.Name())
			if err != nil || byLink[link] == nil {
				continue
			}
			name, err := os.ReadFile(dir + "/comm")
			if err != nil {
				break
			}
			for _, k := range byLink[link] {
				k.Process = printable(string(name))
			}
			delete(byLink, link)
		}
		if len(byLink) == 0 {
			return
		}
	}
}

// printable keeps a name that a program gave itself from writing to terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
