package proc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What is refused inside, and what goes on to work there. Root with every
// capability tries it, in threads of before and after.
func TestSandbox(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"write", "read", "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{promptly, "PROC_TEST_CHILD=sandbox", "DIR=" + dir}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ok" {
		t.Errorf("%v: %s", err, out)
	}
}

// attempt is something to try in the sandbox. want nil: it must succeed.
type attempt struct {
	what string
	do   func() error
	want []error
}

func call(nr uintptr, args ...uintptr) func() error {
	args = append(args, make([]uintptr, 6)...)
	return func() error {
		_, _, e := unix.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		if e != 0 {
			return e
		}
		return nil
	}
}

func attempts(dir string) []attempt {
	path := func(folder, name string) string { return filepath.Join(dir, folder, name) }
	open := func(path string, flags int) func() error {
		return func() error {
			f, err := os.OpenFile(path, flags, 0o600)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	var refused = []error{unix.EPERM}
	var closed = []error{unix.EACCES}
	all := []attempt{
		{"replace a file", func() error {
			if err := os.WriteFile(path("write", "new"), nil, 0o600); err != nil {
				return err
			}
			return os.Rename(path("write", "new"), path("write", "file"))
		}, nil},
		{"read", open(path("read", "file"), os.O_RDONLY), nil},
		{"write to what may be read", open(path("read", "file"), os.O_WRONLY), closed},
		{"make beside what may be read", open(path("read", "new"), os.O_CREATE|os.O_WRONLY), closed},
		{"read elsewhere", open(path("other", "file"), os.O_RDONLY), closed},
		{"a file that runs as its owner", func() error {
			fd, err := unix.Open(path("write", "suid"), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o4755)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}, refused},
		{"the same by its mode", func() error { return unix.Chmod(path("write", "file"), 0o4755) }, refused},
		{"the same of another", func() error { return unix.Fchmodat(unix.AT_FDCWD, path("other", "file"), 0o2755, 0) }, refused},
		{"a file that everybody may write", func() error {
			f, err := os.Open(path("read", "file"))
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Chmod(0o666)
		}, refused},
		{"a file for the group", func() error { return os.Chmod(path("write", "file"), 0o660) }, nil},
		{"openat2", call(unix.SYS_OPENAT2), []error{unix.ENOSYS}}, // its mode is where no filter looks
		{"write to /etc/shadow", open("/etc/shadow", os.O_WRONLY), closed},
		{"remove elsewhere", func() error { return os.Remove(path("other", "file")) }, closed},
		{"/dev/null", open(os.DevNull, os.O_RDWR), nil},

		{"a goroutine and a thread", func() error {
			done := make(chan bool)
			go func() { runtime.LockOSThread(); done <- true }() // its thread ends with it
			<-done
			return nil
		}, nil},
		{"a socket", func() error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			return c.Close()
		}, nil},
		{"a packet socket", func() error { return withSocket(unix.AF_PACKET, unix.SOCK_RAW, nil) }, nil},
		{"is somebody alive", func() error { return unix.Kill(1, 0) }, nil},

		{"execve", func() error { return syscall.Exec("/bin/true", []string{"true"}, nil) }, refused},
		{"a program", func() error { return exec.Command("/bin/true").Run() }, refused},
		{"fork", call(unix.SYS_CLONE, uintptr(unix.SIGCHLD)), refused},
		{"clone3", call(unix.SYS_CLONE3), []error{unix.ENOSYS}},
		{"kill", func() error { return unix.Kill(os.Getppid(), unix.SIGCONT) }, refused},
		{"tgkill", func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), unix.SIGCONT) }, refused},
		{"a family of sockets", func() error { return withSocket(unix.AF_VSOCK, unix.SOCK_STREAM, nil) }, refused},
		{"a line at a terminal", func() error { return unix.IoctlSetInt(0, unix.TIOCSTI, 0) }, refused},
		// The kernel looks at the lower half alone.
		{"the same with bits that it ignores", call(unix.SYS_IOCTL, 0, 1<<32|unix.TIOCSTI), refused},
		{"a limit", func() error {
			return unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}, nil)
		}, refused},
		{"prctl", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }, refused},
	}
	for name, nr := range map[string]uintptr{
		"ptrace": unix.SYS_PTRACE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "pidfd_getfd": unix.SYS_PIDFD_GETFD,
		"mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2, "pivot_root": unix.SYS_PIVOT_ROOT, "chroot": unix.SYS_CHROOT,
		"fsopen": unix.SYS_FSOPEN, "open_tree": unix.SYS_OPEN_TREE, "setns": unix.SYS_SETNS, "unshare": unix.SYS_UNSHARE,
		"init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE, "kexec_load": unix.SYS_KEXEC_LOAD,
		"reboot": unix.SYS_REBOOT, "swapon": unix.SYS_SWAPON, "keyctl": unix.SYS_KEYCTL, "add_key": unix.SYS_ADD_KEY,
		"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "fanotify_init": unix.SYS_FANOTIFY_INIT, "settimeofday": unix.SYS_SETTIMEOFDAY,
		"setuid": unix.SYS_SETUID, "setgid": unix.SYS_SETGID, "setgroups": unix.SYS_SETGROUPS, "capset": unix.SYS_CAPSET,
		"seccomp": unix.SYS_SECCOMP, "mknodat": unix.SYS_MKNODAT, "symlinkat": unix.SYS_SYMLINKAT, "linkat": unix.SYS_LINKAT,
		"setxattr": unix.SYS_SETXATTR, "memfd_create": unix.SYS_MEMFD_CREATE, "execveat": unix.SYS_EXECVEAT,
		"sethostname": unix.SYS_SETHOSTNAME, "acct": unix.SYS_ACCT, "quotactl": unix.SYS_QUOTACTL,
		"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "landlock_restrict_self": unix.SYS_LANDLOCK_RESTRICT_SELF,
	} {
		all = append(all, attempt{name, call(nr), refused})
	}
	return all
}

