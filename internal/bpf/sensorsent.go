package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Numbers of sent.h.
const (
	sentUnit = 30
	sentFor  = 112
)

// egress is where what leaves by an interface is remembered.
type egress struct {
	link    link.Link // nil: nowhere
	pin     string    // "": not pinned
	earlier bool      // an earlier run's program is there still
}

// works reports whether it is on its interface.
func (e *egress) works() bool {
	if e.link == nil {
		return false
	}
	info, err := e.link.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex != 0
}

func (e *egress) end() error {
	if e.link == nil {
		return nil
	}
	// The pin goes last: then the kernel ends it in its own time, and a stop need not
	// wait for that.
	err := e.link.Close()
	if e.pin != "" {
		err = errors.Join(err, removeIfThere(e.pin))
	}
	*e = egress{}
	return err
}

func removeIfThere(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Remember has what leaves by the interfaces that the program runs on remembered, where
// the kernel can (Linux 6.6): see Remembers. Other classifiers that are there stay. It
// is apart from Attach because it takes the kernel some milliseconds.
func (s *Sensor) Remember() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for ifindex, a := range s.links {
		if a.earlier || a.dead() {
			continue
		}
		e := &a.egress
		if e.works() && (!e.earlier || e.link.Update(s.sent.Remember) == nil) {
			e.earlier = false
			continue
		}
		errs = append(errs, e.end(), s.attachEgress(ifindex, e)) // somebody may have taken it off
	}
	return errors.Join(errs...)
}

func (s *Sensor) loadSent(sent, seeds *ebpf.Map) error {
	spec, err := loadSent()
	if err == nil {
		shared := map[string]*ebpf.Map{sentMapSent: sent, sentMapSeeds: seeds}
		err = spec.LoadAndAssign(&s.sent, &ebpf.CollectionOptions{MapReplacements: shared})
	}
	if err != nil {
		return fmt.Errorf("load program for what is sent: %w", err)
	}
	return nil
}

func (s *Sensor) attachEgress(ifindex int32, e *egress) error {
	l, err := link.AttachTCX(link.TCXOptions{Program: s.sent.Remember, Attach: ebpf.AttachTCXEgress, Interface: int(ifindex)})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) { // before Linux 6.6
		return nil
	}
	if err != nil {
		return fmt.Errorf("attach tcx program to interface %d: %w", ifindex, err)
	}
	pin := ""
	if s.folder != "" {
		pin = filepath.Join(s.folder, egressPrefix+strconv.Itoa(int(ifindex)))
		err := removeIfThere(pin) // of a run that was killed while it ended
		if err == nil {
			err = l.Pin(pin)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("pin tcx link: %w", err), l.Close())
		}
	}
	*e = egress{link: l, pin: pin}
	return nil
}

// Remembers reports whether the program knows an interface's late answers, and
// exchanges of datagrams, without connection tracking.
func (s *Sensor) Remembers(ifindex int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.links[ifindex]
	return a != nil && !a.dead() && a.egress.works()
}

// Sent reports whether this host has sent something in the flow, within two minutes or
// so: what comes back in it is no probe. It is for packets that the program has left to
// user space to read.
func (s *Sensor) Sent(proto uint8, remote, local netip.AddrPort) bool {
	r, l := remote.Addr().As16(), local.Addr().As16()
	words := func(b [16]byte) (uint64, uint64) {
		return binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])
	}
	r0, r1 := words(r)
	l0, l1 := words(l)
	hash := siphash(s.config.Hash, r0, r1, l0, l1, uint64(proto)<<32|uint64(remote.Port())<<16|uint64(local.Port()))
	var line sentSentLine
	if s.objects.Sent.Lookup(uint32(hash%uint64(s.objects.Sent.MaxEntries())), &line) != nil {
		return false
	}
	now := uint32(monotonic() >> sentUnit)
	for _, f := range line.Flow {
		if f>>32 == hash>>32 && now-uint32(f) <= sentFor {
			return true
		}
	}
	return false
}
