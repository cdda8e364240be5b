package bpf

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

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
