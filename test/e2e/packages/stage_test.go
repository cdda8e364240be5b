package packages

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

const (
	version = "3.0.0"
	later   = "3.0.1" // of the upgrade

	patience = 20 * time.Second
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func needLong(t *testing.T) {
	t.Helper()
	if os.Getenv("PORTSENTRY_LONG") == "" {
		t.Skip("runs in make test-long")
	}
}

// output runs a program of the host to its end.
func output(t *testing.T, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// packages makes the packages of a version, and gives the folder they are in.
func packages(t *testing.T, version, arches string) string {
	t.Helper()
	dir := t.TempDir()
	output(t, filepath.Join("..", "..", ".."), "make", "--no-print-directory", "packages", "PACKAGES="+dir, "VERSION="+version, "ARCHES="+arches)
	return dir
}

// small makes a small Debian 12 with these packages beside the essential ones.
func small(t *testing.T, packages string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "debian-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	check(t, os.Chmod(dir, 0o755)) // other users than root have to get in
	output(t, "/", "debootstrap", "--variant=minbase", "--include="+packages, "bookworm", dir)
	return dir
}

// root is a running machine: a tree of files, processes, mounts and a network
// that the host does not share.
type root struct {
	t      *testing.T
	dir    string // the tree, on the host
	inside string // the tree, in the machine's mount namespace
	pid    int    // of its first process, on the host
}

// boot is what its first process runs, with the tree as $0. It waits for the end
// of its standard input, and reaps what has detached meanwhile.
const boot = `
set -e
mount --make-rprivate /
mkdir -p "$0/proc" "$0/sys" "$0/dev" "$0/run"
mount -t proc proc "$0/proc"
mount -t sysfs sysfs "$0/sys"
mount -t bpf -o mode=700 bpf "$0/sys/fs/bpf"
mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup"
mount -t tmpfs tmpfs "$0/run"
mount -t tmpfs tmpfs "$0/dev"
mkdir "$0/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$0/dev/pts"
ln -s pts/ptmx "$0/dev/ptmx"
for node in null zero full random urandom tty; do
	: >"$0/dev/$node"
	mount --bind "/dev/$node" "$0/dev/$node"
done
exec 3<&0
echo up
cat <&3 >/dev/null &
wait $!
`

func start(t *testing.T, dir string, ns *pktgen.NS) *root {
	t.Helper()
	first := exec.Command("/bin/sh", "-c", boot, dir)
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS}
	in, err := first.StdinPipe()
	check(t, err)
	out, err := first.StdoutPipe()
	check(t, err)
	var said bytes.Buffer
	first.Stderr = &said
	check(t, ns.Do(first.Start))
	t.Cleanup(func() {
		in.Close()
		first.Wait() // the kernel ends what is left
	})
	if _, err := io.ReadFull(out, make([]byte, len("up\n"))); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	return &root{t, dir, dir, first.Process.Pid}
}

// command is one that runs on the machine.
func (r *root) command(ctx context.Context, args ...string) *exec.Cmd {
	return r.enter(ctx, nil, args...)
}

// enter is a command that a program of the host starts, if there is one: it is in
// the machine's namespaces, and still in the host's tree.
func (r *root) enter(ctx context.Context, by []string, args ...string) *exec.Cmd {
	all := []string{"--target", strconv.Itoa(r.pid), "--mount", "--pid", "--net", "--uts"}
	all = append(append(all, by...), "chroot", r.inside)
	cmd := exec.CommandContext(ctx, "nsenter", append(all, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// try runs a program and gives what it says and how it ends.
func (r *root) try(args ...string) (said string, err error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	// A file, for a daemon that it starts may keep a pipe open.
	f, err := os.CreateTemp("", "said-")
	check(r.t, err)
	defer os.Remove(f.Name())
	defer f.Close()
	cmd := r.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	text, readErr := os.ReadFile(f.Name())
	check(r.t, readErr)
	return string(text), err
}

func (r *root) run(args ...string) string {
	r.t.Helper()
	said, err := r.try(args...)
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return said
}

// sh runs a line of shell.
func (r *root) sh(line string) string {
	r.t.Helper()
	return r.run("sh", "-c", line)
}

func (r *root) read(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	check(r.t, err)
	return string(text)
}

func (r *root) write(name, text string) {
	r.t.Helper()
	check(r.t, os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644))
}

func (r *root) has(name string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, name))
	return err == nil
}

// put copies a file of the host to /tmp of the machine.
func (r *root) put(path string) string {
	r.t.Helper()
	text, err := os.ReadFile(path)
	check(r.t, err)
	name := filepath.Join("/tmp", filepath.Base(path))
	check(r.t, os.WriteFile(filepath.Join(r.dir, name), text, 0o644))
	return name
}

// daemons are the command lines of the portsentrys that run, without their helpers.
func (r *root) daemons() []string {
	r.t.Helper()
	said, _ := r.try("pgrep", "-a", "-x", "portsentry") // 1: none
	var all []string
	for line := range strings.Lines(said) {
		_, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.Contains(command, " helper ") {
			all = append(all, command)
		}
	}
	slices.Sort(all)
	return all
}

// files are all files but those that the package manager writes about what it does.
func (r *root) files() []string {
	r.t.Helper()
	var all []string
	check(r.t, filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, r.dir)
		for _, own := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log/apt"} {
			if name == own {
				return fs.SkipDir
			}
		}
		if d.IsDir() || strings.HasSuffix(name, "/dpkg.log") {
			return nil
		}
		all = append(all, name)
		return nil
	}))
	return all
}

// wait polls until ok holds.
func (r *root) wait(what string, ok func() bool) {
	r.t.Helper()
	lab.Wait(r.t, patience, what, ok)
}
