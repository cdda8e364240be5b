package host

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A question costs about as much as this, and is asked for one port.
	questionCost = 5 * time.Microsecond
	// fewQuestions may always be asked one by one.
	fewQuestions = 8
	// questionWindow is what counts as together: two blocks of the ring.
	questionWindow = 20 * time.Millisecond
)

// listening knows which TCP ports have no listener at all, whatever the address.
// A scan of many ports, or a flood over many traps, then costs one listing a
// block of the ring and not one question a port. Where something listens on the
// port, the exact question is asked all the same.
type listening struct {
	ports  [1 << 16 / 64]uint64
	listed int64         // unix nanoseconds: holds for packets from before; 0: never listed
	cost   time.Duration // of the last listing
	asked  time.Duration // what the questions of this window cost
	began  int64         // of this window, unix nanoseconds
}

// unserved reports that nobody listened on the port of q after it was captured.
// False says nothing.
func (l *listening) unserved(s *Sockets, q *Question, now int64) bool {
	if l.listed <= q.Time {
		if now-l.began > int64(questionWindow) {
			l.began, l.asked = now, 0
		}
		l.asked += questionCost
		if l.asked <= max(fewQuestions*questionCost, l.cost) || !l.list(s, now) {
			return false
		}
	}
	port := q.Dst.Port()
	return l.ports[port>>6]&(1<<(port&63)) == 0
}

// list asks for all listeners. It reports false when that failed: then every
// port is asked about by itself.
func (l *listening) list(s *Sockets, now int64) bool {
	start := time.Now()
	clear(l.ports[:])
	err := s.diag.each(unix.IPPROTO_TCP, inListen, func(k socket) {
		l.ports[k.local.Port()>>6] |= 1 << (k.local.Port() & 63)
	})
	l.cost = time.Since(start)
	if err != nil {
		l.listed = 0
		return false
	}
	l.listed = now
	return true
}
