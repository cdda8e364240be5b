package pktgen

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bpfFileSystem is where programs pin what is to outlive them.
const bpfFileSystem = "/sys/fs/bpf"

// DoApart runs f as Do does, in a mount namespace of its own besides, with an
// empty BPF file system in the usual place: nothing that f or a process it starts
// mounts or pins is seen outside, and nothing of it is left when they have ended.
func (ns *NS) DoApart(f func() error) error {
	return inFreshThread(func() error {
		if err := netns.Set(ns.ns); err != nil {
			return fmt.Errorf("pktgen: enter %s: %w", ns.name, err)
		}
		if err := ownMounts(); err != nil {
			return fmt.Errorf("pktgen: mount namespace: %w", err)
		}
		return f()
	})
}

// ownMounts takes the calling thread to a mount namespace of its own. A kernel
// without BPF has no place for its file system.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	err := unix.Mount("bpf", bpfFileSystem, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
