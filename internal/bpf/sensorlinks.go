package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Errors of Attach.
var (
	ErrOccupied = errors.New("another XDP program is there, and is left alone")
	ErrNoNative = errors.New("its driver cannot run XDP programs")
)

// attached is an interface on which the program runs.
type attached struct {
	link    link.Link
	generic bool
	pin     string // "": not pinned
	earlier bool   // an earlier run's program is there still: see TakeOver

	egress egress
}

const genericSuffix = "_generic"

// Attach runs the program on an interface: in its driver or, if generic, behind
// it, which is slower. An interface on which it runs already stays as it is.
func (s *Sensor) Attach(ifindex int32, generic bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.links[ifindex]; a != nil {
		if !a.dead() {
			return nil
		}
		if err := s.detach(ifindex); err != nil { // of an interface that had this number
			return err
		}
	}
	mode := link.XDPDriverMode
	if generic {
		mode = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: s.objects.Sense, Interface: int(ifindex), Flags: mode})
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return ErrOccupied
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, ebpf.ErrNotSupported):
		return ErrNoNative
	case err != nil:
		return fmt.Errorf("attach XDP program: %w", err)
	}
	a := &attached{link: l, generic: generic}
	if s.folder != "" {
		a.pin = filepath.Join(s.folder, linkPrefix+strconv.Itoa(int(ifindex)))
		if generic {
			a.pin += genericSuffix
		}
		if err := l.Pin(a.pin); err != nil {
			return errors.Join(fmt.Errorf("pin XDP link: %w", err), l.Close())
		}
	}
	s.links[ifindex] = a
	return nil
}

// Detach ends it there; where it does not run is no error.
func (s *Sensor) Detach(ifindex int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detach(ifindex)
}

func (s *Sensor) detach(ifindex int32) error {
	a := s.links[ifindex]
	if a == nil {
		return nil
	}
	delete(s.links, ifindex)
	return a.close()
}

// dead reports whether the interface has gone.
func (a *attached) dead() bool {
	info, err := a.link.Info()
	return err == nil && info.XDP() != nil && info.XDP().Ifindex == 0
}

func (a *attached) close() error {
	return errors.Join(end(a.link, a.pin), a.egress.end())
}

// end ends a link wherever it is pinned.
func end(l link.Link, pin string) error {
	var err error
	if pin != "" {
		if err = l.Unpin(); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, l.Close())
}

// letGo closes the links, which go on where they are pinned.
func (a *attached) letGo() error {
	err := a.link.Close()
	if a.egress.link != nil {
		err = errors.Join(err, a.egress.link.Close())
	}
	return err
}

// Attached lists the interfaces on which the program runs; true: generic.
func (s *Sensor) Attached() map[int32]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[int32]bool, len(s.links))
	for ifindex, a := range s.links {
		out[ifindex] = a.generic
	}
	return out
}

// Close takes the program off all interfaces and forgets everything, bans
// included. It is harmless to call it twice.
func (s *Sensor) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for ifindex := range s.links {
		errs = append(errs, s.detach(ifindex))
	}
	if s.folder != "" {
		errs = append(errs, unpin(s.folder))
	}
	return errors.Join(append(errs, s.release())...)
}

// Rest takes the program off all interfaces, and leaves the bans for the next
// run. Where nothing is pinned it is Close.
func (s *Sensor) Rest() error {
	if s.folder == "" {
		return s.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for ifindex := range s.links {
		errs = append(errs, s.detach(ifindex))
	}
	return errors.Join(append(errs, s.release())...)
}

// Leave ends this process's part: whom a ban keeps out is dropped until it ends,
// and nothing else is done any more. Where nothing is pinned it is Close.
func (s *Sensor) Leave() error {
	if s.folder == "" {
		return s.Close()
	}
	s.mu.Lock()
	r := s.rules
	s.mu.Unlock()
	r.Sense, r.Verify, r.TCP, r.UDP = false, false, 0, 0
	err := s.SetRules(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.links {
		err = errors.Join(err, a.letGo())
	}
	clear(s.links)
	return errors.Join(err, s.release())
}

// release closes what this process holds.
func (s *Sensor) release() error {
	var errs []error
	for _, m := range s.rings {
		errs = append(errs, m.Close())
	}
	s.rings = nil
	errs = append(errs, s.objects.Close(), s.sent.Close())
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	s.folder = "" // it may be another's by now
	return errors.Join(errs...)
}
