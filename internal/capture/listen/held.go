package listen

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxHeld    = 256 // connections that are being sent the banner, or are hanging up
	sendTime   = 2 * time.Second
	hangUpTime = time.Second
	// silentTime is how long a connection lasts that gets nothing. It is reset
	// in the end, and a reset that overtook the peer's connect(2) would look to
	// him like a closed port.
	silentTime = 100 * time.Millisecond
	maxDrained = 16 << 10 // bytes that a peer may send us before he is cut
)

// held is a connection that gets the banner: written, then closed for writing,
// then read until the peer hangs up, as a close with unread data would be a
// reset and might take the banner back. Or it gets nothing, and is reset soon.
type held struct {
	fd       int
	rest     []byte // of the banner
	drained  int
	deadline time.Time
}

// hold keeps a connection until it has what it gets. Without a banner we never
// hang up first, so no TIME_WAIT is left, which would keep a service that does
// not set SO_REUSEADDR from binding the port.
func (l *loop) hold(fd int, banner []byte) {
	if len(l.held) >= maxHeld {
		l.counts.refused.Add(1)
		abort(fd)
		return
	}
	if err := l.listenTo(fd); err != nil {
		if len(banner) > 0 {
			l.counts.failed.Add(1)
		}
		abort(fd)
		return
	}
	now := time.Now()
	h := &held{fd: fd, rest: banner, deadline: now.Add(silentTime)}
	l.held[fd] = h
	if len(banner) > 0 {
		h.deadline = now.Add(sendTime)
		l.send(h, now)
	}
}

// progress is called when the peer has sent something, or made room.
func (l *loop) progress(h *held, now time.Time) {
	if len(h.rest) > 0 && !l.send(h, now) {
		return
	}
	for {
		n, err := unix.Read(h.fd, l.data)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil:
			l.drop(h, abort)
			return
		case n == 0 && len(h.rest) == 0: // he has hung up
			l.drop(h, closeFD)
			return
		case n == 0: // he has not, but will send nothing more
			l.interest(h.fd, unix.EPOLLOUT)
			return
		default:
			if h.drained += n; h.drained > maxDrained {
				l.cut(h)
				return
			}
		}
	}
}

// send writes what the peer has room for. False: the connection is gone.
func (l *loop) send(h *held, now time.Time) bool {
	for len(h.rest) > 0 {
		n, err := unix.SendmsgN(h.fd, h.rest, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			l.interest(h.fd, unix.EPOLLIN|unix.EPOLLOUT)
			return true
		case err != nil:
			if !ended(err) {
				l.counts.failed.Add(1)
			}
			l.drop(h, abort)
			return false
		}
		h.rest = h.rest[max(n, 0):]
	}
	l.counts.banners.Add(1)
	h.deadline = now.Add(hangUpTime)
	if err := unix.Shutdown(h.fd, unix.SHUT_WR); err != nil {
		l.drop(h, abort)
		return false
	}
	l.interest(h.fd, unix.EPOLLIN)
	return true
}

// ended reports that err is the end of the connection: the peer reset it or is
// gone, or somebody here had the kernel destroy it.
func ended(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) ||
		errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.ECONNABORTED)
}

// cut ends a connection whose peer takes too much or too long, or whose time
// has come.
func (l *loop) cut(h *held) {
	if len(h.rest) > 0 {
		l.counts.cut.Add(1)
	}
	l.drop(h, abort)
}

func (l *loop) drop(h *held, end func(fd int)) {
	delete(l.held, h.fd)
	end(h.fd)
}

// release cuts all that are held when Run ends.
func (t *Traps) release() {
	for _, h := range t.held {
		abort(h.fd)
	}
	clear(t.held)
}

// abort closes a connection by a reset.
func abort(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // it is closed in any case
	closeFD(fd)
}

func closeFD(fd int) { _ = unix.Close(fd) } // there is no more to a socket that had nothing to write
