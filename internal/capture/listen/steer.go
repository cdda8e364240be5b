package listen

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/config"
	"portsentry/internal/host"
)

const (
	// lookEvery is how often services that took trap ports are looked for. A
	// port is free again two looks after the last use of it, or sooner.
	lookEvery = 400 * time.Millisecond
	// maxBound is how many UDP ports within ip_local_port_range are bound. The
	// lists that PortSentry came with have up to ten.
	maxBound = 64
)

// steering keeps the table of traps in agreement with what is wanted and with
// what is served. It is guarded by Traps.mu.
type steering struct {
	kernel *bpf.Steering
	host   *host.Sockets
	to     []*socket
	want   [2]config.Bitmap
	// agreed is uses+1 for traps and 0 for others, as in the kernel's table.
	agreed, uses [2]bpf.Counts
	// taken are trap ports in use, with the uses at the last look: for a moment
	// after bind(2) a TCP socket is in no list.
	taken [2]map[uint16]uint32
	next  time.Time // next look, if one is needed
	told  bool      // by the kernel, that a trap port was taken since the last look
}

// openSteering opens the sockets that are steered to, and the kernel's side.
func (t *Traps) openSteering() (err error) {
	s := &steering{taken: [2]map[uint16]uint32{{}, {}}}
	if s.host, err = host.NewSockets(); err != nil {
		return err
	}
	to := bpf.Sockets{TCP4: -1, TCP6: -1, UDP4: -1, UDP6: -1}
	for _, k := range []struct {
		proto uint8
		v6    bool
		fd    *int
	}{
		{unix.IPPROTO_TCP, false, &to.TCP4},
		{unix.IPPROTO_TCP, true, &to.TCP6},
		{unix.IPPROTO_UDP, false, &to.UDP4},
		{unix.IPPROTO_UDP, true, &to.UDP6},
	} {
		sock, err := newSocket(k.proto, k.v6, 0)
		if k.v6 && errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return errors.Join(err, t.abandon(s))
		}
		*k.fd = sock.fd
		s.to = append(s.to, sock)
	}
	if s.kernel, err = bpf.OpenSteering(to); err != nil {
		return errors.Join(err, t.abandon(s))
	}
	for _, fd := range append(descriptors(s.to), s.kernel.FD()) {
		if err := t.listenTo(fd); err != nil {
			return errors.Join(err, s.kernel.Close(), t.abandon(s))
		}
	}
	for _, sock := range s.to {
		t.sockets[sock.fd] = sock
	}
	if s.kernel.Partial() {
		t.why = append(t.why, fmt.Sprintf("services that start outside of this container are noticed up to %v late", lookEvery))
	}
	t.steering = s
	return nil
}

func descriptors(l []*socket) (fds []int) {
	for _, s := range l {
		fds = append(fds, s.fd)
	}
	return fds
}

// abandon closes what openSteering has opened so far.
func (t *Traps) abandon(s *steering) error {
	errs := []error{s.host.Close()}
	for _, sock := range s.to {
		errs = append(errs, unix.Close(sock.fd))
	}
	return errors.Join(errs...)
}

func (s *steering) close() error { return errors.Join(s.kernel.Close(), s.host.Close()) }

// steer makes tcp and udp the traps. UDP within ip_local_port_range is not
// steered: the answers to our own queries come to ports there, and a socket
// that is not connected would lose them. So such ports are bound, if few.
func (t *Traps) steer(tcp, udp config.PortSet) error {
	local, err := t.localPorts()
	if err != nil {
		return err
	}
	outside := udp.Less(local)
	inside := udp.Less(outside)
	if inside.Count() > maxBound {
		t.problem(fmt.Sprintf("%s/udp: not watched: the host's own queries use these ports (ip_local_port_range)", inside))
		inside = nil
	}
	t.bind(nil, inside)
	t.want[1] = *slices.Concat(outside, inside).Bitmap()
	t.steering.want = [2]config.Bitmap{*tcp.Bitmap(), *outside.Bitmap()}
	return t.steering.look(time.Now())
}

