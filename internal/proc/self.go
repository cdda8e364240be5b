package proc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// firstFD is the first descriptor that a process of ours gets from us besides
// its input, output and error.
const firstFD = 3

// self is this very program, to be run again with args (without the program's
// name) and with given as descriptors from firstFD on. It inherits no others:
// what we got without close-on-exec from a shell or from systemd is no business
// of its, nor of any command.
func self(args []string, given ...*os.File) (*exec.Cmd, error) {
	if err := closeOnExec(); err != nil {
		return nil, fmt.Errorf("mark descriptors close-on-exec: %w (Linux 5.11 or newer is needed)", err)
	}
	// /proc/self/exe stays this binary even when the file on disk is replaced.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.ExtraFiles = given
	return cmd, nil
}

// closeOnExec keeps everything but input, output and error from what we start.
func closeOnExec() error {
	return unix.CloseRange(firstFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
}

// ownName gives us the name in ps(1) and for killall(1) that the kernel took
// from /proc/self/exe. It is only for people, so it may fail.
func ownName() {
	os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
}

// SayStopping has ps(1) show "stopping" in the place of our program's name. The
// init scripts of 1.x restart without waiting for the end: they look in ps for
// "portsentry -tcp" and start nothing while they find it. Nothing may use
// os.Args[0] afterwards.
func SayStopping() {
	if len(os.Args) == 0 || os.Args[0] == "" {
		return
	}
	// The runtime leaves the string where the kernel put it for ps to read.
	name := unsafe.Slice(unsafe.StringData(os.Args[0]), len(os.Args[0]))
	clear(name[copy(name, "stopping"):])
}
