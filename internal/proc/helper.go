// Package proc is about processes of ours and their habits: it starts the
// helper that alone may run the administrator's commands, detaches the daemon,
// keeps a pid file, tells the service manager how it goes, and takes privileges
// away. Arguments and paths in, processes and what joins us to them out.
package proc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Helper is a second process of this program, joined to us by a socket that
// keeps records apart (unix SOCK_SEQPACKET). One of our own lives until the socket
// closes: a parent-death signal would hang on the thread that forked, and a Go
// thread may end long before its process.
type Helper struct {
	cmd  *exec.Cmd // nil: the service manager's
	conn *net.UnixConn
}

// StartHelper runs this very program again with args (without the program's
// name) and with env as its whole environment. The helper gets the socket as
// descriptor 3, /dev/null as input and output, our standard error, and nothing
// else. It sits in a process group of its own, so that a Ctrl-C at the terminal
// reaches it only through us.
//
// Call it before DropTo: the helper keeps the privileges we have now.
func StartHelper(args []string, env []string) (*Helper, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for the helper: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "helper")
	defer theirs.Close()
	conn, err := unixConn(os.NewFile(uintptr(fds[0]), "helper"))
	if err != nil {
		return nil, err
	}

	cmd, err := self(args, theirs)
	if err != nil {
		conn.Close()
		return nil, err
	}
	cmd.Env = append([]string{}, env...) // not nil: nil would hand on ours
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the helper: %w", err)
	}
	return &Helper{cmd: cmd, conn: conn}, nil
}

// Conn is our end of the socket. It reads io.EOF once the helper is gone.
func (h *Helper) Conn() *net.UnixConn { return h.conn }

// Stop closes the socket, which tells the helper to end, and waits for it. When
// ctx ends first, the helper's process group is killed and the error says so.
// An error also says when the helper had not ended well by itself.
func (h *Helper) Stop(ctx context.Context) error {
	h.conn.Close()
	if h.cmd == nil {
		return nil
	}
	pid := h.cmd.Process.Pid
	exited := Exited(pid)
	var late error
	select {
	case <-exited:
	case <-ctx.Done():
		// Not reaped yet, so the number is still the helper's.
		unix.Kill(-pid, unix.SIGKILL)
		<-exited
		late = fmt.Errorf("the command helper did not stop in time and was killed (a command may still be running): %w", ctx.Err())
	}
	if err := h.cmd.Wait(); err != nil && late == nil {
		return fmt.Errorf("the command helper ended badly: %w", err)
	}
	return late
}

// Exited is closed when the child pid of ours has ended. The child is not
// reaped: until somebody waits for it, its number and that of its process group
// cannot be given to others and are safe to send signals to.
func Exited(pid int) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return done
}

// unixConn turns f into a connection that knows deadlines, and closes f.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("helper socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("helper socket: not a unix socket")
	}
	return u, nil
}