// localPorts reads ip_local_port_range.
func (t *Traps) localPorts() (config.PortSet, error) {
	var b [64]byte
	n, err := t.portRange.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var r config.PortRange
	if _, err := fmt.Sscan(string(b[:n]), &r.First, &r.Last); err != nil {
		return nil, fmt.Errorf("ip_local_port_range: %w", err)
	}
	return config.PortSet{r}, nil
}

// look brings the table of traps up to date with the sockets there are.
func (s *steering) look(now time.Time) error {
	s.next, s.told = now.Add(lookEvery), false
	for p := range s.uses {
		// Before the list of sockets: what is used from now on counts as newer
		// than the list, and the kernel will not take our word for it.
		if err := s.kernel.Uses(bpf.Proto(p), &s.uses[p]); err != nil {
			return err
		}
	}
	served, err := s.served()
	if err != nil {
		return err
	}
	for p := range s.uses {
		agreed, uses, want, served := &s.agreed[p], &s.uses[p], &s.want[p], &served[p]
		for port := 1; port < 1<<16; port++ {
			// Most ports are as they should be: traps and free.
			if a := agreed[port]; a != 0 && a == uses[port]+1 && want.Has(uint16(port)) && !served.Has(uint16(port)) {
				continue
			}
			if err := s.decide(bpf.Proto(p), uint16(port), served.Has(uint16(port))); err != nil {
				return err
			}
		}
	}
	return nil
}

// decide what a port is from now on.
func (s *steering) decide(p bpf.Proto, port uint16, served bool) error {
	uses, agreed := s.uses[p][port], &s.agreed[p][port]
	free := uses + 1
	wanted := s.want[p].Has(port)
	if !wanted || served {
		if wanted {
			s.taken[p][port] = uses
		} else if len(s.taken[p]) > 0 {
			delete(s.taken[p], port)
		}
		if *agreed == 0 {
			return nil
		}
		*agreed = 0
		return s.kernel.ClearTrap(p, port)
	}
	if *agreed == free {
		return nil
	}
	if before, known := s.taken[p][port]; *agreed != 0 && !known || known && before != uses {
		s.taken[p][port] = uses // used since the last look, if not to be seen yet
		return nil
	}
	delete(s.taken[p], port)
	*agreed = free
	return s.kernel.SetTrap(p, port, uses)
}

// served are the ports that have a socket which takes new connections or
// datagrams, on any address: ours, which are steered to, apart.
func (s *steering) served() (ports [2]config.Bitmap, err error) {
	list, err := s.host.Listeners()
	if err != nil {
		return ports, err
	}
next:
	for _, l := range list {
		row := 0
		if l.Proto == unix.IPPROTO_UDP {
			row = 1
		}
		for _, our := range s.to {
			if our.proto == l.Proto && our.local.Addr() == l.Addr && our.local.Port() == l.Port {
				continue next
			}
		}
		ports[row][l.Port>>6] |= 1 << (l.Port & 63)
	}
	return ports, nil
}

// due says when the next look is needed. None is while nothing has been taken.
func (s *steering) due() (time.Time, bool) {
	return s.next, s.told || s.kernel.Partial() || len(s.taken[0])+len(s.taken[1]) > 0
}

// hear takes the kernel's word that a trap port was taken.
func (s *steering) hear(now time.Time) error {
	if _, already := s.due(); !already {
		s.next = now.Add(lookEvery)
	}
	s.told = true
	return s.kernel.Drain()
}

// ports adds those that are steered at this moment.
func (s *steering) ports(on *[2]config.Bitmap) error {
	for p := range on {
		if err := s.kernel.Uses(bpf.Proto(p), &s.uses[p]); err != nil {
			return err
		}
		for port, agreed := range s.agreed[p] {
			if agreed != 0 && agreed == s.uses[p][port]+1 {
				on[p][port>>6] |= 1 << (port & 63)
			}
		}
	}
	return nil
}
