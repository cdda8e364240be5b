package packages

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// mounts makes the file systems of a machine whose first process is systemd, with
// the tree as $0 and the name of a control group as $1, and becomes that process.
// The kernel's settings and devices are the host's, so they are read-only.
const mounts = `
set -e
mount --make-rprivate /
mount --bind "$0" "$0"
cd "$0"
read -r pid rest </proc/self/stat # on the host, whose /proc this still is
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t bpf -o mode=700 bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir "sys/fs/cgroup/$1"
echo 0 >"sys/fs/cgroup/$1/cgroup.procs"
umount sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for node in null zero full random urandom tty; do
	: >"dev/$node"
	mount --bind "/dev/$node" "dev/$node"
done
exec unshare --cgroup sh -c '
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	mount --move . /
	echo "$0"
	exec chroot . env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal' "$pid"
`

// outside starts that in namespaces of its own, and ends it at the end of standard
// input. The control groups are empty then.
const outside = `
exec 3<&0
unshare --mount --uts --ipc --pid --fork --kill-child sh -c "$2" "$0" "$1" 3<&- &
cat <&3 >/dev/null
kill -KILL $!
wait
`

// systemd starts a machine whose first process is systemd.
func systemd(t *testing.T, dir string, ns *pktgen.NS) *root {
	t.Helper()
	check(t, os.Symlink("/dev/null", filepath.Join(dir, "etc/systemd/system/console-getty.service"))) // it has no console
	name := "portsentry-test-" + strconv.Itoa(os.Getpid())
	sh := exec.Command("/bin/sh", "-c", outside, dir, name, mounts)
	in, err := sh.StdinPipe()
	check(t, err)
	out, err := sh.StdoutPipe()
	check(t, err)
	var said bytes.Buffer
	sh.Stderr = &said
	check(t, ns.Do(sh.Start))
	t.Cleanup(func() {
		in.Close()
		sh.Wait()
		ungroup(t, name)
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	check(t, err)
	r := &root{t, dir, "/", pid}
	r.wait("systemd has started", func() bool {
		state, _ := r.try("systemctl", "is-system-running")
		return state == "running\n" || state == "degraded\n" // the units that matter are looked at one by one
	})
	return r
}

// ungroup removes a control group and those in it, which a process may still be
// about to leave.
func ungroup(t *testing.T, name string) {
	dir, err := os.MkdirTemp("", "cgroup-")
	check(t, err)
	defer os.Remove(dir)
	check(t, unix.Mount("cgroup2", dir, "cgroup2", 0, ""))
	defer unix.Unmount(dir, 0)
	lab.Wait(t, patience, "the control groups are gone", func() bool {
		exec.Command("find", filepath.Join(dir, name), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
		_, err := os.Lstat(filepath.Join(dir, name))
		return errors.Is(err, fs.ErrNotExist)
	})
}
