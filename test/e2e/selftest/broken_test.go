package selftest_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// A configuration that cannot keep what it promises: exit code 1, and what to do.
func TestBroken(t *testing.T) {
	t.Parallel()
	everybody := filepath.Join(t.TempDir(), "ignore")
	check(t, os.WriteFile(everybody, []byte("0.0.0.0/0\n::/0\n"), 0o600))
	for _, c := range []struct {
		name  string
		more  map[string]string
		parts []string
	}{
		{
			"no such interface", map[string]string{"INTERFACES": "nowhere0"},
			[]string{"INTERFACES        NO    not there: nowhere0", "or leave INTERFACES out", "\n34 of 35 as promised, "},
		},
		{
			"everybody is ignored", map[string]string{"IGNORE_FILE": everybody},
			[]string{"\nSYN               yes   TCP SYN/Normal scan  E1        NO ", "every network there is", "\n12 of 34 as promised, "},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := selftest(t, "-c", write(t, banning(c.more), ""))
			if r.code != 1 || r.stderr != "" {
				t.Errorf("exit code %d, %q", r.code, r.stderr)
			}
			for _, part := range c.parts {
				if !strings.Contains(r.stdout, part) {
					t.Errorf("no %q in\n%s", part, r.stdout)
				}
			}
		})
	}
}

// Where a kind of packet does not get as far as us, it is said not to have been
// seen, and nothing else: the table is what happened, not what was hoped for. What
// eats it here is an XDP program of somebody else's, who came first.
func TestUnseen(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd, out, errs := command(ctx, t, t.TempDir(), "-c", write(t, banning(nil), ""), "--json")
	check(t, cmd.Start())
	var host string
	lab.Wait(t, limit, "the link", func() bool {
		made := spaces(cmd.Process.Pid)
		if len(made) < 2 {
			return false
		}
		host = filepath.Base(made[1])
		return in(host, "ip", "link", "show", "eth0").Run() == nil
	})
	check(t, cmd.Process.Signal(syscall.SIGSTOP)) // it may be fast
	eater, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "BSD", Instructions: eatFIN()})
	check(t, err)
	defer eater.Close()
	check(t, inside(host, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFd(l, eater.FD())
	}))
	check(t, cmd.Process.Signal(syscall.SIGCONT))
	r, err := ended(cmd.Wait(), out, errs)
	check(t, err)
	if r.code != 1 || len(r.of("FIN")) != 2 {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	for i := range r.trials {
		one := &r.trials[i]
		if isFIN := one.Probe == "FIN"; isFIN != (one.Broken != "") || isFIN && (one.Seen || one.Broken != "it was not seen") {
			t.Errorf("%+v", one)
		}
	}
}

// eatFIN is an XDP program that drops TCP segments with FIN alone, behind
// plain headers.
func eatFIN() asm.Instructions {
	const drop, pass = 1, 2
	const ethernet, flags = 14, 13 // bytes of the header; offset in that of TCP
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // its end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, ethernet+20+20),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R5, asm.R2, 12, asm.Byte),
		asm.LoadMem(asm.R0, asm.R2, ethernet+20+flags, asm.Byte),
		asm.JEq.Imm(asm.R5, 0x08, "look"),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, ethernet+40+20),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R0, asm.R2, ethernet+40+flags, asm.Byte),
		asm.JNE.Imm(asm.R0, int32(pktgen.FIN), "pass").WithSymbol("look"),
		asm.Mov.Imm(asm.R0, drop),
		asm.Return(),
		asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"),
		asm.Return(),
	}
}

// inside runs f on a thread of its own in a named network namespace.
func inside(space string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := netns.GetFromName(space)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Whoever is not root is told so.
func TestNotRoot(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	tmp := t.TempDir()
	for dir := tmp; dir != os.TempDir(); dir = filepath.Dir(dir) {
		check(t, os.Chmod(dir, 0o777))
	}
	cmd, out, errs := command(t.Context(), t, tmp)
	check(t, os.Chmod(filepath.Dir(lab.Binary(t)), 0o755))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	r, err := ended(cmd.Run(), out, errs)
	check(t, err)
	if r.code != 2 || r.stdout != "" || !strings.HasSuffix(r.stderr, "take root: sudo portsentry selftest\n") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	empty(t, tmp)
}

// A mistake in the configuration is named as portsentry check does.
func TestMistakes(t *testing.T) {
	t.Parallel()
	r := selftest(t, "-c", write(t, map[string]string{"TCP_PORTS": "70000"}, ""))
	if r.code != 2 || !strings.Contains(r.stderr, "70000 is no port") || !strings.HasSuffix(r.stderr, "1 mistake; nothing was changed\n") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := selftest(t, "now"); r.code != 2 || !strings.Contains(r.stderr, `"now" is one`) {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
