package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// againGrace is how long a second process of ours has to stop in order.
const againGrace = 5 * time.Second

// RunAgain runs this very program again with args (without the program's name)
// until it ends by itself, or until ctx ends: then it is asked to stop, and
// killed when it does not. It gets /dev/null as input, and output and errors go
// where said. It sits in a process group of its own, so that a Ctrl-C at the
// terminal reaches it only through us.
//
// It has our environment without NOTIFY_SOCKET: it is no service manager's.
//
// It lives in the namespaces of the calling thread, and it ends when that thread
// does: call it on one that is locked, from which it returns.
func RunAgain(ctx context.Context, args []string, stdout, stderr *os.File) error {
	cmd, err := self(args)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, notifySocket+"=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start this program again: %w", err)
	}
	pid := cmd.Process.Pid
	exited := Exited(pid)
	var late error
	select {
	case <-exited:
	case <-ctx.Done():
		unix.Kill(pid, unix.SIGTERM)
		select {
		case <-exited:
		case <-time.After(againGrace):
			// Not reaped yet, so the number is still that of its group.
			unix.Kill(-pid, unix.SIGKILL)
			<-exited
			late = fmt.Errorf("it did not stop within %v and was killed", againGrace)
		}
	}
	return errors.Join(late, cmd.Wait())
}
