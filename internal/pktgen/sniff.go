package pktgen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Answer is one packet that came in on a sniffed interface.
type Answer struct {
	Time             time.Time // of arrival, from the kernel
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16 // TCP, UDP, SCTP
	Flags            uint16 // TCP
	Type, Code       uint8  // ICMP
}

// IsSYNACK reports whether the answer says that a TCP port is open.
func (a *Answer) IsSYNACK() bool {
	return a.Proto == ProtoTCP && a.Flags&(SYN|ACK|RST) == SYN|ACK
}

// IsRST reports whether the answer resets.
func (a *Answer) IsRST() bool { return a.Proto == ProtoTCP && a.Flags&RST != 0 }

// Sniffer collects what comes in on one interface, without what it sends.
type Sniffer struct {
	file  *os.File
	limit int
	done  chan struct{}

	mu      sync.Mutex
	answers []Answer
	missed  int // over the limit
	err     error
}

// Sniff collects the IP packets that come in on an interface of ns, limit of
// them at most, until ctx ends or Stop is called.
func Sniff(ctx context.Context, ns *NS, iface string, limit int) (*Sniffer, error) {
	var fd int
	err := ns.Do(func() (err error) {
		fd, err = openSniff(iface)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pktgen: sniff on %s of %s: %w", iface, ns.name, err)
	}
	s := &Sniffer{file: os.NewFile(uintptr(fd), "packet socket"), limit: limit, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, s.interrupt)
	go func() {
		defer close(s.done)
		defer stop()
		err := s.read()
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}()
	return s, nil
}

// sniffBuffer is the kernel's room for packets not read yet, in bytes.
const sniffBuffer = 32 << 20

func openSniff(iface string) (int, error) {
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sniffBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index, Protocol: networkOrder(unix.ETH_P_ALL)}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Answers is what has come in so far.
func (s *Sniffer) Answers() []Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Answer(nil), s.answers...)
}

// Stop reads what has arrived by now, closes the socket and gives all answers.
// The error says also when some are missing.
func (s *Sniffer) Stop() ([]Answer, error) {
	s.interrupt()
	<-s.done
	lost := s.lost()
	s.file.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if lost > 0 || s.missed > 0 {
		s.err = errors.Join(s.err, fmt.Errorf("pktgen: %d packets lost by the kernel, %d beyond the limit of %d", lost, s.missed, s.limit))
	}
	return s.answers, s.err
}

func (s *Sniffer) interrupt() { s.file.SetReadDeadline(time.Unix(1, 0)) }

// read takes packets until interrupted, and then what is left in the socket.
func (s *Sniffer) read() error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("pktgen: sniff: %w", err)
	}
	buf, oob := make([]byte, 512), make([]byte, 64)
	drain := func(fd uintptr) error {
		for {
			n, oobn, _, _, err := unix.Recvmsg(int(fd), buf, oob, 0)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return nil
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil:
				return fmt.Errorf("pktgen: sniff: %w", err)
			}
			if a, ok := parseAnswer(buf[:n]); ok {
				a.Time = arrival(oob[:oobn])
				s.keep(a)
			}
		}
	}
	for {
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			failed = drain(fd)
			return failed != nil
		})
		if failed != nil {
			return failed
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.Join(raw.Control(func(fd uintptr) { failed = drain(fd) }), failed)
		}
		if err != nil {
			return fmt.Errorf("pktgen: sniff: %w", err)
		}
	}
}

func (s *Sniffer) keep(a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) >= s.limit {
		s.missed++
		return
	}
	s.answers = append(s.answers, a)
}

// lost is how many packets found the socket full.
func (s *Sniffer) lost() int {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0
	}
	lost := 0
	_ = raw.Control(func(fd uintptr) { // fails only when closed
		if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = int(st.Drops)
		}
	})
	return lost
}

// arrival reads the SCM_TIMESTAMPNS control message.
func arrival(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS &&
			len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			ts := *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			return time.Unix(ts.Unix())
		}
	}
	return time.Time{}
}

// parseAnswer reads a bare IP packet: no extension headers, no fragments but
// the first.
func parseAnswer(b []byte) (Answer, bool) {
	var a Answer
	var t []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		ihl := int(b[0]&15) * 4
		if ihl < 20 || len(b) < ihl || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return a, false
		}
		a.Src, a.Dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		a.Proto, t = b[9], b[ihl:]
	case len(b) >= 40 && b[0]>>4 == 6:
		a.Src, a.Dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		a.Proto, t = b[6], b[40:]
	default:
		return a, false
	}
	switch a.Proto {
	case ProtoICMP, ProtoICMPv6:
		if len(t) >= 2 {
			a.Type, a.Code = t[0], t[1]
		}
		return a, len(t) >= 2
	case ProtoTCP:
		if len(t) < 14 {
			return a, false
		}
		a.Flags = binary.BigEndian.Uint16(t[12:]) & 0x1ff
		fallthrough
	case ProtoUDP, ProtoSCTP:
		if len(t) < 4 {
			return a, false
		}
		a.SrcPort, a.DstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	}
	return a, true
}
