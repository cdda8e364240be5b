package listen

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

const (
	// maxTurn is how many contacts of one socket are taken before the others
	// have their turn.
	maxTurn = 64
	// pause is for how long listeners are left alone when there is no
	// descriptor to accept with.
	pause = 100 * time.Millisecond
)

// loop is what Run keeps between events.
type loop struct {
	*Traps
	handle  capture.ContactHandler
	contact capture.Contact
	data    []byte
	oob     [128]byte
	resume  time.Time // end of a pause
}

// Run hands each contact to handle until ctx ends or the traps are closed. It
// is called once at a time. Connections that are held then are cut.
func (t *Traps) Run(ctx context.Context, handle capture.ContactHandler) error {
	t.run.Lock()
	defer t.run.Unlock()
	defer t.release()
	defer context.AfterFunc(ctx, func() { _ = t.wake() })() // the loop ends anyway if it is closed
	l := &loop{Traps: t, handle: handle, data: make([]byte, 2048)}
	events := make([]unix.EpollEvent, maxTurn)
	for ctx.Err() == nil && !t.closed.Load() {
		n, err := unix.EpollWait(t.epoll, events, l.timeout(time.Now()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("trap ports: epoll: %w", err)
		}
		now := time.Now()
		for _, e := range events[:max(n, 0)] {
			if err := l.event(int(e.Fd), now); err != nil {
				return fmt.Errorf("trap ports: %w", err)
			}
		}
		l.after(now)
	}
	return nil
}

// timeout is for how long nothing needs to be done, in milliseconds as for
// epoll_wait(2): -1 for ever.
func (l *loop) timeout(now time.Time) int {
	var first time.Time
	sooner := func(t time.Time) {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	for _, h := range l.held {
		sooner(h.deadline)
	}
	if len(l.choked) > 0 {
		sooner(l.resume)
	}
	l.mu.Lock()
	if l.steering != nil {
		if next, needed := l.steering.due(); needed {
			sooner(next)
		}
	}
	l.mu.Unlock()
	if first.IsZero() {
		return -1
	}
	return int(max(first.Sub(now)+time.Millisecond-1, 0) / time.Millisecond)
}

// event deals with a descriptor that is ready. It may be one of a socket that
// SetPorts has just closed, or another one by now: nothing here blocks.
func (l *loop) event(fd int, now time.Time) error {
	if h := l.held[fd]; h != nil {
		l.progress(h, now)
		return nil
	}
	if fd == l.bellFD {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("eventfd: %w", err)
		}
		return nil
	}
	l.mu.Lock()
	s := l.sockets[fd]
	if s == nil && l.steering != nil && fd == l.steering.kernel.FD() {
		defer l.mu.Unlock()
		return l.steering.hear(now)
	}
	l.mu.Unlock()
	for range maxTurn {
		if s == nil || !l.take(s, now) {
			break
		}
	}
	return nil
}

// after does what was due by now.
func (l *loop) after(now time.Time) {
	for _, h := range l.held {
		if !now.Before(h.deadline) {
			l.cut(h)
		}
	}
	if len(l.choked) > 0 && !now.Before(l.resume) {
		l.unchoke()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.steering == nil {
		return
	}
	if next, needed := l.steering.due(); needed && !now.Before(next) {
		if err := l.steering.look(now); err != nil {
			// Ports in use stay out of the traps, so no harm is done: try again.
			l.counts.blind.Add(1)
			l.steering.told = true
		}
	}
}

// take takes one contact of s and says whether there may be more.
func (l *loop) take(s *socket, now time.Time) (more bool) {
	l.mu.Lock()
	if l.sockets[s.fd] != s {
		l.mu.Unlock()
		return false
	}
	if s.proto == unix.IPPROTO_TCP {
		fd, from, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		l.mu.Unlock()
		if err != nil {
			return l.notAccepted(s, now, err)
		}
		l.connection(fd, from, true)
		return true
	}
	n, oobn, _, from, err := unix.Recvmsg(s.fd, l.data, l.oob[:], unix.MSG_DONTWAIT)
	l.mu.Unlock()
	if err != nil {
		// Anything but EAGAIN is an ICMP error about an answer of ours.
		return !errors.Is(err, unix.EAGAIN)
	}
	l.datagram(s, l.data[:n], l.oob[:oobn], from)
	return true
}

// notAccepted deals with an error of accept(2).
func (l *loop) notAccepted(s *socket, now time.Time, err error) (more bool) {
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		l.counts.starved.Add(1)
		if l.spare >= 0 {
			// The one kept for this: who it is shall be known at least.
			return l.acceptWithSpare(s)
		}
		l.reserve()
		if l.spare >= 0 {
			return true
		}
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EINVAL):
		l.counts.starved.Add(1)
	default:
		return true // what happened to this very connection, accept(2)
	}
	l.choke(s, now)
	return false
}

func (l *loop) acceptWithSpare(s *socket) (more bool) {
	l.mu.Lock()
	if l.sockets[s.fd] != s {
		l.mu.Unlock()
		return false
	}
	unix.Close(l.spare)
	l.spare = -1
	fd, from, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	l.mu.Unlock()
	if err == nil {
		l.connection(fd, from, false)
	}
	l.reserve()
	return err == nil
}

// reserve keeps a descriptor for when there is no other.
func (t *Traps) reserve() {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		fd = -1
	}
	t.spare = fd
}

// choke leaves a listener alone for a moment: it would be ready for ever.
func (l *loop) choke(s *socket, now time.Time) {
	if len(l.choked) == 0 {
		l.resume = now.Add(pause)
	}
	if l.interest(s.fd, 0) {
		l.choked = append(l.choked, s.fd)
	}
}

func (l *loop) unchoke() {
	for _, fd := range l.choked {
		l.interest(fd, unix.EPOLLIN)
	}
	l.choked = l.choked[:0]
}

// interest changes what is waited for. False: the socket is gone.
func (t *Traps) interest(fd int, events uint32) bool {
	return unix.EpollCtl(t.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}) == nil
}

// connection is a contact by TCP. It may have been reset already: the kernel
// gives both addresses even so. Unless it may keep its descriptor, it is reset
// at once.
func (l *loop) connection(fd int, from unix.Sockaddr, keep bool) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		abort(fd)
		return
	}
	to, _ := addrPort(name)
	if !l.wanted(0, to.Port()) {
		abort(fd) // a local program that found the socket which is steered to
		return
	}
	src, ifIndex := addrPort(from)
	var banner []byte
	if l.report(unix.IPPROTO_TCP, ifIndex, src, to) {
		l.mu.Lock()
		banner = l.banner
		l.mu.Unlock()
	}
	if !keep {
		abort(fd)
		return
	}
	l.hold(fd, banner)
}

// datagram is a contact by UDP.
func (l *loop) datagram(s *socket, data, oob []byte, from unix.Sockaddr) {
	at, ok := parseArrival(oob)
	if !ok || !l.wanted(1, at.to.Port()) {
		return
	}
	src, _ := addrPort(from)
	if l.report(unix.IPPROTO_UDP, at.ifIndex, src, at.to) {
		l.answer(s, data, at, src)
	}
}

func (l *loop) wanted(row int, port uint16) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.want[row].Has(port)
}

// report hands a contact to the handler.
func (l *loop) report(proto uint8, ifIndex int32, src, dst netip.AddrPort) (banner bool) {
	l.contact = capture.Contact{Time: time.Now().UnixNano(), Proto: proto, IfIndex: ifIndex, Src: src, Dst: dst}
	l.counts.contacts.Add(1)
	return l.handle(&l.contact)
}
