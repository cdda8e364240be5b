package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// listener takes so many connections and closes those beyond: nobody waits for
// somebody who is slow.
type listener struct {
	net.Listener
	places  chan struct{}
	refused atomic.Uint64
}

// place is a connection that gives its place back, once.
type place struct {
	net.Conn
	free func()
}

func (p *place) Close() error {
	p.free()
	return p.Conn.Close()
}

// Accept waits for the next connection there is a place for.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &place{c, sync.OnceFunc(func() { <-l.places })}, nil
		default:
			l.refused.Add(1)
			_ = c.Close()
		}
	}
}

// open listens at an address with a port, or at the path of a socket.
func open(address, group string) (*listener, error) {
	var l net.Listener
	var err error
	if strings.HasPrefix(address, "/") {
		l, err = openUnix(address, group)
	} else {
		var plain net.ListenConfig
		plain.SetMultipathTCP(false) // a listener like any other, for those who look for listeners
		l, err = plain.Listen(context.Background(), "tcp", address)
	}
	if err != nil {
		return nil, explain(address, err)
	}
	return &listener{Listener: l, places: make(chan struct{}, maxClients)}, nil
}

// explain says what is wrong, and what to do about it.
func explain(address string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; somebody else listens there: give another port, or see who it is with ss -ltnp"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; this machine has no such address"
	case errors.Is(err, fs.ErrPermission):
		hint = "; a port below 1024 can be had at the start alone: restart portsentry once"
		if strings.HasPrefix(address, "/") {
			hint = "; a socket can be made at the start alone, for root and the group: restart portsentry once"
		}
	}
	return fmt.Errorf("METRICS_LISTEN: %w%s", err, hint)
}

// openUnix makes the socket for root and the group. One that a dead daemon left
// is replaced.
func openUnix(path, group string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s is there and is no socket; move it away", path)
		}
		c, err := net.DialTimeout("unix", path, time.Second)
		switch {
		case err == nil:
			_ = c.Close()
			return nil, fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
		case !errors.Is(err, syscall.ECONNREFUSED): // somebody whose queue is full, for one
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	gid := -1
	if g, err := user.LookupGroup(group); err == nil {
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			gid = -1
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}
