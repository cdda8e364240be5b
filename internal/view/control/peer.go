package control

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"portsentry/internal/view"
)

// listener accepts a bounded number of connections, each with what the kernel
// says about its peer.
type listener struct {
	*net.UnixListener
	gid           int // -1: root alone
	members, root chan struct{}
	busy          atomic.Uint64
}

// peerConn is a connection and who is at the other end.
type peerConn struct {
	net.Conn
	who     view.Caller
	allowed bool
	free    func() // gives the place back, once
}

func (c *peerConn) Close() error {
	c.free()
	return c.Conn.Close()
}

// Accept waits for the next connection there is a place for. One too many is
// told so and closed: nobody can make root wait.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p := &peerConn{Conn: c}
		places := l.members
		if cred, err := peerCred(c); err == nil {
			p.who = view.Caller{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid), Root: cred.Uid == 0}
			p.allowed = p.who.Root || l.gid >= 0 && (int(cred.Gid) == l.gid || inGroup(c, l.gid))
		}
		if p.who.Root {
			places = l.root
		}
		select {
		case places <- struct{}{}:
			p.free = sync.OnceFunc(func() { <-places })
			return p, nil
		default:
			l.busy.Add(1)
			_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = c.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n" +
				`{"error":"too many clients at once","hint":"try again in a moment"}` + "\n"))
			_ = c.Close()
		}
	}
}

type peerKey struct{}

// withPeer puts the connection's peer into the context of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, c)
}

// peerOf is the peer whose request r is; not allowed when nobody knows.
func peerOf(r *http.Request) (who view.Caller, allowed bool) {
	if c, ok := r.Context().Value(peerKey{}).(*peerConn); ok {
		return c.who, c.allowed
	}
	return view.Caller{}, false
}

// peerCred is who connected, or who listens, as of that moment (SO_PEERCRED).
func peerCred(c *net.UnixConn) (cred *unix.Ucred, err error) {
	err = control(c, func(fd uintptr) (err error) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	return cred, err
}

// inGroup reports whether gid is a supplementary group of the peer.
func inGroup(c *net.UnixConn, gid int) bool {
	found := false
	err := control(c, func(fd uintptr) error {
		groups, err := peerGroups(fd)
		for ; len(groups) >= 4; groups = groups[4:] {
			found = found || int(binary.NativeEndian.Uint32(groups)) == gid
		}
		return err
	})
	return err == nil && found
}

// peerGroups is the array of gid_t that SO_PEERGROUPS gives (Linux 4.13). x/sys
// has no call for it.
func peerGroups(fd uintptr) ([]byte, error) {
	buf := make([]byte, 64*4)
	for {
		n := uint32(len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&n)), 0)
		switch {
		case errno == 0:
			return buf[:n], nil
		case errno == unix.ERANGE && int(n) > len(buf): // n is what it takes
			buf = make([]byte, n)
		default:
			return nil, errno
		}
	}
}

func control(c *net.UnixConn, f func(fd uintptr) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(fd) })
	return errors.Join(err, inner)
}
