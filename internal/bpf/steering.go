// Package bpf is the kernel's part of the house: the programs in C, compiled
// and committed with their bindings, and the few calls that load, attach and
// feed them. What goes in: sockets of ours and the ports that are traps. What
// comes out: new connections and datagrams to these ports, at those sockets,
// and word of each port that a service takes. Nothing is pinned: all of it is
// gone with the process, however that ends.
package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Proto is a row of the tables of ports.
type Proto int

// Protocols that can be steered.
const (
	TCP Proto = iota
	UDP
)

// Sockets are the descriptors of those that take what is steered: TCP listeners
// (no MPTCP) and unconnected UDP sockets, one per family; -1 for none.
type Sockets struct{ TCP4, TCP6, UDP4, UDP6 int }

// Counts has a number for each port, 256 KiB of them.
type Counts [1 << 16]uint32

// Steering sends what is addressed to trap ports to a few sockets. It is for one
// goroutine at a time.
type Steering struct {
	objects trapsObjects
	links   []link.Link
	taken   *ringbuf.Reader
	scratch ringbuf.Record
	// The tables of traps.c, mapped: they are there still when the privilege for
	// bpf(2) has been given up.
	uses, traps *ebpf.Memory
	partial     bool
}

const rowSize = 4 << 16 // bytes that one protocol has in a table

// OpenSteering loads the programs and attaches them to the network namespace of
// the calling thread, which must be that of the sockets. From now on the uses
// of ports are counted; no port is a trap yet. It needs CAP_BPF, CAP_NET_ADMIN,
// on some kernels CAP_PERFMON, and Linux 5.15. Errors say which of it is
// missing, where that can be known: errors.Is with ErrKernel or
// fs.ErrPermission.
//
// Sockets that were bound before are not counted: list them after this.
func OpenSteering(to Sockets) (*Steering, error) {
	s := new(Steering)
	if err := s.open(to); err != nil {
		return nil, errors.Join(explain(err), s.Close())
	}
	return s, nil
}

func (s *Steering) open(to Sockets) error {
	cookie, err := to.cookie()
	if err != nil {
		return err
	}
	spec, err := loadTraps()
	if err != nil {
		return err
	}
	if err := spec.Variables[trapsVarNetnsCookie].Set(cookie); err != nil {
		return fmt.Errorf("set the namespace: %w", err)
	}
	spec.Maps[trapsMapTaken].MaxEntries = uint32(os.Getpagesize()) // the least there is
	if err := spec.LoadAndAssign(&s.objects, nil); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if s.uses, err = s.objects.Uses.Memory(); err != nil {
		return fmt.Errorf("map the table of uses: %w", err)
	}
	if s.traps, err = s.objects.Traps.Memory(); err != nil {
		return fmt.Errorf("map the table of traps: %w", err)
	}
	if s.taken, err = ringbuf.NewReader(s.objects.Taken); err != nil {
		return fmt.Errorf("ring of taken ports: %w", err)
	}
	for key, fd := range []int{to.TCP4, to.TCP6, to.UDP4, to.UDP6} {
		if fd < 0 {
			continue
		}
		if err := s.objects.Sockets.Put(uint32(key), uint64(fd)); err != nil {
			return fmt.Errorf("put socket into map: %w", err)
		}
	}
	if err := s.watchUses(); err != nil {
		return err
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := s.attach(ns, s.objects.Steer, ebpf.AttachSkLookup); err != nil {
		return fmt.Errorf("attach to the network namespace: %w", err)
	}
	return nil
}

// watchUses attaches what counts the uses of ports.
func (s *Steering) watchUses() error {
	dir, whole, err := cgroupRoot()
	if err != nil {
		return err
	}
	defer dir.Close()
	s.partial = !whole
	for _, a := range []struct {
		program *ebpf.Program
		at      ebpf.AttachType
	}{
		{s.objects.Bound4, ebpf.AttachCGroupInet4PostBind},
		{s.objects.Bound6, ebpf.AttachCGroupInet6PostBind},
		{s.objects.Listening, ebpf.AttachCGroupSockOps},
	} {
		if err := s.attach(dir, a.program, a.at); err != nil {
			return fmt.Errorf("attach to %s: %w", dir.Name(), err)
		}
	}
	return nil
}

// attach makes a link and nothing but a link: it goes with the process.
func (s *Steering) attach(to *os.File, p *ebpf.Program, at ebpf.AttachType) error {
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(to.Fd()), Program: p, Attach: at})
	if err != nil {
		return err
	}
	s.links = append(s.links, l)
	return nil
}

// Uses reads how often each port was bound or listened on.
func (s *Steering) Uses(p Proto, into *Counts) error {
	var chunk [4096]byte
	for i := 0; i < len(into); {
		if _, err := s.uses.ReadAt(chunk[:], int64(p)*rowSize+4*int64(i)); err != nil {
			return fmt.Errorf("table of uses: %w", err)
		}
		for b := chunk[:]; len(b) > 0; b = b[4:] {
			into[i] = binary.NativeEndian.Uint32(b)
			i++
		}
	}
	return nil
}

// SetTrap makes port a trap, provided that it has not been used more often than
// uses says, a number from Uses. It returns at once and with effect.
func (s *Steering) SetTrap(p Proto, port uint16, uses uint32) error {
	return s.setTrap(p, port, uses+1)
}

// ClearTrap ends steering of port.
func (s *Steering) ClearTrap(p Proto, port uint16) error { return s.setTrap(p, port, 0) }

// setTrap stores four aligned bytes, which the programs see as a whole.
func (s *Steering) setTrap(p Proto, port uint16, agreed uint32) error {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], agreed)
	if _, err := s.traps.WriteAt(b[:], int64(p)*rowSize+4*int64(port)); err != nil {
		return fmt.Errorf("table of traps: %w", err)
	}
	return nil
}

// FD is readable when a trap port was used by somebody else, and so is none any
// longer. Then call Drain.
func (s *Steering) FD() int { return s.objects.Taken.FD() }

// Drain takes what has made FD readable, without waiting.
func (s *Steering) Drain() error {
	for {
		s.taken.SetDeadline(time.Unix(1, 0))
		switch err := s.taken.ReadInto(&s.scratch); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("ring of taken ports: %w", err)
		}
	}
}

// Partial reports that only processes below our own cgroup are seen using
// ports, as in a container that shares the network of its host.
func (s *Steering) Partial() bool { return s.partial }

// Close ends steering. It is harmless to call it twice.
func (s *Steering) Close() error {
	var errs []error
	// Steering was attached last and goes first.
	for i := len(s.links) - 1; i >= 0; i-- {
		errs = append(errs, s.links[i].Close())
	}
	s.links = nil
	if s.taken != nil {
		errs = append(errs, s.taken.Close())
	}
	return errors.Join(append(errs, s.objects.Close())...)
}

// cookie is the kernel's name for the network namespace of the sockets.
func (k Sockets) cookie() (uint64, error) {
	for _, fd := range []int{k.TCP4, k.TCP6, k.UDP4, k.UDP6} {
		if fd < 0 {
			continue
		}
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if err != nil {
			return 0, fmt.Errorf("network namespace cookie: %w", err)
		}
		return cookie, nil
	}
	return 0, errors.New("steering: no socket to steer to")
}
