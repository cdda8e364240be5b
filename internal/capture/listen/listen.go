// Package listen is connect mode: trap ports that accept. What goes in: sets of
// ports. What comes out: a Contact for each connection and each datagram that
// reaches one of them, and a banner for those that are to get it.
//
// Any number of ports needs one socket per protocol and family: the kernel
// steers to it (internal/bpf) until a service binds the port, and again within
// a second after the service has gone. Where it cannot, every port is bound.
//
// One goroutine, that of Run, waits for all sockets in one epoll set. It also
// calls the handler, so contacts come one at a time without a queue of ours to
// overflow: what the handler is too slow for waits in the kernel's accept queue
// and socket buffers, and what these have no room for is in Stats.Lost.
package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

// Config says what to listen on.
type Config struct {
	TCP, UDP config.PortSet
	Banner   []byte // sent as it is; nothing when empty

	bindAll bool // for tests: as if the kernel could not steer
}

// Traps are open trap ports.
type Traps struct {
	epoll     int
	bell      *os.File // an eventfd in the epoll set
	bellFD    int
	spare     int      // given up for a moment when descriptors run out; -1: it could not be had again
	portRange *os.File // ip_local_port_range, of our network namespace
	netstat   *os.File // counters of our network namespace
	answers   answerer
	counts    counters

	run    sync.Mutex // held while Run runs, and by Close
	closed atomic.Bool
	held   map[int]*held // of Run, by descriptor
	choked []int         // of Run: listeners left alone for want of descriptors

	// mu guards the rest. It is never held while the handler runs.
	mu       sync.Mutex
	sockets  map[int]*socket // by descriptor
	steering *steering       // nil: every port is bound
	want     [2]config.Bitmap
	banner   []byte
	why      []string // why it is not steered, or not all of it
	problems []string
	losses   losses
}

// Stats are counters since Open. A banner is in one of Banners, Cut, Failed,
// Refused and Withheld at most: in none if the peer reset the connection before
// he had it, or if there was no descriptor to keep the connection with.
type Stats struct {
	Contacts uint64 // handed to the handler
	// Lost is what the handler was too slow for, at most: datagrams that found
	// the buffer full, and times that a TCP contact found the accept queue full.
	// The peer tries again, so one contact may count more than once.
	Lost     uint64
	Banners  uint64 // given to the kernel whole, whatever the peer does then
	Cut      uint64 // TCP: we ended it before the banner was whole, as the peer read too slowly or sent too much
	Failed   uint64 // banners that an error on our side kept from being sent
	Refused  uint64 // TCP: reset at once, too many connections were being held
	Withheld uint64 // UDP: no banner, for its rate or because it could start a loop
	Starved  uint64 // times that there was no descriptor left for a connection
	Blind    uint64 // times that the sockets of the host could not be listed: services that have ended keep their ports
}

type counters struct {
	contacts, banners, refused, withheld, cut, starved, failed, blind atomic.Uint64
}

// Open opens the traps in the network namespace of the calling thread. What
// could not be opened is in Problems; it is an error only if it is everything.
func Open(c Config) (*Traps, error) {
	t := &Traps{
		epoll: -1, spare: -1,
		answers: answerer{raw4: -1, raw6: -1},
		sockets: make(map[int]*socket),
		held:    make(map[int]*held),
	}
	if err := t.open(c); err != nil {
		return nil, errors.Join(fmt.Errorf("trap ports: %w", err), t.Close())
	}
	return t, nil
}

func (t *Traps) open(c Config) (err error) {
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if t.bellFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	t.bell = os.NewFile(uintptr(t.bellFD), "eventfd") // a File may be written to while it is closed
	if err = t.listenTo(t.bellFD); err != nil {
		return err
	}
	t.reserve()
	if t.portRange, err = os.Open("/proc/sys/net/ipv4/ip_local_port_range"); err != nil {
		return err
	}
	if t.netstat, err = os.Open("/proc/thread-self/net/netstat"); err != nil {
		return err
	}
	if t.losses.first, err = t.overflows(); err != nil {
		return err
	}
	if c.bindAll {
		t.why = []string{"every port is bound, as asked"}
	} else if err := t.openSteering(); err != nil {
		t.why = []string{fmt.Sprintf("every port is bound, as the kernel does not steer: %v", err)}
	}
	return t.set(c.TCP, c.UDP, c.Banner)
}

