package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// What is pinned, by name.
const (
	linkPrefix   = "link_"
	egressPrefix = "egress_"
)

func pinnedMaps() []string {
	return []string{xdpMapBans, xdpMapNets, xdpMapHits, xdpMapSent, xdpMapSeeds}
}

// pinned are the maps that are, by name.
func (s *Sensor) pinned() map[string]*ebpf.Map {
	o := &s.objects
	return map[string]*ebpf.Map{xdpMapBans: o.Bans, xdpMapNets: o.Nets, xdpMapHits: o.Hits, xdpMapSent: o.Sent, xdpMapSeeds: o.Seeds}
}

// remains are what an earlier run has left in the folder.
type remains struct {
	maps  map[string]*ebpf.Map // that fit, to be used on
	bans  bans                 // of a map that does not fit
	links map[int32]*attached
}

// close lets go of what nobody has taken.
func (r *remains) close() {
	for _, m := range r.maps {
		m.Close()
	}
	for _, a := range r.links {
		a.letGo()
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
			return r, fmt.Errorf("take out what another version has pinned: %w", err)
		}
	}
	// Hits and flows are found by the seeds they were made with.
	if r.maps[xdpMapSeeds] == nil || r.maps[xdpMapHits] == nil {
		for _, name := range []string{xdpMapSeeds, xdpMapHits, xdpMapSent} {
			if m := r.maps[name]; m != nil {
				m.Close()
				delete(r.maps, name)
				if err := os.Remove(filepath.Join(folder, name)); err != nil {
					return r, err
				}
			}
		}
	}
	return r, r.findLinks(folder)
}

// foreign is a Sensor that has nothing but m, if its entries are ours; else nil.
func foreign(m *ebpf.Map) *Sensor {
	var key xdpBanKey
	var value xdpBan
	if int(m.KeySize()) != binarySize(key) || int(m.ValueSize()) != binarySize(value) {
		return nil
	}
	return &Sensor{objects: xdpObjects{xdpMaps: xdpMaps{Bans: m}}}
}

// readBans reads a map of another size.
func readBans(m *ebpf.Map) bans {
	var out bans
	if s := foreign(m); s == nil || s.EachBan(func(b *Ban) bool { out = append(out, *b); return true }) != nil {
		return nil
	}
	return out
}

// holdsBans reports whether a ban of m has not ended.
func holdsBans(m *ebpf.Map) (holds bool) {
	s := foreign(m)
	return s != nil && s.EachBan(func(b *Ban) bool {
		holds = b.Until.IsZero() || b.Until.After(time.Now())
		return !holds
	}) == nil && holds
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
	for ifindex, a := range r.links {
		path := filepath.Join(folder, egressPrefix+strconv.Itoa(int(ifindex)))
		l, err := link.LoadPinnedLink(path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue // an earlier version's, or a kernel without
		}
		if err != nil {
			return fmt.Errorf("pinned tcx link: %w", err)
		}
		a.egress = egress{l, path, true}
	}
	return nil
}

// settle pins what is to outlive the process.
func (s *Sensor) settle(r *remains) error {
	if s.folder == "" {
		return nil
	}
	for name, m := range s.pinned() {
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
	clear(r.links)
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

// unpinned reports whether somebody has removed any of what is pinned.
func (s *Sensor) unpinned() bool {
	gone := func(path string) bool {
		_, err := os.Lstat(path)
		return err != nil
	}
	for name := range s.pinned() {
		if gone(filepath.Join(s.folder, name)) {
			return true
		}
	}
	for _, a := range s.links {
		if a.pin != "" && gone(a.pin) || a.egress.pin != "" && gone(a.egress.pin) {
			return true
		}
	}
	return false
}

// PinAgain pins anew what somebody has removed while the Sensor was in use, and
// reports whether anything was missing.
func (s *Sensor) PinAgain() (missing bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folder == "" || s.lock == nil {
		return false, nil
	}
	if !s.unpinned() {
		return false, nil
	}
	switch f, err := lock(s.folder); {
	case err == nil:
		s.lock.Close()
		s.lock = f
	case !errors.Is(err, ErrInUse): // that is us: the folder is there still
		return true, err
	}
	for name, m := range s.pinned() {
		err = errors.Join(err, pinAnew(m, filepath.Join(s.folder, name)))
	}
	for _, a := range s.links {
		if a.pin != "" {
			err = errors.Join(err, pinAnew(a.link, a.pin))
		}
		if a.egress.pin != "" {
			err = errors.Join(err, pinAnew(a.egress.link, a.egress.pin))
		}
	}
	if err != nil {
		return true, fmt.Errorf("pin again: %w", err)
	}
	return true, nil
}

// pinAnew pins what may have been pinned before.
func pinAnew(o interface {
	Pin(string) error
	Unpin() error
}, path string) error {
	if err := o.Unpin(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return o.Pin(path)
}
