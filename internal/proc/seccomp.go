package proc

import (
	"errors"
	"fmt"
	"os"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// calls are what the daemon may ask the kernel for, whatever the arguments: what
// Go's runtime needs, files, sockets, bpf(2). Some exist on one architecture alone,
// where newfstatat is also called fstatat.
//
// What is not here is refused with EPERM, above all: to start a program (execve), to
// make a process (fork, clone without CLONE_THREAD), to look into one (ptrace,
// process_vm_readv, pidfd_getfd), to change users, namespaces, mounts, modules, the
// clock or keys, to watch the whole machine (perf_event_open, fanotify), and ways
// around a filter (io_uring, userfaultfd).
var calls = []string{
	// In the order in which a busy daemon makes them.
	"futex", "epoll_pwait", "read", "write", "nanosleep", "recvfrom", "sendto", "bpf",
	"recvmsg", "sendmsg", "close", "fstat", "newfstatat", "fstatat", "poll", "ppoll", "pselect6",

	// The runtime: memory, threads, signals, time.
	"mmap", "munmap", "mprotect", "madvise", "mremap", "mincore", "msync",
	"sched_yield", "sched_getaffinity", "gettid", "getpid", "exit", "exit_group",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
	"clock_gettime", "clock_getres", "clock_nanosleep", "gettimeofday", "getrandom",
	"epoll_create1", "epoll_ctl", "epoll_pwait2", "eventfd2", "pipe2", "dup3",
	"rseq", "set_robust_list", // threads of a C library, where one is linked in

	// Who and what we are.
	"getppid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "capget", "getrusage", "getrlimit",
	"uname", "sysinfo", "umask", "getcwd",

	// Files.
	"stat", "lstat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
	"getdents64", "lseek", "pread64", "pwrite64", "readv", "writev", "fcntl", "flock",
	"fsync", "fdatasync", "ftruncate", "fallocate", "fadvise64", "copy_file_range", "sendfile", "splice",
	"unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "utimensat",
	"chown", "fchown", "fchownat", "statfs", "fstatfs",
	"inotify_init1", "inotify_add_watch", "inotify_rm_watch",

	// Sockets, of the families below.
	"bind", "connect", "listen", "accept4", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt",
	"sendmmsg", "recvmmsg",

	// The end of the helper.
	"wait4", "waitid",
}

// families are the kinds of sockets that are made after the start: trap ports and
// DNS, netlink, packets, and those to syslog and the service manager.
var families = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

// allowSpeculation is SECCOMP_FILTER_FLAG_SPEC_ALLOW: before 5.16, Linux took a
// filter for a reason to run the whole process without speculative stores.
const allowSpeculation seccomp.FilterFlag = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW

// restrictCalls installs the filter in all threads. A filter stays for good, and in
// threads to come.
func (s *Sandbox) restrictCalls() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("none for this processor: %w", err)
	}
	if !seccomp.Supported() {
		return errors.New("this kernel has none (CONFIG_SECCOMP_FILTER)")
	}
	return seccomp.LoadFilter(seccomp.Filter{
		Flag:   seccomp.FilterFlagTSync | allowSpeculation,
		Policy: s.policy(info),
	})
}

// modes are the calls that give a file its mode, which of their arguments that is, and
// what must not be in it. Root owns most of a machine, and Landlock does not look at
// modes: with a file of his that runs as its owner, or that everybody may write, any
// account here is root's. RestrictSUIDSGID=, systemd.exec(5), forbids the former.
var modes = []struct {
	name string
	arg  uint32
	bits uint64
}{
	{"open", 2, unix.S_ISUID | unix.S_ISGID}, // to make one takes a folder of ours
	{"openat", 3, unix.S_ISUID | unix.S_ISGID},
	{"chmod", 1, unix.S_ISUID | unix.S_ISGID | unix.S_IWOTH},
	{"fchmod", 1, unix.S_ISUID | unix.S_ISGID | unix.S_IWOTH},
	{"fchmodat", 2, unix.S_ISUID | unix.S_ISGID | unix.S_IWOTH},
}

// policy refuses with EPERM what is not allowed. To clone3 and openat2 it says that
// there is no such call, as an old kernel would: then clone and openat are made, whose
// arguments a filter can see.
func (s *Sandbox) policy(info *arch.Info) seccomp.Policy {
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{
		s.allowed(info),
		{Names: []string{"clone3", "openat2"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
	}}
}

// allowed is what may be called on an architecture.
func (s *Sandbox) allowed(info *arch.Info) seccomp.SyscallGroup {
	g := seccomp.SyscallGroup{Action: seccomp.ActionAllow}
	for _, name := range calls {
		if _, exists := info.SyscallNames[name]; exists {
			g.Names = append(g.Names, name)
		}
	}
	add := func(name string, when ...seccomp.Condition) {
		g.NamesWithCondtions = append(g.NamesWithCondtions, seccomp.NameWithConditions{Name: name, Conditions: when})
	}
	arg := func(n uint32, op seccomp.Operation, v uint64) seccomp.Condition {
		return seccomp.Condition{Argument: n, Operation: op, Value: v}
	}
	for _, m := range modes {
		if _, exists := info.SyscallNames[m.name]; exists {
			add(m.name, arg(m.arg, seccomp.BitsNotSet, m.bits))
		}
	}
	for _, f := range families {
		add("socket", arg(0, seccomp.Equal, f))
	}
	add("clone", arg(0, seccomp.BitsSet, unix.CLONE_THREAD))
	// Signals: the runtime's to its own threads, whether somebody lives (0), and the
	// end of a helper that hangs.
	self := uint64(os.Getpid())
	add("tgkill", arg(0, seccomp.Equal, self))
	add("kill", arg(0, seccomp.Equal, self))
	add("kill", arg(1, seccomp.Equal, 0))
	if s.Helper != nil && s.Helper.cmd != nil {
		add("kill", arg(0, seccomp.Equal, uint64(-s.Helper.cmd.Process.Pid)))
	}
	add("prctl", arg(0, seccomp.Equal, unix.PR_SET_VMA)) // names of memory, for people who read /proc/PID/maps
	add("prctl", arg(0, seccomp.Equal, unix.PR_GET_NAME))
	add("prlimit64", arg(2, seccomp.Equal, 0))       // to read limits, not to set them
	add("ioctl", arg(1, seccomp.Equal, unix.TCGETS)) // is that a terminal?
	return g
}