// SetPorts changes what is watched. Ports that stay are not interrupted, and
// neither are connections that are being held. It may be called while Run runs,
// but not by its handler, and needs to be called in the network namespace of
// the traps. On error some of the change may have been made.
func (t *Traps) SetPorts(tcp, udp config.PortSet, banner []byte) error {
	if t.closed.Load() {
		return fmt.Errorf("trap ports: %w", os.ErrClosed)
	}
	if err := t.set(tcp, udp, banner); err != nil {
		return fmt.Errorf("trap ports: %w", err)
	}
	return t.wake() // there may be something to look after now
}

func (t *Traps) set(tcp, udp config.PortSet, banner []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.banner = slices.Clone(banner)
	t.problems = slices.Clone(t.why)
	t.want = [2]config.Bitmap{*tcp.Bitmap(), *udp.Bitmap()}
	if t.steering == nil {
		t.bind(tcp, udp)
	} else if err := t.steer(tcp, udp); err != nil {
		return err
	}
	if len(banner) > 0 && len(udp) > 0 && t.steering != nil {
		t.problem(t.answers.open()...)
	}
	if len(t.sockets) == 0 && tcp.Count()+udp.Count() > 0 {
		return fmt.Errorf("none could be opened: %s", strings.Join(t.problems[len(t.why):], "; "))
	}
	return nil
}

// Method is "sk_lookup" or "bind".
func (t *Traps) Method() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.steering == nil {
		return "bind"
	}
	return "sk_lookup"
}

// maxProblems bounds the list for a person to read.
const maxProblems = 32

// Problems says in words what is not as it was asked for, at most maxProblems
// lines and one that counts the others.
func (t *Traps) Problems() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.problems); n > maxProblems {
		return append(slices.Clone(t.problems[:maxProblems]), fmt.Sprintf("and %d more like these", n-maxProblems))
	}
	return slices.Clone(t.problems)
}

func (t *Traps) problem(lines ...string) { t.problems = append(t.problems, lines...) }

// Ports gives what is watched at this moment: not what services have taken.
func (t *Traps) Ports() (tcp, udp config.PortSet, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	on := t.bound()
	if t.steering != nil {
		if err = t.steering.ports(&on); err != nil {
			return nil, nil, fmt.Errorf("trap ports: %w", err)
		}
	}
	return ranges(on[0].Has), ranges(on[1].Has), nil
}

// ranges is the set of the ports that are in.
func ranges(in func(uint16) bool) config.PortSet {
	var s config.PortSet
	for p := 1; p < 1<<16; p++ {
		switch n := len(s); {
		case !in(uint16(p)):
		case n > 0 && int(s[n-1].Last) == p-1:
			s[n-1].Last++
		default:
			s = append(s, config.PortRange{First: uint16(p), Last: uint16(p)})
		}
	}
	return s
}

// Stats may be called at any time.
func (t *Traps) Stats() Stats {
	t.mu.Lock()
	lost := t.lost()
	t.mu.Unlock()
	c := &t.counts
	return Stats{
		Contacts: c.contacts.Load(), Lost: lost, Banners: c.banners.Load(), Refused: c.refused.Load(),
		Withheld: c.withheld.Load(), Cut: c.cut.Load(), Starved: c.starved.Load(), Failed: c.failed.Load(), Blind: c.blind.Load(),
	}
}

// Close ends Run if it runs, gives the ports back and closes everything.
func (t *Traps) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	var errs []error
	if t.bell != nil {
		errs = append(errs, t.wake())
	}
	t.run.Lock()
	defer t.run.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.steering != nil {
		errs = append(errs, t.steering.close())
	}
	t.lost() // for Stats after this
	for fd, s := range t.sockets {
		errs = append(errs, t.discard(fd, s))
	}
	for _, f := range []*os.File{t.portRange, t.netstat, t.bell} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	for _, fd := range []int{t.answers.raw4, t.answers.raw6, t.spare, t.epoll} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// listenTo puts a descriptor into the epoll set.
func (t *Traps) listenTo(fd int) error {
	if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// wake makes Run look round.
func (t *Traps) wake() error {
	one := [8]byte{3: 1, 4: 1} // a number small enough in either byte order
	if _, err := t.bell.Write(one[:]); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	return nil
}

// addrPort takes the zone out: it is the interface, which a Contact has apart.
func addrPort(sa unix.Sockaddr) (netip.AddrPort, int32) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), 0
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), int32(sa.ZoneId)
	}
	return netip.AddrPort{}, 0
}
