package proc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNoService is returned by DialHelper where no helper listens.
var ErrNoService = errors.New("no helper is running")

// DialHelper is for a daemon that is not root and so cannot start a helper of its
// own: it asks the one that the service manager has started as root.
func DialHelper(path string) (*Helper, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%w (%s): systemctl start portsentry-helper", ErrNoService, path)
	}
	if err != nil {
		return nil, err
	}
	if uid, err := peer(c); err != nil || uid != 0 {
		c.Close()
		return nil, fmt.Errorf("%s: uid %d answers, not root: %w", path, uid, errors.Join(err, unix.EPERM))
	}
	return &Helper{conn: c}, nil
}

// HelperSocket is where a helper that the service manager has started is asked.
type HelperSocket struct {
	listener *net.UnixListener
	uid      uint32
}

// ListenHelper makes the socket at path for the user uid alone. Its folder must be
// nobody's but ours, for whoever can write to it decides who is asked.
func ListenHelper(path string, uid uint32) (*HelperSocket, error) {
	// One that is there is of a helper that was killed: the service manager never has
	// two of them run.
	if err := os.Remove(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	mask := unix.Umask(0o177) // mode 0600 from the first moment on
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	unix.Umask(mask)
	if err != nil {
		return nil, err
	}
	if err := os.Lchown(path, int(uid), -1); err != nil {
		l.Close()
		return nil, err
	}
	return &HelperSocket{listener: l, uid: uid}, nil
}

// Serve hands each daemon that comes to serve, one after the other, until ctx ends;
// the next one waits meanwhile. Who is neither root nor the user of the socket, as
// the kernel says it, is let go.
func (s *HelperSocket) Serve(ctx context.Context, serve func(context.Context, *net.UnixConn)) error {
	defer s.listener.Close()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	for {
		c, err := s.listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("helper socket: %w", err)
		}
		if uid, err := peer(c); err == nil && (uid == s.uid || uid == 0) {
			serve(ctx, c)
		}
		c.Close()
	}
}

// peer is the user at the other end of c when it was connected.
func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
