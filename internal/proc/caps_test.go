package proc

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to have something to drop")
		}
		t.Skip("needs root, to have something to drop")
	}
}

// Which capabilities what a reload does takes: this is why the daemon keeps the
// ones it keeps.
func TestCapabilities(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		keep string
		can  string
	}{
		{"", ""},
		{"net_raw net_bind_service", "packet transparent bind"},
		{"net_admin", "transparent nft"},
		{"bpf", ""},
		{"net_admin bpf", "transparent nft sk_lookup"},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{promptly, "PROC_TEST_CHILD=capable", "KEEP=" + c.keep, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET} // where ports and programs are its own
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != c.can {
			t.Errorf("with %q: %v, can %q, want %q", c.keep, err, out, c.can)
		}
	}
}

// capable drops all but $KEEP and says what it still can do.
func capable() {
	runtime.LockOSThread()
	names := map[string]Capability{"bpf": BPF, "net_admin": NetAdmin, "net_raw": NetRaw, "net_bind_service": NetBindService}
	var keep []Capability
	for name := range strings.FieldsSeq(os.Getenv("KEEP")) {
		keep = append(keep, names[name])
	}
	if err := DropTo(keep...); err != nil {
		failed("DropTo: %v", err)
	}
	var can []string
	for _, try := range []struct {
		what string
		do   func() error
	}{
		{"packet", func() error { return withSocket(unix.AF_PACKET, unix.SOCK_RAW, nil) }},
		{"transparent", func() error {
			return withSocket(unix.AF_INET, unix.SOCK_DGRAM, func(s int) error {
				return unix.SetsockoptInt(s, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
			})
		}},
		{"nft", func() error { return exec.Command("nft", "add", "table", "inet", "portsentry").Run() }},
		{"bind", func() error {
			return withSocket(unix.AF_INET, unix.SOCK_STREAM, func(s int) error {
				return unix.Bind(s, &unix.SockaddrInet4{Port: 1})
			})
		}},
		{"sk_lookup", steer},
	} {
		if try.do() == nil {
			can = append(can, try.what)
		}
	}
	fmt.Print(strings.Join(can, " "))
	os.Exit(0)
}

func withSocket(family, kind int, f func(s int) error) error {
	s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if f == nil {
		return nil
	}
	return f(s)
}

// steer loads an sk_lookup program, fills a map of sockets as such a program
// needs, and attaches it.
func steer() error {
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer sockets.Close()
	err = withSocket(unix.AF_INET, unix.SOCK_STREAM, func(s int) error {
		if err := unix.Listen(s, 1); err != nil { // on a port of the kernel's choice
			return err
		}
		return sockets.Put(uint32(0), uint64(s))
	})
	if err != nil {
		return err
	}
	const pass = 1 // SK_PASS
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	l, err := link.AttachNetNs(int(ns.Fd()), prog)
	if err != nil {
		return err
	}
	return l.Close()
}
