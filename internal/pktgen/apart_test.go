package pktgen

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDoApartIsSeenNowhereElse(t *testing.T) {
	n := newTestNet(t)
	ns := newSpace(t, n)
	name := filepath.Join(bpfFileSystem, filepath.Base(t.TempDir())+"-"+ns.Name())
	err := ns.DoApart(func() error {
		inside, err := os.Stat("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		mounted, err := os.Stat(ns.Path())
		if err != nil {
			return err
		}
		if !os.SameFile(inside, mounted) {
			t.Error("not in the network namespace")
		}
		old, err := os.ReadDir(bpfFileSystem)
		if err != nil {
			return err
		}
		for _, e := range old {
			if e.IsDir() {
				t.Errorf("%s is in it already", e.Name())
			}
		}
		return os.Mkdir(name, 0o700)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Errorf("%s is seen outside: %v", name, err)
	}
	if err := ns.Do(func() error { _, err := os.Stat(name); return err }); !os.IsNotExist(err) {
		t.Errorf("%s is seen by Do: %v", name, err)
	}
}
