package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
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
	var err error
	if a.pin != "" {
		if err = a.link.Unpin(); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, a.link.Close())
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
		err = errors.Join(err, a.link.Close())
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
	errs = append(errs, s.objects.Close())
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// What is pinned, by name.
const linkPrefix = "link_"

func pinnedMaps() []string { return []string{xdpMapBans, xdpMapHits, xdpMapSeeds} }

// remains are what an earlier run has left in the folder.
type remains struct {
	maps  map[string]*ebpf.Map // that fit, to be used on
	bans  bans                 // of a map that does not fit
	links map[int32]*attached
}

func (r *remains) close() {
	for _, m := range r.maps {
		m.Close()
	}
}

// takeOver looks for remains. Maps of another layout are unpinned; their bans
// come along when they can still be read.
func takeOver(folder string, spec *ebpf.CollectionSpec) (*remains, error) {
	r := &remains{maps: make(map[string]*ebpf.Map), links: make(map[int32]*attached)}
	if folder == "" {
		return r, nil
	}
	for _, name := range pinnedMaps() {
		path := filepath.Join(folder, name)
		m, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && spec.Maps[name].Compatible(m) == nil {
			r.maps[name] = m
			continue
		}
		if err == nil {
			if name == xdpMapBans {
				r.bans = readBans(m)
			}
			m.Close()
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("take out what another version has pinned: %w", err)
		}
	}
	// Hits are found by the seeds they were made with.
	if r.maps[xdpMapSeeds] == nil && r.maps[xdpMapHits] != nil || r.maps[xdpMapHits] == nil && r.maps[xdpMapSeeds] != nil {
		for _, name := range []string{xdpMapSeeds, xdpMapHits} {
			if m := r.maps[name]; m != nil {
				m.Close()
				delete(r.maps, name)
				if err := os.Remove(filepath.Join(folder, name)); err != nil {
					return nil, err
				}
			}
		}
	}
	return r, r.findLinks(folder)
}

// readBans reads a map of another size, if its entries are still ours.
func readBans(m *ebpf.Map) bans {
	var key xdpBanKey
	var value xdpBan
	if int(m.KeySize()) != binarySize(key) || int(m.ValueSize()) != binarySize(value) {
		return nil
	}
	old := &Sensor{objects: xdpObjects{xdpMaps: xdpMaps{Bans: m}}}
	var out bans
	if err := old.EachBan(func(b *Ban) bool { out = append(out, *b); return true }); err != nil {
		return nil
	}
	return out
}

func (r *remains) findLinks(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), linkPrefix)
		if !ok {
			continue
		}
		number, generic := strings.CutSuffix(number, genericSuffix)
		ifindex, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			continue
		}
		path := filepath.Join(folder, e.Name())
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("pinned XDP link: %w", err)
		}
		r.links[int32(ifindex)] = &attached{link: l, generic: generic, pin: path}
	}
	return nil
}

// settle pins what is to outlive the process.
func (s *Sensor) settle(r *remains) error {
	if s.folder == "" {
		return nil
	}
	for name, m := range map[string]*ebpf.Map{xdpMapBans: s.objects.Bans, xdpMapHits: s.objects.Hits, xdpMapSeeds: s.objects.Seeds} {
		if r.maps[name] != nil {
			continue
		}
		if err := m.Pin(filepath.Join(s.folder, name)); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	for ifindex, a := range r.links {
		a.earlier = true
		s.links[ifindex] = a
	}
	return nil
}

// TakeOver runs the program where an earlier run's is, in its place: until then
// that one goes on to keep the banned out. It is called when the program knows what
// to go by (SetOwn and its like), and does nothing the second time. Links of
// interfaces that are gone go.
func (s *Sensor) TakeOver() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ifindex, a := range s.links {
		if !a.earlier {
			continue
		}
		a.earlier = false
		if a.link.Update(s.objects.Sense) != nil {
			if err := s.detach(ifindex); err != nil {
				return fmt.Errorf("take over from an earlier run: %w", err)
			}
		}
	}
	return nil
}

// unpin empties and removes the folder.
func unpin(folder string) error {
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	return nil
}

// Remains reports whether an earlier run has left bans in folder.
func Remains(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, xdpMapBans))
	return err == nil
}

// sensorNeeds are what the XDP program needs of the kernel.
func sensorNeeds() []need {
	return []need{
		{"XDP programs", "Linux 4.8", func() error { return features.HaveProgramType(ebpf.XDP) }},
		{"BPF ring buffers", "Linux 5.8", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"tries of prefixes", "Linux 4.11", func() error { return features.HaveMapType(ebpf.LPMTrie) }},
		{"bpf_skc_lookup_tcp in XDP programs", "Linux 5.2", func() error {
			return features.HaveProgramHelper(ebpf.XDP, 99)
		}},
		{"bpf_xdp_load_bytes (frames of several pieces)", "Linux 5.18", func() error {
			return features.HaveProgramHelper(ebpf.XDP, 189)
		}},
	}
}
