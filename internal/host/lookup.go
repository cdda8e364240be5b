package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Use is what stands behind the destination of a packet.
type Use uint8

// Answers of Lookup.
const (
	Free       Use = iota // nothing, or a trap socket of ours
	Served                // a listener, or a socket of this very connection
	Reply                 // an answer to something sent from here, or from a guest behind us
	Translated            // destination NAT hands it to somebody else
	Unsure                // not asked: the budget is spent, or the kernel gave an error
)

// Question is one packet as the tables of the kernel see it.
type Question struct {
	Time     int64 // unix nanoseconds of the packet
	Proto    uint8 // 6 TCP, 17 UDP
	Src, Dst netip.AddrPort
	IfIndex  int32
	// AnyPeer: what stands behind the destination does not depend on the source
	// (a bare SYN needs a listener), so one answer serves all of them.
	AnyPeer bool
}

const (
	lookupSlots = 1024
	// settle is how old a packet has to be before connection tracking is asked
	// about it. We see it before the kernel has made its entry, and the CPU that
	// makes it may lose its turn in between.
	settle = 5 * time.Millisecond
	// countRest is how long a table that is in use counts as that: to ask takes
	// microseconds, and it hardly ever empties.
	countRest = 100 * time.Millisecond
)

// Questions is for NewLookup: at 2 to 5 us each less than a tenth of a core.
const Questions = 20000

// slot holds what was answered about one destination, and when it was asked.
type slot struct {
	proto      uint8
	ifindex    int32
	dst        netip.AddrPort
	asked      int64 // unix nanoseconds; 0: never
	socket     Use
	askedFlows int64
	flow       Use
	peer       netip.AddrPort // the last remote end found connected here
}

// Lookup asks the kernel what stands behind a destination: the sockets first,
// then connection tracking. It belongs to one worker and allocates nothing.
//
// An answer that does not depend on the source holds for every packet captured
// before it was asked. So a service that starts later is asked about anew and
// its first client is never taken for a scanner, while a flood that waits in
// the ring costs one question a port.
//
// A connection may be gone by the time that its last packets are asked about:
// nothing remembers one that the other end closed first, or that was reset. So
// the last one found alive at a destination stays known here.
type Lookup struct {
	sockets   *Sockets
	conntrack *Conntrack // nil: there is none, or it cannot be asked
	without   string     // why it cannot be asked
	count     *os.File   // nf_conntrack_count of the namespace; nil: unknown
	sleep     func(time.Duration)

	slots [lookupSlots]slot
	listening

	emptyAsked int64   // when the conntrack table was last found empty
	usedAsked  int64   // and when not
	questions  float64 // per second
	tokens     float64
	filled     int64
}

// NewLookup opens the tables. questions bounds those that a packet has to ask for
// itself, per second and at once. A kernel without connection tracking is no error:
// then nothing is tracked or translated here.
func NewLookup(questions int) (*Lookup, error) {
	s, err := NewSockets()
	if err != nil {
		return nil, err
	}
	l := &Lookup{sockets: s, questions: float64(questions), tokens: float64(questions), sleep: time.Sleep}
	c, err := NewConntrack()
	switch {
	case errors.Is(err, ErrNoConntrack):
	case err != nil:
		l.without = fmt.Sprintf("connection tracking cannot be asked, so that who uses a port published by destination NAT may look like a scanner: %v", err)
	default:
		l.conntrack = c
		if f, err := os.Open("/proc/sys/net/netfilter/nf_conntrack_count"); err == nil {
			l.count = f
		}
	}
	return l, nil
}

// Fallback says in words what had to be done without, "" for nothing.
func (l *Lookup) Fallback() string {
	s := l.sockets.Fallback()
	if s != "" && l.without != "" {
		s += "; "
	}
	return s + l.without
}

