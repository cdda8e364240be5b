// Package machine gives a test a computer of its own to run daemons of old
// habits on: they detach, write to /etc and /var, keep pid files, log to
// /dev/log and look for each other in ps. A network namespace goes in; a
// machine comes out that has files, processes, a host name and a syslog that
// the host does not share. The host's other files can be read there, and not
// written.
package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// Name is what every machine is called.
const Name = "machine"

// runLimit is how long a program that Run starts may take, and stopLimit how
// long a machine or a program may take to end.
const (
	runLimit  = 2 * time.Minute
	stopLimit = 10 * time.Second
)

// private are the folders that a machine has of its own.
var private = []string{"etc", "var", "run", "dev"}

// seeds are what programs need to find in /etc to work at all.
var seeds = []string{
	"passwd", "group", "shadow", "nsswitch.conf", "host.conf", "services", "protocols", "ethertypes", "iproute2",
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "login.defs", "debian_version",
}

// Machine is a running machine. Its methods end the test it was made for when
// they fail.
type Machine struct {
	t     *testing.T
	ns    *pktgen.NS
	dir   string   // holds the private folders
	root  *os.Root // the same: no symbolic link leads out of it
	init  *exec.Cmd
	space []space
}

// space is a namespace of the machine.
type space struct {
	file *os.File
	kind int
}

// boot is what the first process runs, with the folder of the private folders
// as $0 and that of temporary files as $1. It says "up", and it ends with its
// standard input, at the latest when the test's process does: then the kernel
// ends everything on the machine, what has detached included. Until then the
// shell waits, which also reaps the children of daemons that detached.
const boot = `
set -e
mount --make-rprivate /
mount -t proc proc /proc
umount -lR /sys
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo ` + Name + ` >/proc/sys/kernel/hostname
for node in null zero full random urandom tty; do
	: >"$0/dev/$node"
	mount --bind "/dev/$node" "$0/dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$0/dev/pts"
for dir in etc var run dev; do mount --rbind "$0/$dir" "/$dir"; done
mount --bind "$1" "$1"
mount -o remount,bind,ro /
exec 3<&0
echo up
cat <&3 >/dev/null &
wait $!
`