// confined enters the sandbox and tries.
func confined() {
	dir := os.Getenv("DIR")
	s := &Sandbox{Write: []string{filepath.Join(dir, "write"), filepath.Join(dir, "missing")}, Read: []string{filepath.Join(dir, "read")}}
	try := func() {
		for _, a := range attempts(dir) {
			err := a.do()
			if (err == nil) != (a.want == nil) || err != nil && !slices.ContainsFunc(a.want, func(w error) bool { return errors.Is(err, w) }) {
				failed("%s: %v", a.what, err)
			}
		}
	}
	enter := make(chan struct{})
	var threads sync.WaitGroup
	threads.Go(func() {
		runtime.LockOSThread() // a thread of before
		<-enter
		try()
	})
	if lacks := s.Enter(); len(lacks) > 0 {
		failed("%q", lacks)
	}
	close(enter)
	threads.Wait()
	threads.Go(func() {
		runtime.LockOSThread()
		try()
	})
	threads.Wait()
	if w, r := s.Writes(filepath.Join(dir, "write", "a")), s.Reads(filepath.Join(dir, "other", "a")); !w || r {
		failed("it says writable %v, readable %v", w, r)
	}
	fmt.Print("ok")
	os.Exit(0)
}

// TestCalls: every name is one that Linux knows, and the filter can be made for
// both kinds of machine. Each of the calls is in it.
func TestCalls(t *testing.T) {
	for _, name := range calls {
		_, amd64 := arch.X86_64.SyscallNames[name]
		_, arm64 := arch.AARCH64.SyscallNames[name]
		if !amd64 && !arm64 {
			t.Errorf("nobody knows the call %s", name)
		}
	}
	for _, info := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		g := new(Sandbox).allowed(info)
		for _, name := range []string{"fstat", "epoll_pwait", "bpf", "futex", "recvmsg", "mmap", "exit_group", "rt_sigreturn"} {
			if !slices.Contains(g.Names, name) {
				t.Errorf("%s: %s is not in it", info.Name, name)
			}
		}
		if !slices.Contains(g.Names, "newfstatat") && !slices.Contains(g.Names, "fstatat") {
			t.Errorf("%s: there is no way to ask about a file", info.Name)
		}
		if !slices.ContainsFunc(g.NamesWithCondtions, func(c seccomp.NameWithConditions) bool { return c.Name == "openat" }) {
			t.Errorf("%s: there is no way to open one", info.Name)
		}
		for _, name := range []string{"execve", "execveat", "fork", "vfork", "clone3", "openat2", "ptrace", "mount"} {
			if slices.Contains(g.Names, name) {
				t.Errorf("%s: %s is in it", info.Name, name)
			}
		}
	}
	p := new(Sandbox).policy(arch.X86_64)
	program, err := p.Assemble()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bpf.Assemble(program)
	if err != nil || len(raw) > 1024 {
		t.Errorf("%d instructions, %v", len(raw), err)
	}
	t.Logf("%d calls, %d instructions", len(calls), len(raw))
}

func BenchmarkPolicy(b *testing.B) {
	for b.Loop() {
		p := new(Sandbox).policy(arch.X86_64)
		if _, err := p.Assemble(); err != nil {
			b.Fatal(err)
		}
	}
}
