package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// detachMark tells the daemon that Detach started it: the value names the pipe
	// that it finds as descriptor firstFD, so that one left over in some
	// environment means nothing.
	detachMark = "PORTSENTRY_DETACHED"

	detachLimit = 30 * time.Second // to get ready
	detachGrace = 5 * time.Second  // to stop in order, for one that did not get ready
)

// Detach starts this program again with args (without the program's name) as a
// daemon, since a Go process cannot fork: in a session of its own and in the
// root directory, with /dev/null as input and output. It copies what the daemon
// says on standard error to stderr, waits until the daemon is ready (see
// Detached) and returns the code for this process to exit with: 0 when the
// daemon is ready, else the daemon's own. One that is not ready after 30 s, or
// when ctx ends, is stopped, and the code is 1.
//
// The daemon has our environment without NOTIFY_SOCKET: this process is the one
// that a service manager watches, and its exit says that the daemon is ready.
//
// The daemon is in another directory: the caller makes relative paths in args
// absolute.
func Detach(ctx context.Context, args []string, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(ctx, detachLimit)
	defer cancel()
	started := time.Now()
	d, err := startDetached(args)
	if err != nil {
		fmt.Fprintf(stderr, "start the daemon: %v\n", err)
		return 1
	}
	defer d.close()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		io.Copy(stderr, struct{ io.Reader }{d.said}) // read(2), which heeds the deadline
	}()
	err = d.waitReady(ctx)
	// Its helper may hold the other end for as long as it lives. What was said
	// before the word came is in the pipe by now.
	d.said.SetReadDeadline(time.Unix(1, 0))
	<-heard
	d.copyRest(stderr)
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode() // and it has said why
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the daemon was not ready after %v and was stopped", time.Since(started).Round(time.Second))
	}
	fmt.Fprintln(stderr, err)
	return 1
}

// detached is a daemon as its parent sees it.
type detached struct {
	cmd   *exec.Cmd
	said  *os.File // its standard error
	ready *os.File // gets a byte when it is ready, ends when it has ended
}

func startDetached(args []string) (*detached, error) {
	ready, readyThere, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer readyThere.Close()
	said, saidThere, err := os.Pipe()
	if err != nil {
		ready.Close()
		return nil, err
	}
	defer saidThere.Close()
	d := &detached{said: said, ready: ready}
	if d.cmd, err = self(args, readyThere); err != nil {
		d.close()
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(readyThere.Fd()), &st); err != nil {
		d.close()
		return nil, err
	}
	d.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, notifySocket+"=") || strings.HasPrefix(kv, detachMark+"=")
	}), detachMark+"="+pipeName(&st))
	d.cmd.Dir = "/"
	d.cmd.Stderr = saidThere
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *detached) close() {
	d.said.Close()
	d.ready.Close()
}

// waitReady returns nil when the daemon is ready. Else the daemon has ended, and
// the error is what Wait says or a sentence.
func (d *detached) waitReady(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { d.ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := d.ready.Read(make([]byte, 1))
	if err == nil {
		return nil // it is on its own now, and not ours to wait for
	}
	select {
	case <-Exited(d.cmd.Process.Pid):
	case <-ctx.Done():
		return d.giveUp(ctx)
	}
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the daemon ended before it was ready: %w", err)
	}
	return errors.New("the daemon ended before it was ready")
}

// giveUp stops a daemon that does not get ready: in order if it can.
func (d *detached) giveUp(ctx context.Context) error {
	pid := d.cmd.Process.Pid
	exited := Exited(pid)
	unix.Kill(pid, unix.SIGTERM)
	select {
	case <-exited:
	case <-time.After(detachGrace):
	}
	unix.Kill(-pid, unix.SIGKILL) // it is not reaped, so the number is still its group's
	<-exited
	d.cmd.Wait()
	return fmt.Errorf("the daemon was stopped before it was ready: %w", ctx.Err())
}

// copyRest copies what is in the pipe of standard error, and does not wait for
// more.
func (d *detached) copyRest(to io.Writer) {
	d.said.SetReadDeadline(time.Time{})
	pipe, err := d.said.SyscallConn()
	if err != nil {
		return
	}
	pipe.Read(func(fd uintptr) bool {
		b := make([]byte, 4096)
		for {
			n, err := unix.Read(int(fd), b)
			if n <= 0 && !errors.Is(err, unix.EINTR) {
				return true
			}
			to.Write(b[:max(n, 0)])
		}
	})
}

// pipeName is what a pipe is known by in every process that has it; "" for what
// is no pipe.
func pipeName(st *unix.Stat_t) string {
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return ""
	}
	return fmt.Sprintf("pipe:[%d]", st.Ino)
}
