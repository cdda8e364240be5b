package command

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/proc"
)

// run runs line in a shell and waits for it. The command has a session and
// process group of its own, the root directory, env and nothing else for an
// environment, /dev/null as input and output, and no other descriptor than its
// standard error, the end of which is kept. What it leaves in the background
// may go on once the shell itself has ended.
func (s *server) run(line string, env []string) reply {
	// The parent-death signal below goes off when this thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	stderr, w, err := os.Pipe()
	if err != nil {
		return reply{status: NotRun, detail: err.Error()}
	}
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir = "/"
	cmd.Env = env
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	err = cmd.Start()
	w.Close()
	if err != nil {
		stderr.Close()
		return reply{status: NotRun, detail: err.Error()}
	}
	said := listen(stderr)

	ended := OK
	exited := proc.Exited(cmd.Process.Pid)
	limit := time.NewTimer(s.timeLimit)
	defer limit.Stop()
	select {
	case <-exited:
	case <-limit.C:
		ended = TimedOut
	case <-s.stopping:
		select {
		case <-exited:
		case <-time.After(s.stopGrace):
			ended = Stopped
		}
	}
	if ended != OK {
		// The shell is not reaped before the second signal, so the group's number
		// stays its own; and its children get their time even when it ends first.
		unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
		time.Sleep(s.killAfter)
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	err = cmd.Wait()

	a := reply{status: ended, detail: s.lastWords(said)}
	var exit *exec.ExitError
	switch {
	case ended != OK:
	case err == nil:
		a.detail = ""
	case errors.As(err, &exit):
		ws := exit.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			a.status, a.code = Signaled, int32(ws.Signal())
		} else {
			a.status, a.code = Exited, int32(ws.ExitStatus())
		}
	default:
		a.status, a.detail = NotRun, err.Error()
	}
	return a
}

// stderrTail is the end of what comes through a pipe.
type stderrTail struct {
	pipe *os.File
	done chan struct{} // closed when nobody holds the other end any more

	mu   sync.Mutex
	tail []byte
}

func listen(pipe *os.File) *stderrTail {
	t := &stderrTail{pipe: pipe, done: make(chan struct{}), tail: make([]byte, 0, 2*detailSize)}
	go t.read()
	return t
}

func (t *stderrTail) read() {
	defer close(t.done)
	defer t.pipe.Close()
	var b [detailSize]byte
	for {
		n, err := t.pipe.Read(b[:])
		t.mu.Lock()
		t.tail = append(t.tail, b[:n]...)
		if over := len(t.tail) - detailSize; over > 0 {
			t.tail = append(t.tail[:0], t.tail[over:]...)
		}
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// lastWords returns the end of what the command said. Something that it left in
// the background may hold the pipe: it is listened to and not heard, for a
// closed pipe would end it at its next word; with too many of those, that is
// what happens.
func (s *server) lastWords(t *stderrTail) string {
	select {
	case <-t.done:
	case <-time.After(stderrWait):
		select {
		case s.linger <- struct{}{}:
			go func() { <-t.done; <-s.linger }()
		default:
			t.pipe.Close()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.tail)
}
