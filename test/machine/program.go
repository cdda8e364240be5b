package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"portsentry/test/harness"
)

// Program runs on a machine until it ends or is stopped. What it says goes to
// files, so none of it is lost or holds it up.
type Program struct {
	Out, Err harness.Output

	m      *Machine
	args   []string
	pid    int
	ended  chan struct{}
	status *os.ProcessState // once ended is closed
}

// Start starts a program that stays. The test's end kills it.
func (m *Machine) Start(args ...string) *Program {
	m.t.Helper()
	dir, err := os.MkdirTemp(m.dir, "program-")
	check(m.t, err)
	out, err := os.Create(filepath.Join(dir, "stdout"))
	check(m.t, err)
	defer out.Close()
	errs, err := os.Create(filepath.Join(dir, "stderr"))
	check(m.t, err)
	defer errs.Close()

	cmd := m.Command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = out, errs
	check(m.t, m.Do(cmd.Start))
	p := &Program{
		Out: harness.Output(out.Name()), Err: harness.Output(errs.Name()),
		m: m, args: args, pid: cmd.Process.Pid, ended: make(chan struct{}),
	}
	go func() {
		cmd.Wait() // its error is in the state
		p.status = cmd.ProcessState
		close(p.ended)
	}()
	m.t.Cleanup(func() { p.Stop(syscall.SIGKILL) })
	return p
}

// PID is the program's number on the host. On the machine it has another one.
func (p *Program) PID() int { return p.pid }

// Running reports whether the program has not ended.
func (p *Program) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Stop sends a signal and waits for the program's end. The code is that of the
// shell: 128 and the signal's number for one that a signal ended.
func (p *Program) Stop(s syscall.Signal) (code int) {
	p.m.t.Helper()
	if p.Running() {
		if err := syscall.Kill(p.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			p.m.t.Error(err)
		}
	}
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		p.m.t.Errorf("%s does not end after %v", strings.Join(p.args, " "), s)
		syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.ended
	}
	if ws, ok := p.status.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.status.ExitCode()
}

// Processes are the numbers, on the machine, of the processes whose name is
// name, as pidof(8) and ps(1) know it: those that detached, too.
func (m *Machine) Processes(name string) []int {
	m.t.Helper()
	var found []int
	check(m.t, m.Do(func() error {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			comm, err := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
			if err == nil && strings.TrimSuffix(string(comm), "\n") == name {
				found = append(found, pid)
			}
		}
		return nil
	}))
	return found
}