// Close frees the sockets.
func (l *Lookup) Close() error {
	if l.conntrack != nil {
		l.conntrack.Close()
	}
	if l.count != nil {
		l.count.Close()
	}
	return l.sockets.Close()
}

// Use answers q.
func (l *Lookup) Use(q *Question) Use {
	now := time.Now().UnixNano()
	s := l.slot(q)
	var use Use
	switch {
	case q.AnyPeer && s.asked > q.Time:
		use = s.socket
	case !q.AnyPeer && !l.spend(now):
		return Unsure
	default:
		use = l.socket(q, s, now)
	}
	if use != Free || l.conntrack == nil {
		return use
	}
	// The whole time, not what is left of it: then all that is in the ring by now is
	// old enough, and this is done once a block and not for each packet of it.
	if now-q.Time < int64(settle) {
		l.sleep(settle)
		now = time.Now().UnixNano()
	}
	if l.untracked(q.Time, now) {
		return use
	}
	if l.spend(now) {
		return l.flow(q, s, now)
	}
	if q.AnyPeer && s.askedFlows > q.Time {
		return s.flow
	}
	return Unsure
}

// slot is the place for answers about the destination of q, emptied if it held
// another's. Direct-mapped: two ports in one slot cost questions, no wrong answer.
func (l *Lookup) slot(q *Question) *slot {
	port := q.Dst.Port()
	s := &l.slots[(uint32(port)+uint32(q.Proto)*509+uint32(q.IfIndex)*31)%lookupSlots]
	if s.dst != q.Dst || s.proto != q.Proto || s.ifindex != q.IfIndex {
		*s = slot{proto: q.Proto, ifindex: q.IfIndex, dst: q.Dst}
	}
	return s
}

func (l *Lookup) socket(q *Question, s *slot, now int64) Use {
	if q.AnyPeer && q.Proto == unix.IPPROTO_TCP && l.unserved(l.sockets, q, now) {
		s.socket, s.asked = Free, l.listed
		return Free
	}
	ask := l.sockets.TCP
	if q.Proto == unix.IPPROTO_UDP {
		ask = l.sockets.UDP
	}
	state, err := ask(q.Dst, q.Src, q.IfIndex)
	trap := err == nil && state != NoSocket && l.sockets.diag.foundTrap(q.Proto)
	switch {
	case err != nil:
		return Unsure
	case state == Connected && trap: // true of this source only
		return Free
	case state == Connected: // likewise
		s.peer = q.Src
		return Served
	case state == Listening && !trap:
		s.socket = Served
	default:
		s.socket = Free
	}
	s.asked = now
	if s.socket == Free && !q.AnyPeer && s.peer == q.Src {
		return Served
	}
	return s.socket
}

// flow asks connection tracking. An entry that the packet itself has made says
// nothing: it begins at its source and nobody translated it.
func (l *Lookup) flow(q *Question, s *slot, now int64) Use {
	f, found, err := l.conntrack.Find(q.Proto, q.Src, q.Dst)
	switch {
	case err != nil:
		return Unsure
	case found && f.Ours(q.Src):
		return Reply // true of this source only
	case found && f.Translated():
		s.flow = Translated
	default:
		s.flow = Free
	}
	s.askedFlows = now
	return s.flow
}

// untracked reports that connection tracking had no entry at all once it had had
// its time with the packet, so that none needs to be looked for.
func (l *Lookup) untracked(packet, now int64) bool {
	if l.emptyAsked >= packet+int64(settle) {
		return true
	}
	if l.count == nil || now-l.usedAsked < int64(countRest) {
		return false
	}
	var b [2]byte
	if n, _ := l.count.ReadAt(b[:], 0); n < 1 || b[0] != '0' {
		l.usedAsked = now
		return false
	}
	l.emptyAsked = now
	return true
}

func (l *Lookup) spend(now int64) bool {
	l.tokens = min(l.questions, l.tokens+float64(now-l.filled)/1e9*l.questions)
	l.filled = now
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}
