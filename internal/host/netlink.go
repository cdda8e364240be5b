package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Netlink, RFC 3549: messages of a 16-byte header {length u32, type u16, flags
// u16, sequence u32, port u32} and a body, in the byte order of the machine;
// attributes {length u16, type u16} in it, everything aligned to 4 bytes.

var native = binary.NativeEndian

const (
	// receiveSize is what the kernel fills at most with one part of a dump.
	receiveSize = 32 << 10
	// answerTime is how long the kernel may take for one part of an answer. It
	// answers within the send call, but for dumps under memory pressure.
	answerTime = 2 * time.Second
)

// errInterrupted says that what was listed changed meanwhile.
var errInterrupted = errors.New("netlink dump interrupted by a change")

// conn is a netlink socket connected to the kernel, so that nobody else can
// answer on it. It is not safe for concurrent use.
type conn struct {
	fd  int
	seq uint32
	buf []byte
}

func dial(protocol int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, receiveSize)}
	tv := unix.NsecToTimeval(int64(answerTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink timeout: %w", err), c.close())
	}
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink connect: %w", err), c.close())
	}
	return c, nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// send numbers the request and sends it.
func (c *conn) send(req []byte) error {
	c.seq++
	native.PutUint32(req[8:], c.seq)
	for {
		_, err := unix.Write(c.fd, req)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive is the next datagram. It is valid until the next call.
func (c *conn) receive() ([]byte, error) {
	for {
		n, err := unix.Read(c.fd, c.buf)
		switch {
		case err == nil:
			return c.buf[:n], nil
		case err == unix.EAGAIN:
			return nil, unix.ETIMEDOUT
		case err != unix.EINTR:
			return nil, err
		}
	}
}

// exact sends a request that has one answer and returns its body, or the errno
// with which the kernel refuses it. Answers to earlier requests that had been
// given up are passed over. It does not allocate; the body is valid until the
// next call.
func (c *conn) exact(req []byte) ([]byte, error) {
	if err := c.send(req); err != nil {
		return nil, err
	}
	for {
		b, err := c.receive()
		if err != nil {
			return nil, err
		}
		for len(b) > 0 {
			var m message
			if m, b = nextMessage(b); m.body == nil {
				return nil, unix.EBADMSG
			}
			if m.seq != c.seq {
				continue
			}
			if m.kind == unix.NLMSG_ERROR {
				return nil, m.errno()
			}
			return m.body, nil
		}
	}
}

// dump sends a request for a list and hands the body of each item to each.
func (c *conn) dump(req []byte, each func(kind uint16, body []byte)) error {
	return c.search(req, func(kind uint16, body []byte) bool {
		each(kind, body)
		return true
	})
}

// search is dump until more says that it has seen enough. After that, with the
// rest of the list unread, the conn can only be closed.
func (c *conn) search(req []byte, more func(kind uint16, body []byte) bool) error {
	if err := c.send(req); err != nil {
		return err
	}
	var torn error
	for {
		b, err := c.receive()
		if err != nil {
			return err
		}
		for len(b) > 0 {
			var m message
			if m, b = nextMessage(b); m.body == nil {
				return unix.EBADMSG
			}
			if m.seq != c.seq {
				continue
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				torn = errInterrupted
			}
			switch m.kind {
			case unix.NLMSG_ERROR:
				return m.errno()
			case unix.NLMSG_DONE:
				// Its body is the errno of a dump that failed half-way.
				if err := m.errno(); err != unix.Errno(0) {
					return err
				}
				return torn
			}
			if !more(m.kind, m.body) {
				return nil
			}
		}
	}
}

type message struct {
	kind, flags uint16
	seq         uint32
	body        []byte // nil: the bytes hold no whole message
}

// errno reads the error number that NLMSG_ERROR and NLMSG_DONE begin with.
func (m message) errno() unix.Errno {
	if len(m.body) < 4 {
		return 0
	}
	return unix.Errno(-int32(native.Uint32(m.body)))
}

func nextMessage(b []byte) (m message, rest []byte) {
	if len(b) < unix.SizeofNlMsghdr {
		return m, nil
	}
	n := int(native.Uint32(b))
	if n < unix.SizeofNlMsghdr || n > len(b) {
		return m, nil
	}
	m = message{native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:]), b[unix.SizeofNlMsghdr:n]}
	return m, b[min(align4(n), len(b)):]
}

// nextAttribute cuts one attribute off b. ok is false at the end.
func nextAttribute(b []byte) (kind uint16, value, rest []byte, ok bool) {
	if len(b) < 4 {
		return 0, nil, nil, false
	}
	n := int(native.Uint16(b))
	if n < 4 || n > len(b) {
		return 0, nil, nil, false
	}
	const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
	return native.Uint16(b[2:]) &^ flags, b[4:n], b[min(align4(n), len(b)):], true
}

func align4(n int) int { return (n + 3) &^ 3 }

// newRequest is a message with a body of n zero bytes.
func newRequest(kind, flags uint16, n int) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+n)
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], kind)
	native.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	return b
}

// text is the value of a string attribute.
func text(v []byte) string {
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

func u32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return native.Uint32(v)
}
