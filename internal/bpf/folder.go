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
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Where BPF objects outlive processes, until the machine stops.
const (
	fileSystem = "/sys/fs/bpf"
	ourFolder  = fileSystem + "/portsentry"
)

// Folder is where a Sensor of the calling thread's network namespace pins what
// is to outlive the process, on the file system that Mount mounts.
func Folder() (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("network namespace cookie (Linux 5.14): %w", err)
	}
	return filepath.Join(ourFolder, "net-"+strconv.FormatUint(cookie, 16)), nil
}

// Mount mounts the BPF file system in its usual place where nobody has. Of a daemon
// that is not root our folder alone may be mounted there, and be its own
// (portsentry.service).
func Mount() error {
	there, err := isBPF(ourFolder)
	if err != nil || !there {
		there, err = isBPF(fileSystem)
	}
	if err == nil && !there {
		err = unix.Mount("bpf", fileSystem, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700")
	}
	if err != nil {
		return fmt.Errorf("no BPF file system at %s: %w", fileSystem, err)
	}
	return nil
}

// isBPF reports whether path is in a BPF file system.
func isBPF(path string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return err == nil && int64(st.Type)&0xffffffff == unix.BPF_FS_MAGIC, err
}

// ClearAway removes what namespaces that are gone have left beside folder. It
// takes its time.
func ClearAway(folder string) error {
	parent, ours := filepath.Split(folder)
	return oneByOne(parent, func() error { return clearAway(parent, ours) })
}

// Unload takes the program of this network namespace off its interfaces, with what
// it holds, and says whether there was one. It must not be in use.
func Unload() (there bool, err error) {
	folder, err := Folder()
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err = oneByOne(filepath.Dir(folder), func() error {
		held, err := lockExisting(folder)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		there = true
		return errors.Join(unpin(folder), held.Close())
	})
	return there, err
}

// ErrInUse means that another process has a Sensor in the folder.
var ErrInUse = errors.New("another portsentry runs the XDP program in this network namespace")

// lock makes folder and takes it for this process, until what it gives is closed.
func lock(folder string) (f *os.File, err error) {
	err = oneByOne(filepath.Dir(folder), func() error {
		for {
			if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("folder for what is pinned: %w", err)
			}
			if f, err = lockExisting(folder); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	})
	return f, err
}

// oneByOne makes folder and runs f while no other process does: nobody's folder in
// it is in use only because another one looks into it.
func oneByOne(folder string, f func() error) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("folder for what is pinned: %w", err)
	}
	held, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer held.Close()
	for {
		switch err := unix.Flock(int(held.Fd()), unix.LOCK_EX); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		default:
			return f()
		}
	}
}

// lockExisting does so with a folder that is there: else it gives fs.ErrNotExist.
func lockExisting(folder string) (*os.File, error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = ErrInUse
	case err == nil: // whoever had it may have removed it at the end
		var have, now fs.FileInfo
		if have, err = f.Stat(); err == nil {
			if now, err = os.Stat(folder); err == nil && !os.SameFile(have, now) {
				err = fs.ErrNotExist
			}
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// clearAway removes the folders that nobody uses and nobody needs any more.
func clearAway(folder, ours string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if e.Name() == ours {
			continue
		}
		held, err := lockExisting(path)
		if err != nil {
			continue // in use, or gone
		}
		if abandoned(path) {
			err = unpin(path)
		}
		if err = errors.Join(err, held.Close()); err != nil {
			return err
		}
	}
	return nil
}

// abandoned reports whether no link in folder has an interface any more; where
// there is none, whether no ban is left.
func abandoned(folder string) bool {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	links := 0
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), linkPrefix) {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(folder, e.Name()), nil)
		if err != nil {
			return false
		}
		dead := (&attached{link: l}).dead()
		l.Close()
		if !dead {
			return false
		}
		links++
	}
	if links > 0 {
		return true
	}
	for name, holds := range map[string]func(*ebpf.Map) bool{xdpMapBans: holdsBans, xdpMapNets: netsHold} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(folder, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false
		}
		held := holds(m)
		m.Close()
		if held {
			return false
		}
	}
	return true
}
