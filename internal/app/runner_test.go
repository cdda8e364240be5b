package app

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/respond"
	"portsentry/internal/respond/command"
)

// When the helper ends, the task goes on, and orders fail with the reason
// instead of being refused as if the queue was full.
func TestRunnerWithoutHelper(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "ours")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := newRunner(command.NewClient(conn.(*net.UnixConn), config.Modes{}, config.Dialect2x))
	if r.ended() {
		t.Error("ended before it began")
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone, stopped := make(chan error, 1), make(chan error, 1)
	go func() { stopped <- r.run(ctx, func(why error) { gone <- why }) }()

	unix.Close(fds[1]) // as when the helper dies
	if why := <-gone; !errors.Is(why, command.ErrHelperGone) || !r.ended() {
		t.Errorf("told %v, ended %v", why, r.ended())
	}
	steps := []respond.Step{respond.StepHostsDeny, respond.StepCommand}
	for range 3 {
		done := make(chan []respond.Action, 1)
		if !r.Submit(respond.Order{Steps: steps, Host: netip.MustParseAddr("203.0.113.9")}, func(a []respond.Action) { done <- a }) {
			t.Fatal("refused")
		}
		for i, a := range <-done {
			if a.Step != steps[i] || !errors.Is(a.Err, command.ErrHelperGone) {
				t.Errorf("action %+v", a)
			}
		}
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
