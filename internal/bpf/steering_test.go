package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// enterSpace moves the test into a network namespace of its own. The thread is
// never unlocked, so it ends with the test and the namespace with it.
func enterSpace(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root for a network namespace")
		}
		t.Skip("needs root for a network namespace")
	}
	t.Log("as root in a network namespace of its own")
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("loopback: %v: %s", err, out)
	}
}

func udpSocket(t *testing.T) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func ready(t *testing.T, fd int) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

func TestSteering(t *testing.T) {
	enterSpace(t)
	ours := udpSocket(t)
	s, err := OpenSteering(Sockets{TCP4: -1, TCP6: -1, UDP4: ours, UDP6: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	from, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(from)
	// Loopback delivers before sendto(2) returns.
	arrives := func() bool {
		t.Helper()
		if err := unix.Sendto(from, []byte{1}, 0, &unix.SockaddrInet4{Port: 7000, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		n, _, err := unix.Recvfrom(ours, make([]byte, 10), unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		return n == 1
	}
	var uses Counts
	count := func() uint32 {
		t.Helper()
		if err := s.Uses(UDP, &uses); err != nil {
			t.Fatal(err)
		}
		return uses[7000]
	}

	if arrives() {
		t.Error("steered before it is a trap")
	}
	if err := s.SetTrap(UDP, 7000, count()); err != nil {
		t.Fatal(err)
	}
	if !arrives() {
		t.Error("a trap, but not steered")
	}
	if ready(t, s.FD()) {
		t.Error("taken, though nobody did")
	}
	stale := count()
	service, err := net.ListenPacket("udp4", ":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	if arrives() || count() != stale+1 || !ready(t, s.FD()) {
		t.Errorf("bound: %d uses, were %d, told %v", count(), stale, ready(t, s.FD()))
	}
	if err := s.Drain(); err != nil || ready(t, s.FD()) {
		t.Error("told still", err)
	}
	// What was decided from an older list of sockets has no effect.
	if err := s.SetTrap(UDP, 7000, stale); err != nil {
		t.Fatal(err)
	}
	if arrives() {
		t.Error("steered by an old decision")
	}
	if err := s.SetTrap(UDP, 7000, count()); err != nil {
		t.Fatal(err)
	}
	if !arrives() {
		t.Error("not steered again")
	}
	if err := s.ClearTrap(UDP, 7000); err != nil {
		t.Fatal(err)
	}
	if arrives() {
		t.Error("steered though cleared")
	}
	if err := s.SetTrap(UDP, 7000, count()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if arrives() {
		t.Error("steered though closed")
	}
	if err := s.Close(); err != nil {
		t.Error("the second time:", err)
	}
}

func TestNoSockets(t *testing.T) {
	if _, err := OpenSteering(Sockets{-1, -1, -1, -1}); err == nil {
		t.Error("steering to nowhere")
	}
}

func TestExplain(t *testing.T) {
	errLoad := errors.New("load: it fails")
	have := need{"something", "Linux 1.0", func() error { return nil }}
	lack := need{"other things", "Linux 99.9", func() error { return ebpf.ErrNotSupported }}
	unknown := need{"third things", "Linux 2.0", func() error { return unix.EPERM }}
	const (
		enough = 1<<unix.CAP_BPF | 1<<unix.CAP_NET_ADMIN
		root   = 1 << unix.CAP_SYS_ADMIN
	)
	// As the library words it.
	refused := fmt.Errorf("load programs: field Bound4: map create: %w (MEMLOCK may be too low)", unix.EPERM)
	verifier := fmt.Errorf("load programs: %w: R1 invalid mem access", unix.EACCES)
	for _, c := range []struct {
		name  string
		needs []need
		caps  uint64
		err   error
		is    error
		isNot error
		text  string
	}{
		{"all there", []need{have}, root, errLoad, errLoad, ErrKernel, "load: it fails"},
		{"missing", []need{have, unknown, lack}, root, refused, ErrKernel, errLoad, ErrKernel.Error() + ": other things need Linux 99.9"},
		{"no capability", []need{unknown}, 0, refused, fs.ErrPermission, ErrKernel, "needs CAP_BPF and CAP_NET_ADMIN"},
		{"one of two", []need{have}, 1 << unix.CAP_BPF, refused, fs.ErrPermission, ErrKernel, "needs CAP_BPF and CAP_NET_ADMIN"},
		{"two of three", []need{have}, enough, refused, fs.ErrPermission, ErrKernel, "this kernel wants CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN"},
		{"in spite of all", []need{have}, root, refused, fs.ErrPermission, ErrKernel, "forbidden in spite of CAP_BPF and CAP_NET_ADMIN: see to user namespace, seccomp filter and kernel lockdown"},
		{"verifier", []need{have}, root, verifier, verifier, ErrKernel, verifier.Error()},
		{"not known", []need{unknown}, 0, errLoad, errLoad, ErrKernel, "load: it fails"},
	} {
		err := explainBy(c.needs, c.caps, c.err)
		if !errors.Is(err, c.is) || errors.Is(err, c.isNot) || !errors.Is(err, c.err) || err.Error() != c.text {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A kernel on which steering works has everything that is said to be needed.
func TestNeedsAreThere(t *testing.T) {
	enterSpace(t)
	for _, n := range needs() {
		if err := n.probe(); err != nil {
			t.Errorf("%s (%s): %v", n.what, n.since, err)
		}
	}
}

// TestOwnRoot: where cgroup2 is mounted nowhere, a mount of our own is the same
// directory.
func TestOwnRoot(t *testing.T) {
	enterSpace(t)
	mounted, err := mountedRoot()
	if err != nil {
		t.Skip(err) // nothing to compare with
	}
	defer mounted.Close()
	own, err := ownRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	a, err := mounted.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := own.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if a.Sys().(*syscall.Stat_t).Ino != b.Sys().(*syscall.Stat_t).Ino {
		t.Error("another directory")
	}
}

func TestCgroup2Mount(t *testing.T) {
	const (
		v1     = "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
		hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
		below  = "50 31 0:38 /docker/1 /mnt/x rw - cgroup2 none rw\n"
		blank  = `60 31 0:38 / /mnt/a\040b\134c rw - cgroup2 none rw` + "\n"
	)
	for _, c := range []struct{ mountinfo, want string }{
		{v1 + hybrid, "/sys/fs/cgroup/unified"},
		{below + hybrid, "/sys/fs/cgroup/unified"},
		{hybrid + below, "/sys/fs/cgroup/unified"},
		{below, "/mnt/x"},
		{blank, `/mnt/a b\c`},
		{v1, ""},
		{"rubbish - cgroup2 none rw\n - cgroup2 \n", ""},
	} {
		got, err := cgroup2Mount(strings.NewReader(c.mountinfo))
		if got != c.want || c.want == "" && !errors.Is(err, errNoCgroup2) || c.want != "" && err != nil {
			t.Errorf("%q: %q, %v; want %q", c.mountinfo, got, err, c.want)
		}
	}
}

// The committed objects are what the source compiles to, byte for byte.
func TestObjectsAreCurrent(t *testing.T) {
	for _, tool := range []string{"clang-14", "llvm-strip-14"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("needs %s (Debian: clang-14, llvm-14)", tool)
			}
			t.Skipf("needs %s (Debian: clang-14, llvm-14)", tool)
		}
	}
	dir := t.TempDir()
	// The commands of gen.go, told to write elsewhere.
	gen, err := os.ReadFile("gen.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(gen)) {
		line, ok := strings.CutPrefix(line, "//go:generate go ")
		if !ok {
			continue
		}
		flags, cflags, ok := strings.Cut(line, ` -cflags "`)
		cflags, rest, ok2 := strings.Cut(cflags, `"`)
		if !ok || !ok2 {
			t.Fatalf("gen.go is not as expected: %q", line)
		}
		args := append(strings.Fields(flags), "-cflags", cflags, "-output-dir", dir)
		cmd := exec.Command("go", append(args, strings.Fields(rest)...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", cmd, err, out)
		}
	}
	committed, err := filepath.Glob("*_bpfe[bl].*")
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(made) == 0 || len(made) != len(committed) {
		t.Errorf("gen.go makes %v; committed are %v", made, committed)
	}
	for _, name := range committed {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its source makes: go generate ./internal/bpf", name)
		}
	}
}
