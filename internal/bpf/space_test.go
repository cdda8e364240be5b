package bpf

import (
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// space is another network namespace with a thread in it.
type space struct {
	tid  int
	jobs chan func()
}

func newSpace(t testing.TB) *space {
	t.Helper()
	s := &space{jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		s.tid = unix.Gettid()
		ready <- err
		for f := range s.jobs {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { close(s.jobs) })
	s.do(func() { command(t, "ip link set lo up") })
	return s
}

// do runs f in the namespace. f must not end the test.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.jobs <- func() { defer close(done); f() }
	<-done
}

// command runs lines of a command in the namespace of the calling thread.
func command(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
}

// join makes a veth pair eth0: 10.7.0.1 and fd07::1 here, 10.7.0.2 and fd07::2
// there. All of 10.8.0.0/16 is there, too.
func join(t testing.TB, there *space) {
	t.Helper()
	command(t, "ip link add eth0 type veth peer name eth0 netns "+strconv.Itoa(there.tid))
	end := func(n string) {
		command(t,
			"ip addr add 10.7.0."+n+"/24 dev eth0",
			"ip addr add fd07::"+n+"/64 dev eth0 nodad",
			"ip link set eth0 up")
	}
	end("1")
	command(t, "ip route add 10.8.0.0/16 via 10.7.0.2")
	there.do(func() {
		end("2")
		command(t, "ip route add local 10.8.0.0/16 dev lo")
	})
}

// eventually polls until ok or the deadline.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
}
