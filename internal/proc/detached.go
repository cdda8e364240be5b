package proc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Notifier lets a detached daemon tell its parent that it is ready.
type Notifier struct{ pipe *os.File }

// Detached is what the program calls first, before it starts anything: it
// reports whether this process is a daemon that Detach started. Then no command
// inherits a descriptor or the mark in the environment, and the umask keeps
// others than us from writing to files that say nothing else; a stricter one
// stays.
//
// Until Ready is called standard error is the parent's, which repeats it to
// whoever started the daemon. To fail the daemon says why there and exits with
// the code that the parent shall exit with, as it would in the foreground.
func Detached() (*Notifier, bool) {
	mark := os.Getenv(detachMark)
	os.Unsetenv(detachMark)
	if mark == "" {
		return nil, false
	}
	// Not made a File before it is known to be ours: a File closes what it holds.
	var st unix.Stat_t
	if err := unix.Fstat(firstFD, &st); err != nil || mark != pipeName(&st) {
		return nil, false
	}
	// Detach has done this here already, so it cannot fail.
	if err := closeOnExec(); err != nil {
		return nil, false
	}
	ownName()
	unix.Umask(unix.Umask(0o022) | 0o022)
	return &Notifier{pipe: os.NewFile(firstFD, "ready")}, true
}

// Ready tells the parent, which exits with success, and puts standard error on
// /dev/null. A parent that is gone by now is no error.
func (n *Notifier) Ready() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/null: %w", err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, 2, 0); err != nil {
		return fmt.Errorf("standard error to /dev/null: %w", err)
	}
	_, err = n.pipe.Write([]byte{'\n'})
	if errors.Is(err, unix.EPIPE) {
		err = nil
	}
	return errors.Join(err, n.pipe.Close())
}
