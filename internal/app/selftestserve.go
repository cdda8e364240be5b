package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// serve opens an echo service for both protocols.
func (s *selfStage) serve() error {
	s.services = newTasks(context.Background())
	var l net.Listener
	var u net.PacketConn
	port := ":" + strconv.Itoa(int(s.served))
	err := s.host.NS.Do(func() (err error) {
		if l, err = net.Listen("tcp", port); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp", port)
		return err
	})
	if l != nil {
		s.opened = append(s.opened, l)
	}
	if err != nil {
		return fmt.Errorf("a service to be left alone: %w", err)
	}
	s.opened = append(s.opened, u)
	s.services.start("TCP service", func(context.Context) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return nil // closed
			}
			s.services.start("connection", func(ctx context.Context) error {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				io.Copy(c, c)
				return nil
			})
		}
	})
	s.services.start("UDP service", func(context.Context) error {
		b := make([]byte, 64)
		for {
			n, who, err := u.ReadFrom(b)
			if err != nil {
				return nil // closed
			}
			u.WriteTo(b[:n], who)
		}
	})
	return nil
}

// connect has the clients connected to the served port, from before the daemon
// starts until the end.
func (s *selfStage) connect(ctx context.Context) error {
	for _, family := range s.families {
		var last error
		// The kernel may still be busy with the addresses.
		ok, err := until(ctx, knockTime, func() (bool, error) {
			c, err := s.dial(ctx, s.address(family, placeClient), s.served)
			if last = err; err == nil {
				s.clients = append(s.clients, c)
			}
			return err == nil, nil
		})
		if !ok {
			return fmt.Errorf("a client of the served port: %w", errors.Join(err, last))
		}
	}
	return nil
}

// dialTime is how long a connection takes that is taken at all.
const dialTime = 300 * time.Millisecond

// dial opens a connection to the host from an address that the scanner has.
func (s *selfStage) dial(ctx context.Context, from netip.Addr, port uint16) (c net.Conn, err error) {
	err = s.scanner.NS.Do(func() (err error) {
		d := net.Dialer{Timeout: dialTime, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		c, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(s.hostFor(from), port).String())
		return err
	})
	return c, err
}

// goesOn reports whether the connection of the client at a still does.
func (s *selfStage) goesOn(a netip.Addr) bool {
	i := slices.IndexFunc(s.clients, func(c net.Conn) bool {
		local, err := netip.ParseAddrPort(c.LocalAddr().String())
		return err == nil && local.Addr() == a
	})
	if i < 0 {
		return false
	}
	c, b := s.clients[i], []byte("?")
	if err := c.SetDeadline(time.Now().Add(knockTime)); err != nil {
		return false
	}
	if _, err := c.Write(b); err != nil {
		return false
	}
	_, err := io.ReadFull(c, b)
	return err == nil
}
