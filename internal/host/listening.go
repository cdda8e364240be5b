package host

import (
	"time"

	"golang.org/x/sys/unix"
)

// TrapMark is the SO_MARK of our trap sockets, which says that a socket is no
// service: to sock_diag, which tells it whoever has CAP_NET_ADMIN, and to the
// firewall. Connections inherit it from their listener, and a socket that
// sk_lookup steers to has it like any other. Its bits are none of those that
// container networks and VPNs take for routing marks (0x4000 and 0x8000, 0x0f00,
// 0x0080, all above 0xffff).
const TrapMark = 0x2073

// attrMark is INET_DIAG_MARK of linux/inet_diag.h.
const attrMark = 15

// isTrap reports whether an answer of sock_diag is about a trap socket of ours.
// TIME_WAIT has no mark.
func isTrap(answer []byte) bool {
	if len(answer) < diagAnswerSize {
		return false
	}
	for b := answer[diagAnswerSize:]; ; {
		kind, value, rest, ok := nextAttribute(b)
		switch {
		case !ok:
			return false
		case kind == attrMark:
			return u32(value) == TrapMark
		}
		b = rest
	}
}

// foundTrap reports whether what find has just found is a trap socket of ours.
func (d *diag) foundTrap(proto uint8) bool {
	if d.proc[proto] != nil {
		return false
	}
	m, _ := nextMessage(d.conn.buf)
	return m.seq == d.conn.seq && isTrap(m.body)
}

// tcpServed are the TCP ports on which somebody else than a trap of ours listens.
type tcpServed [1 << 16 / 64]uint64

func (p *tcpServed) has(port uint16) bool { return p[port>>6]&(1<<(port&63)) != 0 }

// list asks for all listeners.
func (p *tcpServed) list(d *diag) error {
	clear(p[:])
	return d.each(unix.IPPROTO_TCP, inListen, func(s socket) {
		if port := s.local.Port(); !s.trap {
			p[port>>6] |= 1 << (port & 63)
		}
	})
}

const (
	// A question costs about as much as this, and is asked for one port.
	questionCost = 5 * time.Microsecond
	// fewQuestions may always be asked one by one.
	fewQuestions = 8
	// questionWindow is what counts as together: two blocks of the ring.
	questionWindow = 20 * time.Millisecond
)

// listening knows which TCP ports have no listener at all, whatever the address,
// but for trap sockets of ours.
// A scan of many ports, or a flood over many traps, then costs one listing a
// block of the ring and not one question a port. Where something listens on the
// port, the exact question is asked all the same.
type listening struct {
	ports  tcpServed
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
	return !l.ports.has(q.Dst.Port())
}

// list asks for all listeners. It reports false when that failed: then every
// port is asked about by itself.
func (l *listening) list(s *Sockets, now int64) bool {
	start := time.Now()
	err := l.ports.list(s.diag)
	l.cost = time.Since(start)
	if err != nil {
		l.listed = 0
		return false
	}
	l.listed = now
	return true
}
