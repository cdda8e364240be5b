package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A folder is one process's at a time, and nobody clears it away meanwhile. What
// belongs to nobody and holds no ban goes.
func TestFolderIsInUse(t *testing.T) {
	parent := t.TempDir()
	used, left := filepath.Join(parent, "used"), filepath.Join(parent, "left")
	held, err := lock(used)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := lock(used); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second time: %v, %v", f, err)
	}
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for range 4 {
		both.Go(func() {
			if err := oneByOne(parent, func() error { return clearAway(parent, "ours") }); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if _, err := os.Stat(used); err != nil {
		t.Errorf("what is in use: %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what nobody needs: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(used)
	if err != nil {
		t.Fatalf("when it is free: %v", err)
	}
	again.Close()
}

// Whoever is done with a folder leaves it alone when it is somebody else's.
func TestFolderAfterClose(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "ours")
	held, err := lock(folder)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sensor{folder: folder, lock: held}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := lock(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	for name, end := range map[string]func() error{"Close": s.Close, "Rest": s.Rest} {
		if err := end(); err != nil {
			t.Errorf("%s once more: %v", name, err)
		}
		if _, err := os.Stat(folder); err != nil {
			t.Errorf("after %s once more: %v", name, err)
		}
	}
}

// Whoever waits while the one before clears its folder away gets one that is there.
func TestFolderOfManyStarts(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				f, err := lock(folder)
				if errors.Is(err, ErrInUse) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(folder, "x"), nil, 0o600); err != nil {
					t.Errorf("the folder that was taken: %v", err)
				}
				if err := errors.Join(unpin(folder), f.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
