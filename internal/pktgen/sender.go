package pktgen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrHostNamespace refuses to send on an interface that other machines may hear.
var ErrHostNamespace = errors.New("pktgen: refusing to send outside a network namespace made for it (loopback excepted)")

// batch is how many frames one system call sends at most.
const batch = 64

// Sender sends frames on one interface. It is for one goroutine.
type Sender struct {
	fd   int
	link Link
	end  *End // nil for loopback
	msgs [batch]mmsghdr
	iovs [batch]unix.Iovec

	refused int // frames that the interface did not take and that went again
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// Sent says what one call sent.
type Sent struct {
	Frames  int // handed to the interface
	Dropped int // of these, what the other end of the veth pair had no room for
	Start   time.Time
	Took    time.Duration
}

// Rate is in frames a second.
func (s Sent) Rate() float64 { return float64(s.Frames) / s.Took.Seconds() }

// Sender opens a sender of frames to the other end of the pair.
func (e *End) Sender() (*Sender, error) {
	var s *Sender
	err := e.NS.Do(func() (err error) {
		s, err = OpenSender(e.Name, Link{Src: e.MAC, Dst: e.Peer.MAC})
		return err
	})
	if err != nil {
		return nil, err
	}
	s.end = e
	return s, nil
}

// OpenSender opens a sender in the namespace of the calling thread (see NS.Do).
// It fails with ErrHostNamespace where packets could leave the machine.
func OpenSender(iface string, l Link) (*Sender, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("pktgen: interface %s: %w", iface, err)
	}
	if dev.Flags&net.FlagLoopback == 0 {
		if err := refuseHostNamespace(); err != nil {
			return nil, err
		}
	} else if l.Dst == nil {
		l = Link{Src: make(net.HardwareAddr, 6), Dst: make(net.HardwareAddr, 6)}
	}
	// Protocol 0: the socket receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("pktgen: AF_PACKET socket: %w", err)
	}
	s := &Sender{fd: fd, link: l}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index}),
	)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("pktgen: socket on %s: %w", iface, err)
	}
	for i := range s.msgs {
		s.msgs[i].hdr.Iov = &s.iovs[i]
		s.msgs[i].hdr.SetIovlen(1)
	}
	return s, nil
}

// refuseHostNamespace compares the namespace of this thread with that of PID 1
// and with the one this process was started in. PID 1's may be unreadable (a
// container's seccomp or ptrace rules); the second comparison then stands alone.
func refuseHostNamespace() error {
	here, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("%w: own namespace unknown: %w", ErrHostNamespace, err)
	}
	started, err := os.Stat("/proc/self/ns/net")
	if err != nil || os.SameFile(here, started) {
		return ErrHostNamespace
	}
	if first, err := os.Stat("/proc/1/ns/net"); err == nil && os.SameFile(here, first) {
		return ErrHostNamespace
	}
	return nil
}

// Link is the Ethernet header that reaches the other end.
func (s *Sender) Link() *Link { return &s.link }

// Close gives the socket back.
func (s *Sender) Close() error { return unix.Close(s.fd) }

// Send sends frames in order, evenly spaced at rate a second; 0 is as fast as
// possible. It returns early, with what was sent, when ctx ends.
func (s *Sender) Send(ctx context.Context, frames [][]byte, rate float64) (Sent, error) {
	for _, f := range frames {
		if len(f) == 0 {
			return Sent{}, errors.New("pktgen: empty frame")
		}
	}
	return s.run(ctx, len(frames), rate, func(slot, i int) { s.set(slot, frames[i]) })
}

// SendPacket builds one packet and sends its frames at once.
func (s *Sender) SendPacket(p Packet) error {
	frames, err := p.Frames(&s.link)
	if err != nil {
		return err
	}
	_, err = s.Send(context.Background(), frames, 0)
	return err
}

func (s *Sender) set(slot int, frame []byte) {
	s.iovs[slot].Base = &frame[0]
	s.iovs[slot].SetLen(len(frame))
}

// run sends count frames. fill puts frame i of the run into a slot.
func (s *Sender) run(ctx context.Context, count int, rate float64, fill func(slot, i int)) (Sent, error) {
	// One thread, so that the pace does not suffer from being moved.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := s.dropped()
	if err != nil {
		return Sent{}, err
	}
	s.refused = 0
	sent := Sent{Start: time.Now()}
	p := pacer{start: sent.Start, rate: rate}
	for sent.Frames < count && err == nil {
		if err = ctx.Err(); err != nil {
			break
		}
		n := min(p.wait(ctx, sent.Frames), batch, count-sent.Frames)
		for slot := range n {
			fill(slot, sent.Frames+slot)
		}
		err = s.flush(n)
		if err == nil {
			sent.Frames += n
		}
	}
	sent.Took = time.Since(sent.Start)
	after, statErr := s.dropped()
	if s.refused == 0 { // else the other end's driver has a queue, and what is counted went again or is others'
		sent.Dropped = after - before
	}
	return sent, errors.Join(err, statErr)
}

// maxRefusals bounds how often one batch is offered to an interface that takes
// nothing.
const maxRefusals = 1_000_000

// flush sends the first n slots. ENOBUFS means that the interface took no more
// for now: the frame goes again. A veth whose other end runs an XDP program does
// so, loses none and counts each as dropped all the same; where a batch was taken
// in part, one was refused, too.
func (s *Sender) flush(n int) error {
	refusals := 0
	for done := 0; done < n; {
		r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&s.msgs[done])), uintptr(n-done), 0, 0, 0)
		switch errno {
		case 0:
			if done += int(r); done < n {
				s.refused++
			}
		case unix.ENOBUFS, unix.EINTR, unix.EAGAIN:
			if errno == unix.ENOBUFS {
				s.refused++
			}
			if refusals++; refusals > maxRefusals {
				return fmt.Errorf("pktgen: the interface takes no more: %w", errno)
			}
			runtime.Gosched()
		default:
			return fmt.Errorf("pktgen: sendmmsg: %w", errno)
		}
	}
	return nil
}

// dropped is the veth end's count of frames it could not hand over.
func (s *Sender) dropped() (int, error) {
	if s.end == nil {
		return 0, nil
	}
	link, err := s.end.NS.handle.LinkByIndex(s.end.Index)
	if err != nil {
		return 0, fmt.Errorf("pktgen: counters of %s: %w", s.end.Name, err)
	}
	return int(link.Attrs().Statistics.TxDropped), nil
}
