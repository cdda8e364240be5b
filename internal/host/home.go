package host

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// home is the network namespace of the thread that opened it.
type home struct {
	file *os.File
	info os.FileInfo
}

func openHome() (*home, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network namespace: %w", err), f.Close())
	}
	return &home{f, info}, nil
}

func (h *home) close() error { return h.file.Close() }

// inside calls f on a thread in the namespace, which is where the caller is
// anyway if the process has only one.
func (h *home) inside(f func() error) error {
	runtime.LockOSThread()
	here, err := openHome()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.close()
	if os.SameFile(here.info, h.info) {
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(int(here.file.Fd()), unix.CLONE_NEWNET); back != nil {
		// Nobody else may get the thread: it stays locked and ends with its goroutine.
		return errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