// New makes a machine in the network namespace ns, gone when the test ends.
// Its /etc has what programs cannot do without, and copies of these files and
// folders of the host.
func New(t *testing.T, ns *pktgen.NS, copies ...string) *Machine {
	t.Helper()
	lab.NeedRoot(t)
	// Not t.TempDir: the path of a socket has room for 107 bytes.
	dir, err := os.MkdirTemp("", "machine-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	check(t, os.Chmod(dir, 0o755))
	m := &Machine{t: t, ns: ns, dir: dir}
	m.root, err = os.OpenRoot(dir)
	check(t, err)
	t.Cleanup(func() { m.root.Close() })
	m.furnish(copies)
	m.boot()
	return m
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// furnish fills the private folders.
func (m *Machine) furnish(copies []string) {
	m.t.Helper()
	for _, dir := range []string{
		"etc", "var/lib", "var/log", "var/spool", "var/cache", "var/tmp", "run/lock", "dev/pts", "dev/shm",
	} {
		check(m.t, m.root.MkdirAll(dir, 0o755))
	}
	for _, dir := range []string{"var/tmp", "run/lock", "dev/shm"} {
		check(m.t, m.root.Chmod(dir, 0o777|fs.ModeSticky))
	}
	for link, to := range map[string]string{
		"var/run": "../run", "var/lock": "../run/lock",
		"dev/ptmx": "pts/ptmx", "dev/fd": "/proc/self/fd", "dev/stdin": "fd/0", "dev/stdout": "fd/1", "dev/stderr": "fd/2",
		"etc/mtab": "../proc/self/mounts",
	} {
		check(m.t, m.root.Symlink(to, link))
	}
	from := slices.Clone(copies)
	for _, s := range seeds {
		if path := filepath.Join("/etc", s); exists(path) {
			from = append(from, path)
		}
	}
	out, err := exec.Command("cp", append(append([]string{"-a", "--parents"}, from...), m.dir)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("cp: %v\n%s", err, out)
	}
	m.Write("/etc/hostname", Name+"\n")
	m.Write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 "+Name+"\n")
	m.Write("/etc/resolv.conf", "")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// boot starts the first process.
func (m *Machine) boot() {
	m.t.Helper()
	m.init = exec.Command("/bin/sh", "-c", boot, m.dir, os.TempDir())
	m.init.Env = environment
	m.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS, Setsid: true}
	var said bytes.Buffer
	m.init.Stderr = &said
	stdin, err := m.init.StdinPipe()
	check(m.t, err)
	stdout, err := m.init.StdoutPipe()
	check(m.t, err)
	check(m.t, m.ns.Do(m.init.Start))
	m.t.Cleanup(func() {
		for _, s := range m.space {
			s.file.Close()
		}
		stdin.Close()
		late := time.AfterFunc(stopLimit, func() { m.init.Process.Kill() })
		defer late.Stop()
		m.init.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "up\n" {
		m.init.Process.Kill()
		m.init.Wait()
		m.t.Fatalf("the machine does not start: %v\n%s", err, said.Bytes())
	}
	for _, s := range []space{{kind: unix.CLONE_NEWUTS}, {kind: unix.CLONE_NEWPID}, {kind: unix.CLONE_NEWNS}} {
		name := map[int]string{unix.CLONE_NEWUTS: "uts", unix.CLONE_NEWPID: "pid", unix.CLONE_NEWNS: "mnt"}[s.kind]
		s.file, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", m.init.Process.Pid, name))
		check(m.t, err)
		m.space = append(m.space, s)
	}
}

// environment is what programs on the machine get, and nothing of the test's.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}

// Command is a program to run on the machine: with Do(cmd.Start) or Do(cmd.Run).
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = slices.Clone(environment)
	cmd.Dir = "/"
	return cmd
}

// Do runs f on a thread of its own inside the machine, with the same provisos
// as pktgen.NS.Do: what f opens and starts is the machine's, and f runs on
// another goroutine, so it must return its errors. The thread itself is no
// process of the machine: /proc/self does not exist for it.
func (m *Machine) Do(f func() error) error {
	return m.ns.Do(func() error {
		// The working directory and root of a thread are shared with the others
		// until here, and those stay where they are.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("a root directory of its own for a thread: %w", err)
		}
		for _, s := range m.space {
			if err := unix.Setns(int(s.file.Fd()), s.kind); err != nil {
				return fmt.Errorf("enter %s: %w", s.file.Name(), err)
			}
		}
		return f()
	})
}

// Try runs a program to its end and returns what it said and its exit code.
// One that cannot be started, or that a signal ended, ends the test.
func (m *Machine) Try(args ...string) (said string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), runLimit)
	defer cancel()
	cmd := m.Command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := m.Do(cmd.Run)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || !exit.Exited()) {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// Run runs a program that has to succeed and returns what it said.
func (m *Machine) Run(args ...string) string {
	m.t.Helper()
	said, code := m.Try(args...)
	if code != 0 {
		m.t.Fatalf("%s: exit code %d\n%s", strings.Join(args, " "), code, said)
	}
	return said
}

// Path is where the test finds a file of the private folders (/etc, /var, /run,
// /dev). Symbolic links to absolute paths lead to the host's files there: Write
// and Read do not follow them.
func (m *Machine) Path(name string) string {
	m.t.Helper()
	if first, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/"); !filepath.IsAbs(name) || !slices.Contains(private, first) {
		m.t.Fatalf("%s is no file of the machine's own", name)
	}
	return filepath.Join(m.dir, name)
}

// Write writes a file of the private folders, and makes its folder.
func (m *Machine) Write(name, text string) {
	m.t.Helper()
	rel, err := filepath.Rel(m.dir, m.Path(name))
	check(m.t, err)
	check(m.t, m.root.MkdirAll(filepath.Dir(rel), 0o755))
	check(m.t, m.root.WriteFile(rel, []byte(text), 0o644))
}

// Read is the text of a file of the private folders, "" when there is none.
func (m *Machine) Read(name string) string {
	m.t.Helper()
	rel, err := filepath.Rel(m.dir, m.Path(name))
	check(m.t, err)
	b, err := m.root.ReadFile(rel)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(b)
}
