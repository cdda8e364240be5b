package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// promptly lets a child under the race detector end at once, and not after a
// second.
const promptly = "GORACE=atexit_sleep_ms=0"

// TestMain is also the main of the children that the tests start.
func TestMain(m *testing.M) {
	switch os.Getenv("PROC_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "echo":
		conn := childConn()
		b := make([]byte, 1<<16)
		for {
			n, err := conn.Read(b)
			if err != nil {
				os.Exit(map[bool]int{true: 0, false: 4}[errors.Is(err, io.EOF)])
			}
			conn.Write(b[:n])
		}
	case "report":
		fmt.Fprint(childConn(), childReport())
	case "fail":
		childConn()
		os.Exit(3)
	case "deaf":
		childConn()
		select {}
	case "drop":
		dropped()
	case "capable":
		capable()
	case "sandbox":
		confined()
	case "parent":
		parent()
	case "daemon":
		daemon()
	case "pidfile":
		holdPID()
	}
}

func childConn() *net.UnixConn {
	// As main does, which knows nothing of helpers.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGTERM, unix.SIGINT)
	go func() {
		<-ended
		os.Exit(6)
	}()
	conn, err := HelperConn()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(5)
	}
	return conn
}

// childReport says what the helper inherited.
func childReport() string {
	var fds []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The runtime has its own: an epoll, the limits of the cgroup. The
		// directory being read is in /proc.
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/proc/") && !strings.HasPrefix(to, "/sys/") {
			fds = append(fds, e.Name()+"="+to)
		}
	}
	stdin, _ := os.Readlink("/proc/self/fd/0")
	return fmt.Sprintf("fds %d, stdin %s, env %q, leader %v, of %q", len(fds), stdin, os.Environ(), unix.Getpgrp() == os.Getpid(), fds)
}

func start(t *testing.T, role string) *Helper {
	t.Helper()
	h, err := StartHelper([]string{"-child"}, []string{"PROC_TEST_CHILD=" + role, promptly})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestHelperTalksAndStops(t *testing.T) {
	h := start(t, "echo")
	b := make([]byte, 100)
	h.Conn().SetDeadline(time.Now().Add(10 * time.Second))
	h.Conn().Write([]byte("one"))
	h.Conn().Write([]byte("two and more"))
	for _, want := range []string{"one", "two and more"} { // records stay apart
		if n, err := h.Conn().Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("read %q, %v; want %q", b[:n], err, want)
		}
	}
	// What a service manager sends to all of us does not end it.
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		unix.Kill(h.cmd.Process.Pid, sig)
	}
	h.Conn().Write([]byte("still there"))
	if n, err := h.Conn().Read(b); err != nil || string(b[:n]) != "still there" {
		t.Errorf("after signals: %q, %v", b[:n], err)
	}
	if err := h.Stop(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
}

func TestHelperInheritsNothing(t *testing.T) {
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // no close-on-exec, as a shell leaves it
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	h := start(t, "report")
	h.Conn().SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(h.Conn())
	if err != nil {
		t.Fatal(err)
	}
	// Input, output, error, and the socket (which net has duplicated by then).
	want := `fds 4, stdin /dev/null, env ["PROC_TEST_CHILD=report" "GORACE=atexit_sleep_ms=0"], leader true`
	if !strings.HasPrefix(string(b), want) {
		t.Errorf("helper: %s\nwant:   %s", b, want)
	}
	if err := h.Stop(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
}

func TestHelperThatFails(t *testing.T) {
	h := start(t, "fail")
	h.Conn().SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := h.Conn().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want EOF", err)
	}
	var exit *exec.ExitError
	if err := h.Stop(within(t, 10*time.Second)); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("Stop: %v", err)
	}
}

func TestHelperThatDoesNotStop(t *testing.T) {
	h := start(t, "deaf")
	err := h.Stop(within(t, 50*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop: %v", err)
	}
	if err := unix.Kill(h.cmd.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the helper is still there: %v", err)
	}
}

func TestHelperConnByHand(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"PROC_TEST_CHILD=echo"}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), ErrNoHelper.Error()) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDropTo(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{promptly, "PROC_TEST_CHILD=drop", "DIR=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "ok" {
		t.Errorf("%v: %s", err, out)
	}
}

// dropped gives up all but CAP_NET_ADMIN and tries what it may still do, in
// threads made before and after.
func dropped() {
	path := filepath.Join(os.Getenv("DIR"), "file")
	os.WriteFile(path, nil, 0o600)
	before, drop, check := sync.WaitGroup{}, make(chan struct{}), sync.WaitGroup{}
	for range 8 {
		before.Add(1)
		check.Go(func() {
			before.Done()
			<-drop
			tryAll(path)
		})
	}
	before.Wait()
	if err := DropTo(NetAdmin); err != nil {
		failed("DropTo: %v", err)
	}
	close(drop)
	check.Wait()
	if err := DropTo(NetAdmin, NetRaw); err != nil || withSocket(unix.AF_PACKET, unix.SOCK_RAW, nil) == nil {
		failed("regained CAP_NET_RAW, %v", err)
	}
	// What it starts gains nothing either, root though it is.
	out, err := exec.Command("/bin/sh", "-c", "grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status").CombinedOutput()
	const netAdmin = "0000000000001000" // 1 << 12
	want := "CapPrm:\t" + netAdmin + "\nCapEff:\t" + netAdmin + "\nCapBnd:\t" + netAdmin + "\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
	if err != nil || string(out) != want {
		failed("a child's capabilities: %v\n%s", err, out)
	}
	fmt.Print("ok")
	os.Exit(0)
}

func tryAll(path string) {
	if _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); !errors.Is(err, unix.EPERM) {
		failed("packet socket: %v", err)
	}
	if err := os.Chown(path, 1000, 1000); !errors.Is(err, unix.EPERM) {
		failed("chown: %v", err)
	}
	if _, err := os.ReadFile(path); err != nil { // root's own file
		failed("own file: %v", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		failed("socket: %v", err)
	}
	defer unix.Close(s)
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20); err != nil { // CAP_NET_ADMIN
		failed("SO_RCVBUFFORCE: %v", err)
	}
}

func failed(format string, a ...any) {
	fmt.Printf(format+"\n", a...)
	os.Exit(1)
}
