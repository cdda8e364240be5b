package bpf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Somebody empties the folder while the Sensor is in use: all is pinned again, and
// the next run finds it.
func TestPinAgain(t *testing.T) {
	enterSpace(t)
	parent := t.TempDir()
	if err := unix.Mount("bpf", parent, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(parent, unix.MNT_DETACH) })
	folder := filepath.Join(parent, "ours", "net")
	s, err := OpenSensor(SensorOptions{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(1, true); err != nil { // lo
		t.Fatal(err)
	}
	banned := netip.MustParsePrefix("203.0.113.9/32")
	if err := s.PutBans([]Ban{{Prefix: banned, Until: time.Now().Add(time.Hour), Strength: Full, Protos: BanAll}}); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []bool{false, true, false} {
		if gone {
			if err := os.RemoveAll(filepath.Dir(folder)); err != nil {
				t.Fatal(err)
			}
		}
		if missing, err := s.PinAgain(); missing != gone || err != nil {
			t.Errorf("missing: %v, %v, want %v", missing, err, gone)
		}
	}
	if err := s.Leave(); err != nil {
		t.Fatal(err)
	}
	next, err := OpenSensor(SensorOptions{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	if _, there, err := next.Ban(banned); !there || err != nil {
		t.Errorf("the ban: %v, %v", there, err)
	}
	if len(next.Attached()) != 1 {
		t.Errorf("attached to %v", next.Attached())
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// Somebody takes the program off an interface: it runs there again, and stays pinned.
func TestAttachAgain(t *testing.T) {
	enterSpace(t)
	parent := t.TempDir()
	if err := unix.Mount("bpf", parent, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(parent, unix.MNT_DETACH) })
	folder := filepath.Join(parent, "ours")
	s, err := OpenSensor(SensorOptions{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Attach(1, true); err != nil { // lo
		t.Fatal(err)
	}
	for _, taken := range []bool{false, true, false} {
		if taken {
			l, err := link.LoadPinnedLink(filepath.Join(folder, linkPrefix+"1"+genericSuffix), nil)
			if err == nil {
				err = l.Detach() // as `bpftool link detach` does
			}
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
		if again, err := s.AttachAgain(); err != nil || taken != slices.Equal(again, []int32{1}) || !taken && len(again) > 0 {
			t.Errorf("taken off: %v; on again: %v, %v", taken, again, err)
		}
	}
	// What was left in its place by a run that was killed while it ended is in nobody's way.
	left, err := s.objects.Asked.Clone()
	if err == nil {
		defer left.Close()
		err = left.Pin(filepath.Join(folder, egressPrefix+"1"))
	}
	if err == nil {
		err = s.Remember()
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.LoadPinnedLink(filepath.Join(folder, egressPrefix+"1"), nil)
	if err == nil {
		err = errors.Join(l.Detach(), l.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.Remembers(1) {
		t.Error("what is sent is remembered by a program that was taken off")
	}
	for range 2 {
		if err := s.Remember(); err != nil || !s.Remembers(1) {
			t.Errorf("on the way out again: %v, remembers %v", err, s.Remembers(1))
		}
	}
	if missing, err := s.PinAgain(); missing || err != nil {
		t.Errorf("pins missing: %v, %v", missing, err)
	}
	// One pin alone is missed, too.
	if err := os.Remove(filepath.Join(folder, xdpMapNets)); err != nil {
		t.Fatal(err)
	}
	if missing, err := s.PinAgain(); !missing || err != nil {
		t.Errorf("a pin is missing: %v, %v", missing, err)
	}
}
